"""Determine the chips of a request, their seasons, and which scenes to search for."""

from __future__ import annotations

import logging
import os.path
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import shapely
from shapely.geometry.base import BaseGeometry

from scenebeam.catalog.area import area_geometry
from scenebeam.catalog.bands import bands_of, records_for
from scenebeam.catalog.queries import SearchQuery
from scenebeam.errors import RequestError
from scenebeam.imaging.chip_places import (
    bounds_by_hemisphere,
    chip_footprints,
    mgrs_100km_squares,
)
from scenebeam.imaging.split import split_chips, warn_of_empty_splits
from scenebeam.products.base import SearchScope
from scenebeam.products.fields.calendar import CropCalendar, default_calendar, season_days
from scenebeam.products.fields.chips import Chip, catalog_folder, read_chips, read_collection
from scenebeam.products.fields.existing_chips import (
    CHIPS_TABLE,
    ExistingChips,
    read_existing_chips,
)
from scenebeam.products.fields.lattice import FieldChips, chips_of_fields
from scenebeam.products.fields.request import SEASONS, FieldsRequest, Season
from scenebeam.request import RunRequest, is_url
from scenebeam.storage import open_store

log = logging.getLogger(__name__)
Array = np.ndarray[Any, np.dtype[Any]]


def _no_shapes() -> Array:
    return np.empty(0, object)


@dataclass(frozen=True)
class FieldsScope(SearchScope):
    """The chips, and when each is planted and harvested. Sequences have one entry per chip."""

    chips: Sequence[Chip] = ()
    shapes: Array = field(default_factory=_no_shapes)
    """Outlines in degrees, split at the antimeridian."""
    squares: Sequence[str] = ()
    """100 km MGRS squares, by which scenes are searched."""
    days: Sequence[tuple[int, int]] = ()
    """Day of year of planting and of harvest. Empty, like `targets`, if no scenes are needed."""
    targets: Sequence[Mapping[Season, datetime]] = ()
    """Date of planting and of harvest."""
    made: FieldChips | ExistingChips | None = None
    """The same chips with their fields, if the run makes them from boundaries."""
    splits: Sequence[str] = ()
    """Split of each chip, if the run makes them."""
    dataset: str = ""
    """Id of the collection of the chips."""
    catalog: str = ""
    """Catalog that the chips are read from; empty if the run makes them.

    It is relative to the output if they are the same folder, so that the folder can be moved."""


def scope_of_chips(request: RunRequest[FieldsRequest]) -> FieldsScope:
    """Read or make the chips, look up their seasons, and decide what to search for.

    Makes one query for each 100 km MGRS square and season.

    Args:
        request: The validated request.

    Returns:
        The scope; without queries if the request stops at masks.

    Raises:
        RequestError: There are no chips, or the chips, boundaries or calendar cannot be read.
    """
    product = request.product
    made: FieldChips | ExistingChips | None = None
    if product.boundaries is not None:
        made = _make_chips(product.boundaries, request)
        chips: Sequence[Chip] = made.chips
    else:
        chips = read_chips(str(product.chips))
    shapes, centers = chip_footprints(chips)
    area = area_geometry(request.area) if request.area is not None else None
    if area is not None:
        kept = _inside(area, shapes)
        chips, shapes, centers = [chips[number] for number in kept], shapes[kept], centers[kept]
        if made is not None:
            made = made.subset({chip.name for chip in chips})
    squares = mgrs_100km_squares(centers)
    splits = _splits(made, shapes, product)

    chips, catalog = _relative_to_output(chips, request)
    scope = FieldsScope(
        area,
        [],
        chips=chips,
        shapes=shapes,
        squares=squares,
        made=made,
        splits=splits,
        dataset=_dataset(request),
        catalog=catalog,
    )
    if product.images == "none":
        return scope

    days = _days(product, centers)
    targets = [season_days(product.year, *pair) for pair in days]
    reach = timedelta(days=product.reach)
    hint = f"Are there scenes within {reach.days} days of planting and harvest in {product.year}?"
    return replace(
        scope,
        queries=list(_queries(shapes, squares, targets, reach)),
        hint=f"{hint} Try another year",
        days=days,
        targets=targets,
    )


def _inside(area: BaseGeometry, shapes: Array) -> list[int]:
    """Return the indices of the chips that intersect the area of the request."""
    kept: list[int] = np.flatnonzero(shapely.intersects(shapes, area)).tolist()
    if not kept:
        raise RequestError(f"area: none of the {len(shapes)} chips intersects it")
    return kept


def _make_chips(boundaries: str, request: RunRequest[FieldsRequest]) -> FieldChips | ExistingChips:
    """Make the chips of field boundaries, or reuse those in the output if the file is gone."""
    product = request.product
    # Without this, a run could not be resumed or go further once the file has been moved away.
    if not is_url(boundaries) and not os.path.exists(boundaries):
        existing = read_existing_chips(open_store(request.output), product.grid, product.year)
        if existing is not None:
            log.info("%s does not exist any more; using the chips in %s", boundaries, CHIPS_TABLE)
            return existing
    return chips_of_fields(boundaries, product.grid, product.year, _imagery_origin(request))


def _imagery_origin(request: RunRequest[FieldsRequest]) -> tuple[float, float]:
    """Return the offset of the first collection's pixel edges from multiples of their size."""
    product = request.product
    record = records_for(request)[0]
    resolutions = [record.bands[name].resolution for name in bands_of(record, request)]
    pixel = min(resolutions, default=0.0)
    # Chips with the resolution and the offset of the imagery take its pixels without resampling. At
    # another resolution pixels are resampled anyway, and the offset does not matter.
    if record.pixel_origin is None or pixel != product.grid.resolution:
        return 0.0, 0.0
    x, y = record.pixel_origin
    return x % pixel, y % pixel


def _splits(
    made: FieldChips | ExistingChips | None, shapes: Array, product: FieldsRequest
) -> Sequence[str]:
    if made is None:
        return []
    splits = split_chips(made.cells, shapes, product.grid.split)
    warn_of_empty_splits(splits, product.grid.split)
    return splits


def _days(product: FieldsRequest, centers: Array) -> list[tuple[int, int]]:
    """Return the day of year of planting and of harvest at each center (longitude, latitude)."""
    if product.days is not None:
        return [(product.days.planting, product.days.harvest)] * len(centers)
    calendar = CropCalendar(product.crop_calendar or default_calendar())
    days = [calendar.days(float(longitude), float(latitude)) for longitude, latitude in centers]
    calendar.close()
    return days


def _queries(
    shapes: Array,
    squares: Sequence[str],
    targets: Sequence[Mapping[Season, datetime]],
    reach: timedelta,
) -> Iterator[SearchQuery]:
    """Yield one query per square and season, or two if the square is at the antimeridian.

    The interval of a query covers the widest windows of all chips of the square.
    """
    by_square: dict[str, list[int]] = {}
    for number, square in enumerate(squares):
        by_square.setdefault(square, []).append(number)
    for _, members in sorted(by_square.items()):
        boxes = bounds_by_hemisphere(shapes[members])
        for season in SEASONS:
            days = [targets[number][season] for number in members]
            interval = min(days) - reach, max(days) + reach + timedelta(days=1)
            for bbox in boxes:
                yield SearchQuery(bbox, interval)


def _relative_to_output(
    chips: Sequence[Chip], request: RunRequest[FieldsRequest]
) -> tuple[Sequence[Chip], str]:
    """Make the catalog and the masks of its chips relative, if the catalog is the output itself.

    Returns:
        The chips, and the catalog; empty if the run makes the chips.
    """
    catalog = request.product.chips
    if not catalog:
        return chips, ""
    output = open_store(request.output).uri
    if open_store(catalog_folder(catalog)).uri != output:
        return chips, catalog
    relative = [chip._replace(mask=chip.mask.removeprefix(f"{output}/")) for chip in chips]
    is_file = catalog.endswith((".json", ".parquet"))
    return relative, catalog.rpartition("/")[2] if is_file else "."


def _dataset(request: RunRequest[FieldsRequest]) -> str:
    """Return the id of the chips' collection; the run's name if the run makes the chips."""
    if request.product.chips is None:
        return request.run
    return str(read_collection(request.product.chips).get("id") or request.run)
