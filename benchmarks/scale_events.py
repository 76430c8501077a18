"""A small discrete-event simulation: processes, signals, and resources with a limited rate.

A process is a generator. It yields the seconds that it waits, or a signal that it waits for:

    def worker(simulation, catalog):
        yield 30.0  # the machine starts
        yield catalog.reserve(simulation.now, 10)  # ten requests
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Generator
from itertools import count

Process = Generator["float | Signal", None, None]


class Signal:
    """Something that happens, for which processes wait."""

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation
        self._waiting: deque[Process] = deque()

    def add(self, process: Process) -> None:
        """Let a process wait until the signal is fired."""
        self._waiting.append(process)

    def fire(self, most: int | None = None) -> None:
        """Resume the processes that wait now, or those that have waited longest of them.

        Args:
            most: How many at most.
        """
        count = len(self._waiting) if most is None else min(most, len(self._waiting))
        for _ in range(count):
            self._simulation.start(self._waiting.popleft())


class Simulation:
    """The clock, and the processes by the time at which each resumes."""

    def __init__(self) -> None:
        self.now = 0.0
        self._order = count()
        self._resuming: list[tuple[float, int, Process]] = []

    def start(self, process: Process, after: float = 0.0) -> None:
        """Resume a process after some seconds. Of equal times, the first started comes first."""
        heapq.heappush(self._resuming, (self.now + after, next(self._order), process))

    def run(self) -> None:
        """Run until no process is left that waits for a time."""
        while self._resuming:
            self.now, _, process = heapq.heappop(self._resuming)
            try:
                awaited = next(process)
            except StopIteration:
                continue
            if isinstance(awaited, Signal):
                awaited.add(process)
            else:
                self.start(process, awaited)


class RateLimit:
    """A shared resource that serves some units a second, first come, first served.

    Units are requests or bytes. A resource that grows doubles its rate in fixed intervals, from the
    first time that anybody has to wait for it.
    """

    def __init__(self, rate: float, doubling: float = math.inf) -> None:
        """Create a resource.

        Args:
            rate: Units per second at first.
            doubling: Seconds after which the rate doubles.
        """
        self._rate, self._doubling = rate, doubling
        self._free_at = 0.0
        self._grows_from = math.inf
        self.units = 0.0
        self.busy = 0.0
        """Seconds in which it was serving."""
        self.waited = 0.0
        """Seconds that reservations waited for those before them, added up."""

    def reserve(self, now: float, units: float) -> float:
        """Take units, and return the seconds until all of them are served."""
        start = max(now, self._free_at)
        if start > now:
            self.waited += start - now
            self._grows_from = min(self._grows_from, now)
        self._free_at = self._served_at(start, units)
        self.units += units
        self.busy += self._free_at - start
        return self._free_at - now

    def _served_at(self, start: float, units: float) -> float:
        """Return when units are served that are begun at a time."""
        while True:
            if start < self._grows_from or math.isinf(self._doubling):
                return start + units / self._rate
            steps = int((start - self._grows_from) / self._doubling)
            rate = self._rate * 2.0**steps
            grows_at = self._grows_from + (steps + 1) * self._doubling
            end = start + units / rate
            if end <= grows_at or grows_at <= start:
                return end
            units -= (grows_at - start) * rate
            start = grows_at
