"""What methods share that combine the observations of each band on its own."""

from __future__ import annotations

from abc import abstractmethod

import numpy as np

from scenebeam.raster.reduce import BandValues, Reduced, Reducer, Stack
from scenebeam.raster.validity import Array, Mask


class PerBandReducer(Reducer):
    """A method that combines the valid observations of each band."""

    takes_pixels = False

    @abstractmethod
    def combine(self, pixels: Array, valid: Mask, count: Array, band: BandValues) -> Array:
        """Combine the observations of one band.

        Args:
            pixels: Array of shape (observations, rows, columns).
            valid: Where they count.
            count: Number of valid observations of each pixel.
            band: The band.

        Returns:
            Numbers of the band's dtype, of shape (rows, columns), nodata where `count` is 0.
        """

    def reduce(self, stack: Stack) -> Reduced:
        pixels, valid = [], []
        outputs = self.context.outputs
        for index, band in enumerate(self.context.bands[:outputs]):
            count = np.add.reduce(stack.valid[index].view(np.uint8), axis=0, dtype=np.uint16)
            pixels.append(self.combine(stack.pixels[index], stack.valid[index], count, band))
            valid.append(count > 0)
        return Reduced(pixels, valid)
