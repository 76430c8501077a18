"""Demand: observations that only fill what better ones leave open wait for those."""

from __future__ import annotations

import threading

import numpy as np

from scenebeam.raster.validity import Mask


class Demands:
    """What better observations have left open, for those that wait for them."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._open: dict[tuple[int, int], Mask | None] = {}
        self._closed = False

    def of(self, number: int) -> ObservationDemand:
        """Return the demand for an observation."""
        return ObservationDemand(self, number)

    def finish(self, number: int, top: int, open_pixels: Mask | None) -> None:
        """Note that a chunk of rows of an observation has been added."""
        with self._condition:
            self._open.pop((number - 1, top), None)
            self._open[number, top] = open_pixels
            self._condition.notify_all()

    def wait(self, number: int, top: int) -> Mask | None:
        """Wait until an observation has been added. Returns what is open then."""
        with self._condition:
            self._condition.wait_for(lambda: self._closed or (number, top) in self._open)
            return None if self._closed else self._open[number, top]

    def close(self) -> None:
        """Let go of all that wait."""
        with self._condition:
            self._closed = True
            self._condition.notify_all()


class ObservationDemand:
    """The demand for one observation: see `raster.layers.Demand`."""

    def __init__(self, demands: Demands, number: int) -> None:
        self._demands, self._number = demands, number

    def wanted(self, top: int, bottom: int) -> Mask:
        open_pixels = self._demands.wait(self._number - 1, top)
        # Nothing is open once they are closed: the pixels are not used any more.
        return np.zeros((bottom - top, 1), bool) if open_pixels is None else open_pixels

    def close(self) -> None:
        self._demands.close()
