"""Map a source onto the output grid: the cheapest way that gives the pixels of GDAL's warper.

There are three ways, from cheap to expensive:

1. The source's pixels lie on pixels of the grid: copy them. Same grid in, same numbers out.
2. The source is coarser by a whole factor, edges on edges: repeat (nearest) or interpolate
   (bilinear) its pixels with integer arithmetic.
3. Anything else goes through GDAL's warper: another CRS, another resolution, a shift by part of a
   pixel, another kernel. It warps arrays in memory, and never reads from the network itself.

Output is computed in chunks of rows and, for large areas, in shards. The result must not depend on
where those are cut. Much of `GdalWarp` is about that.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
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

from scenebeam.raster.aligned import AlignedCopy, IntegerUpsample
from scenebeam.raster.grid import Grid, same_crs
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
from scenebeam.raster.validity import Array, Mask

_TOLERANCE = 1e-3
"""Largest distance, in pixels, between grids that count as the same (1 cm at 10 m)."""
_LARGEST_FACTOR = 64
"""Largest factor of `IntegerUpsample`: weighted sums of uint16 stay within 32 bits."""
_MARGIN = 16
"""Source pixels that are read around what a chunk of rows covers.

This is room for the widest kernel, and for edges that bend between the points where they are
sampled.
"""
_SAMPLES = 33
"""Points along an edge at which it is transformed to another CRS."""


def map_to_grid(info: RasterInfo, grid: Grid, resampling: str, nodata: float | None) -> GridMapping:
    """Choose the cheapest mapping that gives the same pixels as GDAL's warper.

    Args:
        info: The source.
        grid: The output grid.
        resampling: Name of a member of `rasterio.enums.Resampling`.
        nodata: Nodata value of the source; None if none marks its pixels.
    """
    if same_crs(info.crs, str(grid.crs)):
        to_grid = ~grid.transform @ info.transform
        factor = round(to_grid.a)
        if _lies_on_pixels(to_grid, factor, info):
            top, left = round(to_grid.f), round(to_grid.c)
            if factor == 1 or (factor > 1 and resampling == "nearest"):
                return AlignedCopy(info, grid, nodata, factor, top, left)
            if 1 < factor <= _LARGEST_FACTOR and resampling == "bilinear":
                fallback = GdalWarp(info, grid, nodata, resampling)
                return IntegerUpsample(info, grid, nodata, factor, top, left, fallback)
    return GdalWarp(info, grid, nodata, resampling)


def _lies_on_pixels(to_grid: Affine, factor: int, info: RasterInfo) -> bool:
    """Return whether all source pixels are `factor` x `factor` pixels of the grid, edges on edges.

    Args:
        to_grid: Transform from source pixels to pixels of the grid.
        factor: Pixels of the grid per source pixel.
        info: The source.
    """
    if to_grid.b != 0 or to_grid.d != 0:
        return False
    # The deviation is largest at the far edges of the image, where it has added up.
    for side in (to_grid.c, to_grid.f, to_grid.a * info.width, to_grid.e * info.height):
        if not abs(side - round(side)) < _TOLERANCE:
            return False
    return (
        abs(to_grid.a - factor) * info.width < _TOLERANCE
        and abs(to_grid.e - factor) * info.height < _TOLERANCE
    )


class GdalWarp(GridMapping):
    """Resample with GDAL's warper, one chunk of rows at a time."""

    def __init__(self, info: RasterInfo, grid: Grid, nodata: float | None, resampling: str) -> None:
        super().__init__(info, grid, nodata)
        self._resampling = Resampling[resampling]
        self._to_source = Transformer.from_crs(str(grid.crs), info.crs, always_xy=True)

    @cached_property
    def outline(self) -> Bounds:
        # Points from all over the image, not only its edges: the image may contain a pole.
        across, down = np.meshgrid(
            np.linspace(0, self.info.width, _SAMPLES), np.linspace(0, self.info.height, _SAMPLES)
        )
        columns, rows = self._image_to_grid(across, down)
        inside = np.isfinite(columns) & np.isfinite(rows)
        if not inside.any():
            return 0.0, 0.0, 0.0, 0.0
        columns, rows = columns[inside], rows[inside]
        return float(columns.min()), float(rows.min()), float(columns.max()), float(rows.max())

    @property
    def extent(self) -> BaseGeometry:
        """See GridMapping. Straight edges of the image are curves on the grid."""
        width, height = self.info.width, self.info.height
        image = shapely.segmentize(box(0, 0, width, height), max(width, height) / (_SAMPLES - 1))
        extent = shapely.transform(image, self._image_to_grid, interleaved=False)
        if not np.isfinite(shapely.get_coordinates(extent)).all():
            return box(*self.outline)
        return shapely.make_valid(extent)

    def _image_to_grid(self, column: Array, row: Array) -> tuple[Array, Array]:
        """Transform pixel coordinates of the source to those of the grid."""
        x, y = _apply(self.info.transform, column, row)
        x, y = self._to_source.transform(x, y, direction="INVERSE")
        return _apply(~self.grid.transform, x, y)

    def _grid_to_image(self, column: Array, row: Array) -> tuple[Array, Array]:
        """Transform pixel coordinates of the grid to those of the source."""
        x, y = _apply(self.grid.transform, column, row)
        x, y = self._to_source.transform(x, y)
        return _apply(~self.info.transform, x, y)

    @cached_property
    def _scale(self) -> tuple[float, float]:
        """Pixels of the grid per source pixel, across and down, over the whole source.

        When downsampling, GDAL widens its kernel by this ratio. Left to itself, it estimates the
        ratio anew for each array that it warps. Passed as XSCALE and YSCALE, the ratio is the same
        for all chunks of rows and all shards, and so are the pixels on both sides of a cut.
        """
        left, top, right, bottom = self.outline
        across = (math.floor(right - left) + 1) / self.info.width
        down = (math.floor(bottom - top) + 1) / self.info.height
        return max(across, 1e-9), max(down, 1e-9)

    def _source_window(self, top: int, bottom: int) -> tuple[int, int, int, int] | None:
        """Row, column, height and width of the source pixels that rows [top, bottom) need."""
        left, first, right, last = self.outline
        if bottom <= first - 1 or top >= last + 1:
            return None
        start, stop = max(0.0, left - 1), min(float(self.grid.shape[1]), right + 1)
        if start >= stop:
            return None
        # Find where these rows lie in the source, by points that are spread over them.
        across, down = np.meshgrid(np.linspace(start, stop, _SAMPLES), np.linspace(top, bottom, 5))
        columns, rows = self._grid_to_image(across, down)
        inside = np.isfinite(columns) & np.isfinite(rows)
        if not inside.any():
            return None
        # The kernel covers more source pixels where the source is finer than the grid.
        margin = math.ceil(_MARGIN * max(1.0, *(1 / side for side in self._scale)))
        row = max(0, math.floor(rows[inside].min()) - margin)
        column = max(0, math.floor(columns[inside].min()) - margin)
        height = min(self.info.height, math.ceil(rows[inside].max()) + margin) - row
        width = min(self.info.width, math.ceil(columns[inside].max()) + margin) - column
        return (row, column, height, width) if height > 0 and width > 0 else None

    def required_blocks(self, top: int, bottom: int) -> list[tuple[Block, Region]]:
        window = self._source_window(top, bottom)
        if window is None:
            return []
        # Which output pixels a single block changes is not known exactly: take all of the source's.
        left, first, right, last = self.outline
        rows = slice(
            max(0, math.floor(first) - 1 - top), min(bottom - top, math.ceil(last) + 1 - top)
        )
        columns = slice(max(0, math.floor(left) - 1), min(self.grid.shape[1], math.ceil(right) + 1))
        region = (rows, columns)
        if is_empty(region):
            return []
        return [(block, region) for block in blocks_meeting(self.info, *window)]

    def resample(
        self, top: int, bottom: int, blocks: list[Block], get: ReadBlock
    ) -> Iterator[Piece]:
        if not blocks:
            return
        source, first_row, first_column = stitch_blocks(self.info, blocks, get, self.nodata)
        transform = self.info.transform @ Affine.translation(first_column, first_row)
        # Always warp the full width of the grid. GDAL transforms the ends of each row exactly and
        # approximates in between: if the ends moved with the source, so would the pixels.
        region = (slice(0, bottom - top), slice(0, self.grid.shape[1]))
        pixels = self._warp(np.asarray(source), transform, top, bottom, self.nodata)
        if self.nodata is not None:
            yield region, pixels, None
        elif np.ma.is_masked(source):
            yield region, *self._warp_masked(source, transform, top, bottom)
        else:
            # All source pixels are valid, but nothing marks output pixels that the source does not
            # reach. Warp an array of ones in the same way: where it gives 0, there is no source.
            inside = self._warp(np.ones(source.shape, np.uint8), transform, top, bottom, 0)
            yield region, pixels, inside.astype(bool)

    def _warp_masked(
        self, source: Array, transform: Affine, top: int, bottom: int
    ) -> tuple[Array, Mask]:
        """Warp a masked array in which every number of the dtype may be data.

        Invalid pixels are NaN in a float64 array while it is warped.
        """
        floats = np.where(np.ma.getmaskarray(source), np.nan, np.asarray(source, np.float64))
        warped = self._warp(floats, transform, top, bottom, float("nan"))
        inside = ~np.isnan(warped)
        if source.dtype.kind != "f":
            warped = np.floor(warped + 0.5)
        return np.where(inside, warped, 0).astype(source.dtype), inside

    def _warp(
        self, source: Array, transform: Affine, top: int, bottom: int, nodata: float | None
    ) -> Array:
        """Warp an array of source pixels onto rows [top, bottom) of the grid."""
        fill: Any = 0 if nodata is None else nodata
        pixels = np.full((bottom - top, self.grid.shape[1]), fill, source.dtype)
        across, down = self._scale
        reproject(
            source,
            pixels,
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
            # Otherwise GDAL warps row by row where the source is a small part of the output.
            SRC_FILL_RATIO_HEURISTICS="FALSE",
            # Let GDAL split its work along rows only, never across them: see `resample`.
            STREAMABLE_OUTPUT="TRUE",
        )
        return pixels


def _apply(transform: Affine, x: Any, y: Any) -> tuple[Array, Array]:
    """Apply a transform to arrays of coordinates."""
    x, y = np.asarray(x), np.asarray(y)
    return (
        transform.a * x + transform.b * y + transform.c,
        transform.d * x + transform.e * y + transform.f,
    )
