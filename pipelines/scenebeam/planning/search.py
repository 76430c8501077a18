"""Search, select and plan: what a request amounts to, before anything is written."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import shapely

from scenebeam.catalog.acquisition import Acquisition
from scenebeam.catalog.bands import bands_of, record_of, records_for, resolve_bands
from scenebeam.catalog.discovery import describe_scene
from scenebeam.catalog.scene import Scene, footprints
from scenebeam.catalog.search import scenes_from_items, search_items
from scenebeam.catalog.select import select
from scenebeam.catalog.selection import Selection
from scenebeam.catalog.tables import scene_tables
from scenebeam.catalog.timeseries import read_series_scenes, series_digest
from scenebeam.csvtable import File, Table
from scenebeam.errors import NoScenesError, RequestError
from scenebeam.imaging.area_clouds import measure_clouds
from scenebeam.planning.cost import dataflow_cost
from scenebeam.planning.plan import Plan
from scenebeam.planning.search_cache import Item, read_search
from scenebeam.planning.series_table import empty_rows, read_series
from scenebeam.products import product_of
from scenebeam.products.base import SearchScope
from scenebeam.request import RunRequest, TimeSeries, parse_interval
from scenebeam.storage import Store, open_store
from scenebeam.transfer.signing.accounts import use_accounts

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SearchResult:
    """The items that a search has found, and the scenes that were selected."""

    items: Sequence[Item]
    selection: Selection
    search_scope: SearchScope
    series: str = ""
    """Digest of the time-series table that the scenes come from."""
    absent: tuple[str, ...] = ()
    """Ids of requested scenes that the catalog lacks."""

    def tables(self, request: RunRequest) -> dict[str, Table]:
        """The tables of scenes found and selected, by file name."""
        return scene_tables(
            self.selection, self.search_scope.area, request.select.full_cover_threshold
        )

    def discovered(self, request: RunRequest) -> list[dict[str, Any]]:
        """The selected scenes and the URLs of their bands, as JSON."""
        items = {str(item.get("id")): item for item in self.items}
        scenes = []
        for scene in self.selection.scenes:
            bands = bands_of(record_of(scene, request), request)
            scenes.append(describe_scene(scene, bands, items.get(scene.id)))
        return scenes


@dataclass(frozen=True)
class CatalogScenes:
    """What a catalog or a time series has for a request, before selection."""

    items: Sequence[Item]
    scenes: list[Scene]
    anchors: dict[str, datetime]
    """Scene id → the date that it was selected for before."""
    empty_rows: Sequence[Acquisition] = ()
    """Rows of a time series that name no scene."""
    series: str = ""
    """Digest of the time series."""


def search(
    request: RunRequest, store: Store | None = None, *, refresh: bool = False
) -> SearchResult:
    """Search the catalog (or read a time-series table), and select scenes.

    Args:
        request: The validated request.
        store: The output, which may hold the cached answer to the same search.
        refresh: Search again instead of using that.

    Raises:
        RequestError: No scene is left; the message says which filter left out how many.
        CatalogError: The catalog cannot be searched.
    """
    search_scope = product_of(request.product.kind).search_scope(request)
    found = find_scenes(request, search_scope, store, refresh=refresh)
    selection = select(
        found.scenes,
        request,
        search_scope.area,
        request.product.grouping,
        found.anchors,
        found.empty_rows,
        lambda scenes: measure_clouds(scenes, request, search_scope.area),
    )
    log.info("%s", selection.explain())
    requested = {scene.id for scene in request.select.scenes or ()}
    absent = tuple(sorted(requested - {scene.id for scene in found.scenes}))
    for name in absent:
        log.warning("select.scenes: the catalog has no scene %s", name)
    if search_scope.queries and not selection.acquisitions:
        message = f"no scene is left: {selection.explain()}. {search_scope.hint}"
        message += _suspect_swapped_area(request, selection)
        if found.items and not selection.found:
            message += f"; none of {len(found.items)} items is of the requested collections"
        raise NoScenesError(message)
    return SearchResult(found.items, selection, search_scope, found.series, absent)


def _suspect_swapped_area(request: RunRequest, selection: Selection) -> str:
    """Say that latitude and longitude may be swapped, if that would explain that nothing is found.

    It is suspected where scenes are known and lie in the swapped area, or where nothing is known.
    """
    area = request.area
    if area is None or area.bbox is None:
        return ""
    west, south, east, north = area.bbox
    if max(abs(west), abs(east)) > 90:
        return ""
    swapped = shapely.box(south, west, north, east)
    outlines = footprints(selection.found)
    if len(outlines):
        if shapely.intersects(outlines, shapely.box(*area.bbox)).any():
            return ""
        if not shapely.intersects(outlines, swapped).any():
            return ""
    return (
        ". Are latitude and longitude swapped? area.bbox is west, south, east, north: longitude "
        f"{west:g} to {east:g}, latitude {south:g} to {north:g}"
    )


def find_scenes(
    request: RunRequest,
    search_scope: SearchScope,
    store: Store | None = None,
    *,
    refresh: bool = False,
) -> CatalogScenes:
    """Search the catalog, or read a time-series table, without selecting.

    Args:
        request: The validated request.
        search_scope: Where and when to search.
        store: The output, which may hold the cached answer to the same search.
        refresh: Search again instead of using that.

    Raises:
        RequestError: A band is unknown, or the table cannot be read.
        CatalogError: The catalog cannot be searched.
    """
    use_accounts(request.accounts)
    # An unknown band is reported before the catalog is searched.
    resolve_bands(request)
    if isinstance(request.catalog, TimeSeries):
        rows = read_series(request.catalog)
        listed = read_series_scenes(
            rows,
            records_for(request),
            open_store(request.catalog.root),
            checksums=request.checks.checksums,
        )
        return CatalogScenes([], [*listed], {}, empty_rows(rows), series_digest(rows))
    items = read_search(request, store) if store is not None and not refresh else None
    if items is None:
        items = search_items(request, search_scope.queries) if search_scope.queries else []
    anchors = {}
    for scene in request.select.scenes or ():
        if scene.anchor:
            anchors[scene.id] = parse_interval(scene.anchor)[0]
    scenes = scenes_from_items(items, request)
    _warn_of_unknown_offsets(scenes)
    return CatalogScenes(items, scenes, anchors)


def _warn_of_unknown_offsets(scenes: Sequence[Scene]) -> None:
    uncertain: Counter[str] = Counter()
    for scene in scenes:
        if not all(asset.add_offset_known for asset in scene.assets.values()):
            uncertain[scene.collection] += 1
    for collection, count in uncertain.items():
        log.warning(
            "%s: the files of %d items may carry an offset of +1000 (Sentinel-2, processing "
            "baseline 04.00 or later), and products declare their values unknown; state the "
            "add_offset in the record of the collection, with amount: 0 if there is none",
            collection,
            count,
        )


def make_plan(
    request: RunRequest, store: Store | None = None, *, refresh: bool = False, measure: bool = False
) -> Plan:
    """Search, select and plan, without writing anything.

    Args:
        request: The validated request.
        store: The output, which may hold the cached answer to the same search.
        refresh: Search again instead of using that.
        measure: Read some headers and file sizes, for a good estimate.

    Raises:
        RequestError: No scene is left, or the plan exceeds the limits of the request.
    """
    result = search(request, store, refresh=refresh)
    search_scope = replace(result.search_scope, measure=measure)
    return plan_selection(request, replace(result, search_scope=search_scope))


def plan_selection(request: RunRequest, result: SearchResult) -> Plan:
    """Plan the tasks of selected scenes.

    Raises:
        RequestError: Nothing can be planned, or the plan exceeds the limits of the request.
    """
    product = product_of(request.product.kind)
    planned = product.plan(result.selection, request, result.search_scope)
    tables: dict[str, File] = {**result.tables(request), **planned.tables}
    plan = Plan(
        request,
        planned.tasks,
        result.selection.explain(),
        result.selection.left_out,
        tables,
        result.items,
        result.series,
        result.absent,
    )
    # A series makes only what it lacks, which is known when it is compared with its output.
    if request.series is None:
        check_limits(plan)
    return plan


def check_limits(plan: Plan) -> None:
    """Check what a plan reads and costs.

    Raises:
        RequestError: It is more than the limits of the request.
    """
    limits, read_bytes = plan.request.limits, plan.estimate.read_bytes
    if read_bytes > limits.max_bytes:
        raise RequestError(
            f"the plan reads about {read_bytes / 1e9:.1f} GB, more than limits.max_bytes = "
            f"{limits.max_bytes / 1e9:.1f} GB; narrow the request, or raise the limit"
        )
    _check_cost(plan)


def _check_cost(plan: Plan) -> None:
    """Check the cost of a plan that Dataflow would make.

    Raises:
        RequestError: It is more than the request may cost.
    """
    limit, runner = plan.request.limits.max_cost, plan.request.runner
    if limit is None or runner.kind != "dataflow":
        return
    _, usd = dataflow_cost(plan.estimate, runner)
    if usd > limit:
        raise RequestError(
            f"the run would cost about {usd:.2f} USD on Dataflow, more than limits.max_cost = "
            f"{limit:.2f} USD; narrow the request, or raise the limit"
        )
