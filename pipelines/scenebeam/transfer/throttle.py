"""Throttle: fewer requests at once to a host that is overloaded.

The requests in flight to a host are limited as TCP limits its packets (RFC 5681: additive increase,
multiplicative decrease). An answer that the host is busy, or none, halves the limit. Each good
answer raises it a little, so that a limit of n grows by one with n answers.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from scenebeam.transfer.http import MAX_CONCURRENT_REQUESTS, BusyError

_ROUND = 1.0
"""Seconds between two reductions: requests that were in flight together count once."""


class HostThrottle:
    """The requests in flight to one host, from all threads of a process."""

    def __init__(self, most: int = MAX_CONCURRENT_REQUESTS) -> None:
        """Start with the limit `most`, which is never exceeded."""
        self._most = self.limit = float(most)
        self._in_flight = 0
        self._reduced = -_ROUND
        self._changed = threading.Condition()

    @contextmanager
    def slot(self) -> Iterator[None]:
        """Wait until one more request may be made, and learn from how the block ends."""
        with self._changed:
            # One request is always allowed: how else would the host be found well again?
            self._changed.wait_for(lambda: self._in_flight < max(1, int(self.limit)))
            self._in_flight += 1
        try:
            yield
        except BusyError:
            self._reduce()
            raise
        else:
            self._raise()
        finally:
            with self._changed:
                self._in_flight -= 1
                self._changed.notify_all()

    def _reduce(self) -> None:
        with self._changed:
            if time.monotonic() - self._reduced > _ROUND:
                self._reduced = time.monotonic()
                self.limit = max(1.0, self.limit / 2)

    def _raise(self) -> None:
        with self._changed:
            self.limit = min(self._most, self.limit + 1 / self.limit)


@cache
def throttle_of(host: str) -> HostThrottle:
    """Return the process's throttle of a host."""
    return HostThrottle()
