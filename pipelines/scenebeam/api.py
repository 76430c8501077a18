"""The line from a request to products as functions, for notebooks and scripts.

These are the names that `import scenebeam` offers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from scenebeam.arrays import open_mosaics
from scenebeam.catalog.scene import Scene
from scenebeam.catalog.select import Selection
from scenebeam.catalog.select import select as select_scenes
from scenebeam.execution.driver import run
from scenebeam.execution.explain import explain
from scenebeam.planning.plan import Plan
from scenebeam.planning.search import SearchResult, find_scenes, make_plan, plan_selection
from scenebeam.products import product_of
from scenebeam.products.base import SearchScope
from scenebeam.request import RunRequest
from scenebeam.requestfile import load_request, validate_request

__all__ = ["explain", "open_mosaics", "plan", "read_request", "run", "search", "select"]


def read_request(source: str | Path | Mapping[str, Any], **changes: Any) -> RunRequest:
    """Read and validate a request.

    Args:
        source: A YAML or JSON file, or a mapping with the fields of a request.
        **changes: Sections that replace those of the source.

    Returns:
        The validated request.

    Raises:
        RequestError: The request is not valid; the message names each field and the fix.
    """
    if isinstance(source, Mapping):
        return validate_request({**source, **changes})
    return load_request(source, overrides=changes)[0]


def search(request: RunRequest) -> list[Scene]:
    """Search the catalog for all scenes of the area and dates, before anything is left out.

    Args:
        request: The validated request.

    Returns:
        The scenes, in the order of the catalog.

    Raises:
        CatalogError: The catalog cannot be searched.
    """
    return find_scenes(request, _search_scope(request)).scenes


def select(scenes: Iterable[Scene], request: RunRequest) -> Selection:
    """Filter, deduplicate and group scenes, and select acquisitions, as the request says.

    Dates that a table or a time series names are not looked up again: each acquisition stands for
    its own date.

    Args:
        scenes: Scenes of the request's collections; their order does not matter.
        request: The validated request.

    Returns:
        The acquisitions in the order of time, and what each filter has left out.
    """
    area = _search_scope(request).area
    return select_scenes(scenes, request, area, request.product.grouping)


def plan(request: RunRequest, selection: Selection | None = None) -> Plan:
    """Plan the tasks of a request, and estimate what they take; nothing is written.

    Args:
        request: The validated request.
        selection: What was selected before; default: search and select now.

    Returns:
        The plan; `explain` describes it.

    Raises:
        RequestError: No scene is left, or the plan exceeds the limits of the request.
    """
    if selection is None:
        return make_plan(request, measure=True)
    search_scope = replace(_search_scope(request), measure=True)
    return plan_selection(request, SearchResult([], selection, search_scope))


_last_scope: tuple[RunRequest, SearchScope] | None = None
"""The last request and its search scope: `search`, `select` and `plan` need the same one, and that
of field chips takes reading all boundaries."""


def _search_scope(request: RunRequest) -> SearchScope:
    global _last_scope
    if _last_scope is None or _last_scope[0] is not request:
        _last_scope = request, product_of(request.product.kind).search_scope(request)
    return _last_scope[1]
