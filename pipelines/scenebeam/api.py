"""The line from a request to products as functions, for notebooks and scripts: what `import scenebeam` gives."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from scenebeam.arrays import open_mosaics
from scenebeam.catalog.scene import Scene
from scenebeam.catalog.select import Selection
from scenebeam.catalog.select import select as select_scenes
from scenebeam.planning.plan import Plan
from scenebeam.planning.search import SearchResult, find_scenes, make_plan, plan_selection
from scenebeam.products import product_of
from scenebeam.request import RunRequest
from scenebeam.requestfile import load_request, validate_request
from scenebeam.run.explain import explain

__all__ = ["explain", "open_mosaics", "plan", "read_request", "search", "select"]


def read_request(source: str | Path | Mapping[str, Any], **changes: Any) -> RunRequest:
    """A request from a YAML or JSON file, or from a mapping of its fields; `changes` are laid over its top level.

    Raises RequestError, which names each field at fault and the fix.
    """
    if isinstance(source, Mapping):
        return validate_request({**source, **changes})
    return load_request(source, overrides=changes)[0]


def search(request: RunRequest) -> list[Scene]:
    """Ask the catalogue: all scenes of the area and dates, before anything is left out."""
    return find_scenes(request, product_of(request.product.kind).search_scope(request))[1]


def select(scenes: Iterable[Scene], request: RunRequest) -> Selection:
    """Filter, deduplicate, group and choose as the request asks; the result does not depend on the order of `scenes`.

    Days that a table or a time series names are not looked up again: each acquisition stands for its own.
    """
    search_scope = product_of(request.product.kind).search_scope(request)
    return select_scenes(scenes, request, search_scope.area, request.product.grouping)


def plan(request: RunRequest, selection: Selection | None = None) -> Plan:
    """The tasks that a request comes to, and what they will take (`explain`); nothing is written.

    Of a selection that was made before, else of what the catalogue says now. Raises RequestError where nothing is left,
    or the request's limits would be passed.
    """
    if selection is None:
        return make_plan(request, measure=True)
    search_scope = replace(product_of(request.product.kind).search_scope(request), measure=True)
    return plan_selection(request, SearchResult([], selection, search_scope))
