"""The arithmetic mean of the clear observations of each band."""

from __future__ import annotations

import numpy as np

from scenebeam.raster.order_statistics import where
from scenebeam.raster.reduce import BandValues, to_numbers
from scenebeam.raster.reducers._per_band import PerBandReducer
from scenebeam.raster.validity import Array, Mask


class Mean(PerBandReducer):
    """Take the arithmetic mean; integers are rounded half to even."""

    def combine(self, pixels: Array, valid: Mask, count: Array, band: BandValues) -> Array:
        # Sums of integers are exact: in 32 bits of those with 16, else in float64.
        kind = np.uint32 if band.dtype.kind == "u" and band.dtype.itemsize <= 2 else np.float64
        total: Array = np.zeros(count.shape, kind)
        nothing = np.zeros_like(pixels[0])
        for observation, counts in zip(pixels, valid, strict=True):
            total += where(counts, observation, nothing)
        return to_numbers(total / np.maximum(count, 1), band, count > 0)


METHOD = Mean
