"""Plan chips: which scenes to ask for, and a task for each cell of neighbouring chips and each step."""

from __future__ import annotations

import logging
import os.path
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import shapely

from scenebeam.catalog.area import area_geometry
from scenebeam.catalog.bands import bands_of, record_of, records_for, resolve_bands
from scenebeam.catalog.item_search import SearchQuery
from scenebeam.catalog.scene import Asset, Scene
from scenebeam.catalog.select import Selection
from scenebeam.collections import CollectionRecord
from scenebeam.csvtable import File, Table
from scenebeam.errors import RequestError
from scenebeam.imaging.estimate import Probing
from scenebeam.imaging.refs import scene_fields
from scenebeam.imaging.split import split_chips, warn_of_empty
from scenebeam.products.base import Planned, SearchScope
from scenebeam.products.fields.calendar import CropCalendar, default_calendar, season_days
from scenebeam.products.fields.chips import Chip, catalogue_folder, collection_of, read_chips
from scenebeam.products.fields.estimate import estimate
from scenebeam.products.fields.existing_chips import CHIPS_TABLE, StandingChips, standing_chips
from scenebeam.products.fields.lattice import FieldChips, chips_of_fields
from scenebeam.products.fields.request import SEASONS, FieldsRequest, Season
from scenebeam.products.fields.task import CELLS, Candidate, ChipRef, Clouds, FieldsTask, Step
from scenebeam.products.fields.tiles import (
    assign_tiles,
    bounds_by_hemisphere,
    chip_footprints,
    mgrs_100km_squares,
)
from scenebeam.request import RunRequest, is_remote, is_url
from scenebeam.storage import open_store
from scenebeam.transfer.signing import effective_limits

FAULTS_TABLE, NUMBERS_TABLE = "field_faults.csv", "field_numbers.parquet"
log = logging.getLogger(__name__)
LARGEST_CELL = 2000
"""Chips of a task at most: those of a dense tile are cut into bands from north to south."""
_Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class FieldsScope(SearchScope):
    """The chips, and when each is planted and harvested."""

    chips: Sequence[Chip] = ()
    shapes: _Array | None = None
    """Their outlines in degrees."""
    squares: Sequence[str] = ()
    """The cells of the search."""
    days: Sequence[tuple[int, int]] = ()
    """Day of year of planting and of harvest."""
    targets: Sequence[Mapping[Season, datetime]] = ()
    made: FieldChips | StandingChips | None = None
    """Where the run makes the chips: of which fields."""
    splits: Sequence[str] = ()
    dataset: str = ""
    """Id of the collection that the chips are of."""
    catalogue: str = ""
    """Where the chips are from; relative to the output where it is their own folder, which may be moved."""


def scope_of_chips(request: RunRequest[FieldsRequest]) -> FieldsScope:
    """Read or make the chips, look their seasons up, and settle what the catalogue is asked.

    One question a square of 100 km and season. Raises RequestError where there are no chips.
    """
    product = request.product
    made = None
    if product.boundaries is not None:
        made = _chips_of_fields(product.boundaries, request)
        chips: Sequence[Chip] = made.chips
    else:
        chips = read_chips(str(product.chips))
    shapes, centres = chip_footprints(chips)
    area = area_geometry(request.area) if request.area is not None else None
    if area is not None:
        chips, shapes, centres = _inside(chips, shapes, centres, area)
        made = None if made is None else made.only({chip.name for chip in chips})
    cells = mgrs_100km_squares(centres)
    splits: Sequence[str] = []
    if isinstance(made, FieldChips):
        splits = split_chips(made.places, shapes, product.grid.split)
        warn_of_empty(splits, product.grid.split)
    elif made is not None:
        splits = made.splits
    if product.images == "none":
        return FieldsScope(
            area,
            [],
            chips=chips,
            shapes=shapes,
            squares=cells,
            made=made,
            splits=splits,
            dataset=request.run,
        )
    days = _days(product, centres)
    targets = [season_days(product.year, *pair) for pair in days]
    reach = timedelta(days=product.reach)
    questions = list(_questions(shapes, cells, targets, reach))
    hint = f"Are there scenes within {reach.days} days of planting and harvest in {product.year}? Try another year"
    dataset = (
        request.run
        if product.chips is None
        else str(collection_of(product.chips).get("id") or request.run)
    )
    catalogue = product.chips or ""
    if catalogue and open_store(catalogue_folder(catalogue)).uri == open_store(request.output).uri:
        folder = f"{open_store(request.output).uri}/"
        chips = [chip._replace(mask=chip.mask.removeprefix(folder)) for chip in chips]
        catalogue = (
            catalogue.rpartition("/")[2] if catalogue.endswith((".json", ".parquet")) else "."
        )
    return FieldsScope(
        area, questions, hint, chips, shapes, cells, days, targets, made, splits, dataset, catalogue
    )


def _days(product: FieldsRequest, centres: _Array) -> list[tuple[int, int]]:
    """Day of year of planting and of harvest at each place."""
    if product.days is not None:
        return [(product.days.planting, product.days.harvest)] * len(centres)
    calendar = CropCalendar(product.crop_calendar or default_calendar())
    days = [calendar.days(float(longitude), float(latitude)) for longitude, latitude in centres]
    calendar.close()
    return days


def _chips_of_fields(
    boundaries: str, request: RunRequest[FieldsRequest]
) -> FieldChips | StandingChips:
    """Make the chips of field boundaries; where the file is gone, take those that stand in the output."""
    product = request.product
    if not is_url(boundaries) and not os.path.exists(boundaries):
        standing = standing_chips(open_store(request.output), product.grid, product.year)
        if standing is not None:
            log.info("%s is not there any more: the chips are those of %s", boundaries, CHIPS_TABLE)
            return standing
    return chips_of_fields(boundaries, product.grid, product.year, _origin(request))


def _stac_host(request: RunRequest[FieldsRequest]) -> str:
    """What items call the catalog: its name or address; the name alone of a file on this machine."""
    catalog = str(request.catalog)
    return catalog if is_remote(catalog) else catalog.rpartition("/")[2]


def _origin(request: RunRequest[FieldsRequest]) -> tuple[float, float]:
    """Where the pixels of the first collection lie, modulo the chips' own: chips then take them as they are."""
    product = request.product
    record = records_for(request)[0]
    named = [record.bands[name] for name in bands_of(record, request)]
    pixel = min((band.resolution for band in named), default=0.0)
    if record.pixel_origin is None or pixel != product.grid.resolution:
        return 0.0, 0.0
    x, y = (side % pixel for side in record.pixel_origin)
    return x, y


def _inside(
    chips: Sequence[Chip], shapes: _Array, centres: _Array, area: Any
) -> tuple[list[Chip], _Array, _Array]:
    kept = np.flatnonzero(shapely.intersects(shapes, area)).tolist()
    if not kept:
        raise RequestError(f"area: none of the {len(chips)} chips lies in it")
    return [chips[number] for number in kept], shapes[kept], centres[kept]


def _questions(
    shapes: _Array,
    cells: Sequence[str],
    targets: Sequence[Mapping[Season, datetime]],
    reach: timedelta,
) -> Iterator[SearchQuery]:
    by_cell: dict[str, list[int]] = {}
    for number, cell in enumerate(cells):
        by_cell.setdefault(cell, []).append(number)
    for _, members in sorted(by_cell.items()):
        bounds = bounds_by_hemisphere(shapes[members])
        for season in SEASONS:
            days = [targets[number][season] for number in members]
            interval = min(days) - reach, max(days) + reach + timedelta(days=1)
            yield from (SearchQuery(bbox, interval) for bbox in bounds)


def plan_chips(
    selection: Selection, request: RunRequest[FieldsRequest], search_scope: FieldsScope
) -> Planned:
    """A task for each cell of chips and step: masks where the run makes the chips, planting, harvest."""
    product = request.product
    records = records_for(request)
    if product.images != "none":
        resolve_bands(request)
    scenes = sorted(selection.scenes, key=lambda scene: (scene.datetime, scene.id))
    tasks, probing = [], Probing(effective_limits(request), ask=search_scope.measure)
    for cell, members in _cells(search_scope, scenes):
        tasks += list(_tasks(cell, members, search_scope, scenes, request, records, probing))
    tables: dict[str, File] = {}
    if isinstance(search_scope.made, FieldChips):
        tables = {
            CHIPS_TABLE: _chips_table(search_scope),
            FAULTS_TABLE: search_scope.made.faults.table,
            NUMBERS_TABLE: search_scope.made.named,
            **search_scope.made.files,
        }
    return Planned(tasks, tables)


def _cells(search_scope: FieldsScope, scenes: Sequence[Scene]) -> Iterator[tuple[str, list[int]]]:
    """Name and chips of each cell: those of one tile, CRS and size, from north to south."""
    assert search_scope.shapes is not None
    groups: dict[tuple[Any, ...], list[int]] = {}
    for number, home in enumerate(assign_tiles(search_scope.shapes, search_scope.squares, scenes)):
        chip = search_scope.chips[number]
        a, b, _, d, e, _ = chip.transform
        if b or d:
            raise RequestError(
                f"product.chips: the grid of {chip.name} is rotated: north must be up"
            )
        groups.setdefault((home, chip.crs, a, e, chip.shape), []).append(number)
    count: dict[str, int] = {}
    for (home, *_), members in sorted(groups.items()):
        members.sort(
            key=lambda number: (
                -search_scope.chips[number].transform[5],
                search_scope.chips[number].transform[2],
            )
        )
        for start in range(0, len(members), LARGEST_CELL):
            count[home] = count.get(home, 0) + 1
            yield (
                f"{home}-{count[home]}" if count[home] > 1 else home,
                members[start : start + LARGEST_CELL],
            )


def _tasks(
    cell: str,
    members: Sequence[int],
    search_scope: FieldsScope,
    scenes: Sequence[Scene],
    request: RunRequest[FieldsRequest],
    records: Sequence[CollectionRecord],
    probing: Probing,
) -> Iterator[FieldsTask]:
    product, first = request.product, search_scope.chips[members[0]]
    steps: list[Step] = ["masks"] if search_scope.made is not None else []
    steps += SEASONS if product.images != "none" else ()
    for step in steps:
        chips = tuple(_chip_ref(number, step, search_scope) for number in members)
        candidates = (
            ()
            if step == "masks"
            else tuple(_candidates(chips, members, search_scope, scenes, request, first.crs))
        )
        task = FieldsTask(
            id=f"{cell}/{step}",
            outputs=(),
            item_path=f"{CELLS}{cell}/items.parquet",
            estimate=estimate(chips, candidates, first.transform, first.shape, product, probing),
            cell=cell,
            step=step,
            steps=tuple(steps),
            crs=first.crs,
            pixel=(first.transform[0], first.transform[4]),
            shape=first.shape,
            chips=chips,
            candidates=candidates,
            clouds=_clouds(records),
            squares=tuple(sorted({search_scope.made.squares[number] for number in members}))
            if search_scope.made and step == "masks"
            else (),
            dataset=search_scope.dataset,
            catalogue=search_scope.catalogue,
            stac_host=_stac_host(request),
            source="sentinel-2" if records[0].id.startswith("sentinel-2") else records[0].id,
            product=product
            if product.chips is None
            else product.model_copy(update={"chips": search_scope.catalogue}),
            checks=request.checks,
        )
        images = (task.images_record,) if task.downloads else ()
        yield task.model_copy(update={"outputs": (task.record, *images, task.item_path)})


def _chip_ref(number: int, step: Step, search_scope: FieldsScope) -> ChipRef:
    chip = search_scope.chips[number]
    day, target = 0, ""
    if step != "masks":
        planting, harvest = search_scope.days[number]
        day, target = (
            planting if step == "planting" else harvest,
            f"{search_scope.targets[number][step]:%Y-%m-%d}",
        )
    left, top = chip.transform[2], chip.transform[5]
    coverage, split = (
        (search_scope.made.coverage[number], search_scope.splits[number])
        if search_scope.made is not None
        else (0.0, "")
    )
    return ChipRef(chip.name, left, top, day, target, chip.mask, chip.item, coverage, split)


def _candidates(
    chips: Sequence[ChipRef],
    members: Sequence[int],
    search_scope: FieldsScope,
    scenes: Sequence[Scene],
    request: RunRequest[FieldsRequest],
    crs: str,
) -> Iterator[Candidate]:
    """Scenes that show some of the chips within the widest window, and have all bands."""
    assert search_scope.shapes is not None
    product = request.product
    reach = timedelta(days=product.reach)
    targets = [datetime.fromisoformat(chip.target) for chip in chips]
    first, last = min(targets).date() - reach, max(targets).date() + reach
    ground = shapely.union_all(
        [shapely.box(*bounds) for bounds in bounds_by_hemisphere(search_scope.shapes[members])]
    )
    for scene in scenes:
        if not first <= scene.datetime.date() <= last:
            continue
        if scene.footprint is not None and not scene.footprint.intersects(ground):
            continue
        record = record_of(scene, request)
        names = bands_of(record, request)
        if len(names) < len(product.bands) or any(name not in scene.assets for name in names):
            continue
        yield Candidate(
            **scene_fields(scene, crs),
            cloud=scene.cloud_cover,
            nodata=scene.nodata,
            own_grid=_is_of_zone(scene.tile, crs),
            bands=tuple(scene.assets[name] for name in names),
            looked_at=tuple(_looked_at(scene, record)),
        )


def _is_of_zone(tile: str | None, crs: str) -> bool:
    """Whether a tile's files lie in the chips' zone of UTM; so may those that are of no tile."""
    if tile is None or not tile[:2].isdigit():
        return True
    return crs == f"EPSG:{(32600 if tile[2:3] >= 'N' else 32700) + int(tile[:2])}"


def _looked_at(scene: Scene, record: CollectionRecord) -> Iterable[Asset]:
    """The bands that tell cloud, and behind a probability the classes that tell nodata."""
    probability = [scene.assets[band] for band in record.cloud_probability if band in scene.assets]
    classes = [scene.assets[band] for band in record.mask_classes if band in scene.assets]
    flags = [scene.assets[band] for band in record.mask_bits if band in scene.assets]
    return [*probability[:1], *(classes or flags)[:1]]


def _clouds(records: Sequence[CollectionRecord]) -> Clouds:
    return Clouds(
        classes={
            band: tuple(values)
            for record in records
            for band, values in record.mask_classes.items()
        },
        bits={
            band: tuple(values) for record in records for band, values in record.mask_bits.items()
        },
        probability={
            band: least for record in records for band, least in record.cloud_probability.items()
        },
    )


def _chips_table(search_scope: FieldsScope) -> Table:
    assert search_scope.made is not None
    columns = ("chip", "split", "field_coverage", "crs", "left", "top")
    rows = [
        {
            "chip": chip.name,
            "split": search_scope.splits[number],
            "field_coverage": search_scope.made.coverage[number],
            "crs": chip.crs,
            "left": chip.transform[2],
            "top": chip.transform[5],
        }
        for number, chip in enumerate(search_scope.chips)
    ]
    return Table(columns, rows)
