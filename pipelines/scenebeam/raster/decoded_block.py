"""Decoded blocks that several bands share, and that may still be on their way."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future

from scenebeam.raster.validity import Array


class DecodedBlock:
    """All samples of one block, of shape (rows, columns, samples), now or in the future."""

    def __init__(self, *, is_held_by_futures: bool) -> None:
        """Create an unsettled block.

        Args:
            is_held_by_futures: Whether the block stays in memory as long as a future of one of its
                bands does. Otherwise it goes once nothing keeps it.
        """
        self._is_held_by_futures = is_held_by_futures
        self._lock = threading.Lock()
        self._result: Array | BaseException | None = None
        self._waiting: list[tuple[Future[Array], Callable[[Array], Array]]] = []

    def deliver(self, future: Future[Array], part: Callable[[Array], Array]) -> None:
        """Set the result of `future` to a part of the samples as soon as they are there."""
        if self._is_held_by_futures:
            future.block = self  # type: ignore[attr-defined]
        with self._lock:
            result = self._result
            if result is None:
                self._waiting.append((future, part))
                return
        _set_result(future, part, result)

    def settle(self, result: Array | BaseException) -> None:
        """Set the samples, or the error that there is instead of them."""
        with self._lock:
            self._result = result
            waiting, self._waiting = self._waiting, []
        for future, part in waiting:
            _set_result(future, part, result)


def _set_result(
    future: Future[Array], part: Callable[[Array], Array], result: Array | BaseException
) -> None:
    if isinstance(result, BaseException):
        future.set_exception(result)
    else:
        future.set_result(part(result))
