"""Source: one band of one open file, whichever door reads it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import numpy as np
from affine import Affine

from scenebeam.raster.validity import Array

Block = tuple[int, int]
"""Row and column of a block in its image."""
LOOK = 2**20
"""Pixels of an overview that are enough to see the image by."""


@dataclass(frozen=True)
class RasterInfo:
    """What a file says of itself."""

    href: str
    crs: str
    transform: Affine
    width: int
    height: int
    count: int
    dtype: np.dtype[Any]
    """In the order of this machine."""
    nodata: float | None
    """As a number of the dtype; None where none is declared that the dtype can hold."""
    block: tuple[int, int]
    """Rows and columns that are read together."""
    descriptions: tuple[str, ...] = ()
    """What the file calls its bands; empty where it does not say."""
    driver: str = ""
    """GDAL's name of the format."""
    masked: bool = False
    """Whether a mask or an alpha band says where there is data: then blocks may be masked
    arrays.
    """


class Source(ABC):
    """One band of one open file. Threads may share it."""

    info: RasterInfo

    @abstractmethod
    def fetch(self, blocks: Iterable[Block]) -> dict[Block, Future[Array]]:
        """Start reading blocks; each future gives a 2-D array, cut at the image's edge.

        It is a masked array where the file's mask or alpha band hides some of it.
        A future raises ReadError: a failed read is never a blank block.
        """

    @abstractmethod
    def sample_overview(self, *, at_full_size: bool = False) -> list[Array]:
        """2-D pieces that show all of the image at little cost: an overview, or blocks from all
        over it.

        `at_full_size`: no overview, whose means hide how pixels differ. Also looks at both ends of
        the image. Raises ReadError where the file is truncated or cannot be decoded.
        """

    @property
    def block_bytes(self) -> int:
        """Bytes of memory that one block takes while it is decoded: of all bands that it holds."""
        return self.info.block[0] * self.info.block[1] * self.info.dtype.itemsize

    def cost(self, blocks: Iterable[Block]) -> tuple[int, int] | None:
        """Requests and bytes that fetching some blocks takes; None where only GDAL knows."""
        return None

    def close(self) -> None:
        """Let go of the file."""
        return


def read_window(source: Source, row: int, column: int, height: int, width: int) -> Array:
    """An (height, width) array of a source's own pixels; the window must lie inside the image."""
    info = source.info
    blocks = blocks_meeting(info, row, column, height, width)
    make = np.ma.empty if info.masked else np.empty
    found: Array = make((height, width), info.dtype)
    for (block_row, block_column), future in source.fetch(blocks).items():
        top, left = block_row * info.block[0], block_column * info.block[1]
        block = future.result()
        rows = slice(max(top, row), min(top + block.shape[0], row + height))
        columns = slice(max(left, column), min(left + block.shape[1], column + width))
        found[
            rows.start - row : rows.stop - row, columns.start - column : columns.stop - column
        ] = block[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
    return found


def blocks_meeting(info: RasterInfo, row: int, column: int, height: int, width: int) -> list[Block]:
    """Blocks of an image that meet a window of it, in file order."""
    rows = range(max(row, 0) // info.block[0], -(-min(row + height, info.height) // info.block[0]))
    columns = range(
        max(column, 0) // info.block[1], -(-min(column + width, info.width) // info.block[1])
    )
    return [(r, c) for r in rows for c in columns]
