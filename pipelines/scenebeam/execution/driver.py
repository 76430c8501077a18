"""The line from a request to a finished run: search, select, plan, freeze, make, report."""

from __future__ import annotations

import csv
import io
import logging
from collections.abc import Callable, Sequence

from scenebeam.catalog.hosts import COMPLETENESS_FILE, completeness_table
from scenebeam.csvtable import Table
from scenebeam.errors import RequestError
from scenebeam.execution.make import limit_malloc_arenas
from scenebeam.execution.progress import Progress, report_progress
from scenebeam.execution.runners import check_runner, choose_runner, run_tasks
from scenebeam.execution.runners.dataflow import given_options, submit_pipeline
from scenebeam.imaging.gridded_task import GriddedTask
from scenebeam.planning.cost import advice
from scenebeam.planning.plan import Plan, read_plan
from scenebeam.planning.reuse import check_same_request, load_or_create_plan
from scenebeam.planning.search import SearchResult, search
from scenebeam.planning.search_cache import write_search
from scenebeam.planning.start import new_status
from scenebeam.report.finish import finish
from scenebeam.report.outcomes import delete_outcomes, outcomes_folder
from scenebeam.request import RunRequest
from scenebeam.status import STATUS_FILE, RunStatus, now
from scenebeam.storage import Store, open_store
from scenebeam.transfer import headers
from scenebeam.transfer.retry import shutdown

log = logging.getLogger(__name__)


def write_scenes(request: RunRequest, *, refresh: bool = False) -> tuple[SearchResult, Store]:
    """Search and select, and write the tables of scenes: the first step of a run, alone.

    Args:
        request: The validated request.
        refresh: Search again instead of using the cached answer.

    Raises:
        RequestError: The output belongs to another request.
    """
    store = open_store(request.output)
    with store.lock():
        frozen = read_plan(store)
        if frozen is not None:
            check_same_request(frozen, request, store)
        result = search(request, store, refresh=refresh)
        write_search(request, result.items, store)
        store.write_all(result.tables(request))
    return result, store


def write_completeness(request: RunRequest, result: SearchResult, store: Store) -> Table:
    """Write which catalog of a request has which scene, and which lacks it since when.

    Args:
        request: The request.
        result: What was found.
        store: The output.

    Returns:
        The table.

    Raises:
        RequestError: The request names no list of catalogs.
    """
    if len(request.catalogs) < 2:
        raise RequestError("catalog: completeness compares catalogs; give a list of them")
    with store.lock():
        content = store.read(COMPLETENESS_FILE)
        before = [] if content is None else csv.DictReader(io.StringIO(content.decode()))
        scenes = result.selection.found
        table = completeness_table(scenes, request.catalogs, before, now())
        store.write(COMPLETENESS_FILE, table.to_bytes())
    return table


def run(
    request: RunRequest,
    *,
    overwrite: bool = False,
    refresh: bool = False,
    retry_failed: bool = False,
    verify: bool = False,
    progress: Progress | None = None,
) -> RunStatus:
    """Run a request through to its report, or resume it.

    Args:
        request: The validated request.
        overwrite: Replace the products of another request.
        refresh: Search the catalog again.
        retry_failed: Search again, for tasks that failed or lack a tile.
        verify: Compare existing files with their checksums, and make damaged ones again.
        progress: Called with (finished tasks, all tasks).

    Returns:
        The final status. A task that fails is part of it, not an exception.

    Raises:
        RequestError: The request cannot be run; the message says what to change.
        RunnerError: The runner has ended before all tasks were made.
    """
    check_runner(request)
    limit_malloc_arenas()
    store = open_store(request.output)
    shutdown.clear()
    headers.forget_all()
    with store.lock():
        store.remove_partial_files()
        plan = load_or_create_plan(
            request,
            store,
            overwrite=overwrite,
            refresh=refresh,
            retry_failed=retry_failed,
            verify=verify,
        )
        kind = choose_runner(plan)
        if request.runner.kind == "auto" and (suggestion := advice(plan.estimate, request.runner)):
            log.warning(suggestion)
        log.info("%s; runner: %s", describe_tasks(plan), kind)
        status = start_status(plan, store, kind)
        try:
            with report_progress(plan, store, progress):
                return run_tasks(kind, plan, store, status)
        except (KeyboardInterrupt, Exception) as error:
            interrupted = isinstance(error, KeyboardInterrupt)
            shutdown.set()
            # Threads that are still writing then find nothing to publish.
            store.remove_partial_files()
            ended = {
                "state": "cancelled" if interrupted else "failed",
                "done": len(plan.tasks) - len(plan.undone(store.list())),
                "updated": now(),
                "finished": now(),
                "message": "interrupted; run it again to resume" if interrupted else str(error),
            }
            store.write(STATUS_FILE, status.model_copy(update=ended).to_bytes())
            raise


def describe_tasks(plan: Plan) -> str:
    """Return a line about the tasks of a plan: how many, and on which grid if they share one."""
    text = f"{len(plan.tasks)} {plan.request.product.kind} tasks"
    grids = {task.grid for task in plan.tasks if isinstance(task, GriddedTask)}
    if len(grids) != 1:
        return text
    grid = grids.pop()
    rows, columns = grid.shape
    pixel = abs(grid.transform[0])
    return f"{text}, grid: {grid.crs}, {columns} x {rows} pixels of {pixel:g}"


def submit(
    request: RunRequest, options: Sequence[str], on_progress: Callable[[], None] | None = None
) -> RunStatus:
    """Plan a request, or resume its plan, and submit the pipeline without waiting for it.

    From then on the pipeline writes the status. An error before that is written there too.

    Args:
        request: The validated request.
        options: Command-line options of Beam, which name the runner.
        on_progress: Called by workers now and then, and at the end; it is pickled.

    Returns:
        The status at the start.
    """
    limit_malloc_arenas()
    store = open_store(request.output)
    with store.lock():
        store.remove_partial_files()
        try:
            plan = load_or_create_plan(request, store)
            status = start_status(plan, store, _kind_of(options))
            if request.series is not None and not plan.undone(store.list()):
                # A pass that finds nothing new needs no workers.
                status = finish(plan, {}, store, status)
                if on_progress is not None:
                    on_progress()
                return status
            submit_pipeline(options, plan, store, status, on_progress)
        except Exception as error:
            failed = RunStatus(
                run=request.run, state="failed", fingerprint=request.fingerprint(), output=store.uri
            )
            ended = {"started": now(), "updated": now(), "finished": now(), "message": str(error)}
            store.write(STATUS_FILE, failed.model_copy(update=ended).to_bytes())
            raise
    return status


def _kind_of(options: Sequence[str]) -> str:
    """The runner that Beam's options name, as `runner.kind` names it."""
    name = given_options(options).get("runner", "DirectRunner")
    return {"DataflowRunner": "dataflow", "DirectRunner": "direct"}.get(name, name)


def start_status(plan: Plan, store: Store, kind: str) -> RunStatus:
    """Write the status of a run that starts to make its plan.

    Args:
        plan: The frozen plan.
        store: The output.
        kind: The kind of the runner.

    Returns:
        The status.
    """
    status = new_status(plan, store, kind)
    # A run that was killed has left them, and may have started in the same second.
    delete_outcomes(outcomes_folder(status), store)
    store.write(STATUS_FILE, status.to_bytes())
    return status
