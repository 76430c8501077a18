"""Merge overlapping sources into one array. Nodata never overwrites data, whatever the method.

To add a method, write a subclass of `Merge`, and list it in `MERGE_METHODS`; its name then belongs
in `request.methods.MergeMethod` too. What the rest of the code has to know about a method (its
order of sources, its memory) are attributes of its class.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Literal

import numpy as np

from scenebeam.raster.validity import Array, Mask, as_masked, fits, same_nodata, valid_mask

Region = tuple[slice, slice]
"""Rows and columns of an array."""
Order = Literal["forward", "reversed", "any"]
"""Order in which a merge needs its sources: as selected, reversed, or any.

Unless it is "any", the first source with data determines a pixel, and later ones cannot change it.
"""


def harmonize(values: Array, valid: Mask | None, add_offset: int, nodata: float | None) -> Array:
    """Subtract a provider's constant `add_offset` from the valid pixels.

    Results below the range of the dtype, and results that equal nodata, become the lowest number
    that is data: a valid pixel never becomes nodata.

    Args:
        values: Pixels.
        valid: Where they hold data; None for everywhere.
        add_offset: The offset, as in Sentinel-2's BOA_ADD_OFFSET.
        nodata: Nodata value.

    Returns:
        Array of the same shape and dtype.
    """
    if add_offset == 0:
        return values
    if values.dtype.kind == "f":
        moved = values - values.dtype.type(add_offset)
    else:
        limits = np.iinfo(values.dtype)
        lowest = limits.min + (1 if nodata == limits.min else 0)
        # Unsigned integers would wrap around: subtract in 64 bits.
        moved = np.maximum(values.astype(np.int64) - add_offset, lowest).astype(values.dtype)
        if nodata is not None and fits(nodata, values.dtype) and nodata != limits.min:
            moved[moved == values.dtype.type(nodata)] += 1
    return moved if valid is None else np.where(valid, moved, values)


def cast_nodata(
    values: Array, nodata: float | None, dtype: np.dtype[Any], wanted: float | None
) -> Array:
    """Convert pixels to another dtype, and replace their nodata value.

    Args:
        values: Pixels; the new dtype must be able to represent all that are valid.
        nodata: Their nodata value.
        dtype: The new dtype.
        wanted: The new nodata value; None leaves nodata as it is.

    Returns:
        Array of the same shape; a plain array if `wanted` is given.
    """
    if wanted is not None and (np.ma.is_masked(values) or not same_nodata(nodata, wanted)):
        valid = valid_mask(values, nodata)
        values = np.asarray(values).astype(dtype)
        if valid is not None:
            values[~valid] = wanted
    return values.astype(dtype, copy=False)


class Merge(ABC):
    """One chunk of rows of the output, to which the sources are added one after another."""

    name: ClassVar[str]
    """Name of the method in requests."""
    order: ClassVar[Order] = "any"

    def __init__(self, shape: tuple[int, int], dtype: np.dtype[Any], nodata: float | None) -> None:
        self.nodata = nodata
        # Nodata everywhere: this is what remains where no source has data.
        self.pixels: Array = np.full(shape, 0 if nodata is None else nodata, dtype)

    @classmethod
    def bytes_per_pixel(cls, sources: int) -> int:
        """Return the working memory per pixel, besides the output itself.

        Args:
            sources: Number of sources that overlap.
        """
        return 1

    @abstractmethod
    def add(self, region: Region, values: Array, inside: Mask | None) -> None:
        """Add pixels of the next source.

        Args:
            region: Where they lie.
            values: 2-D array of the shape of `region`.
            inside: Where the source reaches at all; None for everywhere in the region.
        """

    def can_change(self, region: Region) -> bool:
        """Return whether another source could still change a pixel of `region`."""
        return True

    def result(self) -> Array:
        """Return the merged pixels, nodata where no source had data.

        Without a nodata value they are a masked array if there are such pixels.
        """
        return as_masked(self._merged(), self._data if self.nodata is None else None)

    def _merged(self) -> Array:
        return self.pixels

    @property
    @abstractmethod
    def _data(self) -> Mask | None:
        """Where any source had data; only used without a nodata value."""

    def _valid(self, values: Array, inside: Mask | None) -> Mask:
        valid = valid_mask(values, self.nodata)
        if valid is None:
            return np.ones(values.shape, bool) if inside is None else inside
        return valid if inside is None else valid & inside


class FirstMerge(Merge):
    """Take the first source that has data.

    With a nodata value, no mask is kept: a pixel is still empty where it equals nodata, and copying
    nodata onto nodata changes nothing.
    """

    name = "first"
    order: ClassVar[Order] = "forward"

    def __init__(self, shape: tuple[int, int], dtype: np.dtype[Any], nodata: float | None) -> None:
        super().__init__(shape, dtype, nodata)
        self._touched: list[Region] = []
        self._filled: Mask | None = np.zeros(shape, bool) if nodata is None else None

    def add(self, region: Region, values: Array, inside: Mask | None) -> None:
        is_untouched = not self._is_touched(region)
        self._touched.append(region)
        # The common case: nothing is there yet, so nothing has to be compared.
        if is_untouched and inside is None:
            self.pixels[region] = values
            if self._filled is not None:
                self._filled[region] = True
            return
        holes = self._holes(region)
        if inside is not None:
            holes = holes & inside
        np.copyto(self.pixels[region], values, where=holes)
        if self._filled is not None:
            self._filled[region] |= holes

    def can_change(self, region: Region) -> bool:
        return not self._is_touched(region) or bool(self._holes(region).any())

    def _is_touched(self, region: Region) -> bool:
        return any(_overlap(region, earlier) for earlier in self._touched)

    @property
    def _data(self) -> Mask | None:
        return self._filled

    def _holes(self, region: Region) -> Mask:
        """Where no source has had data so far."""
        if self._filled is not None:
            return np.asarray(~self._filled[region])
        valid = valid_mask(self.pixels[region], self.nodata)
        return np.zeros(self.pixels[region].shape, bool) if valid is None else np.asarray(~valid)


class LastMerge(FirstMerge):
    """Take the last source that has data: the first one of the reversed order."""

    name = "last"
    order = "reversed"


def _overlap(one: Region, other: Region) -> bool:
    return all(a.start < b.stop and b.start < a.stop for a, b in zip(one, other, strict=True))


class _MaskedMerge(Merge):
    """A merge to which every source contributes; a mask records which pixels have data."""

    def __init__(self, shape: tuple[int, int], dtype: np.dtype[Any], nodata: float | None) -> None:
        super().__init__(shape, dtype, nodata)
        self.filled: Mask = np.zeros(shape, bool)

    @property
    def _data(self) -> Mask | None:
        return self.filled


class _ExtremeMerge(_MaskedMerge):
    """Take the lowest or the highest number."""

    is_better: ClassVar[np.ufunc]

    @classmethod
    def bytes_per_pixel(cls, sources: int) -> int:
        return 2

    def add(self, region: Region, values: Array, inside: Mask | None) -> None:
        # Views: writing to them changes the merge. The first valid number is always taken.
        filled, pixels = self.filled[region], self.pixels[region]
        take = (~filled | self.is_better(values, pixels)) & self._valid(values, inside)
        np.copyto(pixels, values, where=take)
        filled |= take


class MinMerge(_ExtremeMerge):
    """Take the lowest number of all sources."""

    name = "min"
    is_better = np.less


class MaxMerge(_ExtremeMerge):
    """Take the highest number of all sources."""

    name = "max"
    is_better = np.greater


class MeanMerge(_MaskedMerge):
    """Take the arithmetic mean of all sources; integers are rounded half to even."""

    name = "mean"

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
        return _round_and_cast(self, self._sum)


class MedianMerge(_MaskedMerge):
    """Take the median of all sources.

    Of an even number it is the mean of the middle two; integers are rounded half to even.
    """

    name = "median"

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
        return _round_and_cast(self, np.where(count % 2 == 1, low, (low + high) / 2))


def _round_and_cast(merge: _MaskedMerge, values: Array) -> Array:
    """Write floating-point results to the pixels of a merge, avoiding its nodata value."""
    dtype = merge.pixels.dtype
    if dtype.kind != "f":
        values = np.rint(np.where(merge.filled, values, 0))
    np.copyto(merge.pixels, values.astype(dtype), where=merge.filled)
    if merge.nodata is not None and dtype.kind != "f" and fits(merge.nodata, dtype):
        # The mean of numbers below and above nodata can equal nodata: move it by one.
        hit = merge.filled & (merge.pixels == dtype.type(merge.nodata))
        merge.pixels[hit] += 1 if merge.nodata < np.iinfo(dtype).max else -1
    return merge.pixels


_CLASSES: tuple[type[Merge], ...] = (
    FirstMerge,
    LastMerge,
    MinMerge,
    MaxMerge,
    MeanMerge,
    MedianMerge,
)
MERGE_METHODS: dict[str, type[Merge]] = {merge.name: merge for merge in _CLASSES}
"""Merge methods by name."""
MERGE_METHOD_NAMES = tuple(MERGE_METHODS)


def new_merge(
    method: str, shape: tuple[int, int], dtype: np.dtype[Any], nodata: float | None
) -> Merge:
    """Create an empty merge.

    Args:
        method: Name of a method: see `MERGE_METHODS`.
        shape: Rows and columns.
        dtype: Dtype of the sources and of the result.
        nodata: Nodata value of both; None if there is none.
    """
    return MERGE_METHODS[method](shape, dtype, nodata)
