"""Report the progress of a run by what exists in its output: the same for every runner."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from scenebeam.planning.plan import Plan
from scenebeam.storage import Store

Progress = Callable[[int, int], None]
"""Called with (finished tasks, all tasks)."""
_LOCAL_SECONDS, _REMOTE_SECONDS = 1.0, 30.0
"""Time between two reports, for a folder and for a bucket."""


@contextmanager
def report_progress(plan: Plan, store: Store, progress: Progress | None) -> Iterator[None]:
    """Call `progress` now and then from a thread, and once more at the end of the block.

    Args:
        plan: The frozen plan.
        store: The output.
        progress: The callback; None: report nothing.
    """
    if progress is None:
        yield
        return
    stop = threading.Event()
    interval = _REMOTE_SECONDS if store.uri.startswith("gs://") else _LOCAL_SECONDS

    def report() -> float:
        """Report once; returns the seconds that it took."""
        start = time.monotonic()
        progress(plan.progress(store.list()), len(plan.tasks))
        return time.monotonic() - start

    def watch() -> None:
        # A folder of very many files takes long to list: spend at most a twentieth of the time.
        while not stop.wait(max(interval, 20 * report())):
            pass
        report()

    thread = threading.Thread(target=watch, daemon=True, name="progress")
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
