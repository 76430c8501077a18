"""The median of all sources."""

from __future__ import annotations

from typing import Any

import numpy as np

from scenebeam.raster.merge import Region
from scenebeam.raster.merge_methods._masked import MaskedMerge, round_and_cast
from scenebeam.raster.validity import Array, Mask


class MedianMerge(MaskedMerge):
    """Take the median of all sources.

    Of an even number it is the mean of the middle two; integers are rounded half to even.
    """

    def __init__(self, shape: tuple[int, int], dtype: np.dtype[Any], nodata: float | None) -> None:
        super().__init__(shape, dtype, nodata)
        self._layers: list[Array] = []

    @classmethod
    def bytes_per_pixel(cls, sources: int) -> int:
        return 24 * sources  # a layer of float64 per source, stacked, and sorted

    def add(self, region: Region, values: Array, inside: Mask | None) -> None:
        valid = self._valid(values, inside)
        # Sources side by side share a layer: a new one is only needed where they overlap.
        for layer in self._layers:
            if np.isnan(layer[region]).all():
                break
        else:
            layer = np.full(self.filled.shape, np.nan, np.float64)
            self._layers.append(layer)
        np.copyto(layer[region], values, where=valid)
        self.filled[region] |= valid

    def _merged(self) -> Array:
        if not self._layers:
            return self.pixels
        # NaN sorts last: the `count` valid numbers of each pixel come first, in order.
        stack = np.sort(np.stack(self._layers), axis=0)
        count = np.count_nonzero(~np.isnan(stack), axis=0)
        # The middle two: the same one twice if the count is odd.
        low = np.take_along_axis(stack, np.maximum(count - 1, 0)[None] // 2, axis=0)[0]
        high = np.take_along_axis(stack, np.minimum(count // 2, len(stack) - 1)[None], axis=0)[0]
        return round_and_cast(self, np.where(count % 2 == 1, low, (low + high) / 2))


METHOD = MedianMerge
