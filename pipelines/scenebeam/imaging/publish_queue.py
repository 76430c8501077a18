"""Encode and publish in the background while the next chips are read, with a bounded queue."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, Generic, TypeVar

from scenebeam.errors import CheckError

K = TypeVar("K")
_THREADS = 4
_MAX_PENDING = 32
"""Jobs in the queue; each of them keeps its pixels in memory."""


class PublishQueue(Generic[K]):
    """A queue of jobs that encode and publish. A context manager that waits for all of them.

    A job that raises CheckError has nothing fit to publish, and is in `failed`. Any other error is
    raised by `add` or at the end of the context.
    """

    def __init__(self) -> None:
        """Create an empty queue with threads of its own."""
        self.failed: dict[K, str] = {}
        """Key of a job → why its result is not fit to publish."""
        self._queue: deque[tuple[K, Future[Any]]] = deque()
        self._threads = ThreadPoolExecutor(_THREADS)

    def __enter__(self) -> PublishQueue[K]:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self._collect(0)
        finally:
            self._threads.shutdown()

    def add(self, key: K, job: Callable[..., Any], *arguments: Any) -> None:
        """Start a job. If too many are pending, wait for the oldest.

        Args:
            key: Key of the job in `failed`.
            job: Called in another thread.
            arguments: Arguments of the job.
        """
        self._queue.append((key, self._threads.submit(job, *arguments)))
        self._collect(_MAX_PENDING)

    def _collect(self, leave: int) -> None:
        """Wait for the oldest jobs until no more than `leave` are pending."""
        while len(self._queue) > leave:
            key, future = self._queue.popleft()
            try:
                future.result()
            except CheckError as error:
                self.failed[key] = str(error)
