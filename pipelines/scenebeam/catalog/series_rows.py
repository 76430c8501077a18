"""Rows: a time-series table as acquisitions. It decides what goes together, and the order."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from dataclasses import dataclass

from shapely.geometry.base import BaseGeometry

from scenebeam.catalog.acquisition import Acquisition, coverage, solar_day
from scenebeam.catalog.scene import Scene


@dataclass(frozen=True)
class ListedScene(Scene):
    """A scene as one row of a table names it. A scene that two rows name is two of these."""

    row: int = 0
    place: int = 0
    """Its place in the row's list."""
    anchor: dt.datetime | None = None
    """The day that the row was chosen for."""


def group_rows(
    scenes: Iterable[ListedScene],
    empty: Iterable[Acquisition],
    area: BaseGeometry | None,
    by: str,
) -> list[Acquisition]:
    """Group scenes by the rows that name them, in the order of the table.

    Rows of the same second are one acquisition, as they share the name of an output.

    Args:
        scenes: Scenes of all rows, in any order.
        empty: Rows that name no scene.
        area: In degrees; what coverage is a fraction of.
        by: `acquisition`, or `day` to join the rows of one solar day.

    Returns:
        Acquisitions in order of time; those of empty rows have no scenes, and an unknown coverage.
    """
    rows: dict[int, list[ListedScene]] = {}
    for scene in sorted(scenes, key=lambda one: (one.row, one.place)):
        rows.setdefault(scene.row, []).append(scene)
    groups: dict[str, dict[str, ListedScene]] = {}
    for members in rows.values():
        first = members[0]
        group = groups.setdefault(solar_day(first) if by == "day" else _second(first.acquired), {})
        for scene in members:
            group.setdefault(scene.id, scene)
    found = {}
    for key, group in groups.items():
        ordered = tuple(group.values())
        anchors = [scene.anchor for scene in ordered if scene.anchor is not None]
        found[key] = Acquisition(
            acquired=min(scene.acquired for scene in ordered),
            scenes=ordered,
            coverage=coverage(ordered, area),
            anchor=min(anchors, default=None),
        )
    for one in empty:
        utc = one.acquired.astimezone(dt.UTC)
        found.setdefault(f"{utc:%Y-%m-%d}" if by == "day" else _second(one.acquired), one)
    return sorted(found.values(), key=lambda one: one.acquired)


def _second(instant: dt.datetime) -> str:
    return f"{instant.astimezone(dt.UTC):%Y%m%dT%H%M%S}"
