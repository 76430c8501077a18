"""The arithmetic mean of all sources."""

from __future__ import annotations

from typing import Any

import numpy as np

from scenebeam.raster.merge import Region
from scenebeam.raster.merge_methods._masked import MaskedMerge, round_and_cast
from scenebeam.raster.validity import Array, Mask


class MeanMerge(MaskedMerge):
    """Take the arithmetic mean of all sources; integers are rounded half to even."""

    def __init__(self, shape: tuple[int, int], dtype: np.dtype[Any], nodata: float | None) -> None:
        super().__init__(shape, dtype, nodata)
        self._sum = np.zeros(shape, np.float64)
        self._count = np.zeros(shape, np.uint16)

    @classmethod
    def bytes_per_pixel(cls, sources: int) -> int:
        return 10  # the sum (8) and the count (2)

    def add(self, region: Region, values: Array, inside: Mask | None) -> None:
        valid = self._valid(values, inside)
        # Sums are float64, so integers of up to 32 bits add up exactly.
        np.add(self._sum[region], values, out=self._sum[region], where=valid)
        self._count[region] += valid
        self.filled[region] |= valid

    def _merged(self) -> Array:
        np.divide(self._sum, self._count, out=self._sum, where=self.filled)
        return round_and_cast(self, self._sum)


METHOD = MeanMerge
