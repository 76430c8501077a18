"""Sample: pixels of an image that say whether it is fit to use, without looking at all of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from scenebeam.raster.source import Source
from scenebeam.raster.validity import Array, Mask, valid_mask

ENOUGH = 2**18
"""Pixels of a sample, about: percentiles to a tenth of a percent."""


class Sample:
    """Every so many-th pixel both ways of what is added: its numbers, and how many were nodata."""

    def __init__(self, pixels: int, least_stride: int = 1) -> None:
        """A sample of about ENOUGH out of `pixels`, or fewer with a larger stride."""
        self._stride = max(least_stride, math.ceil(math.sqrt(pixels / ENOUGH)))
        self._pieces: list[Array] = []
        self.total = 0
        """Pixels looked at, nodata among them."""

    @classmethod
    def recalled(cls, values: Sequence[float], total: int) -> Sample:
        """A sample that was written down."""
        sample = cls(1)
        sample._pieces, sample.total = [np.asarray(values)], total
        return sample

    def add(self, pixels: Array, nodata: float | None, inside: Array | None = None) -> None:
        """Take a 2-D piece into account; what is not `inside` is no part of the image."""
        few = pixels[:: self._stride, :: self._stride]
        keep = data_mask(few, nodata)
        few = np.ma.getdata(few)
        if inside is None:
            self.total += few.size
        else:
            inside = inside[:: self._stride, :: self._stride]
            keep &= inside
            self.total += int(np.count_nonzero(inside))
        self._pieces.append(few[keep])

    @property
    def values(self) -> Array:
        """The numbers that are data, as they came; 1-D."""
        if len(self._pieces) != 1:
            self._pieces = [np.concatenate(self._pieces) if self._pieces else np.empty(0)]
        return self._pieces[0]

    @property
    def nodata_percent(self) -> float:
        """Of the pixels looked at."""
        return 100 * (1 - self.values.size / self.total) if self.total else 0.0

    @property
    def std_dev(self) -> float:
        """Standard deviation of the numbers that are data; 0 where there is none."""
        return float(np.std(self.values, dtype=np.float64)) if self.values.size else 0.0


def data_mask(pixels: Array, nodata: float | None) -> Mask:
    """Say which pixels hold data: unmasked, finite, and not the nodata value.

    Args:
        pixels: Numbers of any shape; a masked array where its file has a mask.
        nodata: The nodata value; None where every number is data.

    Returns:
        Array of bool, of the same shape.
    """
    valid = valid_mask(pixels, nodata)
    finite = np.isfinite(np.ma.getdata(pixels))
    return np.asarray(finite if valid is None else valid & finite)


def sample_pieces(pieces: Sequence[Array], nodata: float | None) -> Sample:
    """Sample 2-D pieces that show an image, as `Source.look` gives them."""
    sample = Sample(sum(piece.size for piece in pieces))
    for piece in pieces:
        sample.add(piece, nodata)
    return sample


def sample_source(source: Source, nodata: float | None, *, at_full_size: bool) -> Sample:
    """Sample an open band at little cost; `at_full_size` without overviews, as radar needs it.

    Raises ReadError where the file is truncated or cannot be decoded.
    """
    return sample_pieces(source.sample_overview(at_full_size=at_full_size), nodata)


_LEAST = 100
"""Pixels that say something of how numbers spread."""


def blank(sample: Sample, least: float) -> str:
    """Why an image is blank, one that spreads no more than `least`; empty where it is not, or too small to say."""
    if sample.values.size < _LEAST or sample.std_dev > least:
        return ""
    return f"blank: its numbers spread no more than {sample.std_dev:.3g} around {float(sample.values.mean()):.6g}"


_BUCKETS, _CLASSES = 32, 256


def histogram(picture: Array, *, whole_numbers: bool = False) -> dict[str, Any]:
    """Of numbers, NaN for no data: `{"histogram": {count, min, max, buckets}}` of STAC's raster extension, or nothing.

    32 buckets of one width; of classes (`whole_numbers`) one for each number from the least to the greatest, and none
    of bit fields, whose numbers lie farther apart.
    """
    values = picture[np.isfinite(picture)]
    if not values.size:
        return {}
    low, high = float(values.min()), float(values.max())
    if whole_numbers:
        low, high = low - 0.5, high + 0.5
    # Between numbers that differ in their last digits alone there are no buckets to tell apart.
    if high - low <= _BUCKETS * np.spacing(max(abs(low), abs(high))) or (
        whole_numbers and high - low > _CLASSES
    ):
        return {}
    buckets, _ = np.histogram(values, round(high - low) if whole_numbers else _BUCKETS, (low, high))
    told = {
        "count": len(buckets),
        "min": round(low, 6),
        "max": round(high, 6),
        "buckets": buckets.tolist(),
    }
    return {"histogram": told}
