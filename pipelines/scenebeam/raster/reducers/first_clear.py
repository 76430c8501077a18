"""The first clear observation, best scene first."""

from __future__ import annotations

from collections.abc import Mapping

from scenebeam.raster.order_statistics import first_true
from scenebeam.raster.reduce import Selector, Stack
from scenebeam.raster.validity import Array, Mask


class FirstClear(Selector):
    """Take the first observation that is clear and has data in all bands."""

    is_ordered = True

    def choose(self, stack: Stack, complete: Mask) -> tuple[Array, Mapping[str, Array]]:
        return first_true(complete), {}


METHOD = FirstClear
