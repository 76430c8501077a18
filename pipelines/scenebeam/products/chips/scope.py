"""Determine the chips of a request, and which scenes to search for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np
import shapely
from shapely.geometry import MultiPolygon

from scenebeam.catalog.area import area_geometry
from scenebeam.catalog.bands import records_for
from scenebeam.catalog.queries import Interval, SearchQuery, merge_intervals
from scenebeam.collections import CollectionRecord
from scenebeam.errors import RequestError
from scenebeam.imaging.chip_places import bounds_by_hemisphere, mgrs_100km_squares
from scenebeam.products.base import SearchScope
from scenebeam.products.chips.draw import assign_splits, check_splits, draw_chips
from scenebeam.products.chips.places import PlaceFaults, read_places
from scenebeam.products.chips.request import ChipsRequest
from scenebeam.products.chips.task import Period
from scenebeam.products.chips.windows import (
    ChipWindows,
    Origin,
    windows_of_grid,
    windows_of_places,
)
from scenebeam.raster.validity import Array
from scenebeam.request import RunRequest

_MONTHS = {"month": 1, "quarter": 3, "year": 12}
_DAY = timedelta(days=1)


def _no_chips() -> ChipWindows:
    nothing = np.empty(0)
    return ChipWindows([], [], np.empty(0, object), nothing, nothing, 0.0, {})


@dataclass(frozen=True)
class ChipsScope(SearchScope):
    """The chips and when their images are from. Sequences have one entry per chip."""

    windows: ChipWindows = field(default_factory=_no_chips)
    shapes: Array = field(default_factory=lambda: np.empty(0, object))
    """Outlines in degrees, split at the antimeridian."""
    splits: Sequence[str] = ()
    dates: Sequence[str] = ()
    """Date of each place in ISO 8601; empty texts if the request's dates hold for all."""
    periods: tuple[Period, ...] = ()
    """Those of the request; empty if each place has its own date."""
    faults: PlaceFaults = field(default_factory=PlaceFaults)


def scope_of_places(request: RunRequest[ChipsRequest]) -> ChipsScope:
    """Read the places or lay out the grid, draw chips, and decide what to search for.

    Makes one query for each 100 km MGRS square, run of dates and kind of collection.

    Args:
        request: The validated request.

    Raises:
        RequestError: There are no chips, or the places cannot be read.
    """
    product = request.product
    area = area_geometry(request.area) if request.area is not None else None
    faults = PlaceFaults()
    windows = _windows(request, area, faults)
    windows = windows.subset(draw_chips(windows, product.draw))
    shapes, centers = windows.footprints()
    splits = assign_splits(windows, shapes, product)
    check_splits(splits)
    dates = _dates(windows, product)
    periods = () if product.date_column else tuple(_periods(request))
    scope = ChipsScope(
        area,
        [],
        hint="Are there scenes at the places on these dates",
        windows=windows,
        shapes=shapes,
        splits=splits,
        dates=dates,
        periods=periods,
        faults=faults,
    )
    queries = list(_queries(request, shapes, mgrs_100km_squares(centers), dates, periods))
    return ChipsScope(**{**scope.__dict__, "queries": queries})


def primary_records(request: RunRequest[ChipsRequest]) -> list[CollectionRecord]:
    """Return the records of the collections that the images of `bands` are of."""
    others = request.product.other_collections
    return [record for record in records_for(request) if record.id not in others]


def _windows(
    request: RunRequest[ChipsRequest], area: MultiPolygon | None, faults: PlaceFaults
) -> ChipWindows:
    product = request.product
    origin = _pixel_origin(request)
    if product.places is None:
        assert product.grid is not None, "the request has been validated"
        assert area is not None, "the request has been validated"
        return windows_of_grid(product.grid, area, product, origin)
    required = [name for name in product.place_columns if name != product.id_column]
    places = read_places(product.places, product.id_column, product.place_columns, required, faults)
    windows = windows_of_places(places, product, origin)
    if area is None:
        return windows
    shapely.prepare(area)
    kept = np.flatnonzero(shapely.intersects_xy(area, places.lon, places.lat))
    if not len(kept):
        raise RequestError(f"area: none of the {len(places.names)} places is in it")
    return windows.subset(kept)


def _pixel_origin(request: RunRequest[ChipsRequest]) -> Origin:
    """Return the offset of the images' pixel edges from multiples of the resolution."""
    for record in primary_records(request):
        if record.pixel_origin is not None:
            x, y = record.pixel_origin
            return x % request.product.resolution, y % request.product.resolution
    return 0.0, 0.0


def _dates(windows: ChipWindows, product: ChipsRequest) -> list[str]:
    """Return the date of each place.

    Raises:
        RequestError: One is not a date.
    """
    if product.date_column is None:
        return [""] * len(windows.ids)
    dates = []
    for name, value in zip(windows.ids, windows.columns[product.date_column], strict=True):
        dates.append(_parse_date(value, name, product.date_column))
    return dates


def _parse_date(value: Any, name: str, column: str) -> str:
    if isinstance(value, datetime):
        return value.date().isoformat()
    if isinstance(value, date):
        return value.isoformat()
    try:
        return datetime.fromisoformat(str(value).strip().replace("/", "-")).date().isoformat()
    except ValueError:
        raise RequestError(
            f"product.date_column: {column} of the place {name} is {str(value)[:40]!r}, which is "
            "not a date such as 2023-06-01"
        ) from None


def _periods(request: RunRequest[ChipsRequest]) -> Iterator[Period]:
    """Yield the periods of which each has images: calendar periods, or the entries of `dates`."""
    for start, end in request.intervals:
        if request.product.period is None:
            yield _period(start, end)
            continue
        months = _MONTHS[request.product.period]
        year, month = start.year, (start.month - 1) // months * months + 1
        while datetime(year, month, 1, tzinfo=UTC) <= end:
            first = datetime(year, month, 1, tzinfo=UTC)
            year, month = year + (month + months > 12), (month + months - 1) % 12 + 1
            last = datetime(year, month, 1, tzinfo=UTC) - timedelta(microseconds=1)
            yield _period(max(first, start), min(last, end))


def _period(start: datetime, end: datetime) -> Period:
    middle = start + (end - start) / 2
    return Period(start.isoformat(), end.isoformat(), middle.isoformat())


def period_of_date(text: str, window_days: int) -> Period:
    """Return the period around the date of a place."""
    noon = datetime.fromisoformat(text).replace(hour=12, tzinfo=UTC)
    start = noon.replace(hour=0) - window_days * _DAY
    end = noon.replace(hour=0) + (window_days + 1) * _DAY - timedelta(microseconds=1)
    return Period(start.isoformat(), end.isoformat(), noon.isoformat())


def _queries(
    request: RunRequest[ChipsRequest],
    shapes: Array,
    squares: Sequence[str],
    dates: Sequence[str],
    periods: Sequence[Period],
) -> Iterator[SearchQuery]:
    product = request.product
    primary = tuple(dict.fromkeys(record.id for record in primary_records(request)))
    dated = [other for other in product.others if other.within_days is not None]
    undated = product.other_collections - {other.collection for other in dated}
    by_square: dict[str, list[int]] = {}
    for number, square in enumerate(squares):
        by_square.setdefault(square, []).append(number)
    for _, members in sorted(by_square.items()):
        found = _intervals(periods, {dates[number] for number in members}, product.window_days)
        for bbox in bounds_by_hemisphere(shapes[members]):
            for interval in merge_intervals(found):
                yield SearchQuery(bbox, interval, primary)
            for other in dated:
                reach = timedelta(days=other.within_days or 0.0)
                wider = [(start - reach, end + reach) for start, end in found]
                for interval in merge_intervals(wider):
                    yield SearchQuery(bbox, interval, (other.collection,))
            if undated:
                yield SearchQuery(bbox, None, tuple(sorted(undated)))


def _intervals(periods: Sequence[Period], dates: Iterable[str], window_days: int) -> list[Interval]:
    all_periods = list(periods) or [period_of_date(text, window_days) for text in dates]
    return [
        (datetime.fromisoformat(one.start), datetime.fromisoformat(one.end)) for one in all_periods
    ]
