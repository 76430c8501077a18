"""Plan chips: group them into cells of neighbors, and make a task for each cell."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import shapely
from pyproj import CRS

from scenebeam.catalog.bands import bands_of, record_of
from scenebeam.catalog.scene import Asset, Scene
from scenebeam.catalog.selection import Selection
from scenebeam.csvtable import File
from scenebeam.errors import RequestError
from scenebeam.imaging.chip_places import assign_tiles, bounds_by_hemisphere
from scenebeam.imaging.chip_scenes import ChipScene, chip_scene, cloud_rules
from scenebeam.imaging.estimate import PROCESS_MEMORY
from scenebeam.imaging.probes import ProbeCache
from scenebeam.imaging.refs import SceneFiles, scene_fields
from scenebeam.imaging.spool import parquet_bytes
from scenebeam.metadata.item_tables import BytesFile
from scenebeam.products.base import Planned
from scenebeam.products.chips.label_sources import LabelPlan, plan_labels
from scenebeam.products.chips.places import FAULTS_TABLE, as_numbers
from scenebeam.products.chips.request import IMAGE, ChipsRequest, OtherImages
from scenebeam.products.chips.scope import ChipsScope, period_of_date, primary_records
from scenebeam.products.chips.stacks import StackSpec, stack_spec
from scenebeam.products.chips.task import CELLS, ChipRef, ChipsTask, OtherScenes
from scenebeam.raster.windows import ROWS_AHEAD
from scenebeam.request import RunRequest
from scenebeam.tasks import Estimate
from scenebeam.transfer.signing import effective_limits

LARGEST_CELL = 2500
"""Maximum number of chips in a cell."""
_CELL_METERS, _CELL_DEGREES = 100_000.0, 1.0
"""Side of a cell where scenes have no tiles."""
_ROUNDING = 1e-4
"""Degrees by which a footprint, drawn with rounded coordinates, may be too small."""
CHIPS_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("left", pa.float64()),
        ("top", pa.float64()),
        ("split", pa.string()),
        ("date", pa.string()),
        ("number", pa.int64()),
        ("values", pa.string()),
        ("place", pa.string()),
    ]
)
"""Of the table of a cell's chips: the fields of `ChipRef`."""


class _Cell(NamedTuple):
    name: str
    crs: str
    members: Sequence[int]
    """Indices of its chips in the scope, in order."""


def plan_chips(
    selection: Selection, request: RunRequest[ChipsRequest], scope: ChipsScope
) -> Planned:
    """Make a task for each cell of neighboring chips.

    Args:
        selection: The selected scenes.
        request: The validated request.
        scope: The chips and their dates.

    Returns:
        The tasks, a table of the chips of each cell, the features of vector labels near each, and
        `place_faults.csv`.

    Raises:
        RequestError: A label cannot be read, or no scene has the requested bands.
    """
    cells = list(_cells(scope, selection.scenes))
    cell_of = np.empty(len(scope.windows.ids), object)
    for cell in cells:
        cell_of[cell.members] = cell.name
    labels = plan_labels(request, scope.shapes, cell_of.tolist(), scope.faults)
    planner = _Planner(selection.scenes, request, scope, labels)
    tasks = [planner.task(cell) for cell in cells]
    files: dict[str, File] = dict(labels.files)
    for task, cell in zip(tasks, cells, strict=True):
        files[task.chips_key] = BytesFile(parquet_bytes(planner.table(cell)))
    files[FAULTS_TABLE] = scope.faults.table
    return Planned(tasks, files)


def _cells(scope: ChipsScope, scenes: Sequence[Scene]) -> Iterator[_Cell]:
    """Group the chips into cells: those of one CRS and tile, or square, from north to south."""
    windows = scope.windows
    squares = np.empty(len(windows.ids), object)
    for crs in sorted(set(windows.crs.tolist())):
        one = np.flatnonzero(windows.crs == crs)
        side = _CELL_DEGREES if CRS.from_user_input(crs).is_geographic else _CELL_METERS
        columns = np.floor(windows.left[one] / side).astype(int).tolist()
        rows = np.floor(windows.top[one] / side).astype(int).tolist()
        for number, column, row in zip(one.tolist(), columns, rows, strict=True):
            squares[number] = f"{_signed(column)}_{_signed(row)}"
    # A block of a scene is read once by each cell that has chips on it.
    tiles = assign_tiles(scope.shapes, squares.tolist(), scenes)
    groups: dict[tuple[str, str], list[int]] = {}
    for number, (crs, tile) in enumerate(zip(windows.crs.tolist(), tiles, strict=True)):
        groups.setdefault((crs, tile), []).append(number)
    for (crs, tile), found in sorted(groups.items()):
        one = np.array(found)
        order = np.lexsort((one, windows.left[one], -windows.top[one]))
        parts = math.ceil(len(one) / LARGEST_CELL)
        for part, members in enumerate(np.array_split(one[order], parts)):
            suffix = f"_{part + 1}" if part else ""
            name = f"{crs.rpartition(':')[2]}_{tile}{suffix}"
            yield _Cell(name, crs, members.tolist())


def _signed(number: int) -> str:
    return f"{number}" if number >= 0 else f"m{-number}"


class _Planner:
    """Makes the tasks of cells; holds what is the same for all of them."""

    def __init__(
        self,
        scenes: Sequence[Scene],
        request: RunRequest[ChipsRequest],
        scope: ChipsScope,
        labels: LabelPlan,
    ) -> None:
        self._request, self._scope, self._labels = request, scope, labels
        self._scenes = sorted(scenes, key=lambda scene: (scene.datetime, scene.id))
        nowhere = shapely.Polygon()
        footprints = [scene.footprint or nowhere for scene in self._scenes]
        self._tree = shapely.STRtree(shapely.buffer(np.array(footprints, object), _ROUNDING))
        self._everywhere = [
            index for index, scene in enumerate(self._scenes) if scene.footprint is None
        ]
        records = primary_records(request)
        self._primary = {record.id for record in records}
        self._clouds = cloud_rules(records)
        self._probing = ProbeCache(effective_limits(request), measure=scope.measure)
        self._others_of = {other.name: self._other_files(other) for other in request.product.others}
        self._stacks = self._stack_specs(request)
        self._values = {}
        for name in request.product.label_columns:
            self._values[name] = as_numbers(scope.windows.columns[name])
        counts = Counter(scope.splits)
        self._split_counts = dict(sorted(counts.items()))
        self._numbers: list[int] = []
        seen: Counter[str] = Counter()
        for split in scope.splits:
            self._numbers.append(seen[split])
            seen[split] += 1

    def _stack_specs(self, request: RunRequest[ChipsRequest]) -> tuple[StackSpec, ...]:
        """Decide how all images are stored.

        Raises:
            RequestError: No scene has all bands, or the files of some bands do not agree.
        """
        files = []
        for scene in self._scenes:
            if scene.collection in self._primary:
                names = bands_of(record_of(scene, request), request)
                if len(names) == len(request.product.bands) and scene.assets.keys() >= set(names):
                    files.append([scene.assets[name] for name in names])
        values = request.product.values
        images = stack_spec(IMAGE, files, values)
        if images is None:
            named = ", ".join(request.product.bands)
            raise RequestError(f"product.bands: no scene that was found has all of {named}")
        specs = [images]
        for name, found in self._others_of.items():
            spec = stack_spec(name, found.values(), values)
            if spec is not None:
                specs.append(spec)
        return tuple(specs)

    def _other_files(self, other: OtherImages) -> dict[str, list[Asset]]:
        """Return id of a scene of another collection → its bands.

        Raises:
            RequestError: The collection has no such band.
        """
        files = {}
        for scene in self._scenes:
            if scene.collection != other.collection:
                continue
            record = record_of(scene, self._request)
            names = [record.band_name(band) for band in other.bands]
            if None in names:
                known = ", ".join(sorted(record.bands))
                raise RequestError(
                    f"product.others: {other.name}: {record.id} has no band "
                    f"{other.bands[names.index(None)]}; known: {known}"
                )
            if all(name in scene.assets for name in names):
                files[scene.id] = [scene.assets[name] for name in names if name]
        return files

    def task(self, cell: _Cell) -> ChipsTask:
        """Return the task of a cell."""
        product = self._request.product
        near = self._near(cell)
        scenes = self._images(near, cell)
        record_key = f"{CELLS}{cell.name}/record.json"
        return ChipsTask(
            id=cell.name,
            outputs=(record_key,),
            item_path=f"{CELLS}{cell.name}/items.parquet",
            estimate=self._estimate(cell, scenes),
            cell=cell.name,
            dataset=self._request.run,
            crs=cell.crs,
            resolution=product.resolution,
            side=product.side,
            count=len(cell.members),
            periods=self._scope.periods,
            scenes=tuple(scenes),
            clouds=self._clouds,
            others=tuple(self._others(other, near, cell) for other in product.others),
            labels=tuple(
                self._labels.source(label, cell.name, near, self._request)
                for label in product.labels
                if label.has_file
            ),
            stacks=self._stacks,
            split_counts=self._split_counts,
            product=product,
            checks=self._request.checks,
        )

    def table(self, cell: _Cell) -> pa.Table:
        """Return the chips of a cell as a table."""
        windows, scope = self._scope.windows, self._scope
        rows = []
        for number in cell.members:
            values = {name: column[number] for name, column in self._values.items()}
            rows.append(
                ChipRef(
                    windows.ids[number],
                    float(windows.left[number]),
                    float(windows.top[number]),
                    scope.splits[number],
                    scope.dates[number],
                    self._numbers[number],
                    json.dumps(values, default=str, sort_keys=True),
                    windows.places[number],
                )
            )
        arrays = dict(zip(ChipRef._fields, zip(*rows, strict=True), strict=True))
        return pa.table(arrays, schema=CHIPS_SCHEMA)

    def _near(self, cell: _Cell) -> list[Scene]:
        """Return the scenes that intersect the chips of a cell, ordered by time and id."""
        shapes = self._scope.shapes[cell.members]
        found: set[int] = set(self._everywhere)
        for box in bounds_by_hemisphere(shapes):
            for index in self._tree.query(shapely.box(*box)).tolist():
                if shapely.intersects(self._tree.geometries[index], shapes).any():
                    found.add(index)
        return [self._scenes[index] for index in sorted(found)]

    def _images(self, near: Sequence[Scene], cell: _Cell) -> list[ChipScene]:
        """Return the scenes of the images, within the periods of some chip."""
        product, scope = self._request.product, self._scope
        periods = scope.periods
        if not periods:
            dates = {scope.dates[number] for number in cell.members}
            periods = tuple(period_of_date(text, product.window_days) for text in dates)
        spans = [
            (datetime.fromisoformat(one.start), datetime.fromisoformat(one.end)) for one in periods
        ]
        images = []
        for scene in near:
            if scene.collection not in self._primary:
                continue
            if not any(start <= scene.datetime <= end for start, end in spans):
                continue
            record = record_of(scene, self._request)
            found = chip_scene(scene, cell.crs, record, bands_of(record, self._request))
            if found is not None and len(found.bands) == len(product.bands):
                images.append(found)
        return images

    def _others(self, other: OtherImages, near: Sequence[Scene], cell: _Cell) -> OtherScenes:
        """Return the scenes of another collection near a cell."""
        dated: list[ChipScene] = []
        layer: list[SceneFiles] = []
        files = self._others_of[other.name]
        for scene in near:
            if scene.collection != other.collection or scene.id not in files:
                continue
            if other.within_days is None:
                layer.append(SceneFiles(**scene_fields(scene), bands=tuple(files[scene.id])))
                continue
            names = [asset.band for asset in files[scene.id]]
            found = chip_scene(scene, cell.crs, record_of(scene, self._request), names)
            if found is not None:
                dated.append(found)
        return OtherScenes(
            name=other.name,
            within_days=other.within_days,
            scenes=tuple(dated),
            layer=tuple(sorted(layer, key=lambda scene: scene.id)),
        )

    def _estimate(self, cell: _Cell, scenes: Sequence[ChipScene]) -> Estimate:
        """Estimate what a cell reads: at the least, its chips share the scenes of their images."""
        product, windows = self._request.product, self._scope.windows
        images = len(self._scope.periods) or 1
        most = min(len(scenes), images * (product.image_count or len(scenes)))
        images_spec = self._stacks[0]
        pixels = len(cell.members) * product.side**2 * len(images_spec.bands) * max(most, 1)
        blocks = row_bytes = read = 0
        left, top = windows.left[cell.members], windows.top[cell.members]
        for asset in scenes[0].bands if scenes else ():
            known = self._probing.of(asset)
            width = known.block[1] * asset.resolution
            height = known.block[0] * asset.resolution
            corners: set[tuple[int, int]] = set()
            for across in (0.0, windows.side):
                for down in (0.0, windows.side):
                    columns = np.floor((left + across) / width).astype(int)
                    rows = np.floor((top - down) / height).astype(int)
                    corners.update(zip(rows.tolist(), columns.tolist(), strict=True))
            blocks += len(corners) * most
            read += int(len(corners) * most * known.block_bytes)
            item_size = np.dtype(asset.dtype).itemsize
            wide = len({column for _, column in corners})
            row_bytes += wide * known.block[0] * known.block[1] * item_size
        size = pixels * np.dtype(images_spec.dtype).itemsize
        return Estimate(
            blocks=blocks,
            requests=blocks,
            most_requests=3 * blocks,
            read_bytes=read,
            most_read_bytes=3 * read,
            write_bytes=size,
            pixels=pixels,
            memory=PROCESS_MEMORY + (2 + ROWS_AHEAD) * row_bytes,
        )
