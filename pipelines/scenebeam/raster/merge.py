"""Merge overlapping sources into one array. Nodata never overwrites data, whatever the method.

A method is a module of `merge_methods` with a subclass of `Merge` as METHOD, and is known by the
name of its module. What the rest of the code has to know about a method (its order of sources, its
memory) are attributes of its class.
"""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from functools import cache
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
        # If nodata is the lowest number of the dtype (0 in Sentinel-2), data starts one above it.
        lowest = limits.min + (1 if nodata == limits.min else 0)
        # Unsigned integers would wrap around: subtract in 64 bits.
        moved = np.maximum(values.astype(np.int64) - add_offset, lowest).astype(values.dtype)
        # A nodata value inside the range can be hit by chance: such pixels are off by 1 instead.
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
    # Masks and nodata values both mark holes: in the result only `wanted` does.
    if wanted is not None and (np.ma.is_masked(values) or not same_nodata(nodata, wanted)):
        valid = valid_mask(values, nodata)
        values = np.asarray(values).astype(dtype)
        if valid is not None:
            values[~valid] = wanted
    return values.astype(dtype, copy=False)


class Merge(ABC):
    """One chunk of rows of the output, to which the sources are added one after another."""

    order: ClassVar[Order] = "any"

    source = 0
    """Index of the source whose pixels are added."""

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

    def track_sources(self) -> None:
        """Record in `taken` which source each pixel is of: the method must take whole pixels."""
        raise NotImplementedError(f"{type(self).__name__} combines the pixels of its sources")

    @property
    def taken(self) -> Array:
        """Index of the source of each pixel as int16; -1 where none had data."""
        raise NotImplementedError

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


@cache
def merge_method(name: str) -> type[Merge]:
    """Import the class of a merge method.

    Args:
        name: The name of a module of `merge_methods`.
    """
    method: type[Merge] = importlib.import_module(f"scenebeam.raster.merge_methods.{name}").METHOD
    return method


def new_merge(
    method: str, shape: tuple[int, int], dtype: np.dtype[Any], nodata: float | None
) -> Merge:
    """Create an empty merge.

    Args:
        method: Name of a merge method.
        shape: Rows and columns.
        dtype: Dtype of the sources and of the result.
        nodata: Nodata value of both; None if there is none.
    """
    return merge_method(method)(shape, dtype, nodata)
