"""Select: which scenes are taken, in which order, and what was left out and why. Pure functions on Scenes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import shapely
from shapely.geometry.base import BaseGeometry

from scenebeam.catalog.scene import Scene
from scenebeam.request import RunRequest, Select

Interval = tuple[datetime, datetime]


@dataclass(frozen=True)
class Acquisition:
    """Scenes that were taken together, best first."""

    acquired: datetime
    scenes: tuple[Scene, ...]
    coverage: float | None
    """Fraction of the area inside the scenes' footprints; None where those are not known."""

    @property
    def timestamp(self) -> str:
        """The acquisition's name in outputs: `20230202T092109Z`."""
        return f"{self.acquired.astimezone(UTC):%Y%m%dT%H%M%SZ}"


@dataclass(frozen=True)
class Selection:
    """What was taken, and how many scenes each filter left out."""

    acquisitions: tuple[Acquisition, ...]
    found: int
    left_out: dict[str, int] = field(default_factory=dict)

    @property
    def scenes(self) -> tuple[Scene, ...]:
        """All scenes taken, by acquisition."""
        return tuple(scene for acquisition in self.acquisitions for scene in acquisition.scenes)

    def explain(self) -> str:
        """One line: found, and what each filter left out."""
        removed = ", ".join(f"{name} left out {count}" for name, count in self.left_out.items() if count)
        return f"{self.found} scenes found" + (f"; {removed}" if removed else "")


def select(scenes: Iterable[Scene], request: RunRequest, area: BaseGeometry | None, group_by: str) -> Selection:
    """Filter, deduplicate, group and order scenes as the request asks. The same for any order of `scenes`."""
    left = list({(scene.collection, scene.id): scene for scene in scenes}.values())
    found, left_out = len(left), {}
    for name, keep in _filters(request.select, request.intervals, area):
        kept = [scene for scene in left if keep(scene)]
        left_out[name] = len(left) - len(kept)
        left = kept
    kept = drop_duplicates(left)
    left_out["older processing of the same acquisition"] = len(left) - len(kept)
    groups = group(kept, area, group_by)
    good = [one for one in groups if one.coverage is None or one.coverage >= request.select.min_coverage]
    left_out["select.min_coverage"] = sum(len(one.scenes) for one in groups) - sum(len(one.scenes) for one in good)
    return Selection(tuple(good), found, left_out)


def _filters(
    asked: Select, intervals: Sequence[Interval], area: BaseGeometry | None
) -> list[tuple[str, Callable[[Scene], bool]]]:
    """Name of each filter and what it keeps. A catalogue may ignore a query, so area and dates stand here too."""
    platforms = {name.lower() for name in asked.platform or []}
    cloud, nodata = asked.max_cloud_cover, asked.max_nodata
    return [
        (
            "dates",
            lambda s: not intervals or any(a <= s.datetime <= b or a <= s.acquired <= b for a, b in intervals),
        ),
        ("area", lambda s: area is None or s.footprint is None or shares_ground(s.footprint, area)),
        (
            "select.max_cloud_cover",
            lambda s: cloud is None or s.cloud_cover is None or s.cloud_cover <= cloud,
        ),
        ("select.max_nodata", lambda s: nodata is None or s.nodata is None or s.nodata <= nodata),
        ("select.platform", lambda s: not platforms or s.platform in platforms),
        (
            "select.relative_orbit",
            lambda s: not asked.relative_orbit or s.relative_orbit in asked.relative_orbit,
        ),
        ("select.orbit_state", lambda s: asked.orbit_state is None or s.orbit_state == asked.orbit_state),
    ]


def shares_ground(footprint: BaseGeometry, area: BaseGeometry) -> bool:
    """Whether two areas overlap by more than an edge."""
    return bool(footprint.intersects(area)) and not bool(footprint.touches(area))


def rank(scene: Scene, area: BaseGeometry | None) -> tuple[bool, float, float, str]:
    """Sort key: least cloud first (0 is the best, unknown comes last), then coverage of the area, then id."""
    covered = 0.0 if area is None or scene.footprint is None else scene.footprint.intersection(area).area
    return scene.cloud_cover is None, scene.cloud_cover or 0.0, -round(covered, 9), scene.id


def drop_duplicates(scenes: Iterable[Scene]) -> list[Scene]:
    """Of one tile and acquisition keep the newest processing, and every half that shows other ground.

    A tile that lies on two downlinked strips comes as two items with complementary footprints: both stay.
    """
    kept: dict[tuple[str, str | None, str], list[Scene]] = {}
    passed: list[Scene] = []
    for scene in sorted(scenes, key=lambda s: (s.processed, s.id), reverse=True):
        if scene.tile is None:
            passed.append(scene)
            continue
        siblings = kept.setdefault((scene.tile, scene.datatake, f"{scene.acquired:%Y%m%dT%H%M%S}"), [])
        if not any(_same_ground(scene, newer) for newer in siblings):
            siblings.append(scene)
    return sorted([*passed, *(s for group in kept.values() for s in group)], key=lambda s: (s.acquired, s.id))


def _same_ground(one: Scene, other: Scene) -> bool:
    if one.footprint is None or other.footprint is None:
        return True
    smaller = min(one.footprint.area, other.footprint.area)
    return bool(one.footprint.intersection(other.footprint).area > 0.5 * smaller)


def group(scenes: Iterable[Scene], area: BaseGeometry | None, by: str) -> list[Acquisition]:
    """Scenes → acquisitions by time, each with its scenes best first.

    `by`: `acquisition`, scenes of one platform and datatake (to the second); or `day`, scenes of one
    solar day at their own longitude, whose name is the first scene's time.
    """
    groups: dict[tuple[str, str], list[Scene]] = {}
    for scene in scenes:
        second = f"{scene.acquired:%Y%m%dT%H%M%S}"
        key = ("", solar_day(scene)) if by == "day" else (scene.platform or "", second)
        groups.setdefault(key, []).append(scene)
    found = [
        Acquisition(
            acquired=min(scene.acquired for scene in members),
            scenes=tuple(sorted(members, key=lambda scene: rank(scene, area))),
            coverage=coverage(members, area),
        )
        for _, members in sorted(groups.items())
    ]
    return sorted(_merge_same_names(found, area), key=lambda one: one.acquired)


def _merge_same_names(found: list[Acquisition], area: BaseGeometry | None) -> list[Acquisition]:
    """Two platforms in one second would share a name, and so an output: they are one acquisition then."""
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
    """Fraction of the area under the union of the scenes' footprints, measured in an equal-area projection."""
    footprints = [scene.footprint for scene in scenes if scene.footprint is not None]
    if area is None or len(footprints) < len(scenes):
        return None
    whole = _equal_area(area)
    if whole.area == 0:
        return None
    covered = _equal_area(shapely.union_all([footprint.intersection(area) for footprint in footprints]))
    return min(1.0, float(covered.area / whole.area))


def _equal_area(geometry: BaseGeometry) -> BaseGeometry:
    """Degrees → Lambert's cylindrical equal-area plane: area is proportional to longitude x sin(latitude)."""
    import numpy as np

    return shapely.transform(geometry, lambda xy: np.column_stack([xy[:, 0], np.degrees(np.sin(np.radians(xy[:, 1])))]))
