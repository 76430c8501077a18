"""The line from a request to a finished run: search, select, plan, freeze, make, report."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace

from scenebeam.errors import RequestError, StorageError
from scenebeam.products import PRODUCTS
from scenebeam.products.shards import PARTS
from scenebeam.request import RunRequest, TimeSeries
from scenebeam.run.items import write_search
from scenebeam.run.make import few_arenas
from scenebeam.run.plan import PLAN_FILE, RUN_FILE, Plan, difference, freeze, read_plan
from scenebeam.run.runners import advice, choose_runner, run_tasks, submit_tasks
from scenebeam.run.search import Found, make_plan, search
from scenebeam.run.series import carry_over, is_outdated
from scenebeam.run.status import STATUS_FILE, RunStatus, now
from scenebeam.storage import Store, open_store
from scenebeam.transfer.ranges import halted

log = logging.getLogger(__name__)

Progress = Callable[[int, int], None]
"""Called with (tasks done, tasks in all)."""
_LOCAL_SECONDS, _REMOTE_SECONDS = 1.0, 30.0


def write_scenes(request: RunRequest, *, refresh: bool = False) -> tuple[Found, Store]:
    """Search and select, and write the tables: the first step of a run, alone.

    Raises RequestError where the output belongs to another request.
    """
    store = open_store(request.output)
    with store.exclusive():
        frozen = read_plan(store)
        if frozen is not None:
            _refuse_another(frozen, request, store)
        found = search(request, store, refresh=refresh)
        write_search(request, found.items, store)
        store.write_all(found.tables(request))
    return found, store


def settle_plan(
    request: RunRequest,
    store: Store,
    *,
    overwrite: bool = False,
    refresh: bool = False,
    retry_failed: bool = False,
) -> Plan:
    """The plan that is frozen in the store, or a new one frozen there now.

    `refresh` asks the catalogue again: what is planned as before stays, what is planned otherwise is made anew.
    So it is where the same products are to lie elsewhere, without asking again. `retry_failed` asks again for what is
    not done, or done without some of its tiles; all else stays, whatever the catalogue says now.
    A time series is read again when its table has changed, or something is not done: see `carry_over`.
    Raises RequestError where the store holds the plan of another request, unless `overwrite` clears it away.
    """
    frozen = None
    try:
        frozen = read_plan(store)
    except StorageError:
        if not overwrite:
            raise
    as_before = False
    if frozen is not None and not overwrite:
        _refuse_another(frozen, request, store)
        as_before = not (refresh or retry_failed) and frozen.request.product == request.product
        if as_before and not is_outdated(frozen, request, store):
            return Plan(request, frozen.tasks, frozen.selection, series=frozen.series)
    plan = make_plan(request, store, refresh=refresh or retry_failed)
    if frozen is not None and not overwrite and (as_before or retry_failed):
        if retry_failed:
            _reopen_incomplete(frozen, store)
        plan = _keep_finished(frozen, plan, store)
        if as_before and (plan.tasks, plan.series) == (frozen.tasks, frozen.series):
            return Plan(request, frozen.tasks, frozen.selection, series=frozen.series)
    if frozen is not None:
        clear(frozen, store, successor=None if overwrite else plan)
    freeze(plan, store)
    # Without the items, which may be a gigabyte.
    return Plan(request, plan.tasks, plan.selection, series=plan.series)


def _keep_finished(frozen: Plan, plan: Plan, store: Store) -> Plan:
    """A plan that was made again, with the tasks of the frozen one that are done."""
    existing = store.list()
    done = {task.id: task for task in frozen.tasks if task.is_done(existing)}
    if isinstance(plan.request.catalog, TimeSeries):
        return carry_over(frozen, plan, set(done))
    return replace(plan, tasks=tuple(done.get(task.id, task) for task in plan.tasks))


def _reopen_incomplete(plan: Plan, store: Store) -> None:
    """Let the products that lack a tile be made again: it may have come by now.

    The item goes, and with it the product counts as not done; its images stay until new ones take their place.
    """
    existing = store.list()
    finished = sorted({task.item_path for task in plan.tasks if task.is_done(existing)})
    with ThreadPoolExecutor(16) as threads:
        items = zip(finished, threads.map(store.read, finished), strict=True)
        store.delete([name for name, content in items if content is not None and _is_incomplete(content)])


def _is_incomplete(item: bytes) -> bool:
    properties = json.loads(item).get("properties")
    return isinstance(properties, dict) and properties.get("scenebeam:complete") is False


def _refuse_another(frozen: Plan, request: RunRequest, store: Store) -> None:
    changes = difference(frozen.request, request)
    if changes:
        raise RequestError(
            f"{store.uri} belongs to another request, which differs in\n  "
            + "\n  ".join(changes)
            + "\nrun with --overwrite to replace what is there, or choose another output"
        )


def clear(plan: Plan, store: Store, *, successor: Plan | None = None) -> None:
    """Remove what a plan has made, but for what its successor would make again; then the plan itself.

    Stopped halfway, it leaves a plan that is resumed.
    """
    following = {task.id: task for task in successor.tasks} if successor is not None else {}
    kept_of = PRODUCTS[plan.request.product.kind].kept
    kept = {name for task in plan.tasks if task.id in following for name in kept_of(task, following[task.id])}
    files = {name for task in plan.tasks for name in task.everything}
    folders = {task.own_folder for task in plan.tasks if task.own_folder and following.get(task.id) != task}
    files |= {name for name in store.list() if name.rpartition("/")[0] in folders} if folders else set()
    store.delete(sorted((files | store.list(PARTS)) - kept))
    store.delete([RUN_FILE, PLAN_FILE])


def run(
    request: RunRequest,
    *,
    overwrite: bool = False,
    refresh: bool = False,
    retry_failed: bool = False,
    progress: Progress | None = None,
) -> RunStatus:
    """Run a request through to its report, or resume it where its output holds a part of it already.

    Raises RequestError for what the user can mend; a task that fails is in the status, not an exception.
    """
    few_arenas()
    store = open_store(request.output)
    halted.clear()
    with store.exclusive():
        store.sweep()
        plan = settle_plan(request, store, overwrite=overwrite, refresh=refresh, retry_failed=retry_failed)
        kind = choose_runner(plan)
        if request.runner.kind == "auto" and (better := advice(plan.estimate)):
            log.warning(better)
        status = _begin(plan, store, kind)
        try:
            with _watching(plan, store, progress):
                return run_tasks(kind, plan, store, status)
        except (KeyboardInterrupt, Exception) as error:
            interrupted = isinstance(error, KeyboardInterrupt)
            halted.set()
            store.sweep()  # threads that still write find nothing to publish
            ended = {
                "state": "cancelled" if interrupted else "failed",
                "done": len(plan.tasks) - len(plan.undone(store.list())),
                "updated": now(),
                "finished": now(),
                "message": "interrupted; run it again to go on" if interrupted else str(error),
            }
            store.write(STATUS_FILE, status.model_copy(update=ended).dump())
            raise


def submit(request: RunRequest, options: Sequence[str], tell: Callable[[], None] | None = None) -> RunStatus:
    """Plan a request, or go on with its plan, and hand the pipeline to the runner that Beam's `options` name.

    The pipeline writes the status from then on, and calls `tell` (which is pickled) now and then and when it has ended;
    a fault before that is in the status too, and raised.
    """
    few_arenas()
    store = open_store(request.output)
    with store.exclusive():
        store.sweep()
        try:
            plan = settle_plan(request, store)
            status = _begin(plan, store, "dataflow")
            submit_tasks(options, plan, store, status, tell)
        except Exception as error:
            failed = RunStatus(run=request.run, state="failed", fingerprint=request.fingerprint(), output=store.uri)
            ended = {"started": now(), "updated": now(), "finished": now(), "message": str(error)}
            store.write(STATUS_FILE, failed.model_copy(update=ended).dump())
            raise
    return status


def _begin(plan: Plan, store: Store, kind: str) -> RunStatus:
    """A run that has its plan, and begins to make it."""
    started = now()
    status = RunStatus(
        run=plan.request.run,
        state="running",
        fingerprint=plan.request.fingerprint(),
        output=store.uri,
        runner=kind,
        tasks=len(plan.tasks),
        started=started,
        updated=started,
    )
    store.write(STATUS_FILE, status.dump())
    return status


@contextmanager
def _watching(plan: Plan, store: Store, progress: Progress | None) -> Iterator[None]:
    """Tell `progress` how many tasks are done, by what stands in the store: the same for every runner."""
    if progress is None:
        yield
        return
    stop = threading.Event()

    every = _REMOTE_SECONDS if store.uri.startswith("gs://") else _LOCAL_SECONDS

    def tell() -> float:
        began = time.monotonic()
        progress(len(plan.tasks) - len(plan.undone(store.list())), len(plan.tasks))
        return time.monotonic() - began

    def watch() -> None:
        # A folder of very many files takes long to list: no more than a twentieth of the time goes into it.
        while not stop.wait(max(every, 20 * tell())):
            pass
        tell()

    thread = threading.Thread(target=watch, daemon=True, name="progress")
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
