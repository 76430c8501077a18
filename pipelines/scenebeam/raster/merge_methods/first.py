"""The first source that has data."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from scenebeam.raster.merge import Merge, Order, Region
from scenebeam.raster.validity import Array, Mask, valid_mask


class FirstMerge(Merge):
    """Take the first source that has data.

    With a nodata value, no mask is kept: a pixel is still empty where it equals nodata, and copying
    nodata onto nodata changes nothing.
    """

    order: ClassVar[Order] = "forward"

    def __init__(self, shape: tuple[int, int], dtype: np.dtype[Any], nodata: float | None) -> None:
        super().__init__(shape, dtype, nodata)
        self._touched: list[Region] = []
        self._filled: Mask | None = np.zeros(shape, bool) if nodata is None else None
        self._taken: Array | None = None

    def track_sources(self) -> None:
        self._taken = np.full(self.pixels.shape, -1, np.int16)

    @property
    def taken(self) -> Array:
        assert self._taken is not None, "sources are not tracked"
        return self._taken

    def add(self, region: Region, values: Array, inside: Mask | None) -> None:
        if self._taken is not None:
            taken = self._taken[region]
            taken[(taken < 0) & self._valid(values, inside)] = self.source
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


def _overlap(one: Region, other: Region) -> bool:
    return all(a.start < b.stop and b.start < a.stop for a, b in zip(one, other, strict=True))


METHOD = FirstMerge
