"""Select: which scenes are taken, in which order, and what was left out and why. Pure functions on Scenes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from shapely.geometry.base import BaseGeometry

from scenebeam.catalog.acquisition import Acquisition, group
from scenebeam.catalog.modes import choose
from scenebeam.catalog.scene import Scene
from scenebeam.request import RunRequest, Select

Interval = tuple[datetime, datetime]


@dataclass(frozen=True)
class Selection:
    """What was taken, and how many scenes each filter left out."""

    acquisitions: tuple[Acquisition, ...]
    candidates: tuple[Acquisition, ...]
    """All that the filters left, before coverage and mode chose among them."""
    found: tuple[Scene, ...]
    left_out: dict[str, int] = field(default_factory=dict)

    @property
    def scenes(self) -> tuple[Scene, ...]:
        """All scenes taken, by acquisition."""
        return tuple(scene for acquisition in self.acquisitions for scene in acquisition.scenes)

    def explain(self) -> str:
        """One line: found, and what each filter left out."""
        removed = ", ".join(f"{name} left out {count}" for name, count in self.left_out.items() if count)
        return f"{len(self.found)} scenes found" + (f"; {removed}" if removed else "")


def select(
    scenes: Iterable[Scene],
    request: RunRequest,
    area: BaseGeometry | None,
    group_by: str,
    anchors: Mapping[str, datetime] | None = None,
) -> Selection:
    """Filter, deduplicate, group and choose as the request asks. The same for any order of `scenes`.

    `anchors` tells, by scene, the day that it was chosen for before: of a table that names the scenes.
    """
    found = sorted({(s.collection, s.id): s for s in scenes}.values(), key=lambda s: (s.datetime, s.collection, s.id))
    left, left_out = found, {}
    for name, keep in _filters(request.select, request.intervals, area):
        kept = [scene for scene in left if keep(scene)]
        left_out[name] = len(left) - len(kept)
        left = kept
    kept = drop_duplicates(left)
    left_out["older processing of the same acquisition"] = len(left) - len(kept)
    candidates = [_anchored(one, anchors or {}) for one in group(kept, area, group_by)]
    good = [one for one in candidates if one.coverage is None or one.coverage >= request.select.min_coverage]
    left_out["select.min_coverage"] = _count(candidates) - _count(good)
    chosen = choose(good, request.select, request.intervals)
    left_out[f"select.mode {request.select.mode}"] = _count(good) - _count(chosen)
    return Selection(tuple(chosen), tuple(candidates), tuple(found), left_out)


def _anchored(one: Acquisition, anchors: Mapping[str, datetime]) -> Acquisition:
    return replace(one, anchor=min((anchors[s.id] for s in one.scenes if s.id in anchors), default=None))


def _count(acquisitions: Iterable[Acquisition]) -> int:
    return sum(len(one.scenes) for one in acquisitions)


def _filters(
    asked: Select, intervals: Sequence[Interval], area: BaseGeometry | None
) -> list[tuple[str, Callable[[Scene], bool]]]:
    """Name of each filter and what it keeps. A catalogue may ignore a query, so area and dates stand here too."""
    platforms = {name.lower() for name in asked.platform or []}
    cloud, nodata = asked.max_cloud_cover, asked.max_nodata
    named = None if asked.scenes is None else {one.id for one in asked.scenes}
    return [
        ("select.scenes", lambda s: named is None or s.id in named),
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
