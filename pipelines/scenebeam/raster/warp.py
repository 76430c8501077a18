"""Placing a source on the output grid: pasted, repeated, or warped from memory.

A source whose pixels fall on the grid's own is pasted: same grid in, same numbers out. One that is
coarser by a whole factor is repeated (nearest) or interpolated (bilinear). All else goes through
GDAL's warper, from an array and never from a dataset on the network.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any

import numpy as np
import shapely
from affine import Affine
from pyproj import Transformer
from rasterio.enums import Resampling
from rasterio.warp import reproject
from shapely.geometry import box
from shapely.geometry.base import BaseGeometry

from scenebeam.raster.grid import Grid, same_crs
from scenebeam.raster.merge import Region
from scenebeam.raster.source import Block, RasterInfo, blocks_meeting
from scenebeam.raster.validity import Array, Mask, all_valid

_WHOLE = 1e-3
"""Part of a pixel by which two grids may be apart and still be the same (1 cm at 10 m)."""
_LARGEST_FACTOR = 64
"""Between whole-number grids: the products of weights and numbers stay within 32 bits."""
_SLAB = 64
"""Source rows that are interpolated together: what they need stays in the cache."""
_MARGIN = 16
"""Source pixels around a warped strip: the widest kernel, and the bend of its edges between
samples.
"""

Piece = tuple[Region, Array, "Mask | None"]
"""Where it lands, its pixels, and where in it there is a source at all (None: everywhere, or nodata
tells).
"""


class GridMapping(ABC):
    """How one source's blocks land on one grid."""

    def __init__(self, info: RasterInfo, grid: Grid, nodata: float | None) -> None:
        self.info, self.grid, self.nodata = info, grid, nodata

    @abstractmethod
    def required_blocks(self, top: int, bottom: int) -> list[tuple[Block, Region]]:
        """Blocks that rows [top, bottom) of the grid need, each with the region it lands on, within
        those rows.
        """

    @abstractmethod
    def resample(
        self, top: int, bottom: int, blocks: list[Block], get: Callable[[Block], Array]
    ) -> Iterator[Piece]:
        """Pixels for rows [top, bottom) out of `blocks`: within those rows."""

    @property
    @abstractmethod
    def outline(self) -> tuple[float, float, float, float]:
        """Left, top, right, bottom of the source on the grid, in pixels of the grid."""

    @property
    def extent(self) -> BaseGeometry:
        """The ground that the source's image covers, in pixels of the grid."""
        return box(*self.outline)


def map_to_grid(info: RasterInfo, grid: Grid, resampling: str, nodata: float | None) -> GridMapping:
    """The cheapest placement that gives the numbers that GDAL's warper would."""
    if same_crs(info.crs, str(grid.crs)):
        to_grid = ~grid.transform @ info.transform
        factor = round(to_grid.a)
        whole = (to_grid.c, to_grid.f, to_grid.a * info.width, to_grid.e * info.height)
        aligned = to_grid.b == to_grid.d == 0 and all(abs(x - round(x)) < _WHOLE for x in whole)
        same = (
            abs(to_grid.a - factor) * info.width < _WHOLE
            and abs(to_grid.e - factor) * info.height < _WHOLE
        )
        if aligned and same and (factor == 1 or (factor > 1 and resampling == "nearest")):
            return AlignedCopy(info, grid, nodata, factor, round(to_grid.f), round(to_grid.c))
        if aligned and same and 1 < factor <= _LARGEST_FACTOR and resampling == "bilinear":
            return IntegerUpsample(info, grid, nodata, factor, round(to_grid.f), round(to_grid.c))
    return _Warped(info, grid, nodata, resampling)


class AlignedCopy(GridMapping):
    """Every source pixel is `factor` x `factor` pixels of the grid, edges on edges."""

    def __init__(
        self, info: RasterInfo, grid: Grid, nodata: float | None, factor: int, top: int, left: int
    ) -> None:
        super().__init__(info, grid, nodata)
        self._factor, self._top, self._left = factor, top, left

    @property
    def outline(self) -> tuple[float, float, float, float]:
        height, width = self.info.height * self._factor, self.info.width * self._factor
        return self._left, self._top, self._left + width, self._top + height

    def required_blocks(self, top: int, bottom: int) -> list[tuple[Block, Region]]:
        first, last = (top - self._top) // self._factor, -(-(bottom - self._top) // self._factor)
        left, right = (
            -self._left // self._factor,
            -(-(self.grid.shape[1] - self._left) // self._factor),
        )
        blocks = blocks_meeting(self.info, first, left, last - first, right - left)
        regions = [(block, self._region(block, top, bottom)) for block in blocks]
        return [(block, region) for block, region in regions if _has_inside(region)]

    def _region(self, block: Block, top: int, bottom: int) -> Region:
        """Where a block lands within rows [top, bottom)."""
        height, width = self.info.block
        row = self._top + block[0] * height * self._factor
        column = self._left + block[1] * width * self._factor
        last_row = min(row + height * self._factor, self._top + self.info.height * self._factor)
        last_column = min(
            column + width * self._factor, self._left + self.info.width * self._factor
        )
        return (
            slice(max(row, top) - top, max(min(last_row, bottom), top) - top),
            slice(max(column, 0), max(min(last_column, self.grid.shape[1]), 0)),
        )

    def resample(
        self, top: int, bottom: int, blocks: list[Block], get: Callable[[Block], Array]
    ) -> Iterator[Piece]:
        for block in blocks:
            rows, columns = region = self._region(block, top, bottom)
            row = self._top + block[0] * self.info.block[0] * self._factor
            column = self._left + block[1] * self.info.block[1] * self._factor
            values = get(block)
            if self._factor == 1:
                down, right = top - row, -column
                values = values[
                    rows.start + down : rows.stop + down,
                    columns.start + right : columns.stop + right,
                ]
            else:
                row_index = (np.arange(rows.start, rows.stop) + top - row) // self._factor
                column_index = (np.arange(columns.start, columns.stop) - column) // self._factor
                values = values[row_index[0] : row_index[-1] + 1].take(column_index, axis=1)
                values = values.take(row_index - row_index[0], axis=0)
            yield region, values, None


class IntegerUpsample(GridMapping):
    """Every source pixel is `factor` x `factor` pixels of the grid, edges on edges, and bilinear
    between centres.

    The weights are whole numbers over 4 x factor squared, so that integers come out as exactly as
    they can. Where nodata lies among the pixels, GDAL's warper says how they weigh.
    """

    def __init__(
        self, info: RasterInfo, grid: Grid, nodata: float | None, factor: int, top: int, left: int
    ) -> None:
        super().__init__(info, grid, nodata)
        self._factor, self._top, self._left = factor, top, left
        self._warped = _Warped(info, grid, nodata, "bilinear")

    @property
    def outline(self) -> tuple[float, float, float, float]:
        height, width = self.info.height * self._factor, self.info.width * self._factor
        return self._left, self._top, self._left + width, self._top + height

    def _span(self, top: int, bottom: int) -> tuple[int, int, int, int]:
        """First and last rows and columns of the source that rows [top, bottom) of the grid lie
        on.
        """
        factor = self._factor
        rows = (
            max((top - self._top) // factor, 0),
            min(-(-(bottom - self._top) // factor), self.info.height),
        )
        columns = (
            max(-self._left // factor, 0),
            min(-(-(self.grid.shape[1] - self._left) // factor), self.info.width),
        )
        return *rows, *columns

    def required_blocks(self, top: int, bottom: int) -> list[tuple[Block, Region]]:
        first, last, left, right = self._span(top, bottom)
        if first >= last or left >= right:
            return []
        region = self._region(top, bottom)
        # One pixel around: the centres between which those at the rim lie.
        window = max(first - 1, 0), max(left - 1, 0)
        blocks = blocks_meeting(self.info, *window, last + 1 - window[0], right + 1 - window[1])
        return [(block, region) for block in blocks]

    def _region(self, top: int, bottom: int) -> Region:
        left, first, right, last = (round(side) for side in self.outline)
        return (
            slice(max(first, top) - top, min(last, bottom) - top),
            slice(max(left, 0), min(right, self.grid.shape[1])),
        )

    def resample(
        self, top: int, bottom: int, blocks: list[Block], get: Callable[[Block], Array]
    ) -> Iterator[Piece]:
        if not blocks:
            return
        source, row, column = stitch_blocks(self.info, blocks, get, self.nodata)
        first, last, left, right = self._span(top, bottom)
        around = source[
            max(first - 1 - row, 0) : last + 1 - row, max(left - 1 - column, 0) : right + 1 - column
        ]
        if not all_valid(around, self.nodata):
            yield from self._warped.resample(top, bottom, blocks, get)
            return
        missing = (int(first - 1 < row), int(last + 1 > row + len(source)))
        across = (int(left - 1 < column), int(right + 1 > column + source.shape[1]))
        values = upsample_bilinear(
            np.pad(np.asarray(around), (missing, across), mode="edge"), self._factor
        )
        rows, columns = region = self._region(top, bottom)
        down = rows.start + top - (self._top + first * self._factor)
        over = columns.start - (self._left + left * self._factor)
        yield (
            region,
            values[
                down : down + rows.stop - rows.start, over : over + columns.stop - columns.start
            ],
            None,
        )


def upsample_bilinear(pixels: Array, factor: int) -> Array:
    """Bilinear, `factor` times as fine: (rows, columns) with one pixel of rim all around → without
    the rim.

    As GDAL has it: centres weigh by distance, and integers are rounded to the nearest, halves up.
    """
    rows, columns = pixels.shape[0] - 2, pixels.shape[1] - 2
    dtype = pixels.dtype
    wide: Any = (
        np.uint32
        if dtype in (np.uint8, np.uint16)
        else np.float64
        if dtype.kind == "f"
        else np.int64
    )
    found = np.empty((rows * factor, columns * factor), dtype)
    whole = 4 * factor * factor
    for top in range(0, rows, _SLAB):
        slab = pixels[top : min(top + _SLAB, rows) + 2].astype(wide)
        tall = np.empty(((len(slab) - 2) * factor, slab.shape[1]), wide)
        for phase, own, step, other in _weights(factor):
            tall[phase::factor] = slab[1:-1] * own + slab[1 + step : len(slab) - 1 + step] * other
        for phase, own, step, other in _weights(factor):
            mixed = tall[:, 1:-1] * own
            mixed += tall[:, 1 + step : tall.shape[1] - 1 + step] * other
            if dtype.kind == "f":
                mixed /= whole
            else:
                mixed += whole // 2
                mixed = (
                    mixed >> (whole.bit_length() - 1)
                    if whole & (whole - 1) == 0
                    else mixed // whole
                )
            found[top * factor : top * factor + len(tall), phase::factor] = mixed
    return found


def _weights(factor: int) -> Iterator[tuple[int, Any, int, Any]]:
    """For each fine pixel of a coarse one: its number, the coarse one's weight, which neighbour,
    and its weight.
    """
    for phase in range(factor):
        off = 2 * phase + 1 - factor
        yield phase, 2 * factor - abs(off), (1 if off > 0 else -1), abs(off)


class _Warped(GridMapping):
    """Another CRS, another resolution, or pixels between pixels: GDAL's warper, a strip at a
    time.
    """

    def __init__(self, info: RasterInfo, grid: Grid, nodata: float | None, resampling: str) -> None:
        super().__init__(info, grid, nodata)
        self._resampling = Resampling[resampling]
        self._to_source = Transformer.from_crs(str(grid.crs), info.crs, always_xy=True)

    @cached_property
    def outline(self) -> tuple[float, float, float, float]:
        across, down = np.meshgrid(
            np.linspace(0, self.info.width, 33), np.linspace(0, self.info.height, 33)
        )
        x, y = _apply(self.info.transform, across, down)
        x, y = self._to_source.transform(x, y, direction="INVERSE")
        columns, rows = _apply(~self.grid.transform, x, y)
        inside = np.isfinite(columns) & np.isfinite(rows)
        if not inside.any():
            return 0.0, 0.0, 0.0, 0.0
        columns, rows = columns[inside], rows[inside]
        return float(columns.min()), float(rows.min()), float(columns.max()), float(rows.max())

    @property
    def extent(self) -> BaseGeometry:
        """See GridMapping; with the bend of its edges."""
        width, height = self.info.width, self.info.height
        image = shapely.segmentize(box(0, 0, width, height), max(width, height) / 32)

        def onto_grid(column: Array, row: Array) -> tuple[Array, Array]:
            x, y = self._to_source.transform(
                *_apply(self.info.transform, column, row), direction="INVERSE"
            )
            return _apply(~self.grid.transform, x, y)

        found = shapely.transform(image, onto_grid, interleaved=False)
        whole = bool(np.isfinite(shapely.get_coordinates(found)).all())
        return shapely.make_valid(found) if whole else box(*self.outline)

    def _window(self, top: int, bottom: int) -> tuple[int, int, int, int] | None:
        """Row, column, height and width of the source's pixels that rows [top, bottom) of the grid
        need.
        """
        left, first, right, last = self.outline
        if bottom <= first - 1 or top >= last + 1:
            return None
        start, stop = max(0.0, left - 1), min(float(self.grid.shape[1]), right + 1)
        if start >= stop:
            return None
        across, down = np.meshgrid(np.linspace(start, stop, 33), np.linspace(top, bottom, 5))
        x, y = _apply(self.grid.transform, across, down)
        x, y = self._to_source.transform(x, y)
        columns, rows = _apply(~self.info.transform, x, y)
        inside = np.isfinite(columns) & np.isfinite(rows)
        if not inside.any():
            return None
        margin = math.ceil(_MARGIN * max(1.0, *(1 / side for side in self._scale)))
        row = max(0, math.floor(rows[inside].min()) - margin)
        column = max(0, math.floor(columns[inside].min()) - margin)
        height = min(self.info.height, math.ceil(rows[inside].max()) + margin) - row
        width = min(self.info.width, math.ceil(columns[inside].max()) + margin) - column
        return (row, column, height, width) if height > 0 and width > 0 else None

    @cached_property
    def _scale(self) -> tuple[float, float]:
        """Pixels of the grid to a source pixel, across and down, over the whole source.

        GDAL estimates this anew for each piece that it warps, and widens its kernel by it: told
        here, the numbers do not depend on where strips and shards are cut.
        """
        left, top, right, bottom = self.outline
        across = (math.floor(right - left) + 1) / self.info.width
        down = (math.floor(bottom - top) + 1) / self.info.height
        return max(across, 1e-9), max(down, 1e-9)

    def required_blocks(self, top: int, bottom: int) -> list[tuple[Block, Region]]:
        window = self._window(top, bottom)
        if window is None:
            return []
        left, first, right, last = self.outline
        region = (
            slice(
                max(0, math.floor(first) - 1 - top), min(bottom - top, math.ceil(last) + 1 - top)
            ),
            slice(max(0, math.floor(left) - 1), min(self.grid.shape[1], math.ceil(right) + 1)),
        )
        return (
            [(block, region) for block in blocks_meeting(self.info, *window)]
            if _has_inside(region)
            else []
        )

    def resample(
        self, top: int, bottom: int, blocks: list[Block], get: Callable[[Block], Array]
    ) -> Iterator[Piece]:
        if not blocks:
            return
        source, first_row, first_column = stitch_blocks(self.info, blocks, get, self.nodata)
        transform = self.info.transform @ Affine.translation(first_column, first_row)
        # The whole width at once: GDAL's approximation runs along rows, and must not see where tiles end.
        region = (slice(0, bottom - top), slice(0, self.grid.shape[1]))
        values = self._warp(np.asarray(source), transform, top, bottom, self.nodata)
        if self.nodata is not None:
            yield region, values, None
        elif np.ma.is_masked(source):
            yield region, *self._warp_masked(source, transform, top, bottom)
        else:
            inside = self._warp(np.ones(source.shape, np.uint8), transform, top, bottom, 0)
            yield region, values, inside.astype(bool)

    def _warp_masked(
        self, source: Array, transform: Affine, top: int, bottom: int
    ) -> tuple[Array, Mask]:
        """Pixels that no number of their dtype can mark as invalid are NaN among float64 while they
        are warped.
        """
        floats = np.where(np.ma.getmaskarray(source), np.nan, np.asarray(source, np.float64))
        values = self._warp(floats, transform, top, bottom, float("nan"))
        inside = ~np.isnan(values)
        whole = source.dtype.kind != "f"
        found = np.where(inside, np.floor(values + 0.5) if whole else values, 0).astype(
            source.dtype
        )
        return found, inside

    def _warp(
        self, source: Array, transform: Affine, top: int, bottom: int, nodata: float | None
    ) -> Array:
        fill: Any = 0 if nodata is None else nodata
        values = np.full((bottom - top, self.grid.shape[1]), fill, source.dtype)
        across, down = self._scale
        reproject(
            source,
            values,
            src_transform=transform,
            src_crs=self.info.crs,
            src_nodata=nodata,
            dst_transform=self.grid.transform @ Affine.translation(0, top),
            dst_crs=str(self.grid.crs),
            dst_nodata=nodata,
            resampling=self._resampling,
            num_threads=1,
            XSCALE=across,
            YSCALE=down,
            # Else GDAL warps single rows where the tile is a small part of them.
            SRC_FILL_RATIO_HEURISTICS="FALSE",
            STREAMABLE_OUTPUT="TRUE",  # GDAL may cut its work into rows, but not across them
        )
        return values


def stitch_blocks(
    info: RasterInfo, blocks: list[Block], get: Callable[[Block], Array], nodata: float | None
) -> tuple[Array, int, int]:
    """Blocks as one array, nodata where there is none, and the row and column of the image that it
    starts at.
    """
    height, width = info.block
    first_row, last_row = min(r for r, _ in blocks), max(r for r, _ in blocks)
    first_column, last_column = min(c for _, c in blocks), max(c for _, c in blocks)
    if len(blocks) == 1:
        return get(blocks[0]), first_row * height, first_column * width
    rows = min((last_row + 1) * height, info.height) - first_row * height
    columns = min((last_column + 1) * width, info.width) - first_column * width
    joined: Array = np.full((rows, columns), 0 if nodata is None else nodata, info.dtype)
    if info.masked and nodata is None:
        joined = np.ma.MaskedArray(joined, mask=False)
    for row, column in blocks:
        block = get((row, column))
        row, column = (row - first_row) * height, (column - first_column) * width
        joined[row : row + block.shape[0], column : column + block.shape[1]] = block
    return joined, first_row * height, first_column * width


def _apply(transform: Affine, x: Any, y: Any) -> tuple[Array, Array]:
    """A transform on arrays of coordinates."""
    x, y = np.asarray(x), np.asarray(y)
    return (
        transform.a * x + transform.b * y + transform.c,
        transform.d * x + transform.e * y + transform.f,
    )


def _has_inside(region: Region) -> bool:
    return all(side.stop > side.start for side in region)
