"""Search, select and plan: what a request comes to, before anything is written."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, NamedTuple

from scenebeam.catalog.acquisition import Acquisition
from scenebeam.catalog.bands import bands_of, record_of, records_for, resolve_bands
from scenebeam.catalog.discovery import describe_scene
from scenebeam.catalog.scene import Scene
from scenebeam.catalog.search import scenes_from_items, search_items
from scenebeam.catalog.select import Selection, select
from scenebeam.catalog.tables import scene_tables
from scenebeam.catalog.timeseries import read_series_scenes, series_digest
from scenebeam.csvtable import File, Table
from scenebeam.errors import RequestError
from scenebeam.imaging.area_clouds import measure_clouds
from scenebeam.planning.plan import Plan
from scenebeam.planning.reuse import empty_rows, read_series
from scenebeam.planning.search_cache import Item, read_search
from scenebeam.products import product_of
from scenebeam.products.base import SearchScope
from scenebeam.request import RunRequest, TimeSeries, parse_interval
from scenebeam.storage import Store, open_store

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SearchResult:
    """What a search brought and what was selected of it."""

    items: Sequence[Item]
    selection: Selection
    search_scope: SearchScope
    series: str = ""
    """Digest of the time-series table that scenes were read from."""
    absent: tuple[str, ...] = ()
    """Ids of scenes that were named, and that the catalog lacks."""

    def tables(self, request: RunRequest) -> dict[str, Table]:
        """The scene catalogue and what was chosen from it, by file name."""
        return scene_tables(
            self.selection, self.search_scope.area, request.select.full_cover_threshold
        )

    def discovered(self, request: RunRequest) -> list[dict[str, Any]]:
        """The scenes taken and the URLs of their bands, as JSON."""
        items = {str(item.get("id")): item for item in self.items}
        return [
            describe_scene(scene, bands_of(record_of(scene, request), request), items.get(scene.id))
            for scene in self.selection.scenes
        ]


def search(
    request: RunRequest, store: Store | None = None, *, refresh: bool = False
) -> SearchResult:
    """Ask the catalogue and select. Where the store keeps the answer to the same question, no request is made.

    Raises RequestError where nothing is left, and says which filter left out what.
    """
    search_scope = product_of(request.product.kind).search_scope(request)
    found = find_scenes(request, search_scope, store, refresh=refresh)
    items, group_by = found.items, request.product.grouping
    selection = select(
        found.scenes,
        request,
        search_scope.area,
        group_by,
        found.anchors,
        found.empty_rows,
        lambda scenes: measure_clouds(scenes, request, search_scope.area),
    )
    log.info("%s", selection.explain())
    known = {scene.id for scene in found.scenes}
    absent = tuple(sorted({one.id for one in request.select.scenes or ()} - known))
    for name in absent:
        log.warning("select.scenes: the catalog has no scene %s", name)
    if search_scope.queries and not selection.acquisitions:
        raise RequestError(
            f"no scene is left: {selection.explain()}. {search_scope.hint}"
            + (
                ""
                if selection.found or not items
                else f"; none of {len(items)} items is of the collections asked for"
            )
        )
    return SearchResult(items, selection, search_scope, found.series, absent)


class CatalogScenes(NamedTuple):
    """What a catalogue, or a time series, says."""

    items: Sequence[Item]
    scenes: list[Scene]
    """All scenes of them."""
    anchors: dict[str, datetime]
    """By scene, the day that some were chosen for."""
    empty_rows: Sequence[Acquisition] = ()
    """Rows of a time series that name no scene."""
    series: str = ""
    """Digest of the time series."""


def find_scenes(
    request: RunRequest,
    search_scope: SearchScope,
    store: Store | None = None,
    *,
    refresh: bool = False,
) -> CatalogScenes:
    """Ask the catalogue, or read a time series."""
    resolve_bands(request)  # a band that no collection knows is said before the catalogue is asked
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
    anchors = {
        one.id: parse_interval(one.anchor)[0] for one in request.select.scenes or () if one.anchor
    }
    return CatalogScenes(items, scenes_from_items(items, request), anchors)


def make_plan(
    request: RunRequest, store: Store | None = None, *, refresh: bool = False, measure: bool = False
) -> Plan:
    """Search, select and plan, without writing anything.

    With `measure`, servers are asked for some headers and sizes, which make the estimate a good one.
    Raises RequestError where the plan would pass the request's limits.
    """
    found = search(request, store, refresh=refresh)
    return plan_selection(
        request, replace(found, search_scope=replace(found.search_scope, measure=measure))
    )


def plan_selection(request: RunRequest, found: SearchResult) -> Plan:
    """What was found and selected → tasks. Raises RequestError where they would pass the request's limits."""
    planned = product_of(request.product.kind).plan(found.selection, request, found.search_scope)
    tables: dict[str, File] = {**found.tables(request), **planned.tables}
    tasks, told = tuple(planned.tasks), found.selection.explain()
    plan = Plan(request, tasks, told, tables, found.items, found.series, found.absent)
    if plan.estimate.read_bytes > request.limits.max_bytes:
        raise RequestError(
            f"the plan reads about {plan.estimate.read_bytes / 1e9:.1f} GB, more than limits.max_bytes = "
            f"{request.limits.max_bytes / 1e9:.1f} GB; narrow the request, or raise the limit"
        )
    return plan
