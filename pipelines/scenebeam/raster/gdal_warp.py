"""Resample with GDAL's warper, so that pixels do not depend on how the output is cut.

Output is computed in chunks of rows and, for large areas, in shards. GDAL warps whole arrays: it
estimates their scale, transforms the ends of each of their rows, and approximates in between. All
of that is pinned down here, so that a pixel is the same in whichever array it is warped.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from functools import cached_property, lru_cache, partial
from typing import Any, NamedTuple

import numpy as np
import shapely
from affine import Affine
from pyproj import Transformer
from rasterio.enums import Resampling
from rasterio.errors import NotGeoreferencedWarning
from rasterio.warp import reproject
from shapely.geometry import box
from shapely.geometry.base import BaseGeometry

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
from scenebeam.raster.validity import Array, Mask, all_valid
from scenebeam.transfer.pools import cpu_threads

# rasterio silences this warning about its own intermediate arrays, but not if several threads warp.
warnings.filterwarnings("ignore", category=NotGeoreferencedWarning, module=r"rasterio\.warp")

_MARGIN = 16
"""Source pixels that are read around what a chunk of rows covers.

This is room for the widest kernel, and for edges that bend between the points where they are
sampled.
"""
_SAMPLES = 33
"""Points along an edge at which it is transformed to another CRS."""
_SEGMENT, _SEGMENT_ROWS = 4096, 128
"""Columns and rows that are warped together.

GDAL transforms the ends of each row exactly, and approximates in between. If these ends moved with
a source, a chunk of rows or a shard, so would the pixels. So they are always at the same columns of
the output, counted from its left edge. Rows are independent of one another.
"""


class _Segment(NamedTuple):
    """Rows [top, bottom) and columns [left, right), in pixels of the grid, that are warped."""

    top: int
    bottom: int
    left: int
    """May be less than 0: the grid may begin in the middle of a segment."""
    right: int
    columns: slice
    """Columns that are wanted."""


class GdalWarp(GridMapping):
    """Resample with GDAL's warper, in segments that lie in the same place for every window."""

    def __init__(
        self, info: RasterInfo, grid: Grid, nodata: float | None, resampling: str, whole: Grid
    ) -> None:
        super().__init__(info, grid, nodata)
        self._whole = whole
        # The row and column of the whole output where the grid begins.
        right, down = ~whole.transform @ (grid.transform.c, grid.transform.f)
        self._right, self._down = round(right), round(down)
        self._resampling = Resampling[resampling]
        self._to_source = _transformer(grid.crs, info.crs)

    @cached_property
    def outline(self) -> Bounds:
        left, top, right, bottom = self._outline_on_whole
        return (
            left - self._right,
            top - self._down,
            right - self._right,
            bottom - self._down,
        )

    @cached_property
    def _outline_on_whole(self) -> Bounds:
        """Bounds of the source in pixels of the whole output."""
        # Points from all over the image, not only its edges: the image may contain a pole.
        across, down = np.meshgrid(
            np.linspace(0, self.info.width, _SAMPLES), np.linspace(0, self.info.height, _SAMPLES)
        )
        columns, rows = self._image_to_whole(across, down)
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

    def _image_to_whole(self, column: Array, row: Array) -> tuple[Array, Array]:
        """Transform pixel coordinates of the source to those of the whole output."""
        x, y = _apply(self.info.transform, column, row)
        x, y = self._to_source.transform(x, y, direction="INVERSE")
        return _apply(~self._whole.transform, x, y)

    def _image_to_grid(self, column: Array, row: Array) -> tuple[Array, Array]:
        """Transform pixel coordinates of the source to those of the grid."""
        columns, rows = self._image_to_whole(column, row)
        return columns - self._right, rows - self._down

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
        left, top, right, bottom = self._outline_on_whole
        across = (math.floor(right - left) + 1) / self.info.width
        down = (math.floor(bottom - top) + 1) / self.info.height
        return max(across, 1e-9), max(down, 1e-9)

    @cached_property
    def _columns(self) -> slice:
        """Columns of the grid that the source can reach."""
        left, _, right, _ = self.outline
        return slice(max(0, math.floor(left) - 1), min(self.grid.shape[1], math.ceil(right) + 1))

    def _rows(self, top: int, bottom: int) -> slice:
        """Rows of the grid within [top, bottom) that the source can reach."""
        _, first, _, last = self.outline
        return slice(max(top, math.floor(first) - 1), min(bottom, math.ceil(last) + 1))

    def _source_window(
        self, top: int, bottom: int, columns: slice
    ) -> tuple[int, int, int, int] | None:
        """Row, column, height and width of the source pixels that a part of the grid needs."""
        # Find where the part is in the source, by points that are spread over it.
        across, down = np.meshgrid(
            np.linspace(columns.start, columns.stop, _SAMPLES), np.linspace(top, bottom, 5)
        )
        source_columns, source_rows = self._grid_to_image(across, down)
        inside = np.isfinite(source_columns) & np.isfinite(source_rows)
        if not inside.any():
            return None
        # The kernel covers more source pixels where the source is finer than the grid.
        margin = math.ceil(_MARGIN * max(1.0, *(1 / side for side in self._scale)))
        row = max(0, math.floor(source_rows[inside].min()) - margin)
        column = max(0, math.floor(source_columns[inside].min()) - margin)
        height = min(self.info.height, math.ceil(source_rows[inside].max()) + margin) - row
        width = min(self.info.width, math.ceil(source_columns[inside].max()) + margin) - column
        return (row, column, height, width) if height > 0 and width > 0 else None

    def required_blocks(self, top: int, bottom: int) -> list[tuple[Block, Region]]:
        # Which output pixels a single block changes is not known exactly: take all of the source's.
        rows, columns = self._rows(top, bottom), self._columns
        if is_empty((rows, columns)):
            return []
        window = self._source_window(top, bottom, columns)
        if window is None:
            return []
        region = (slice(rows.start - top, rows.stop - top), columns)
        return [(block, region) for block in blocks_meeting(self.info, *window)]

    def resample(
        self, top: int, bottom: int, blocks: list[Block], get: ReadBlock
    ) -> Iterator[Piece]:
        if not blocks:
            return
        source, row, column = stitch_blocks(self.info, blocks, get, self.nodata)
        warp = partial(self._resample_segment, source, row, column)
        segments = list(self._segments(self._rows(top, bottom)))
        # Segments are independent of one another: warp them on all cores.
        pieces = cpu_threads().map(warp, segments) if len(segments) > 1 else map(warp, segments)
        for segment, piece in zip(segments, pieces, strict=True):
            if piece is not None:
                pixels, inside = piece
                rows = slice(segment.top - top, segment.bottom - top)
                yield (rows, segment.columns), pixels, inside

    def _segments(self, rows: slice) -> Iterator[_Segment]:
        """Cut the part of some rows that the source reaches into segments."""
        columns = self._columns
        first = (columns.start + self._right) // _SEGMENT * _SEGMENT - self._right
        end = self._whole.shape[1] - self._right
        for top in range(rows.start, rows.stop, _SEGMENT_ROWS):
            bottom = min(top + _SEGMENT_ROWS, rows.stop)
            for left in range(first, columns.stop, _SEGMENT):
                right = min(left + _SEGMENT, end)
                wanted = slice(max(left, columns.start), min(right, columns.stop))
                yield _Segment(top, bottom, left, right, wanted)

    def _resample_segment(
        self, stitched: Array, row: int, column: int, segment: _Segment
    ) -> tuple[Array, Mask | None] | None:
        """Resample a segment.

        Args:
            stitched: Source pixels.
            row: Row of the image at their upper left corner.
            column: Column of the image there.
            segment: The segment.

        Returns:
            The pixels and where the source reaches, as in a piece; None if it reaches none.
        """
        window = self._source_window(segment.top, segment.bottom, segment.columns)
        if window is None:
            return None
        # The pixels around this segment only: often they are all valid, and then GDAL is faster.
        first_row, first_column = max(window[0], row), max(window[1], column)
        source = stitched[
            first_row - row : window[0] + window[2] - row,
            first_column - column : window[1] + window[3] - column,
        ]
        if not source.size:
            return None
        transform = self.info.transform @ Affine.translation(first_column, first_row)
        if self.nodata is None and np.ma.is_masked(source):
            return self._warp_masked(source, transform, segment)
        pixels = np.asarray(source)
        if self.nodata is not None:
            nodata = None if self._needs_no_mask(pixels, self.nodata) else self.nodata
            return self._warp(pixels, transform, segment, nodata, self.nodata), None
        # All source pixels are valid, but nothing marks output pixels that the source does not
        # reach. Warp an array of ones in the same way: where it gives 0, there is no source.
        ones = np.ones(pixels.shape, np.uint8)
        inside = self._warp(ones, transform, segment, 0, 0).astype(bool)
        return self._warp(pixels, transform, segment, None, 0), inside

    def _needs_no_mask(self, source: Array, nodata: float) -> bool:
        """Return whether GDAL gives the same numbers without the nodata value.

        Its kernels without a mask are two to five times as fast. They give the same numbers if all
        pixels are valid, and no result can equal the nodata value, which GDAL would move to the
        next number. Results of `nearest` and `bilinear` lie between the pixels that they are made
        of. Those of wider kernels may not, and they are not the same bit for bit.
        """
        if self._resampling not in (Resampling.nearest, Resampling.bilinear):
            return False
        if not all_valid(source, nodata):
            return False
        return self._resampling == Resampling.nearest or not source.min() < nodata < source.max()

    def _warp_masked(
        self, source: Array, transform: Affine, segment: _Segment
    ) -> tuple[Array, Mask]:
        """Warp a masked array in which every number of the dtype may be data.

        Invalid pixels are NaN in a float64 array while it is warped.
        """
        nan = float("nan")
        floats = np.where(np.ma.getmaskarray(source), nan, np.asarray(source, np.float64))
        warped = self._warp(floats, transform, segment, nan, nan)
        inside = ~np.isnan(warped)
        if source.dtype.kind != "f":
            warped = np.floor(warped + 0.5)
        return np.where(inside, warped, 0).astype(source.dtype), inside

    def _warp(
        self,
        source: Array,
        transform: Affine,
        segment: _Segment,
        nodata: float | None,
        fill: float,
    ) -> Array:
        """Warp source pixels onto a segment.

        Args:
            source: 2-D array.
            transform: From its pixels to the CRS of the source.
            segment: The segment.
            nodata: Number that marks invalid pixels of `source`; None if all are valid.
            fill: Number for pixels that the source does not reach.

        Returns:
            The columns of the grid that the segment is for.
        """
        shape = (segment.bottom - segment.top, segment.right - segment.left)
        pixels = np.full(shape, fill, source.dtype)
        origin = Affine.translation(segment.left + self._right, segment.top + self._down)
        across, down = self._scale
        reproject(
            source,
            pixels,
            src_transform=transform,
            src_crs=self.info.crs,
            src_nodata=nodata,
            dst_transform=self._whole.transform @ origin,
            dst_crs=self.grid.crs,
            dst_nodata=nodata,
            # What the source does not reach stays as it is.
            init_dest_nodata=False,
            resampling=self._resampling,
            num_threads=1,
            XSCALE=across,
            YSCALE=down,
            # Otherwise GDAL warps row by row where the source is a small part of the output.
            SRC_FILL_RATIO_HEURISTICS="FALSE",
            # Let GDAL split its work along rows only, never across them: see `_SEGMENT`.
            STREAMABLE_OUTPUT="TRUE",
        )
        columns = segment.columns
        return pixels[:, columns.start - segment.left : columns.stop - segment.left]


@lru_cache(maxsize=64)
def _transformer(crs: str, other: str) -> Transformer:
    """Return a transformer, which threads may share. To create one takes a millisecond."""
    return Transformer.from_crs(crs, other, always_xy=True)


def _apply(transform: Affine, x: Any, y: Any) -> tuple[Array, Array]:
    """Apply a transform to arrays of coordinates."""
    x, y = np.asarray(x), np.asarray(y)
    return (
        transform.a * x + transform.b * y + transform.c,
        transform.d * x + transform.e * y + transform.f,
    )
