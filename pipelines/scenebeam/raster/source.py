"""Source: one band of one open file, whichever reader opened it.

Pixels are read by blocks. A block of a source is what is read together: a tile of the file, some of
its strips, or some of the blocks that GDAL reports.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from affine import Affine

from scenebeam.raster.validity import Array

Block = tuple[int, int]
"""Row and column of a block in its image, from 0."""
OVERVIEW_PIXELS = 2**20
"""Pixels of an overview that are enough to judge an image by."""


@dataclass(frozen=True)
class RasterInfo:
    """What a file says about one of its bands."""

    href: str
    crs: str
    """`EPSG:<code>`, or WKT for a CRS without a code."""
    transform: Affine
    width: int
    height: int
    count: int
    """Number of bands in the file."""
    dtype: np.dtype[Any]
    """In native byte order."""
    nodata: float | None
    """As a number of the dtype; None if none is declared that the dtype can represent."""
    block: tuple[int, int]
    """Rows and columns of a block."""
    descriptions: tuple[str, ...] = ()
    """Descriptions of all bands; empty if the file has none."""
    driver: str = ""
    """GDAL's name of the format."""
    masked: bool = False
    """Whether the file has a mask or an alpha band: then blocks may be masked arrays."""

    @property
    def place(self) -> RasterInfo:
        """What a mapping needs to know of the file: equal for bands in the same place."""
        return replace(self, href="", count=0, descriptions=(), driver="")


class Source(ABC):
    """One band of one open file. Safe to share between threads."""

    info: RasterInfo

    @abstractmethod
    def fetch(self, blocks: Iterable[Block]) -> dict[Block, Future[Array]]:
        """Start to read blocks.

        Returns:
            A future for each block: a 2-D array, cut off at the edge of the image; a masked array
            if the file's mask or alpha band hides some of it. A failed read is never a blank
            block: the future raises ReadError.
        """

    def prefetch(self, blocks: Iterable[Block], release: Callable[[int], None]) -> int:
        """Start to read the compressed bytes of blocks, which are kept until they are fetched.

        Args:
            blocks: The blocks. Those that are being read already are left out.
            release: Called with the size of each block, in bytes, once it has arrived and has been
                fetched.

        Returns:
            The bytes of the blocks that are read: 0 if the reader cannot read them apart from
            decoding them.
        """
        return 0

    @abstractmethod
    def sample_overview(self, *, at_full_size: bool = False) -> list[Array]:
        """Read a sample of the whole image at little cost.

        The first and the last block are read too, so that damage at either end is noticed.

        Args:
            at_full_size: Whether to read full-size blocks from all over the image, instead of an
                overview, whose averages hide how much neighboring pixels differ.

        Returns:
            2-D arrays: a single one for an overview, which shows all of the image.

        Raises:
            ReadError: The file is truncated or cannot be decoded.
        """

    @property
    def block_bytes(self) -> int:
        """Bytes of memory to decode one block, with all bands that it holds."""
        return self.info.block[0] * self.info.block[1] * self.info.dtype.itemsize

    def cost(self, blocks: Iterable[Block]) -> tuple[int, int] | None:
        """Return the requests and bytes that fetching blocks takes; None if only GDAL knows."""
        return None

    def close(self) -> None:
        """Release the file."""
        return


def read_window(source: Source, row: int, column: int, height: int, width: int) -> Array:
    """Read a window of a source's own pixels.

    Args:
        source: The source.
        row: First row.
        column: First column.
        height: Rows. The window must lie inside the image.
        width: Columns.

    Returns:
        Array of shape (height, width); a masked array if the file has a mask.

    Raises:
        ReadError: A block cannot be read.
    """
    info = source.info
    blocks = blocks_meeting(info, row, column, height, width)
    make = np.ma.empty if info.masked else np.empty
    window: Array = make((height, width), info.dtype)
    for (block_row, block_column), future in source.fetch(blocks).items():
        top, left = block_row * info.block[0], block_column * info.block[1]
        block = future.result()
        # The part that block and window share, in rows and columns of the image.
        rows = slice(max(top, row), min(top + block.shape[0], row + height))
        columns = slice(max(left, column), min(left + block.shape[1], column + width))
        shared = block[
            rows.start - top : rows.stop - top, columns.start - left : columns.stop - left
        ]
        window[
            rows.start - row : rows.stop - row, columns.start - column : columns.stop - column
        ] = shared
    return window


def blocks_meeting(info: RasterInfo, row: int, column: int, height: int, width: int) -> list[Block]:
    """List the blocks of an image that intersect a window.

    Args:
        info: The image.
        row: First row of the window, in pixels of the image; the window may extend beyond it.
        column: First column.
        height: Rows of the window.
        width: Columns of the window.

    Returns:
        The blocks, row by row.
    """
    first_row, last_row = max(row, 0), min(row + height, info.height)
    first_column, last_column = max(column, 0), min(column + width, info.width)
    rows = range(first_row // info.block[0], -(-last_row // info.block[0]))
    columns = range(first_column // info.block[1], -(-last_column // info.block[1]))
    blocks = []
    for block_row in rows:
        blocks += [(block_row, block_column) for block_column in columns]
    return blocks
