"""The line from a request to a finished run: search, select, plan, freeze, make, report."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from shapely.geometry import MultiPolygon

from scenebeam.catalog.area import area_geometry
from scenebeam.catalog.search import (
    records_for,
    resolve_bands,
    scenes_from_items,
    scenes_from_time_series,
    search_items,
)
from scenebeam.catalog.select import Selection, select
from scenebeam.errors import RequestError
from scenebeam.products import PRODUCTS
from scenebeam.request import RunRequest, TimeSeries
from scenebeam.run.plan import PLAN_FILE, RUN_FILE, Plan, difference, freeze, read_plan
from scenebeam.run.runners import advice, choose_runner, run_tasks
from scenebeam.run.status import STATUS_FILE, RunStatus, now
from scenebeam.storage import Store, open_store

log = logging.getLogger(__name__)

Progress = Callable[[int, int], None]
"""Called with (tasks done, tasks in all)."""
_LOCAL_SECONDS, _REMOTE_SECONDS = 1.0, 30.0


def search(request: RunRequest) -> tuple[list[dict[str, Any]], Selection, MultiPolygon | None]:
    """Ask the catalogue and select. Returns the items found, the selection, and the area in degrees.

    Raises RequestError where nothing is left, and says which filter left out what.
    """
    bands = resolve_bands(request)
    area = area_geometry(request.area) if request.area is not None else None
    items: list[dict[str, Any]] = []
    if isinstance(request.catalog, TimeSeries):
        scenes = scenes_from_time_series(request.catalog, records_for(request), bands)
    else:
        items = search_items(request, area)
        scenes = scenes_from_items(items, request)
    selection = select(scenes, request, area, request.product.group_by)
    if not selection.acquisitions:
        raise RequestError(
            f"no scene is left: {selection.explain()}. Widen the area, the dates or the filters"
            + ("" if selection.found or not items else f"; none of {len(items)} items is of the collections asked for")
        )
    return items, selection, area


def make_plan(request: RunRequest) -> tuple[Plan, list[dict[str, Any]]]:
    """Search, select and plan, without writing anything. Returns the plan and the items that were found.

    Raises RequestError where the plan would pass the request's limits.
    """
    items, selection, area = search(request)
    tasks = tuple(PRODUCTS[request.product.kind].plan(selection, request, area))
    if not tasks:
        raise RequestError("none of the scenes selected lies on the grid asked for: see grid.bounds")
    plan = Plan(request, tasks, selection.explain())
    if plan.estimate.read_bytes > request.limits.max_bytes:
        raise RequestError(
            f"the plan reads about {plan.estimate.read_bytes / 1e9:.1f} GB, more than limits.max_bytes = "
            f"{request.limits.max_bytes / 1e9:.1f} GB; narrow the request, or raise the limit"
        )
    return plan, items


def settle_plan(request: RunRequest, store: Store, *, overwrite: bool = False) -> Plan:
    """The plan that is frozen in the store, or a new one frozen there now.

    Raises RequestError where the store holds the plan of another request, unless `overwrite` clears it away.
    """
    frozen = None
    try:
        frozen = read_plan(store)
    except Exception:
        if not overwrite:
            raise
    if frozen is not None and not overwrite:
        changes = difference(frozen.request, request)
        if changes:
            raise RequestError(
                f"{store.uri} belongs to another request, which differs in\n  "
                + "\n  ".join(changes)
                + "\nrun with --overwrite to replace what is there, or choose another output"
            )
        return Plan(request, frozen.tasks, frozen.selection)
    plan, items = make_plan(request)
    if overwrite and frozen is not None:
        clear(frozen, store)
    freeze(plan, items, store)
    return plan


def clear(plan: Plan, store: Store) -> None:
    """Remove what a plan has made; the plan goes first, so that nothing half-cleared looks whole."""
    store.delete([RUN_FILE, PLAN_FILE])
    outputs = {name for task in plan.tasks for name in task.outputs}
    store.delete(sorted(outputs | store.list("parts/")))


def run(request: RunRequest, *, overwrite: bool = False, progress: Progress | None = None) -> RunStatus:
    """Run a request through to its report, or resume it where its output holds a part of it already.

    Raises RequestError for what the user can mend; a task that fails is in the status, not an exception.
    """
    store = open_store(request.output)
    with store.exclusive():
        store.sweep()
        plan = settle_plan(request, store, overwrite=overwrite)
        kind = choose_runner(request.runner, plan.estimate)
        if request.runner.kind == "auto" and (better := advice(plan.estimate)):
            log.warning(better)
        started = now()
        status = RunStatus(
            run=request.run,
            state="running",
            fingerprint=request.fingerprint(),
            output=store.uri,
            runner=kind,
            tasks=len(plan.tasks),
            started=started,
            updated=started,
        )
        store.write(STATUS_FILE, status.dump())
        try:
            with _watching(plan, store, progress):
                return run_tasks(kind, plan, store, status)
        except (KeyboardInterrupt, Exception) as error:
            interrupted = isinstance(error, KeyboardInterrupt)
            ended = {
                "state": "cancelled" if interrupted else "failed",
                "done": len(plan.tasks) - len(plan.undone(store.list())),
                "updated": now(),
                "finished": now(),
                "message": "interrupted; run it again to go on" if interrupted else str(error),
            }
            store.write(STATUS_FILE, status.model_copy(update=ended).dump())
            raise


@contextmanager
def _watching(plan: Plan, store: Store, progress: Progress | None) -> Iterator[None]:
    """Tell `progress` how many tasks are done, by what stands in the store: the same for every runner."""
    if progress is None:
        yield
        return
    stop = threading.Event()

    every = _REMOTE_SECONDS if store.uri.startswith("gs://") else _LOCAL_SECONDS

    def tell() -> None:
        progress(len(plan.tasks) - len(plan.undone(store.list())), len(plan.tasks))

    def watch() -> None:
        tell()
        while not stop.wait(every):
            tell()
        tell()

    thread = threading.Thread(target=watch, daemon=True, name="progress")
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
