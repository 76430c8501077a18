"""Merge: pixels of several tiles → one. Nodata never overwrites data, in any method."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np

from scenebeam.raster.validity import Array, Mask, fits, masked, same_nodata, valid_mask

Region = tuple[slice, slice]


def harmonize(values: Array, valid: Mask | None, add_offset: int, nodata: float | None) -> Array:
    """Take a provider's constant `shift` out of the valid pixels; the dtype stays.

    What would fall below the dtype's range, or onto nodata, becomes the lowest number that is data:
    a valid pixel never becomes nodata.
    """
    if add_offset == 0:
        return values
    if values.dtype.kind == "f":
        moved = values - values.dtype.type(add_offset)
    else:
        limits = np.iinfo(values.dtype)
        lowest = limits.min + (1 if nodata == limits.min else 0)
        moved = np.maximum(values.astype(np.int64) - add_offset, lowest).astype(values.dtype)
        if nodata is not None and fits(nodata, values.dtype) and nodata != limits.min:
            moved[moved == values.dtype.type(nodata)] += 1
    return moved if valid is None else np.where(valid, moved, values)


def cast_nodata(
    values: Array, nodata: float | None, dtype: np.dtype[Any], wanted: float | None
) -> Array:
    """Values in another dtype, which holds them all, their `nodata` written as the `wanted` one."""
    if wanted is not None and (np.ma.is_masked(values) or not same_nodata(nodata, wanted)):
        valid = valid_mask(values, nodata)
        values = np.asarray(values).astype(dtype)
        if valid is not None:
            values[~valid] = wanted
    return values.astype(dtype, copy=False)


class Merge(ABC):
    """The pixels of one strip while tiles are laid onto it, best tile first."""

    def __init__(self, shape: tuple[int, int], dtype: np.dtype[Any], nodata: float | None) -> None:
        self.nodata = nodata
        self.pixels: Array = np.full(shape, 0 if nodata is None else nodata, dtype)

    @abstractmethod
    def add(self, region: Region, values: Array, inside: Mask | None) -> None:
        """Lay `values` (2-D, the shape of `region`) of the next tile onto the strip, where they hold data.

        `inside` tells where there is a tile at all; None: everywhere in the region.
        """

    def wants(self, region: Region) -> bool:
        """Whether another tile could still change a pixel of `region`."""
        return True

    def result(self) -> Array:
        """The strip, nodata where no tile had data; a masked array where there are holes that no number can mark."""
        return masked(self._merged(), self._data if self.nodata is None else None)

    def _merged(self) -> Array:
        return self.pixels

    @property
    @abstractmethod
    def _data(self) -> Mask | None:
        """Where any tile had data, of a strip without a nodata value."""

    def _valid(self, values: Array, inside: Mask | None) -> Mask:
        valid = valid_mask(values, self.nodata)
        if valid is None:
            return np.ones(values.shape, bool) if inside is None else inside
        return valid if inside is None else valid & inside


class _First(Merge):
    """The best tile that has data. (`last` is the same on the reversed order.)

    Where there is a nodata value it marks the holes itself: laying nodata onto nodata changes nothing.
    """

    def __init__(self, shape: tuple[int, int], dtype: np.dtype[Any], nodata: float | None) -> None:
        super().__init__(shape, dtype, nodata)
        self._touched: list[Region] = []
        self._filled: Mask | None = np.zeros(shape, bool) if nodata is None else None

    def add(self, region: Region, values: Array, inside: Mask | None) -> None:
        fresh = not any(_meet(region, earlier) for earlier in self._touched)
        self._touched.append(region)
        if fresh and inside is None:
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

    def wants(self, region: Region) -> bool:
        return not any(_meet(region, earlier) for earlier in self._touched) or bool(
            self._holes(region).any()
        )

    @property
    def _data(self) -> Mask | None:
        return self._filled

    def _holes(self, region: Region) -> Mask:
        if self._filled is not None:
            return np.asarray(~self._filled[region])
        valid = valid_mask(self.pixels[region], self.nodata)
        return np.zeros(self.pixels[region].shape, bool) if valid is None else np.asarray(~valid)


def _meet(one: Region, other: Region) -> bool:
    return all(a.start < b.stop and b.start < a.stop for a, b in zip(one, other, strict=True))


class _Counting(Merge):
    """A merge that every tile has its part in: which pixels have had any is kept beside them."""

    def __init__(self, shape: tuple[int, int], dtype: np.dtype[Any], nodata: float | None) -> None:
        super().__init__(shape, dtype, nodata)
        self.filled: Mask = np.zeros(shape, bool)

    @property
    def _data(self) -> Mask | None:
        return self.filled


class _Extreme(_Counting):
    """The least or the greatest of the tiles."""

    better: np.ufunc

    def add(self, region: Region, values: Array, inside: Mask | None) -> None:
        filled, pixels = self.filled[region], self.pixels[region]
        take = (~filled | self.better(values, pixels)) & self._valid(values, inside)
        np.copyto(pixels, values, where=take)
        filled |= take


class _Min(_Extreme):
    better = np.less


class _Max(_Extreme):
    better = np.greater


class _Mean(_Counting):
    """The arithmetic mean of the tiles; integers are rounded to the nearest, ties to even."""

    def __init__(self, shape: tuple[int, int], dtype: np.dtype[Any], nodata: float | None) -> None:
        super().__init__(shape, dtype, nodata)
        self._sum = np.zeros(shape, np.float64)
        self._count = np.zeros(shape, np.uint16)

    def add(self, region: Region, values: Array, inside: Mask | None) -> None:
        valid = self._valid(values, inside)
        np.add(self._sum[region], values, out=self._sum[region], where=valid)
        self._count[region] += valid
        self.filled[region] |= valid

    def _merged(self) -> Array:
        np.divide(self._sum, self._count, out=self._sum, where=self.filled)
        return round_and_cast(self, self._sum)


class _Median(_Counting):
    """The median of the tiles; of an even number the mean of the middle two, rounded as `mean` is."""

    def __init__(self, shape: tuple[int, int], dtype: np.dtype[Any], nodata: float | None) -> None:
        super().__init__(shape, dtype, nodata)
        self._layers: list[Array] = []

    def add(self, region: Region, values: Array, inside: Mask | None) -> None:
        valid = self._valid(values, inside)
        # One layer holds as many tiles as fit side by side: a new one only where they overlap.
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
        stack = np.sort(np.stack(self._layers), axis=0)  # NaN last
        count = np.count_nonzero(~np.isnan(stack), axis=0)
        low = np.take_along_axis(stack, np.maximum(count - 1, 0)[None] // 2, axis=0)[0]
        high = np.take_along_axis(stack, np.minimum(count // 2, len(stack) - 1)[None], axis=0)[0]
        return round_and_cast(self, np.where(count % 2 == 1, low, (low + high) / 2))


def round_and_cast(merge: _Counting, values: Array) -> Array:
    """Floating-point results → the strip's dtype, kept off the nodata value."""
    dtype = merge.pixels.dtype
    if dtype.kind != "f":
        values = np.rint(np.where(merge.filled, values, 0))
    np.copyto(merge.pixels, values.astype(dtype), where=merge.filled)
    if merge.nodata is not None and dtype.kind != "f" and fits(merge.nodata, dtype):
        # A mean of valid numbers on both sides of nodata can hit it.
        hit = merge.filled & (merge.pixels == dtype.type(merge.nodata))
        merge.pixels[hit] += 1 if merge.nodata < np.iinfo(dtype).max else -1
    return merge.pixels


_METHODS: dict[str, type[Merge]] = {
    "first": _First,
    "last": _First,
    "min": _Min,
    "max": _Max,
    "mean": _Mean,
    "median": _Median,
}


def new_merge(
    method: str, shape: tuple[int, int], dtype: np.dtype[Any], nodata: float | None
) -> Merge:
    """An empty strip for `first`, `last`, `min`, `max`, `mean` or `median`."""
    return _METHODS[method](shape, dtype, nodata)
