"""The medoid: the observation that is nearest to the median of all bands."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from scenebeam.raster.order_statistics import first_true, median, where
from scenebeam.raster.reduce import Selector, Stack
from scenebeam.raster.validity import Array, Mask


class Medoid(Selector):
    """Take the observation nearest to the per-band median, so that the spectrum was measured.

    The distance is Euclidean in physical values. Only observations with data in all bands count. Of
    equally near ones the first is taken. (Flood 2013, doi:10.3390/rs5126481, minimizes the sum of
    distances to all others, which takes the square of the number of observations; this form is
    that of Kennedy et al. 2018, doi:10.3390/rs10050691.)
    """

    extra = ("score",)

    def choose(self, stack: Stack, complete: Mask) -> tuple[Array, Mapping[str, Array]]:
        used = self.context.bands[: self.context.outputs]
        total = np.zeros(complete.shape)
        # Bands of one scale are compared as they are: sums of squared integers are exact, and so
        # are ties.
        base = used[0].scale or 1.0
        for band, pixels in zip(used, stack.pixels, strict=False):
            low, high = median(pixels, complete)
            middle = low.astype(np.float64) + high
            for distance, observation in zip(total, pixels, strict=True):
                away = np.multiply(observation, 2.0)
                away -= middle
                away *= away
                if band.scale != base:
                    away *= (band.scale / base) ** 2
                distance += away
        never = np.full(total.shape[1:], np.inf)
        for index, counts in enumerate(complete):
            total[index] = where(counts, total[index], never)
        nearest = total.min(axis=0)
        score = (np.sqrt(nearest) / 2 * abs(base)).astype(np.float32)
        return first_true(total == nearest), {"score": score}


METHOD = Medoid
