"""Turn the rows of a time-series table into acquisitions. The table decides grouping and order."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from dataclasses import dataclass

from shapely.geometry.base import BaseGeometry

from scenebeam.catalog.acquisition import Acquisition, coverage, solar_day
from scenebeam.catalog.scene import Scene


@dataclass(frozen=True)
class ListedScene(Scene):
    """A scene as one row of a table lists it. A scene in two rows gives two of these."""

    row: int = 0
    """Index of the row in the table."""
    place: int = 0
    """Index of the scene in the list of its row."""
    anchor: dt.datetime | None = None
    """The day that the row was selected for."""


def group_rows(
    scenes: Iterable[ListedScene],
    empty: Iterable[Acquisition],
    area: BaseGeometry | None,
    by: str,
) -> list[Acquisition]:
    """Group scenes by the rows that list them, in the order of the table.

    Rows of the same second become one acquisition, because they have the same output name.

    Args:
        scenes: Scenes of all rows, in any order.
        empty: Rows without scenes.
        area: The area in degrees, of which coverage is a fraction.
        by: `acquisition`; or `day`, to merge the rows of one solar day.

    Returns:
        Acquisitions in order of time. Those of empty rows have no scenes and no coverage.
    """
    rows: dict[int, list[ListedScene]] = {}
    for scene in sorted(scenes, key=lambda scene: (scene.row, scene.place)):
        rows.setdefault(scene.row, []).append(scene)
    # Group key → scenes by id: a scene that two merged rows list counts once.
    groups: dict[str, dict[str, ListedScene]] = {}
    for members in rows.values():
        first = members[0]
        key = solar_day(first) if by == "day" else _second(first.acquired)
        group = groups.setdefault(key, {})
        for scene in members:
            group.setdefault(scene.id, scene)
    acquisitions = {}
    for key, group in groups.items():
        acquisitions[key] = _acquisition(tuple(group.values()), area)
    for row in empty:
        # Without scenes there is no longitude: the day is that of UTC.
        utc = row.acquired.astimezone(dt.UTC)
        key = f"{utc:%Y-%m-%d}" if by == "day" else _second(row.acquired)
        acquisitions.setdefault(key, row)
    return sorted(acquisitions.values(), key=lambda acquisition: acquisition.acquired)


def _acquisition(scenes: tuple[ListedScene, ...], area: BaseGeometry | None) -> Acquisition:
    anchors = [scene.anchor for scene in scenes if scene.anchor is not None]
    return Acquisition(
        acquired=min(scene.acquired for scene in scenes),
        scenes=scenes,
        coverage=coverage(scenes, area),
        anchor=min(anchors, default=None),
    )


def _second(instant: dt.datetime) -> str:
    return f"{instant.astimezone(dt.UTC):%Y%m%dT%H%M%S}"
