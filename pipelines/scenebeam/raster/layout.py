"""Layout of one image in a GeoTIFF: its grid, its number type, and where each block is.

A block is the compressed unit of a TIFF: a tile, or a strip as wide as the image.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from affine import Affine

from scenebeam.raster.validity import nodata_in_dtype


@dataclass(frozen=True)
class TiffLayout:
    """One image of a GeoTIFF, in tiles or strips, as its header describes it."""

    href: str
    signing: str
    width: int
    height: int
    count: int
    """Number of bands."""
    dtype: np.dtype[Any]
    """As stored; may be big-endian."""
    crs: str
    transform: Affine
    declared_nodata: float | None
    """Nodata value in the header, whether or not the dtype can represent it."""
    block: tuple[int, int]
    """Rows and columns of a block. The last strip of an image may have fewer rows."""
    strips: bool
    """Whether blocks are strips; otherwise they are tiles."""
    codec: str
    """Key in `codecs.CODECS`."""
    predictor: int
    """TIFF predictor: 1 (none), 2 (horizontal differencing) or 3 (floating point)."""
    interleaved: bool
    """Whether a block holds all bands of its pixels (PlanarConfiguration = 1)."""
    offsets: np.ndarray[Any, np.dtype[np.int64]]
    """First byte of each block, in the order of `number`."""
    sizes: np.ndarray[Any, np.dtype[np.int64]]
    """Bytes of each block; 0 for a sparse block, which was never written and is all nodata."""
    descriptions: tuple[str, ...] = ()
    """Band descriptions; empty where the file has none."""
    overviews: tuple[TiffLayout, ...] = ()
    """Overviews of the image, largest first; empty unless they were asked for."""
    missing: int = 0
    """Bytes that the header refers to beyond the end of the file; above 0, it is truncated."""

    @property
    def nodata(self) -> float | None:
        """Nodata value as a number of the dtype; None if the dtype cannot represent it."""
        return nodata_in_dtype(self.declared_nodata, self.dtype.newbyteorder("="))

    @property
    def samples_per_block(self) -> int:
        """Number of bands in one block."""
        return self.count if self.interleaved else 1

    @property
    def block_bytes(self) -> int:
        """Size of a decoded block."""
        return self.block[0] * self.block[1] * self.dtype.itemsize * self.samples_per_block

    @property
    def blocks_down(self) -> int:
        """Number of rows of blocks."""
        return -(-self.height // self.block[0])

    @property
    def blocks_across(self) -> int:
        """Number of blocks in a row of blocks."""
        return -(-self.width // self.block[1])

    def number(self, row: int, column: int, band: int) -> int:
        """Return the index of a block in `offsets` and `sizes`.

        Args:
            row: Row of the block, from 0.
            column: Column of the block, from 0.
            band: Band, from 1; irrelevant where blocks hold all bands.
        """
        index = row * self.blocks_across + column
        if self.interleaved:
            return index
        return index + (band - 1) * self.blocks_across * self.blocks_down
