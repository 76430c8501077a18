"""The line from a request to a finished run: search, select, plan, freeze, make, report."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace

from scenebeam.errors import RequestError, StorageError
from scenebeam.imaging.shards import PARTS
from scenebeam.planning.plan import PLAN_FILE, RUN_FILE, Plan, difference, freeze, read_plan
from scenebeam.planning.reuse import carry_over, is_outdated, is_same
from scenebeam.planning.search import SearchResult, make_plan, search
from scenebeam.planning.search_cache import write_search
from scenebeam.planning.verify import find_damaged
from scenebeam.products import product_of
from scenebeam.request import RunRequest, TimeSeries
from scenebeam.run.make import limit_malloc_arenas
from scenebeam.run.runners import advice, choose_runner, run_tasks, submit_tasks
from scenebeam.status import STATUS_FILE, RunStatus, now
from scenebeam.storage import Store, open_store
from scenebeam.tasks import Task
from scenebeam.transfer.retry import shutdown

log = logging.getLogger(__name__)

Progress = Callable[[int, int], None]
"""Called with (tasks done, tasks in all)."""
_WAYS_ON = "run with --overwrite to replace what is there, or choose another output"
_LOCAL_SECONDS, _REMOTE_SECONDS = 1.0, 30.0


def write_scenes(request: RunRequest, *, refresh: bool = False) -> tuple[SearchResult, Store]:
    """Search and select, and write the tables: the first step of a run, alone.

    Raises RequestError where the output belongs to another request.
    """
    store = open_store(request.output)
    with store.lock():
        frozen = read_plan(store)
        if frozen is not None:
            _refuse(difference(frozen.request, request), store)
        found = search(request, store, refresh=refresh)
        write_search(request, found.items, store)
        store.write_all(found.tables(request))
    return found, store


def load_or_create_plan(
    request: RunRequest,
    store: Store,
    *,
    overwrite: bool = False,
    refresh: bool = False,
    retry_failed: bool = False,
    verify: bool = False,
) -> Plan:
    """The plan that is frozen in the store, or a new one frozen there now.

    `refresh` asks the catalogue again: what is planned as before stays, what is planned otherwise is made anew.
    So it is where the same products are to lie elsewhere, without asking again. `retry_failed` asks again for what is
    not done, or done without some of its tiles; all else stays, whatever the catalogue says now.
    A time series is read again when its table has changed, or something is not done: see `carry_over`. Other dates and
    thresholds are searched for, and what they leave as it is stays. What is made anew stands until then.
    Raises RequestError where the store holds the plan of another request, unless `overwrite` lets it give way.
    """
    frozen, unreadable = None, False
    try:
        frozen = read_plan(store)
    except StorageError:
        if not overwrite:
            raise
        unreadable = True
    damaged = False
    if verify and frozen is not None and not overwrite:
        found = find_damaged(frozen, store)
        damaged = bool(found)
        store.supersede(found)
    as_before, adjusted = False, False
    if frozen is not None and not overwrite:
        adjusted = _is_adjusted(frozen, request, store) or damaged
        as_before = (
            not (refresh or retry_failed or adjusted) and frozen.request.product == request.product
        )
        if as_before and not is_outdated(frozen, request, store):
            return Plan(
                request, frozen.tasks, frozen.selection, series=frozen.series, absent=frozen.absent
            )
    plan = make_plan(request, store, refresh=refresh or retry_failed)
    if frozen is not None and not overwrite and (as_before or retry_failed or adjusted):
        if retry_failed:
            _reopen_incomplete(frozen, store)
        plan = (
            _keep_finished(frozen, plan, store)
            if as_before or retry_failed
            else _adjust(frozen, plan, store)
        )
        if as_before and (plan.tasks, plan.series) == (frozen.tasks, frozen.series):
            return Plan(
                request, frozen.tasks, frozen.selection, series=frozen.series, absent=frozen.absent
            )
    if frozen is not None:
        supersede_outputs(frozen, store, successor=None if overwrite else plan)
    elif unreadable:
        store.supersede(_made_by(plan, store))
    freeze(plan, store)
    # Without the items, which may be a gigabyte.
    return Plan(request, plan.tasks, plan.selection, series=plan.series, absent=plan.absent)


def _keep_finished(frozen: Plan, plan: Plan, store: Store) -> Plan:
    """A plan that was made again, with the tasks of the frozen one that are done."""
    existing = store.list()
    done = {task.id: task for task in frozen.tasks if task.is_done(existing)}
    if isinstance(plan.request.catalog, TimeSeries):
        return carry_over(frozen, plan, set(done))
    return replace(plan, tasks=tuple(done.get(task.id, task) for task in plan.tasks))


def _reopen_incomplete(plan: Plan, store: Store) -> None:
    """Let the products that lack a tile be made again: it may have come by now.

    Without its item a product counts as not done; it stands until a new one takes its place.
    """
    existing = store.list()
    finished = sorted({task.item_path for task in plan.tasks if task.is_done(existing)})
    with ThreadPoolExecutor(16) as threads:
        items = zip(finished, threads.map(store.read, finished), strict=True)
        store.supersede(
            [name for name, content in items if content is not None and _is_incomplete(content)]
        )


def _is_incomplete(item: bytes) -> bool:
    properties = json.loads(item).get("properties")
    return isinstance(properties, dict) and properties.get("scenebeam:complete") is False


def _is_adjusted(frozen: Plan, request: RunRequest, store: Store) -> bool:
    """Whether a request differs from that of a plan, and just in what may.

    Raises RequestError where it differs in more.
    """
    changes, adjustable = difference(frozen.request, request), request.adjustable
    _refuse({name: told for name, told in changes.items() if not _is_part(name, adjustable)}, store)
    if changes:
        log.info("%s: %s", store.uri, "; ".join(changes.values()))
    return bool(changes)


def _refuse(changes: Mapping[str, str], store: Store) -> None:
    if changes:
        raise RequestError(
            f"{store.uri} belongs to another request, which differs in\n  "
            + "\n  ".join(changes.values())
            + f"\n{_WAYS_ON}"
        )


def _is_part(name: str, of: Container[str]) -> bool:
    parts = name.split(".")
    return any(".".join(parts[:count]) in of for count in range(1, len(parts) + 1))


def _adjust(frozen: Plan, plan: Plan, store: Store) -> Plan:
    """A plan for other dates or thresholds, with the finished tasks that they leave as they are.

    Raises RequestError where a finished product would have no task any more.
    """
    existing = store.list()
    done = {task.id: task for task in frozen.tasks if task.is_done(existing)}
    lost = sorted(done.keys() - {task.id for task in plan.tasks})
    if lost:
        raise RequestError(
            f"{store.uri}: {len(lost)} finished products (the first: {lost[0]}) are not of this request any more\n"
            f"{_WAYS_ON}"
        )

    def reusable(task: Task) -> Task:
        before = done.get(task.id)
        return before if before is not None and is_same(before, task) else task

    return replace(plan, tasks=tuple(reusable(task) for task in plan.tasks))


def supersede_outputs(plan: Plan, store: Store, *, successor: Plan | None = None) -> None:
    """Supersede what a plan has made, but for what its successor would make again; remove the plan itself.

    Products stand until new ones take their place; those that have no successor go when all others are made.
    """
    following = {task.id: task for task in successor.tasks} if successor is not None else {}
    kept = product_of(plan.request.product.kind).reusable_outputs(
        plan.tasks, tuple(following.values())
    )
    files = _made_by(
        plan, store, but={task.id for task in plan.tasks if following.get(task.id) == task}
    )
    store.supersede(files - kept)
    store.delete(
        sorted(files - kept - store.superseded())
    )  # what has come of files that are not whole
    store.delete(sorted(store.list(PARTS) - kept))
    store.delete([RUN_FILE, PLAN_FILE])


def _made_by(plan: Plan, store: Store, but: Container[str] = ()) -> set[str]:
    """Names of all that a plan's tasks may have left; of folders of their own, but for those of some tasks."""
    files = {name for task in plan.tasks for name in task.possible_outputs}
    folders = {
        task.output_prefix for task in plan.tasks if task.output_prefix and task.id not in but
    }
    return files | (
        {name for name in store.list() if name.rpartition("/")[0] in folders} if folders else set()
    )


def run(
    request: RunRequest,
    *,
    overwrite: bool = False,
    refresh: bool = False,
    retry_failed: bool = False,
    verify: bool = False,
    progress: Progress | None = None,
) -> RunStatus:
    """Run a request through to its report, or resume it where its output holds a part of it already.

    With `verify`, what stands is held against the checksums of its items, and made anew where it is damaged.

    Raises RequestError for what the user can mend; a task that fails is in the status, not an exception.
    """
    limit_malloc_arenas()
    store = open_store(request.output)
    shutdown.clear()
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
        if request.runner.kind == "auto" and (better := advice(plan.estimate)):
            log.warning(better)
        status = start_status(plan, store, kind)
        try:
            with _reporting_progress(plan, store, progress):
                return run_tasks(kind, plan, store, status)
        except (KeyboardInterrupt, Exception) as error:
            interrupted = isinstance(error, KeyboardInterrupt)
            shutdown.set()
            store.remove_partial_files()  # threads that still write find nothing to publish
            ended = {
                "state": "cancelled" if interrupted else "failed",
                "done": len(plan.tasks) - len(plan.undone(store.list())),
                "updated": now(),
                "finished": now(),
                "message": "interrupted; run it again to go on" if interrupted else str(error),
            }
            store.write(STATUS_FILE, status.model_copy(update=ended).to_bytes())
            raise


def submit(
    request: RunRequest, options: Sequence[str], tell: Callable[[], None] | None = None
) -> RunStatus:
    """Plan a request, or go on with its plan, and hand the pipeline to the runner that Beam's `options` name.

    The pipeline writes the status from then on, and calls `tell` (which is pickled) now and then and when it has ended;
    a fault before that is in the status too, and raised.
    """
    limit_malloc_arenas()
    store = open_store(request.output)
    with store.lock():
        store.remove_partial_files()
        try:
            plan = load_or_create_plan(request, store)
            status = start_status(plan, store, "dataflow")
            submit_tasks(options, plan, store, status, tell)
        except Exception as error:
            failed = RunStatus(
                run=request.run, state="failed", fingerprint=request.fingerprint(), output=store.uri
            )
            ended = {"started": now(), "updated": now(), "finished": now(), "message": str(error)}
            store.write(STATUS_FILE, failed.model_copy(update=ended).to_bytes())
            raise
    return status


def start_status(plan: Plan, store: Store, kind: str) -> RunStatus:
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
    store.write(STATUS_FILE, status.to_bytes())
    return status


@contextmanager
def _reporting_progress(plan: Plan, store: Store, progress: Progress | None) -> Iterator[None]:
    """Report `progress` how many tasks are done, by what stands in the store: the same for every runner."""
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
