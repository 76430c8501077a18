"""What merges share to which every source contributes."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from scenebeam.raster.merge import Merge, Region
from scenebeam.raster.validity import Array, Mask, fits


class MaskedMerge(Merge):
    """A merge to which every source contributes; a mask records which pixels have data."""

    def __init__(self, shape: tuple[int, int], dtype: np.dtype[Any], nodata: float | None) -> None:
        super().__init__(shape, dtype, nodata)
        self.filled: Mask = np.zeros(shape, bool)

    @property
    def _data(self) -> Mask | None:
        return self.filled


class ExtremeMerge(MaskedMerge):
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


def round_and_cast(merge: MaskedMerge, values: Array) -> Array:
    """Write floating-point results to the pixels of a merge, avoiding its nodata value."""
    dtype = merge.pixels.dtype
    if dtype.kind != "f":
        values = np.rint(np.where(merge.filled, values, 0))
    np.copyto(merge.pixels, values.astype(dtype), where=merge.filled)
    if merge.nodata is not None and dtype.kind != "f" and fits(merge.nodata, dtype):
        # The mean of numbers below and above nodata can equal nodata: move it by one.
        hit = merge.filled & (merge.pixels == dtype.type(merge.nodata))
        if merge.nodata < np.iinfo(dtype).max:
            merge.pixels[hit] += 1
        else:  # not `+= -1`, which unsigned dtypes refuse
            merge.pixels[hit] -= 1
    return merge.pixels
