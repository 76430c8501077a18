"""The geometric median of the spectra, and how much they deviate from it."""

from __future__ import annotations

import numpy as np

from scenebeam.raster.reduce import (
    Reduced,
    Reducer,
    Stack,
    physical_values,
    to_numbers,
)
from scenebeam.raster.validity import Array

TOLERANCE = 1e-6
"""Iteration ends where no pixel moves by more, in physical values: a hundredth of Sentinel-2's
step of reflectance."""
ITERATIONS = 500
"""Steps at most. Pixels that still move then are close: they move less and less."""
_TOGETHER = 1024
"""Pixels that are iterated together: their spectra fit into the cache of a core."""
_NEAREST = 1e-9
"""Least distance of the estimate to an observation, where its weight would be infinite."""


class Geomedian(Reducer):
    """Take the point with the least sum of Euclidean distances to all clear spectra.

    Roberts, Mueller and McIntyre 2017, "High-dimensional pixel composites from Earth observation
    time series", doi:10.1109/TGRS.2017.2723896. It is found by Weiszfeld's iteration in physical
    values, from the mean of the spectra on. Only observations with data in all bands count.

    The further bands are the median absolute deviations of Roberts, Dunn and Mueller 2018, "Open
    Data Cube products using high-dimensional statistics of time series": `emad` by Euclidean,
    `smad` by cosine, and `bcmad` by Bray-Curtis distance.
    """

    takes_pixels = False
    extra = ("emad", "smad", "bcmad")

    def reduce(self, stack: Stack) -> Reduced:
        outputs = self.context.outputs
        complete = stack.complete
        has_data = np.asarray(complete.any(axis=0))
        spectra = physical_values(stack, self.context, complete)[:outputs]
        # Only pixels with data: columns of shape (bands, observations, pixels).
        columns = spectra[:, :, has_data]
        center = geometric_median(columns)
        pixels = []
        for band, values in zip(self.context.bands[:outputs], center, strict=True):
            image = np.zeros(has_data.shape)
            image[has_data] = (values - band.offset) / (band.scale or 1.0)
            pixels.append(to_numbers(image, band, has_data))
        extra = {}
        for name, deviation in _deviations(columns, center).items():
            image = np.full(has_data.shape, np.nan, np.float32)
            image[has_data] = deviation
            extra[name] = image
        return Reduced(pixels, [has_data] * outputs, None, extra)


def geometric_median(spectra: Array) -> Array:
    """Compute the geometric median of each pixel by Weiszfeld's iteration.

    Args:
        spectra: Array of shape (bands, observations, pixels), NaN in all bands of an observation
            that does not count; at least one counts for each pixel.

    Returns:
        Array of shape (bands, pixels), within about TOLERANCE of the minimum. If half of the
        observations coincide, the iteration converges slowly, and may end further away.
    """
    center = np.empty((spectra.shape[0], spectra.shape[2]))
    for first in range(0, spectra.shape[2], _TOGETHER):
        part = slice(first, first + _TOGETHER)
        center[:, part] = _weiszfeld(np.ascontiguousarray(spectra[:, :, part]))
    return center


def _weiszfeld(spectra: Array) -> Array:
    valid = ~np.isnan(spectra[0])
    filled = np.where(valid, spectra, 0.0)
    center: Array = filled.sum(axis=1) / valid.sum(axis=0)
    moving = np.arange(center.shape[1])
    for _ in range(ITERATIONS):
        if not len(moving):
            break
        points, estimate = filled[:, :, moving], center[:, moving]
        distance = np.sqrt(((points - estimate[:, None]) ** 2).sum(axis=0))
        weights = np.where(valid[:, moving], 1 / np.maximum(distance, _NEAREST), 0.0)
        following = (points * weights).sum(axis=1) / weights.sum(axis=0)
        center[:, moving] = following
        moved = np.sqrt(((following - estimate) ** 2).sum(axis=0))
        moving = moving[moved > TOLERANCE]
    return center


def _deviations(spectra: Array, center: Array) -> dict[str, Array]:
    """Return the medians of three distances between spectra and their geometric median."""
    middle = center[:, None]
    with np.errstate(invalid="ignore", divide="ignore"):
        euclidean = np.sqrt(((spectra - middle) ** 2).sum(axis=0))
        dot = (spectra * middle).sum(axis=0)
        lengths = np.sqrt((spectra**2).sum(axis=0) * (middle**2).sum(axis=0))
        cosine = 1 - dot / lengths
        bray_curtis = np.abs(spectra - middle).sum(axis=0) / np.abs(spectra + middle).sum(axis=0)
    found = {}
    for name, distance in zip(Geomedian.extra, (euclidean, cosine, bray_curtis), strict=True):
        found[name] = _median_over_observations(distance)
    return found


def _median_over_observations(distance: Array) -> Array:
    """The median over axis 0 of what is not NaN; NaN where all of it is."""
    ordered = np.sort(distance, axis=0)  # NaN last
    count: Array = (~np.isnan(ordered)).sum(axis=0)
    low = np.take_along_axis(ordered, np.maximum(count - 1, 0)[None] // 2, axis=0)[0]
    high = np.take_along_axis(ordered, np.minimum(count // 2, len(ordered) - 1)[None], axis=0)[0]
    return np.asarray(np.where(count % 2 == 1, low, (low + high) / 2))


METHOD = Geomedian
