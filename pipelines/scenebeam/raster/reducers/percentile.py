"""A percentile of the clear observations of each band."""

from __future__ import annotations

from scenebeam.raster.order_statistics import percentile
from scenebeam.raster.reduce import BandValues, to_numbers
from scenebeam.raster.reducers._per_band import PerBandReducer
from scenebeam.raster.validity import Array, Mask


class Percentile(PerBandReducer):
    """Take a percentile, interpolated linearly between two observations."""

    def combine(self, pixels: Array, valid: Mask, count: Array, band: BandValues) -> Array:
        percent = float(self.context.parameters["percentile"])
        return to_numbers(percentile(pixels, valid, count, percent), band, count > 0)


METHOD = Percentile
