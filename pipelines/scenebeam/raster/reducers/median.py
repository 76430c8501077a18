"""The median of the clear observations of each band."""

from __future__ import annotations

import numpy as np

from scenebeam.raster.order_statistics import median
from scenebeam.raster.reduce import BandValues, avoid_nodata, to_numbers
from scenebeam.raster.reducers._per_band import PerBandReducer
from scenebeam.raster.validity import Array, Mask


class Median(PerBandReducer):
    """Take the median: of an even number it is the mean of the middle two."""

    def combine(self, pixels: Array, valid: Mask, count: Array, band: BandValues) -> Array:
        low, high = median(pixels, valid)
        if band.dtype.kind == "f" or band.dtype.itemsize > 4:
            middle = (low.astype(np.float64) + high) / 2
            return to_numbers(middle, band, count > 0)
        # In integers, which is exact: half of the sum, rounded half to even.
        total: Array = low.astype(np.int64 if band.dtype.itemsize > 2 else np.int32) + high
        half = total >> 1
        half += (total & 1) & (half & 1)
        return avoid_nodata(half.astype(band.dtype), band, count > 0)


METHOD = Median
