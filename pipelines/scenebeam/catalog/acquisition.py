"""Group scenes into acquisitions (one overpass each), and measure how much of the area they cover.

Pure functions of scenes.
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
"""Maximum time between consecutive scenes of one pass. The next pass of a platform in low Earth
orbit follows after 90 minutes or more.
"""


@dataclass(frozen=True)
class Acquisition:
    """Scenes that were acquired together, best first."""

    acquired: datetime
    """Start of the earliest scene."""
    scenes: tuple[Scene, ...]
    coverage: float | None
    """Fraction of the area within the scenes' footprints; None if those are unknown."""
    anchor: datetime | None = None
    """The day that the acquisition was selected for; None if the mode selects all."""
    complete: bool = True
    """Whether all scenes have the requested bands."""

    def __repr__(self) -> str:
        """Return one line."""
        cloud = "" if self.cloud_cover is None else f", {self.cloud_cover:.3g} % cloud"
        return f"<Acquisition {self.timestamp}, {len(self.scenes)} scenes{cloud}>"

    @property
    def timestamp(self) -> str:
        """Name of the acquisition in outputs: `20230202T092109Z`."""
        return f"{self.acquired.astimezone(UTC):%Y%m%dT%H%M%SZ}"

    @property
    def cloud_cover(self) -> float | None:
        """Cloud cover of the cloudiest scene in percent; None if any scene has none."""
        cloudiest: float | None = None
        for scene in self.scenes:
            if scene.cloud_cover is None:
                return None
            cloudiest = (
                scene.cloud_cover if cloudiest is None else max(cloudiest, scene.cloud_cover)
            )
        return cloudiest


def rank(scene: Scene, area: BaseGeometry | None) -> tuple[bool, float, float, str]:
    """Return the sort key of a scene within its acquisition.

    Least cloud cover first (0 is best, unknown is last), then most of the area covered, then id.

    Args:
        scene: The scene.
        area: The area in degrees; None to ignore coverage.
    """
    covered = 0.0
    if area is not None and scene.footprint is not None:
        covered = scene.footprint.intersection(area).area
    # Rounding makes footprints equal that differ only by floating-point noise.
    return scene.cloud_cover is None, scene.cloud_cover or 0.0, -round(covered, 9), scene.id


def group(scenes: Iterable[Scene], area: BaseGeometry | None, by: str) -> list[Acquisition]:
    """Group scenes into acquisitions.

    Args:
        scenes: In any order.
        area: The area in degrees, of which coverage is a fraction.
        by: `acquisition`: scenes of one pass of a platform; or `day`: scenes of one solar day at
            their own longitude.

    Returns:
        Acquisitions in order of time, each with its scenes best first.
    """
    groups: dict[tuple[str, ...], list[Scene]] = {}
    if by == "day":
        for scene in scenes:
            groups.setdefault((solar_day(scene),), []).append(scene)
    else:
        groups = _passes(scenes)
    acquisitions = []
    for _, members in sorted(groups.items()):
        acquisitions.append(_acquisition(members, area))
    merged = _merge_same_timestamps(acquisitions, area)
    return sorted(merged, key=lambda acquisition: acquisition.acquired)


def _acquisition(scenes: Sequence[Scene], area: BaseGeometry | None) -> Acquisition:
    return Acquisition(
        acquired=min(scene.acquired for scene in scenes),
        scenes=tuple(sorted(scenes, key=lambda scene: rank(scene, area))),
        coverage=coverage(scenes, area),
    )


def _passes(scenes: Iterable[Scene]) -> dict[tuple[str, ...], list[Scene]]:
    """Group scenes by pass.

    Scenes without a pass key are grouped by time: consecutive scenes of one platform and
    collection, with gaps of at most PASS_GAP, form a pass.
    """
    groups: dict[tuple[str, ...], list[Scene]] = {}
    previous: dict[tuple[str, str], Scene] = {}
    started: dict[tuple[str, str], str] = {}
    for scene in sorted(scenes, key=lambda scene: (scene.acquired, scene.id)):
        platform = scene.platform or ""
        if scene.pass_key is not None:
            groups.setdefault((platform, scene.pass_key), []).append(scene)
            continue
        series = platform, scene.collection
        if series not in previous or scene.acquired - previous[series].acquired > PASS_GAP:
            started[series] = f"{scene.acquired:%Y%m%dT%H%M%S}"
        previous[series] = scene
        groups.setdefault((*series, started[series]), []).append(scene)
    return groups


def _merge_same_timestamps(
    acquisitions: Iterable[Acquisition], area: BaseGeometry | None
) -> list[Acquisition]:
    """Merge acquisitions of the same second, because they would have the same output name."""
    by_timestamp: dict[str, Acquisition] = {}
    for acquisition in acquisitions:
        same = by_timestamp.get(acquisition.timestamp)
        if same is not None:
            acquisition = _acquisition([*same.scenes, *acquisition.scenes], area)
        by_timestamp[acquisition.timestamp] = acquisition
    return list(by_timestamp.values())


def solar_day(scene: Scene) -> str:
    """Return the date of a scene at its own longitude, in mean solar time: `2023-02-02`.

    The sun passes one degree of longitude in four minutes.
    """
    longitude = 0.0 if scene.footprint is None else scene.footprint.centroid.x
    return f"{scene.acquired + timedelta(minutes=4 * longitude):%Y-%m-%d}"


def coverage(scenes: Sequence[Scene], area: BaseGeometry | None) -> float | None:
    """Return the fraction of the area that the union of the scenes' footprints covers.

    Args:
        scenes: The scenes.
        area: The area in degrees.

    Returns:
        A fraction from 0 to 1; None if the area or a footprint is unknown.
    """
    footprints = [scene.footprint for scene in scenes if scene.footprint is not None]
    if area is None or len(footprints) < len(scenes):
        return None
    total = square_meters(area)
    if total == 0:
        return None
    parts = [footprint.intersection(area) for footprint in footprints]
    return min(1.0, square_meters(shapely.union_all(parts)) / total)


def square_meters(geometry: BaseGeometry) -> float:
    """Return the area of a geometry in square meters.

    It is measured in an equal-area projection (EASE-Grid 2.0 global, EPSG:6933).

    Args:
        geometry: In degrees of longitude and latitude.
    """
    return float(shapely.transform(geometry, _to_equal_area().transform, interleaved=False).area)


@cache
def _to_equal_area() -> Transformer:
    return Transformer.from_crs("EPSG:4326", "EPSG:6933", always_xy=True)
