"""Grid mapping: how the blocks of one source land on the output grid.

A mapping answers two questions for any rows of the grid: which blocks of the source are needed, and
what pixels they give. `aligned` and `warp` implement it; `warp.map_to_grid` chooses.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator

import numpy as np
from shapely.geometry import box
from shapely.geometry.base import BaseGeometry

from scenebeam.raster.grid import Grid
from scenebeam.raster.merge import Region
from scenebeam.raster.source import Block, RasterInfo
from scenebeam.raster.validity import Array, Mask

Bounds = tuple[float, float, float, float]
"""Left, top, right and bottom in pixels of the grid."""
ReadBlock = Callable[[Block], Array]
"""Returns the pixels of a block that has been fetched."""
Piece = tuple[Region, Array, Mask | None]
"""Region that the pixels land on, the pixels, and where in the region the source reaches.

None as the third means everywhere, or that the nodata value marks where it does not.
"""


class GridMapping(ABC):
    """How the blocks of one source land on one grid."""

    def __init__(self, info: RasterInfo, grid: Grid, nodata: float | None) -> None:
        self.info, self.grid, self.nodata = info, grid, nodata

    @abstractmethod
    def required_blocks(self, top: int, bottom: int) -> list[tuple[Block, Region]]:
        """Return the blocks that rows [top, bottom) of the grid need.

        Returns:
            Each block with the region that it can change, relative to row `top`.
        """

    @abstractmethod
    def resample(
        self, top: int, bottom: int, blocks: list[Block], get: ReadBlock
    ) -> Iterator[Piece]:
        """Yield the pixels that `blocks` give for rows [top, bottom) of the grid.

        Args:
            top: First row of the grid.
            bottom: Row after the last.
            blocks: Blocks out of `required_blocks(top, bottom)`, all or some of them.
            get: Returns the pixels of a block.
        """

    def columns_of(self, block: Block) -> slice:
        """Return the columns of a block that the grid needs; all of them if that is not known."""
        return slice(0, self.info.block[1])

    @property
    @abstractmethod
    def outline(self) -> Bounds:
        """Bounds of the source on the grid; may reach beyond the grid."""

    @property
    def extent(self) -> BaseGeometry:
        """Area that the source covers, in pixels of the grid."""
        return box(*self.outline)


def is_empty(region: Region) -> bool:
    """Return whether a region contains no pixel."""
    rows, columns = region
    return bool(rows.stop <= rows.start or columns.stop <= columns.start)


def stitch_blocks(
    info: RasterInfo, blocks: list[Block], get: ReadBlock, nodata: float | None
) -> tuple[Array, int, int]:
    """Join blocks into one array.

    Args:
        info: The image.
        blocks: At least one block. Gaps between them are filled with nodata, or 0.
        get: Returns the pixels of a block.
        nodata: Nodata value.

    Returns:
        The pixels of the smallest rectangle that contains the blocks, and the row and column of the
        image at its upper left corner.
    """
    height, width = info.block
    block_rows, block_columns = zip(*blocks, strict=True)
    first_row, first_column = min(block_rows) * height, min(block_columns) * width
    if len(blocks) == 1:
        return get(blocks[0]), first_row, first_column
    # Blocks at the right and lower edge of the image are cut off there.
    rows = min((max(block_rows) + 1) * height, info.height) - first_row
    columns = min((max(block_columns) + 1) * width, info.width) - first_column
    stitched: Array
    block_count = (-(-rows // height)) * (-(-columns // width))
    if len(blocks) < block_count:
        stitched = np.full((rows, columns), 0 if nodata is None else nodata, info.dtype)
    else:  # there is no gap to fill
        stitched = np.empty((rows, columns), info.dtype)
    if info.masked and nodata is None:
        stitched = np.ma.MaskedArray(stitched, mask=False)
    for block in blocks:
        pixels = get(block)
        row, column = block[0] * height - first_row, block[1] * width - first_column
        stitched[row : row + pixels.shape[0], column : column + pixels.shape[1]] = pixels
    return stitched, first_row, first_column
