"""PublishQueue: things that are encoded and published behind the back of what is being read, a bounded number at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, Generic, TypeVar

from scenebeam.errors import CheckError

K = TypeVar("K")
_THREADS = 4
_MOST = 32


class PublishQueue(Generic[K]):
    """A queue of jobs. One that is not fit to be published (CheckError) is in `failed`; any other error is raised."""

    def __init__(self) -> None:
        self.failed: dict[K, str] = {}
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
                self._settle(0)
        finally:
            self._threads.shutdown()

    def add(self, key: K, job: Callable[..., Any], *arguments: Any) -> None:
        """Start a job; where too many wait already, wait for the first of them."""
        self._queue.append((key, self._threads.submit(job, *arguments)))
        self._settle(_MOST)

    def _settle(self, leave: int) -> None:
        while len(self._queue) > leave:
            key, future = self._queue.popleft()
            try:
                future.result()
            except CheckError as error:
                self.failed[key] = str(error)
