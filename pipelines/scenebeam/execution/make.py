"""Make one task: the plain function that every runner calls, here and on a worker."""

from __future__ import annotations

import ctypes
import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache

import psutil

from scenebeam.errors import SceneBeamError, is_permanent, unexpected
from scenebeam.products import product_of
from scenebeam.request import Limits
from scenebeam.storage import Store
from scenebeam.tasks import Outcome, Task
from scenebeam.transfer.retry import Budget

_M_ARENA_MAX = -8
"""Of malloc.h, see mallopt(3)."""
log = logging.getLogger(__name__)


class MemoryGate:
    """Lets tasks in while the memory that their plans state fits into `total` bytes; one always fits."""

    def __init__(self, total: int) -> None:
        self._total, self._used = total, 0
        self._changed = threading.Condition()

    @contextmanager
    def hold(self, size: int) -> Iterator[None]:
        """Wait for `size` bytes, and give them back at the end."""
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
    """Let glibc keep two heaps instead of eight a core, before there are threads: what one has freed another may use.

    With some ninety threads, what the heaps kept came to a sixth of all memory. Elsewhere there is nothing to do.
    """
    with suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").mallopt(_M_ARENA_MAX, 2)


@cache
def process_gate() -> MemoryGate:
    """The gate of this process: four fifths of what the machine had free when it was first asked."""
    return MemoryGate(int(psutil.virtual_memory().available * 0.8))


def make_task(kind: str, task: Task, store: Store, limits: Limits) -> Outcome:
    """Make one task of a product and say what became of it. Errors become outcomes; only an interrupt passes."""
    budget = Budget.of(limits)
    start = time.monotonic()
    log.info("%s: begins", task.id)
    try:
        with process_gate().hold(task.estimate.memory):
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
        outcome = Outcome(
            task=task.id, state="failed", kind=type(error).__name__, reason=unexpected(error)
        )
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
    return outcome.model_copy(
        update={
            "seconds": round(seconds, 3),
            "requests": budget.requests,
            "read_bytes": budget.bytes,
            "retries": budget.retries,
        }
    )
