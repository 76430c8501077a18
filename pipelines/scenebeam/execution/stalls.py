"""Stalls: tasks that have read nothing for minutes are named in the output while they last.

A worker that hangs cannot say so. A thread of its process checks what its tasks have read, and
leaves a note in the output for each that has stopped; `scenebeam status` lists the notes.
"""

from __future__ import annotations

import json
import logging
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache

from scenebeam.errors import StorageError
from scenebeam.status import now
from scenebeam.storage import Store
from scenebeam.transfer.retry import Budget

log = logging.getLogger(__name__)

STALL_SECONDS = 600.0
"""Seconds without a byte after which a task counts as stalled. A task that computes reads, too."""
_CHECK_SECONDS = 30.0


@dataclass
class _Running:
    """A task that is being made."""

    task: str
    budget: Budget
    store: Store
    note: str
    """Key of the note."""
    read: int = -1
    changed: float = 0.0
    is_noted: bool = False


class StallWatch:
    """Checks the tasks of this process now and then."""

    def __init__(self) -> None:
        """Start the thread."""
        self._running: dict[int, _Running] = {}
        self._lock = threading.Lock()
        threading.Thread(target=self._check_forever, daemon=True, name="stalls").start()

    @contextmanager
    def watch(self, task: str, budget: Budget, store: Store, note: str) -> Iterator[None]:
        """Watch a task during the block.

        Args:
            task: Id of the task.
            budget: Counts what it reads.
            store: The output.
            note: Key of the note that names it, if it stalls.
        """
        running = _Running(task, budget, store, note, changed=time.monotonic())
        with self._lock:
            self._running[id(running)] = running
        try:
            yield
        finally:
            with self._lock:
                del self._running[id(running)]
            if running.is_noted:
                store.delete([note])

    def _check_forever(self) -> None:
        while True:
            time.sleep(_CHECK_SECONDS)
            with self._lock:
                tasks = list(self._running.values())
            for task in tasks:
                try:
                    check_stall(task)
                except StorageError as error:
                    log.warning("cannot note that %s has stalled: %s", task.task, error)


def check_stall(task: _Running) -> None:
    """Leave a note if a task has stalled, and remove it if it goes on."""
    read = task.budget.bytes
    if read != task.read:
        task.read, task.changed = read, time.monotonic()
        if task.is_noted:
            task.is_noted = False
            task.store.delete([task.note])
    elif not task.is_noted and time.monotonic() - task.changed > STALL_SECONDS:
        task.is_noted = True
        fields = {"task": task.task, "host": socket.gethostname(), "noticed": f"{now():%FT%TZ}"}
        log.warning("%s has read nothing for %.0f s", task.task, STALL_SECONDS)
        task.store.write(task.note, json.dumps(fields).encode())


@cache
def process_watch() -> StallWatch:
    """The watch of this process."""
    return StallWatch()
