"""Select: which scenes are taken, in which order, and what was left out and why. Pure functions on
Scenes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from shapely.geometry.base import BaseGeometry

from scenebeam.catalog.acquisition import PASS_GAP, Acquisition, group
from scenebeam.catalog.cover import cover_least
from scenebeam.catalog.scene import Scene
from scenebeam.catalog.search import bands_of, record_of
from scenebeam.catalog.selection_modes import choose
from scenebeam.catalog.series_rows import ListedScene, group_rows
from scenebeam.request import RunRequest, Select

log = logging.getLogger(__name__)

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
        """All scenes taken, by acquisition; one that two acquisitions share comes once."""
        return _each_once(scene for one in self.acquisitions for scene in one.scenes)

    def __repr__(self) -> str:
        """One line: a selection of some scenes with all their bands would fill pages."""
        return f"<Selection of {len(self.acquisitions)} acquisitions, {len(self.scenes)} scenes: {self.explain()}>"

    def explain(self) -> str:
        """One line: found, and what each filter left out."""
        removed = ", ".join(
            f"{name} left out {count}" for name, count in self.left_out.items() if count
        )
        return f"{len(self.found)} scenes found" + (f"; {removed}" if removed else "")


def select(
    scenes: Iterable[Scene],
    request: RunRequest,
    area: BaseGeometry | None,
    group_by: str,
    anchors: Mapping[str, datetime] | None = None,
    empty_rows: Iterable[Acquisition] = (),
    measure: Callable[[Sequence[Scene]], list[Scene]] = list,
) -> Selection:
    """Filter, deduplicate, group and choose as the request asks. The same for any order of
    `scenes`.

    Scenes that a table lists are grouped and ordered by its rows instead, and none is a duplicate.

    Args:
        scenes: What was found.
        request: What is asked for.
        area: In degrees; None where nothing bounds it.
        group_by: `acquisition` or `day`.
        anchors: By scene, the day that it was chosen for before.
        empty_rows: Rows of a table that name no scene.
        measure: Finds the cloud over the area of the scenes that the other filters left.
    """
    found = sorted(_distinct(scenes), key=lambda s: (s.datetime, s.collection, s.id))
    left, left_out = found, {}
    for name, keep in _filters(request.select, request.intervals, area):
        kept = [scene for scene in left if keep(scene)]
        left_out[name] = len(left) - len(kept)
        left = kept
    most = request.select.max_aoi_cloud
    if most is not None:
        left = measure(left)
        clouds = {(scene.collection, scene.id): scene.aoi_cloud for scene in left}
        found = [
            replace(scene, aoi_cloud=clouds.get((scene.collection, scene.id))) for scene in found
        ]
        clear = [scene for scene in left if scene.aoi_cloud is None or scene.aoi_cloud <= most]
        left_out["select.max_aoi_cloud"] = len(left) - len(clear)
        left = clear
    listed = [scene for scene in left if isinstance(scene, ListedScene)]
    empty = [one for one in empty_rows if _is_asked(one, request)]
    if listed or empty:
        candidates = group_rows(listed, empty, area, group_by)
    else:
        kept = drop_duplicates(left)
        left_out["older processing of the same acquisition"] = len(left) - len(kept)
        candidates = [_anchored(one, anchors or {}) for one in group(kept, area, group_by)]
    good = [
        one
        for one in candidates
        if one.coverage is None or one.coverage >= request.select.min_coverage
    ]
    left_out["select.min_coverage"] = _count(candidates) - _count(good)
    chosen = choose([_with_bands(one, request) for one in good], request.select, request.intervals)
    left_out[f"select.mode {request.select.mode}"] = _count(good) - _count(chosen)
    if request.select.cover == "least":
        least = [cover_least(one, area) for one in chosen]
        left_out["select.cover least"] = _count(chosen) - _count(least)
        chosen = least
    return Selection(tuple(chosen), tuple(candidates), _each_once(found), left_out)


def _distinct(scenes: Iterable[Scene]) -> Iterable[Scene]:
    """Scenes without those that came twice; each row of a table has scenes of its own."""
    found: dict[tuple[str, str, int], Scene] = {}
    for scene in scenes:
        row = scene.row if isinstance(scene, ListedScene) else -1
        found[scene.collection, scene.id, row] = scene
    return found.values()


def _each_once(scenes: Iterable[Scene]) -> tuple[Scene, ...]:
    found: dict[tuple[str, str], Scene] = {}
    for scene in scenes:
        found.setdefault((scene.collection, scene.id), scene)
    return tuple(found.values())


def _is_asked(row: Acquisition, request: RunRequest) -> bool:
    """Whether a row without scenes is of the dates asked for."""
    inside = any(start <= row.acquired <= end for start, end in request.intervals)
    return request.select.scenes is None and (inside or not request.intervals)


def _with_bands(one: Acquisition, request: RunRequest) -> Acquisition:
    """An acquisition that knows whether all its scenes have the bands that are asked for."""
    if request.select.mode == "all":
        return one
    complete = all(
        set(bands_of(record_of(scene, request), request)) <= scene.assets.keys()
        for scene in one.scenes
    )
    return replace(one, complete=complete)


def _anchored(one: Acquisition, anchors: Mapping[str, datetime]) -> Acquisition:
    return replace(
        one, anchor=min((anchors[s.id] for s in one.scenes if s.id in anchors), default=None)
    )


def _count(acquisitions: Iterable[Acquisition]) -> int:
    return sum(len(one.scenes) for one in acquisitions)


def _filters(
    asked: Select, intervals: Sequence[Interval], area: BaseGeometry | None
) -> list[tuple[str, Callable[[Scene], bool]]]:
    """Name of each filter and what it keeps. A catalogue may ignore a query, so area and dates
    stand here too.
    """
    platforms = {name.lower() for name in asked.platform or []}
    cloud, nodata = asked.max_cloud_cover, asked.max_nodata
    named = None if asked.scenes is None else {one.id for one in asked.scenes}
    return [
        ("select.scenes", lambda s: named is None or s.id in named),
        (
            "dates",
            lambda s: not intervals or any(_is_within(s, start, end) for start, end in intervals),
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
        (
            "select.orbit_state",
            lambda s: asked.orbit_state is None or s.orbit_state == asked.orbit_state,
        ),
    ]


def _is_within(scene: Scene, start: datetime, end: datetime) -> bool:
    """Whether a scene is of a period: by its own time, its acquisition's, or the interval that it
    covers.
    """
    if scene.end is not None:
        return scene.datetime <= end and scene.end >= start
    return start <= scene.datetime <= end or start <= scene.acquired <= end


def shares_ground(footprint: BaseGeometry, area: BaseGeometry) -> bool:
    """Whether two areas overlap by more than an edge."""
    return bool(footprint.intersects(area)) and not bool(footprint.touches(area))


def drop_duplicates(scenes: Iterable[Scene]) -> list[Scene]:
    """Of one tile and pass keep the newest processing of each part.

    Parts are told apart by the collection's record, and where an item does not say, by footprints:
    a tile that lies on two downlinked strips comes as two items with complementary footprints, and
    both stay. Scenes without a tile are the same if they were taken in the same second and show
    nearly the same ground.
    """
    kept: dict[tuple[str | None, ...], list[Scene]] = {}
    scenes = list(scenes)
    nameless = sum(scene.tile_key is None or scene.pass_key is None for scene in scenes)
    if nameless:
        log.info(
            "%d of %d scenes name no tile or no pass: times and footprints tell them apart",
            nameless,
            len(scenes),
        )
    for scene in sorted(scenes, key=lambda s: (s.processed, s.id), reverse=True):
        siblings = kept.setdefault(_same_pass(scene), [])
        newer = next((one for one in siblings if _is_same_part(scene, one)), None)
        if newer is None:
            siblings.append(scene)
        else:
            log.info("%s gives way to %s, a newer processing", scene.id, newer.id)
    return sorted((s for group in kept.values() for s in group), key=lambda s: (s.acquired, s.id))


def _same_pass(scene: Scene) -> tuple[str | None, ...]:
    """What processings of one tile and pass share."""
    ground = scene.collection, scene.platform, scene.tile_key
    if scene.tile_key is None:
        return *ground, f"{scene.acquired:%Y%m%dT%H%M%S}"
    return *ground, scene.pass_key or f"{scene.acquired:%Y%m%d}"


def _is_same_part(one: Scene, other: Scene) -> bool:
    if abs(one.acquired - other.acquired) > PASS_GAP:
        return False  # a reprocessing moves the time of a scene by seconds at most
    if one.part_key is not None and other.part_key is not None:
        return one.part_key == other.part_key
    if one.footprint is None or other.footprint is None:
        return one.tile_key is not None
    shared = one.footprint.intersection(other.footprint).area
    if one.tile_key is None:
        return bool(shared > 0.9 * max(one.footprint.area, other.footprint.area))
    return bool(shared > 0.5 * min(one.footprint.area, other.footprint.area))
