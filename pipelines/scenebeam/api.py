"""The line from a request to products as functions, for notebooks and scripts.

These are the names that `import scenebeam` offers. Every function takes a request, a request file
or a mapping, and keywords that set its fields:

    scenes = scenebeam.search(bbox=(22.85, 40.55, 23.05, 40.75), dates="2023-02")
    selection = scenebeam.select(scenes, max_cloud_cover=20)
    status = scenebeam.run(scenes.request, output="out", product={"kind": "mosaic"})
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from scenebeam.catalog.scene import Scene, footprints
from scenebeam.catalog.select import select as select_scenes
from scenebeam.catalog.selection import Selection
from scenebeam.errors import RequestError
from scenebeam.execution.driver import run as run_request
from scenebeam.execution.explain import explain
from scenebeam.execution.progress import Progress
from scenebeam.figures.maps import coverage_map, locator_map
from scenebeam.figures.notebook import render_card
from scenebeam.planning.plan import Plan
from scenebeam.planning.reuse import load_or_create_plan
from scenebeam.planning.search import SearchResult, find_scenes, make_plan, plan_selection
from scenebeam.products import product_of
from scenebeam.products.base import SearchScope
from scenebeam.progress import show_progress
from scenebeam.request import RunRequest, Select
from scenebeam.requestfile import load_request, set_dotted, validate_request
from scenebeam.status import RunStatus
from scenebeam.storage import open_store
from scenebeam.suggestions import suggest

RequestLike = RunRequest | Mapping[str, Any] | str | Path
"""A request, the fields of one, or a YAML or JSON file."""
DEFAULTS: dict[str, Any] = {
    "run": "notebook",
    "catalog": "earth-search",
    "collections": ["sentinel-2-l2a"],
    "product": {"kind": "mosaic", "bands": ["red", "green", "blue", "nir", "scl"]},
    "output": "scenebeam-output",
}
"""Fields of a request that is given by keywords alone."""
_AREA_FIELDS = ("bbox", "geometry", "geojson", "mgrs")
_SHOWN_SCENES = 10


class Scenes(list[Scene]):
    """Scenes that a search has found, and the request that it was."""

    def __init__(self, scenes: Iterable[Scene], request: RunRequest) -> None:
        super().__init__(scenes)
        self.request = request

    def __repr__(self) -> str:
        """Return one line."""
        if not self:
            return "<no scenes>"
        times = sorted(scene.datetime for scene in self)
        return f"<{len(self)} scenes, {times[0]:%Y-%m-%d} to {times[-1]:%Y-%m-%d}>"

    def _repr_html_(self) -> str:
        """Show a map and the first scenes in a notebook."""
        rows = []
        for scene in self[:_SHOWN_SCENES]:
            cloud = "" if scene.cloud_cover is None else f"{scene.cloud_cover:.3g} %"
            rows.append((scene.id, f"{scene.datetime:%Y-%m-%d %H:%M}", cloud, scene.tile or ""))
        hidden = len(self) - len(rows)
        outlines = footprints(self)
        return render_card(
            f"{len(self)} scenes",
            {},
            figures=[coverage_map(scenes=outlines), locator_map(outlines)],
            header=("scene", "time (UTC)", "cloud", "tile"),
            rows=rows,
            note=f"and {hidden} more" if hidden else "",
        )


def read_request(source: RequestLike | None = None, /, **fields: Any) -> RunRequest:
    """Read and validate a request.

    Args:
        source: A YAML or JSON file, a mapping with the fields of a request, or a request. Default:
            a mosaic of Sentinel-2 from Earth Search, of the area and dates that `fields` give.
        **fields: Sections that replace those of the source, such as `dates` and `product`; the
            fields of the section `area` (`bbox`, `geometry`, `geojson`, `mgrs`); and fields of the
            section `select`, such as `max_cloud_cover`.

    Returns:
        The validated request.

    Raises:
        RequestError: The request is not valid; the message names each field and the fix.
    """
    if isinstance(source, RunRequest):
        if not fields:
            return source
        document = source.model_dump(mode="json", exclude_unset=True)
    elif isinstance(source, Mapping):
        document = dict(source)
    elif source is not None and not isinstance(source, str | Path):
        raise RequestError(
            f"a {type(source).__name__} is not a request: give a request, a mapping, a file, or "
            "fields as keywords"
        )
    elif source is not None:
        return load_request(source, overrides=_overrides(fields))[0]
    else:
        document = dict(DEFAULTS)
    for name, value in _overrides(fields).items():
        if name.startswith("area."):
            # Another area replaces the one of the source, instead of being added to it.
            document["area"] = {name.removeprefix("area."): value}
        elif "." in name:
            document["select"] = dict(document.get("select") or {})
            set_dotted(document, name, value)
        else:
            document[name] = value
    return validate_request(document)


def _overrides(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the dotted names of fields that are given by their last name."""
    overrides: dict[str, Any] = {}
    for name, value in fields.items():
        plain = str(value) if isinstance(value, Path) else value
        if name in RunRequest.model_fields:
            overrides[name] = plain
        elif name in _AREA_FIELDS:
            overrides[f"area.{name}"] = list(plain) if isinstance(plain, tuple) else plain
        elif name in Select.model_fields:
            overrides[f"select.{name}"] = plain
        else:
            known = [*RunRequest.model_fields, *_AREA_FIELDS, *Select.model_fields]
            raise RequestError(f"a request has no field {name!r}; {suggest(name, known)}")
    return overrides


def search(request: RequestLike | None = None, /, **fields: Any) -> Scenes:
    """Search the catalog for all scenes of the area and dates, before anything is left out.

    A STAC API is asked for the area and the dates. A file or a static catalog gives all of its
    scenes, and `select` says how many are outside.

    Args:
        request: The request.
        **fields: Its fields: see `read_request`.

    Returns:
        The scenes, in the order of the catalog.

    Raises:
        RequestError: The request is not valid.
        CatalogError: The catalog cannot be searched.
    """
    validated = read_request(request, **fields)
    return Scenes(find_scenes(validated, _search_scope(validated)).scenes, validated)


def select(
    scenes: Iterable[Scene], request: RequestLike | None = None, /, **fields: Any
) -> Selection:
    """Filter, deduplicate and group scenes, and select acquisitions, as the request says.

    Dates that a table or a time series names are not looked up again: each acquisition stands for
    its own date.

    Args:
        scenes: Scenes of the request's collections; their order does not matter.
        request: The request; default: the one that `search` has returned the scenes for.
        **fields: Its fields, such as `max_cloud_cover`: see `read_request`.

    Returns:
        The acquisitions in the order of time, and what each filter has left out.
    """
    if request is None and isinstance(scenes, Scenes):
        request = scenes.request
    validated = read_request(request, **fields)
    area = _search_scope(validated).area
    return select_scenes(scenes, validated, area, validated.product.grouping)


def plan(
    request: RequestLike | None = None, selection: Selection | None = None, /, **fields: Any
) -> Plan:
    """Plan the tasks of a request, and estimate what they take; nothing is written.

    Args:
        request: The request.
        selection: What was selected before; default: search and select now.
        **fields: Its fields: see `read_request`.

    Returns:
        The plan; `explain` describes it.

    Raises:
        RequestError: No scene is left, or the plan exceeds the limits of the request.
    """
    validated = read_request(request, **fields)
    if selection is None:
        return make_plan(validated, measure=True)
    search_scope = replace(_search_scope(validated), measure=True)
    return plan_selection(validated, SearchResult([], selection, search_scope))


def run(
    request: RequestLike | None = None,
    /,
    *,
    overwrite: bool = False,
    refresh: bool = False,
    retry_failed: bool = False,
    verify: bool = False,
    progress: Progress | bool = True,
    **fields: Any,
) -> RunStatus:
    """Run a request through to its report, or resume it.

    Args:
        request: The request.
        overwrite: Replace the products of another request in the output.
        refresh: Search the catalog again.
        retry_failed: Search again, for tasks that failed or lack a tile.
        verify: Compare existing files with their checksums, and make damaged ones again.
        progress: Whether to show progress, or a function to call with (finished tasks, all tasks).
        **fields: Fields of the request: see `read_request`.

    Returns:
        The final status. A task that fails is part of it, not an exception.

    Raises:
        RequestError: The request cannot be run; the message says what to change.
        RunnerError: The runner has ended before all tasks were made.
    """
    validated = read_request(request, **fields)
    options = {
        "overwrite": overwrite,
        "refresh": refresh,
        "retry_failed": retry_failed,
        "verify": verify,
    }
    if not isinstance(progress, bool):
        return run_request(validated, progress=progress, **options)
    with show_progress(quiet=not progress) as shown:
        return run_request(validated, progress=shown, **options)


def freeze(request: RequestLike | None = None, /, **fields: Any) -> str:
    """Search, plan, and freeze the plan in the output, without making anything.

    `scenebeam.beam.MakeProducts` makes the products in a pipeline of your own, and `run` on any
    machine.

    Args:
        request: The request.
        **fields: Its fields: see `read_request`.

    Returns:
        URI of the output.

    Raises:
        RequestError: No scene is left, or the output belongs to another request.
    """
    validated = read_request(request, **fields)
    store = open_store(validated.output)
    with store.lock():
        load_or_create_plan(validated, store)
    return store.uri


_last_scope: tuple[RunRequest, SearchScope] | None = None
"""The last request and its search scope: `search`, `select` and `plan` need the same one, and that
of field chips takes reading all boundaries."""


def _search_scope(request: RunRequest) -> SearchScope:
    global _last_scope
    if _last_scope is None or _last_scope[0] is not request:
        _last_scope = request, product_of(request.product.kind).search_scope(request)
    return _last_scope[1]


__all__ = [
    "Plan",
    "RunRequest",
    "RunStatus",
    "Scene",
    "Scenes",
    "Selection",
    "explain",
    "freeze",
    "plan",
    "read_request",
    "run",
    "search",
    "select",
]
