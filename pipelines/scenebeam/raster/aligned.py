"""Map sources whose pixels line up with the grid: copy, repeat, or interpolate by a whole factor.

No coordinates are transformed here: everything is integer arithmetic on rows and columns, with
three units. A *pixel* is one of the grid, a *source pixel* is `factor` x `factor` of them, and a
*block* is `info.block` source pixels.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from scenebeam.raster.grid import Grid
from scenebeam.raster.mapping import (
    Bounds,
    GridMapping,
    Piece,
    ReadBlock,
    is_empty,
    stitch_blocks,
)
from scenebeam.raster.merge import Region
from scenebeam.raster.source import Block, RasterInfo, blocks_meeting
from scenebeam.raster.validity import Array, all_valid

_ROWS_AT_ONCE = 64
"""Source rows that are interpolated together: intermediate results stay in the CPU's cache."""


class _Aligned(GridMapping):
    """Each source pixel is exactly `factor` x `factor` pixels of the grid."""

    def __init__(
        self, info: RasterInfo, grid: Grid, nodata: float | None, factor: int, top: int, left: int
    ) -> None:
        """Describe where a source is.

        Args:
            info: The source.
            grid: The grid.
            nodata: Nodata value.
            factor: Pixels of the grid per source pixel, in each direction.
            top: Row of the grid where the source begins; may be negative.
            left: Column of the grid where the source begins; may be negative.
        """
        super().__init__(info, grid, nodata)
        self._factor, self._top, self._left = factor, top, left

    @property
    def outline(self) -> Bounds:
        height, width = self.info.height * self._factor, self.info.width * self._factor
        return self._left, self._top, self._left + width, self._top + height


class AlignedCopy(_Aligned):
    """Copy source pixels as they are (factor 1), or repeat them (nearest neighbor)."""

    def required_blocks(self, top: int, bottom: int) -> list[tuple[Block, Region]]:
        # Source rows and columns under this part of the grid: rounded down to where it begins, and
        # up (by negating twice) to where it ends.
        first, last = (top - self._top) // self._factor, -(-(bottom - self._top) // self._factor)
        left = -self._left // self._factor
        right = -(-(self.grid.shape[1] - self._left) // self._factor)
        required = []
        for block in blocks_meeting(self.info, first, left, last - first, right - left):
            region = self._region(block, top, bottom)
            if not is_empty(region):
                required.append((block, region))
        return required

    def _origin(self, block: Block) -> tuple[int, int]:
        """Row and column of the grid where a block begins."""
        height, width = self.info.block
        row = self._top + block[0] * height * self._factor
        column = self._left + block[1] * width * self._factor
        return row, column

    def columns_of(self, block: Block) -> slice:
        _, column = self._origin(block)
        first = max(0, -column // self._factor)
        last = -(-(self.grid.shape[1] - column) // self._factor)
        return slice(first, min(last, self.info.block[1]))

    def _region(self, block: Block, top: int, bottom: int) -> Region:
        """Region that a block lands on within rows [top, bottom)."""
        height, width = self.info.block
        row, column = self._origin(block)
        # Blocks at the lower and right edge of the image are cut off there.
        last_row = min(row + height * self._factor, self._top + self.info.height * self._factor)
        last_column = min(
            column + width * self._factor, self._left + self.info.width * self._factor
        )
        return (
            slice(max(row, top) - top, max(min(last_row, bottom), top) - top),
            slice(max(column, 0), max(min(last_column, self.grid.shape[1]), 0)),
        )

    def resample(
        self, top: int, bottom: int, blocks: list[Block], get: ReadBlock
    ) -> Iterator[Piece]:
        for block in blocks:
            region = self._region(block, top, bottom)
            rows, columns = region
            row, column = self._origin(block)
            pixels = get(block)
            if self._factor == 1:
                # A view of the block: nothing is copied before the pixels are merged.
                down, right = top - row, -column
                pixels = pixels[
                    rows.start + down : rows.stop + down,
                    columns.start + right : columns.stop + right,
                ]
            else:
                # The source row and column, within the block, of each row and column of the region.
                row_index = (np.arange(rows.start, rows.stop) + top - row) // self._factor
                column_index = (np.arange(columns.start, columns.stop) - column) // self._factor
                # Columns are repeated first, while there are fewer rows to repeat them in.
                pixels = pixels[row_index[0] : row_index[-1] + 1].take(column_index, axis=1)
                pixels = pixels.take(row_index - row_index[0], axis=0)
            yield region, pixels, None


class IntegerUpsample(_Aligned):
    """Interpolate bilinearly by a whole factor, as GDAL does.

    Around nodata the weights depend on which neighbors are valid. GDAL's warper computes that:
    `fallback` is used for parts of the source that contain nodata.
    """

    def __init__(
        self,
        info: RasterInfo,
        grid: Grid,
        nodata: float | None,
        factor: int,
        top: int,
        left: int,
        fallback: GridMapping,
    ) -> None:
        super().__init__(info, grid, nodata, factor, top, left)
        self._fallback = fallback

    def _source_window(self, top: int, bottom: int) -> tuple[int, int, int, int]:
        """First and last rows, first and last columns of the source under rows [top, bottom)."""
        factor = self._factor
        return (
            max((top - self._top) // factor, 0),
            min(-(-(bottom - self._top) // factor), self.info.height),
            max(-self._left // factor, 0),
            min(-(-(self.grid.shape[1] - self._left) // factor), self.info.width),
        )

    def required_blocks(self, top: int, bottom: int) -> list[tuple[Block, Region]]:
        first, last, left, right = self._source_window(top, bottom)
        if first >= last or left >= right:
            return []
        region = self._region(top, bottom)
        # Pixels near the rim lie between the centers of two source pixels, one of which is beyond
        # it: read one more source pixel on all sides.
        row, column = max(first - 1, 0), max(left - 1, 0)
        blocks = blocks_meeting(self.info, row, column, last + 1 - row, right + 1 - column)
        return [(block, region) for block in blocks]

    def _region(self, top: int, bottom: int) -> Region:
        left, first, right, last = (round(side) for side in self.outline)
        return (
            slice(max(first, top) - top, min(last, bottom) - top),
            slice(max(left, 0), min(right, self.grid.shape[1])),
        )

    def resample(
        self, top: int, bottom: int, blocks: list[Block], get: ReadBlock
    ) -> Iterator[Piece]:
        if not blocks:
            return
        stitched, row, column = stitch_blocks(self.info, blocks, get, self.nodata)
        first, last, left, right = self._source_window(top, bottom)
        source = stitched[
            max(first - 1 - row, 0) : last + 1 - row, max(left - 1 - column, 0) : right + 1 - column
        ]
        if not all_valid(source, self.nodata):
            yield from self._fallback.resample(top, bottom, blocks, get)
            return
        # At the edge of the image there is no further source pixel: the outermost one is repeated,
        # as in GDAL.
        pad_rows = (int(first - 1 < row), int(last + 1 > row + len(stitched)))
        pad_columns = (int(left - 1 < column), int(right + 1 > column + stitched.shape[1]))
        bordered = np.pad(np.asarray(source), (pad_rows, pad_columns), mode="edge")
        pixels = upsample_bilinear(bordered, self._factor)
        # The result covers whole source pixels; cut it to the rows and columns of the region.
        region = self._region(top, bottom)
        rows, columns = region
        down = rows.start + top - (self._top + first * self._factor)
        across = columns.start - (self._left + left * self._factor)
        cut = pixels[
            down : down + rows.stop - rows.start, across : across + columns.stop - columns.start
        ]
        yield region, cut, None


def upsample_bilinear(pixels: Array, factor: int) -> Array:
    """Upsample a 2-D array by a whole factor, with GDAL's pixel-center convention.

    Each output pixel is a mean of the four input pixels whose centers surround its own center,
    weighted by distance. All weights are whole multiples of 1 / (4 * factor**2), so integers are
    interpolated exactly, in integer arithmetic.

    Args:
        pixels: Array of shape (rows + 2, cols + 2), with a one-pixel border.
        factor: Output pixels per input pixel, 2 or more.

    Returns:
        Array of shape (rows * factor, cols * factor), same dtype; integers are rounded half up.
    """
    rows, columns = pixels.shape[0] - 2, pixels.shape[1] - 2
    dtype = pixels.dtype
    sum_dtype = _sum_dtype(dtype)
    upsampled = np.empty((rows * factor, columns * factor), dtype)
    weight_sum = 4 * factor * factor
    for top in range(0, rows, _ROWS_AT_ONCE):
        source = pixels[top : min(top + _ROWS_AT_ONCE, rows) + 2].astype(sum_dtype)
        # Bilinear interpolation is separable. Rows first: all output rows of one phase (the first,
        # second, ... output row of each source row) have the same weights: compute them together.
        tall = np.empty(((len(source) - 2) * factor, source.shape[1]), sum_dtype)
        for phase, near_weight, step, far_weight in _weights(factor):
            far = source[1 + step : len(source) - 1 + step]
            tall[phase::factor] = source[1:-1] * near_weight + far * far_weight
        # Then columns in the same way; only now is the sum of weights divided out.
        for phase, near_weight, step, far_weight in _weights(factor):
            total = tall[:, 1:-1] * near_weight
            total += tall[:, 1 + step : tall.shape[1] - 1 + step] * far_weight
            if dtype.kind == "f":
                total /= weight_sum
            else:
                total += weight_sum // 2
                total = _divide(total, weight_sum)
            upsampled[top * factor : top * factor + len(tall), phase::factor] = total
    return upsampled


def _sum_dtype(dtype: np.dtype[Any]) -> Any:
    """Dtype that holds sums of weighted pixels; 32 bits are the fastest."""
    if dtype in (np.uint8, np.uint16):
        return np.uint32
    return np.float64 if dtype.kind == "f" else np.int64


def _divide(total: Array, divisor: int) -> Array:
    """Divide integers, rounding down; powers of two by a shift, which is faster."""
    if divisor & (divisor - 1) == 0:
        return np.asarray(total >> (divisor.bit_length() - 1))
    return np.asarray(total // divisor)


def _weights(factor: int) -> Iterator[tuple[int, Any, int, Any]]:
    """Yield the weights along one axis for each of the `factor` phases of a source pixel.

    Yields:
        Phase; weight of the source pixel itself; which neighbor contributes (-1 before, 1 after);
        weight of that neighbor. Both weights add up to 2 * factor.
    """
    for phase in range(factor):
        # Distance from the center of the source pixel to that of the output pixel, in units of half
        # an output pixel.
        distance = 2 * phase + 1 - factor
        yield phase, 2 * factor - abs(distance), (1 if distance > 0 else -1), abs(distance)
