"""Acquisition: the scenes of one overpass, and how much of the area they show. Pure functions on
Scenes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache

import shapely
from pyproj import Transformer
from shapely.geometry.base import BaseGeometry

from scenebeam.catalog.scene import Scene

PASS_GAP = timedelta(minutes=10)
"""Between two scenes of one pass, at most; the next pass of a platform in low orbit comes after 90
minutes or more.
"""


@dataclass(frozen=True)
class Acquisition:
    """Scenes that were taken together, best first."""

    acquired: datetime
    scenes: tuple[Scene, ...]
    coverage: float | None
    """Fraction of the area inside the scenes' footprints; None where those are not known."""
    anchor: datetime | None = None
    """The day that it was taken for; None where all are taken."""
    complete: bool = True
    """Whether all its scenes have the bands that are asked for."""

    @property
    def timestamp(self) -> str:
        """The acquisition's name in outputs: `20230202T092109Z`."""
        return f"{self.acquired.astimezone(UTC):%Y%m%dT%H%M%SZ}"

    @property
    def cloud_cover(self) -> float | None:
        """The largest of its scenes', in percent; None where one of them does not say."""
        clouds = [scene.cloud_cover for scene in self.scenes]
        return (
            None
            if None in clouds
            else max((cloud for cloud in clouds if cloud is not None), default=None)
        )


def rank(scene: Scene, area: BaseGeometry | None) -> tuple[bool, float, float, str]:
    """Sort key: least cloud first (0 is the best, unknown comes last), then coverage of the area,
    then id.
    """
    covered = (
        0.0 if area is None or scene.footprint is None else scene.footprint.intersection(area).area
    )
    return scene.cloud_cover is None, scene.cloud_cover or 0.0, -round(covered, 9), scene.id


def group(scenes: Iterable[Scene], area: BaseGeometry | None, by: str) -> list[Acquisition]:
    """Scenes → acquisitions by time, each with its scenes best first.

    `by`: `acquisition`, scenes of one pass of a platform; or `day`, scenes of one solar day at
    their own longitude, whose name is the first scene's time.
    """
    groups: dict[tuple[str, ...], list[Scene]] = {}
    if by == "day":
        for scene in scenes:
            groups.setdefault((solar_day(scene),), []).append(scene)
    else:
        groups = _passes(scenes)
    found = [
        Acquisition(
            acquired=min(scene.acquired for scene in members),
            scenes=tuple(sorted(members, key=lambda scene: rank(scene, area))),
            coverage=coverage(members, area),
        )
        for _, members in sorted(groups.items())
    ]
    return sorted(_merge_same_names(found, area), key=lambda one: one.acquired)


def _passes(scenes: Iterable[Scene]) -> dict[tuple[str, ...], list[Scene]]:
    """Scenes by pass. Where nothing names a pass, scenes of one platform and collection that follow
    each other are one.
    """
    groups: dict[tuple[str, ...], list[Scene]] = {}
    last: dict[tuple[str, str], Scene] = {}
    started: dict[tuple[str, str], str] = {}
    for scene in sorted(scenes, key=lambda one: (one.acquired, one.id)):
        platform = scene.platform or ""
        if scene.pass_key is not None:
            groups.setdefault((platform, scene.pass_key), []).append(scene)
            continue
        series = platform, scene.collection
        if series not in last or scene.acquired - last[series].acquired > PASS_GAP:
            started[series] = f"{scene.acquired:%Y%m%dT%H%M%S}"
        last[series] = scene
        groups.setdefault((*series, started[series]), []).append(scene)
    return groups


def _merge_same_names(found: list[Acquisition], area: BaseGeometry | None) -> list[Acquisition]:
    """Two platforms in one second would share a name, and so an output: they are one acquisition
    then.
    """
    by_name: dict[str, Acquisition] = {}
    for one in found:
        twin = by_name.get(one.timestamp)
        if twin is not None:
            members = [*twin.scenes, *one.scenes]
            ordered = tuple(sorted(members, key=lambda scene: rank(scene, area)))
            one = Acquisition(min(twin.acquired, one.acquired), ordered, coverage(members, area))
        by_name[one.timestamp] = one
    return list(by_name.values())


def solar_day(scene: Scene) -> str:
    """The date at the scene's own longitude (mean solar time: four minutes a degree)."""
    longitude = 0.0 if scene.footprint is None else scene.footprint.centroid.x
    return f"{scene.acquired + timedelta(minutes=4 * longitude):%Y-%m-%d}"


def coverage(scenes: Sequence[Scene], area: BaseGeometry | None) -> float | None:
    """Fraction of the area under the union of the scenes' footprints; None where either is not
    known.
    """
    footprints = [scene.footprint for scene in scenes if scene.footprint is not None]
    if area is None or len(footprints) < len(scenes):
        return None
    whole = square_metres(area)
    if whole == 0:
        return None
    return min(
        1.0,
        square_metres(shapely.union_all([one.intersection(area) for one in footprints])) / whole,
    )


def square_metres(geometry: BaseGeometry) -> float:
    """Area of a geometry in degrees, measured in an equal-area projection (EASE-Grid 2.0 global,
    EPSG:6933).
    """
    return float(shapely.transform(geometry, _to_equal_area().transform, interleaved=False).area)


@cache
def _to_equal_area() -> Transformer:
    return Transformer.from_crs("EPSG:4326", "EPSG:6933", always_xy=True)
