"""Select scenes: filter, drop duplicates, group into acquisitions, apply the selection mode.

Pure functions of scenes: the result does not depend on the order in which scenes were found. Each
step counts what it leaves out, so that a run can explain an empty or surprising selection.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from shapely.geometry.base import BaseGeometry

from scenebeam.catalog.acquisition import Acquisition, group
from scenebeam.catalog.bands import bands_of, record_of
from scenebeam.catalog.cover import minimal_cover
from scenebeam.catalog.parts import is_same_part
from scenebeam.catalog.scene import Scene
from scenebeam.catalog.selection import Selection, unique_scenes
from scenebeam.catalog.selection_modes import Interval, choose
from scenebeam.catalog.series_rows import ListedScene, group_rows
from scenebeam.request import RunRequest, Select

log = logging.getLogger(__name__)


def select(
    scenes: Iterable[Scene],
    request: RunRequest,
    area: BaseGeometry | None,
    group_by: str,
    anchors: Mapping[str, datetime] | None = None,
    empty_rows: Iterable[Acquisition] = (),
    measure: Callable[[Sequence[Scene]], list[Scene]] = list,
) -> Selection:
    """Filter, deduplicate, group and choose scenes according to a request.

    Scenes of a time-series table are grouped and ordered by its rows, and not deduplicated.

    Args:
        scenes: The scenes found, in any order.
        request: The request.
        area: The area in degrees; None if it is unbounded.
        group_by: `acquisition` or `day`.
        anchors: The day that a scene was selected for in an earlier selection, by scene id.
        empty_rows: Rows of a time-series table without scenes.
        measure: Measures the cloud cover of the area. Called with the scenes that passed all other
            filters, because it reads pixels; returns them with `aoi_cloud` set.

    Returns:
        The selection.
    """
    # Sort first: every later step keeps this order, whatever order the catalog answered in.
    found = sorted(_distinct(scenes), key=lambda s: (s.datetime, s.collection, s.id))
    left_out: dict[str, int] = {}
    remaining = _apply_filters(found, request, area, left_out)
    if request.select.max_aoi_cloud is not None:
        # The most expensive filter comes last, and its results go into the table of all scenes.
        remaining = measure(remaining)
        found = _with_aoi_cloud(found, remaining)
        clear = _below_aoi_cloud(remaining, request.select.max_aoi_cloud)
        left_out["select.max_aoi_cloud"] = len(remaining) - len(clear)
        remaining = clear
    listed = [scene for scene in remaining if isinstance(scene, ListedScene)]
    empty = [row for row in empty_rows if _row_passes(row, request)]
    if listed or empty:
        candidates = group_rows(listed, empty, area, group_by)
    else:
        unique = drop_duplicates(remaining)
        left_out["older processing of the same acquisition"] = len(remaining) - len(unique)
        candidates = []
        for acquisition in group(unique, area, group_by):
            candidates.append(_with_anchor(acquisition, anchors or {}))
    chosen = _choose_acquisitions(candidates, request, area, left_out)
    return Selection(tuple(chosen), tuple(candidates), unique_scenes(found), left_out, area)


def _choose_acquisitions(
    candidates: list[Acquisition],
    request: RunRequest,
    area: BaseGeometry | None,
    left_out: dict[str, int],
) -> list[Acquisition]:
    """Apply `min_coverage`, the mode and `cover`. Counts what each leaves out in `left_out`."""
    covering = []
    for acquisition in candidates:
        # An unknown coverage passes: the footprints are only known once the files are opened.
        if acquisition.coverage is None or acquisition.coverage >= request.select.min_coverage:
            covering.append(_with_completeness(acquisition, request))
    left_out["select.min_coverage"] = _count_scenes(candidates) - _count_scenes(covering)
    chosen = choose(covering, request.select, request.intervals)
    left_out[f"select.mode {request.select.mode}"] = _count_scenes(covering) - _count_scenes(chosen)
    if request.select.cover == "minimal":
        # Last, so that acquisitions compete in the mode with all of their scenes.
        minimal = [minimal_cover(acquisition, area) for acquisition in chosen]
        left_out["select.cover minimal"] = _count_scenes(chosen) - _count_scenes(minimal)
        chosen = minimal
    return chosen


def _distinct(scenes: Iterable[Scene]) -> Iterable[Scene]:
    """Drop repeated scenes. Those of different rows of a table are different."""
    by_key: dict[tuple[str, str, int], Scene] = {}
    for scene in scenes:
        row = scene.row if isinstance(scene, ListedScene) else -1
        by_key[scene.collection, scene.id, row] = scene
    return by_key.values()


def _row_passes(row: Acquisition, request: RunRequest) -> bool:
    """Return whether a row without scenes passes the only filters that apply to it."""
    inside = any(start <= row.acquired <= end for start, end in request.intervals)
    return request.select.scenes is None and (inside or not request.intervals)


def _with_completeness(acquisition: Acquisition, request: RunRequest) -> Acquisition:
    """Set `complete`: whether all scenes have the requested bands."""
    if request.select.mode == "all":
        return acquisition  # completeness only matters in a comparison
    for scene in acquisition.scenes:
        requested = set(bands_of(record_of(scene, request), request))
        if not requested <= scene.assets.keys():
            return replace(acquisition, complete=False)
    return replace(acquisition, complete=True)


def _with_anchor(acquisition: Acquisition, anchors: Mapping[str, datetime]) -> Acquisition:
    days = [anchors[scene.id] for scene in acquisition.scenes if scene.id in anchors]
    return replace(acquisition, anchor=min(days, default=None))


def _count_scenes(acquisitions: Iterable[Acquisition]) -> int:
    return sum(len(acquisition.scenes) for acquisition in acquisitions)


def _apply_filters(
    scenes: Sequence[Scene],
    request: RunRequest,
    area: BaseGeometry | None,
    left_out: dict[str, int],
) -> list[Scene]:
    """Apply the filters one after another. Counts what each leaves out in `left_out`."""
    remaining = list(scenes)
    # A product that says when its scenes are from has searched for just those.
    intervals = () if request.product.states_where_and_when else request.intervals
    for name, keep in _filters(request.select, intervals, area):
        kept = [scene for scene in remaining if keep(scene)]
        left_out[name] = len(remaining) - len(kept)
        remaining = kept
    return remaining


def _filters(
    requested: Select, intervals: Sequence[Interval], area: BaseGeometry | None
) -> list[tuple[str, Callable[[Scene], bool]]]:
    """Return the name of each filter, and the predicate of the scenes that it keeps.

    A scene without the property in question passes, except for those that are compared for
    equality. Area and dates were part of the search, but a catalog may ignore a query parameter,
    and a file or a static catalog has no search at all.
    """
    platforms = {name.lower() for name in requested.platform or []}
    max_cloud, max_nodata = requested.max_cloud_cover, requested.max_nodata
    orbits, orbit_state = requested.relative_orbit, requested.orbit_state
    ids = None if requested.scenes is None else {scene.id for scene in requested.scenes}
    return [
        ("select.scenes", lambda s: ids is None or s.id in ids),
        ("dates", lambda s: not intervals or _is_within_any(s, intervals)),
        ("area", lambda s: area is None or s.footprint is None or shares_ground(s.footprint, area)),
        ("select.max_cloud_cover", lambda s: _is_at_most(s.cloud_cover, max_cloud)),
        ("select.max_nodata", lambda s: _is_at_most(s.nodata, max_nodata)),
        ("select.platform", lambda s: not platforms or s.platform in platforms),
        ("select.relative_orbit", lambda s: not orbits or s.relative_orbit in orbits),
        ("select.orbit_state", lambda s: orbit_state is None or s.orbit_state == orbit_state),
    ]


def _is_at_most(value: float | None, limit: float | None) -> bool:
    """Return whether a value is within a limit; either may be unknown."""
    return limit is None or value is None or value <= limit


def _is_within_any(scene: Scene, intervals: Iterable[Interval]) -> bool:
    return any(_is_within(scene, start, end) for start, end in intervals)


def _is_within(scene: Scene, start: datetime, end: datetime) -> bool:
    """Return whether a scene is in an interval.

    A scene that covers an interval itself must overlap it. Otherwise, its own time or that of its
    acquisition must be inside; the two may differ by minutes.
    """
    if scene.end is not None:
        return scene.datetime <= end and scene.end >= start
    return start <= scene.datetime <= end or start <= scene.acquired <= end


def shares_ground(footprint: BaseGeometry, area: BaseGeometry) -> bool:
    """Return whether two geometries overlap by more than an edge."""
    return bool(footprint.intersects(area)) and not bool(footprint.touches(area))


def _with_aoi_cloud(scenes: Iterable[Scene], measured: Iterable[Scene]) -> list[Scene]:
    """Return all scenes with the `aoi_cloud` of those that were measured, None for the others."""
    clouds = {(scene.collection, scene.id): scene.aoi_cloud for scene in measured}
    updated = []
    for scene in scenes:
        updated.append(replace(scene, aoi_cloud=clouds.get((scene.collection, scene.id))))
    return updated


def _below_aoi_cloud(scenes: Iterable[Scene], limit: float) -> list[Scene]:
    return [scene for scene in scenes if _is_at_most(scene.aoi_cloud, limit)]


def drop_duplicates(scenes: Iterable[Scene]) -> list[Scene]:
    """Keep the newest processing of each part of a tile and pass.

    Catalogs hold several processings of one acquisition, and keep the old ones. But two items of
    one tile and pass can also be two parts: a tile on the border of two downlinked strips comes as
    two items with complementary footprints, and both are kept.

    Parts are identified as the collection record says. Where an item has no part key, footprints
    are compared. Scenes without a tile are duplicates if they were taken in the same second and
    cover nearly the same ground.

    Args:
        scenes: In any order.

    Returns:
        The scenes that are kept, in order of time.
    """
    scenes = list(scenes)
    without_keys = sum(scene.tile_key is None or scene.pass_key is None for scene in scenes)
    if without_keys:
        log.info(
            "%d of %d scenes have no tile or pass key: times and footprints are compared instead",
            without_keys,
            len(scenes),
        )
    # Newest first: a scene is a duplicate if a newer processing of the same part was kept. The id
    # breaks ties, so that the result does not depend on the order of the scenes.
    kept: dict[tuple[str | None, ...], list[Scene]] = {}
    for scene in sorted(scenes, key=lambda s: (s.processed, s.id), reverse=True):
        siblings = kept.setdefault(_tile_and_pass(scene), [])
        newer = _find_same_part(scene, siblings)
        if newer is None:
            siblings.append(scene)
        else:
            log.info("%s is superseded by %s, a newer processing", scene.id, newer.id)
    unique: list[Scene] = []
    for siblings in kept.values():
        unique.extend(siblings)
    return sorted(unique, key=lambda s: (s.acquired, s.id))


def _tile_and_pass(scene: Scene) -> tuple[str | None, ...]:
    """Return what all processings of one tile and pass have in common."""
    ground = scene.collection, scene.platform, scene.tile_key
    # Without a tile the second has to do, as no key says that two scenes show the same ground.
    if scene.tile_key is None:
        return *ground, f"{scene.acquired:%Y%m%dT%H%M%S}"
    # Without a pass the day has to do: a reprocessing may change the time by seconds. Scenes of
    # one day but of different passes are separated by PASS_GAP.
    return *ground, scene.pass_key or f"{scene.acquired:%Y%m%d}"


def _find_same_part(scene: Scene, siblings: Iterable[Scene]) -> Scene | None:
    return next((sibling for sibling in siblings if is_same_part(scene, sibling)), None)
