"""Make one task: the plain function that every runner calls, here and on a worker."""

from __future__ import annotations

import ctypes
import logging
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

import psutil

from scenebeam.errors import RunnerError, SceneBeamError, is_permanent, unexpected
from scenebeam.execution.row_ranges import RowRange
from scenebeam.execution.stalls import process_watch
from scenebeam.planning.plan import Plan
from scenebeam.products import product_of
from scenebeam.report.outcomes import outcomes_folder, part_key, stall_key, write_part
from scenebeam.request import Limits
from scenebeam.status import RunStatus
from scenebeam.storage import Store
from scenebeam.tasks import Outcome, Task
from scenebeam.transfer.retry import Budget, shutdown
from scenebeam.transfer.signing import effective_limits
from scenebeam.transfer.signing.accounts import use_accounts

_M_ARENA_MAX = -8
"""Parameter of mallopt(3), from malloc.h."""
_SHARE_OF_MEMORY = 0.8
_CGROUP = Path("/sys/fs/cgroup")
"""Where a container finds its own limits (cgroup v2)."""
log = logging.getLogger(__name__)


class MemoryGate:
    """Admits tasks while the memory that they state fits into a total; one is always admitted."""

    def __init__(self, total: int) -> None:
        """Open the gate for `total` bytes."""
        self._total, self._used = total, 0
        self._changed = threading.Condition()

    @contextmanager
    def hold(self, size: int) -> Iterator[None]:
        """Wait for `size` bytes, and release them at the end of the block."""
        with self._changed:
            self._changed.wait_for(lambda: self._used == 0 or self._used + size <= self._total)
            self._used += size
        try:
            yield
        finally:
            with self._changed:
                self._used -= size
                self._changed.notify_all()


def limit_malloc_arenas() -> None:
    """Make glibc use two heaps instead of eight per core; call it before threads are started.

    A heap does not reuse what was freed in another one: with some ninety threads, the unused parts
    of their heaps added up to a sixth of all memory. Without glibc this does nothing.
    """
    with suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").mallopt(_M_ARENA_MAX, 2)


@cache
def process_gate() -> MemoryGate:
    """The gate of this process: a share of the memory that was available at the first call."""
    return MemoryGate(int(_available_memory() * _SHARE_OF_MEMORY))


def _available_memory() -> int:
    """Return the bytes that this process may still take, of the machine and of its container."""
    available = int(psutil.virtual_memory().available)
    try:
        limit = (_CGROUP / "memory.max").read_text().strip()
        used = int((_CGROUP / "memory.current").read_text())
        cached = re.search(r"^inactive_file (\d+)$", (_CGROUP / "memory.stat").read_text(), re.M)
    except (OSError, ValueError):  # no container, or not Linux
        return available
    if not limit.isdigit():  # `max`: no limit
        return available
    # Cached files count as used, but give way.
    reclaimable = int(cached[1]) if cached else 0
    return min(available, max(0, int(limit) - used + reclaimable))


def range_maker(plan: Plan, store: Store, status: RunStatus) -> Callable[[RowRange], str]:
    """Return a function that makes the tasks of a range in this process.

    Args:
        plan: The frozen plan.
        store: The output.
        status: The status of the run.

    Returns:
        A function of a range of `split_ranges`. It returns the key of the outcomes, for `Outcomes`.
    """
    use_accounts(plan.request.accounts)
    kind, limits = plan.request.product.kind, effective_limits(plan.request)
    folder = outcomes_folder(status)

    def make(rows: RowRange) -> str:
        _, first, last = rows
        key = part_key(folder, first)
        for _ in make_range(kind, plan.tasks[first:last], store, limits, key):
            pass
        return key

    return make


def make_range(
    kind: str, tasks: Sequence[Task], store: Store, limits: Limits, key: str
) -> Iterator[Outcome]:
    """Make those of some tasks that are not done, one after another, and write their outcomes.

    Args:
        kind: Kind of the product.
        tasks: Tasks of adjacent rows of a plan.
        store: The output.
        limits: Limits of the request.
        key: Key of the file with their outcomes. If it exists, the tasks were made before, by a
            worker whose answer was lost.

    Yields:
        The outcomes.

    Raises:
        RunnerError: The run was interrupted.
    """
    if store.size(key) is not None:
        return
    keys: set[str] = set()
    for task in tasks:
        keys.update(task.possible_outputs)
    existing = store.find_existing(keys)
    outcomes = []
    for task in tasks:
        if not task.is_done(existing):
            outcomes.append(make_task(kind, task, store, limits, stall_key(key)))
            yield outcomes[-1]
    write_part(outcomes, store, key)


def make_task(kind: str, task: Task, store: Store, limits: Limits, note: str) -> Outcome:
    """Make one task of a product.

    Args:
        kind: Kind of the product.
        task: The task.
        store: The output.
        limits: Limits of the request.
        note: Key of the note that names the task if it stalls.

    Returns:
        The outcome. Errors become outcomes.

    Raises:
        RunnerError: The run was interrupted.
    """
    if shutdown.is_set():
        # In a notebook, threads of an interrupted runner live on, and would make the other tasks.
        raise RunnerError("interrupted; run it again to resume")
    budget = Budget.of(limits)
    start = time.monotonic()
    log.info("%s: started", task.id)
    try:
        with (
            process_gate().hold(task.estimate.memory),
            process_watch().watch(task.id, budget, store, note),
        ):
            budget.start()
            outcome: Outcome = product_of(kind).make(task, store, budget)
    except SceneBeamError as error:
        log.debug("task %s", task.id, exc_info=True)
        outcome = Outcome(
            task=task.id,
            state="failed",
            kind=error.kind,
            reason=str(error),
            permanent=is_permanent(error),
        )
    except Exception as error:
        log.exception("task %s", task.id)
        reason = unexpected(error)
        outcome = Outcome(task=task.id, state="failed", kind=type(error).__name__, reason=reason)
    seconds = time.monotonic() - start
    log.info(
        "%s: %s in %.1f s, %.1f MB read in %d requests, %d retries%s",
        task.id,
        outcome.state,
        seconds,
        budget.bytes / 1e6,
        budget.requests,
        budget.retries,
        f": {outcome.reason}" if outcome.reason else "",
    )
    measured = {
        "seconds": round(seconds, 3),
        "requests": budget.requests,
        "read_bytes": budget.bytes,
        "retries": budget.retries,
    }
    return outcome.model_copy(update=measured)
