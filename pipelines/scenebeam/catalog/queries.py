"""What to ask of a catalog: where and when."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from shapely.geometry import MultiPolygon

from scenebeam.request import RunRequest

Bounds = tuple[float, float, float, float]
Interval = tuple[datetime, datetime]
"""Start and end, both inclusive."""


@dataclass(frozen=True)
class SearchQuery:
    """One search of a catalog: where and when."""

    bbox: Bounds | None = None
    """West, south, east, north in degrees; never across the antimeridian."""
    interval: tuple[datetime, datetime] | None = None
    collections: tuple[str, ...] | None = None
    """Collection ids; None: all of the request's."""
    below: Mapping[str, float] = field(default_factory=dict)
    """Property → exclusive upper bound. Catalogs without the Query extension ignore it, so
    selection applies it again."""

    @property
    def datetime_interval(self) -> str | None:
        """The interval in the form of the STAC API."""
        if self.interval is None:
            return None
        return "/".join(f"{end.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}" for end in self.interval)


def queries_for(request: RunRequest, area: MultiPolygon | None) -> list[SearchQuery]:
    """Make one query for each period of a request and each part of its area (in degrees)."""
    intervals: Sequence[tuple[datetime, datetime] | None] = request.intervals or [None]
    boxes: Sequence[Bounds | None] = [None]
    if area is not None:
        boxes = [part.bounds for part in area.geoms]
    queries = []
    for interval in intervals:
        queries += [SearchQuery(bbox, interval) for bbox in boxes]
    return queries


def merge_intervals(intervals: Iterable[Interval]) -> list[Interval]:
    """Sort intervals, and merge those that overlap or follow within a second."""
    merged: list[Interval] = []
    for start, end in sorted(intervals):
        if merged and start <= merged[-1][1] + timedelta(seconds=1):
            merged[-1] = merged[-1][0], max(end, merged[-1][1])
        else:
            merged.append((start, end))
    return merged
