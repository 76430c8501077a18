"""Samples: enough pixels of an image to judge whether it is fit for use."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from scenebeam.raster.source import Source
from scenebeam.raster.validity import Array, Mask, valid_mask

ENOUGH = 2**18
"""Approximate size of a sample: percentiles are right to a tenth of a percent."""
_MIN_PIXELS = 100
"""Fewest pixels whose standard deviation means something."""
_BUCKETS = 32
"""Buckets of a histogram of measurements."""
_MAX_CLASSES = 256
"""Largest range of classes that gets a histogram."""


class Sample:
    """Every n-th row and column of the arrays that are added. Invalid pixels are only counted."""

    def __init__(self, pixels: int, least_stride: int = 1) -> None:
        """Create an empty sample.

        Args:
            pixels: Number of pixels that will be added. About `ENOUGH` of them are kept.
            least_stride: Smallest distance between pixels that are kept.
        """
        self._stride = max(least_stride, math.ceil(math.sqrt(pixels / ENOUGH)))
        self._pieces: list[Array] = []
        self.total = 0
        """Pixels that were looked at, including invalid ones."""

    @classmethod
    def from_values(cls, values: Sequence[float], total: int) -> Sample:
        """Restore a sample from its `values` and its `total`."""
        sample = cls(1)
        sample._pieces, sample.total = [np.asarray(values)], total
        return sample

    def add(self, pixels: Array, nodata: float | None, inside: Array | None = None) -> None:
        """Add a part of the image.

        Args:
            pixels: 2-D array.
            nodata: Nodata value.
            inside: Where the image is; None for everywhere. Pixels outside do not count.
        """
        kept = pixels[:: self._stride, :: self._stride]
        is_data = data_mask(kept, nodata)
        kept = np.ma.getdata(kept)
        if inside is None:
            self.total += kept.size
        else:
            inside = inside[:: self._stride, :: self._stride]
            is_data &= inside
            self.total += int(np.count_nonzero(inside))
        self._pieces.append(kept[is_data])

    @property
    def values(self) -> Array:
        """Valid numbers in the order in which they were added, as a 1-D array."""
        if len(self._pieces) != 1:
            self._pieces = [np.concatenate(self._pieces) if self._pieces else np.empty(0)]
        return self._pieces[0]

    @property
    def nodata_percent(self) -> float:
        """Percentage of `total` that is nodata."""
        return 100 * (1 - self.values.size / self.total) if self.total else 0.0

    @property
    def std_dev(self) -> float:
        """Standard deviation of the valid numbers; 0 if there are none."""
        return float(np.std(self.values, dtype=np.float64)) if self.values.size else 0.0


def data_mask(pixels: Array, nodata: float | None) -> Mask:
    """Return which pixels hold data: unmasked, finite, and not the nodata value.

    Args:
        pixels: Numbers of any shape; a masked array if the file has a mask.
        nodata: Nodata value; None if every number is data.

    Returns:
        Boolean array of the same shape.
    """
    valid = valid_mask(pixels, nodata)
    finite = np.isfinite(np.ma.getdata(pixels))
    return np.asarray(finite if valid is None else valid & finite)


def sample_pieces(pieces: Sequence[Array], nodata: float | None) -> Sample:
    """Sample the arrays that `Source.sample_overview` returns."""
    sample = Sample(sum(piece.size for piece in pieces))
    for piece in pieces:
        sample.add(piece, nodata)
    return sample


def sample_source(source: Source, nodata: float | None, *, at_full_size: bool) -> Sample:
    """Sample an open band at little cost.

    Args:
        source: The band.
        nodata: Nodata value.
        at_full_size: Whether to ignore overviews, as radar needs: averages hide speckle.

    Raises:
        ReadError: The file is truncated or cannot be decoded.
    """
    return sample_pieces(source.sample_overview(at_full_size=at_full_size), nodata)


def blank_reason(sample: Sample, least: float) -> str:
    """Return why an image is blank.

    Args:
        sample: Sample of the image.
        least: Standard deviation up to which it is blank.

    Returns:
        The reason; empty if the image is not blank, or if the sample is too small to tell.
    """
    if sample.values.size < _MIN_PIXELS or sample.std_dev > least:
        return ""
    mean = float(sample.values.mean())
    return f"blank: its numbers spread no more than {sample.std_dev:.3g} around {mean:.6g}"


def histogram(picture: Array, *, whole_numbers: bool = False) -> dict[str, Any]:
    """Compute a histogram as in STAC's raster extension.

    Args:
        picture: Numbers, NaN where there is no data.
        whole_numbers: Whether the numbers are classes: then there is a bucket for each of them,
            from the lowest to the highest, instead of 32 of equal width.

    Returns:
        `{"histogram": {"count", "min", "max", "buckets"}}`; empty without data, for numbers that
        are all alike, and for bit fields, whose numbers are far apart.
    """
    values = picture[np.isfinite(picture)]
    if not values.size:
        return {}
    low, high = float(values.min()), float(values.max())
    if whole_numbers:
        low, high = low - 0.5, high + 0.5
    # The edges of buckets must be different floats.
    is_flat = high - low <= _BUCKETS * np.spacing(max(abs(low), abs(high)))
    if is_flat or (whole_numbers and high - low > _MAX_CLASSES):
        return {}
    buckets, _ = np.histogram(values, round(high - low) if whole_numbers else _BUCKETS, (low, high))
    properties = {
        "count": len(buckets),
        "min": round(low, 6),
        "max": round(high, 6),
        "buckets": buckets.tolist(),
    }
    return {"histogram": properties}
