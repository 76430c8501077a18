"""Where sources are on a grid, and which of their blocks each chunk of rows needs.

All of that follows from headers and footprints, before any pixel is read. Bands of the same scenes
and resolution are in the same places, so it is found out once for all of them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import shapely
from shapely.geometry.base import BaseGeometry

from scenebeam.raster.grid import Grid
from scenebeam.raster.mapping import GridMapping
from scenebeam.raster.source import Block, RasterInfo
from scenebeam.raster.validity import Array
from scenebeam.raster.warp import map_to_grid

_FOOTPRINT_ERROR = 16.0
"""Pixels by which a footprint may be too large at its edge."""
Outlined = tuple[RasterInfo, BaseGeometry | None]
"""The header of a source, and the area with data in the CRS of the grid; None for all of it."""


class Placement:
    """One source on a grid. Nothing changes it once its blocks are planned."""

    def __init__(
        self, source: Outlined, grid: Grid, resampling: str, nodata: float | None, whole: Grid
    ) -> None:
        """Find out where a source is; its other bands may be there too.

        Args:
            source: Its header and its footprint.
            grid: The grid.
            resampling: Name of a member of `rasterio.enums.Resampling`.
            nodata: Nodata value of the band.
            whole: The output that the grid is a window of.
        """
        info, footprint = source
        self.mapping: GridMapping = map_to_grid(info, grid, resampling, nodata, whole)
        self.extent = self.mapping.extent
        """Area of the image, in pixels of the grid."""
        # Footprints are prepared (indexed) for many queries.
        self.footprint = self.extent
        """Area with data, in pixels of the grid."""
        if footprint is not None:
            # Reprojected footprints can be invalid, and can reach beyond the image: only their
            # common area counts.
            pixels = shapely.make_valid(_to_pixels(footprint, grid))
            self.footprint = shapely.intersection(pixels, self.extent)
        self.core = self.footprint.buffer(-_FOOTPRINT_ERROR)
        """Area that certainly has data, if the footprint is right."""
        shapely.prepare(self.core)
        self._planned: list[list[Block]] = []

    def plan_blocks(self, chunks: Sequence[tuple[int, int]], covered: BaseGeometry) -> None:
        """Find the blocks that each chunk of rows needs, as far as footprints can tell.

        Args:
            chunks: First row of each chunk, and the row after its last.
            covered: Area, in pixels of the grid, that sources with higher priority should cover.
        """
        required: list[tuple[int, Block]] = []
        boxes: list[tuple[int, int, int, int]] = []
        for number, (top, bottom) in enumerate(chunks):
            for block, (rows, columns) in self.mapping.required_blocks(top, bottom):
                required.append((number, block))
                boxes.append((columns.start, rows.start + top, columns.stop, rows.stop + top))
        # One call for all boxes: the footprint is indexed once.
        is_hidden = np.zeros(len(boxes), bool)
        if boxes and not covered.is_empty:
            shapely.prepare(covered)
            is_hidden = shapely.contains(covered, shapely.box(*np.array(boxes, float).T))
        self._planned = [[] for _ in chunks]
        for (number, block), hidden in zip(required, is_hidden, strict=True):
            if not hidden:
                self._planned[number].append(block)

    def blocks_for(self, first: int, last: int) -> list[Block]:
        """Return the planned blocks of chunks [first, last), without those of the chunk before."""
        blocks: dict[Block, None] = {}
        for planned in self._planned[first:last]:
            blocks.update(dict.fromkeys(planned))
        for block in self._planned[first - 1] if first > 0 else ():
            blocks.pop(block, None)
        return list(blocks)


def _to_pixels(footprint: BaseGeometry, grid: Grid) -> BaseGeometry:
    """Transform a footprint from the CRS of the grid to its pixels."""
    inverse = ~grid.transform

    def transform(points: Array) -> Array:
        return np.column_stack(inverse @ (points[:, 0], points[:, 1]))

    return shapely.transform(footprint, transform, include_z=False)


class Placements:
    """The placements of all bands of one output. Equal ones are computed once."""

    def __init__(
        self, grid: Grid, chunks: Sequence[tuple[int, int]], whole: Grid | None = None
    ) -> None:
        """Create an empty cache.

        Args:
            grid: The grid.
            chunks: First row of each chunk of rows, and the row after its last.
            whole: The whole output, if `grid` is only a shard of it.
        """
        self._grid, self._chunks = grid, chunks
        self._whole = grid if whole is None else whole
        self._known: dict[object, list[Placement]] = {}

    def of(
        self,
        sources: Sequence[Outlined],
        resampling: str,
        nodata: float | None,
        *,
        is_ordered: bool,
    ) -> list[Placement]:
        """Return where the sources of a band are.

        Args:
            sources: The sources, in the order in which they are merged.
            resampling: Name of a member of `rasterio.enums.Resampling`.
            nodata: Nodata value of the band.
            is_ordered: Whether the first source with data determines a pixel.
        """
        places = []
        for info, footprint in sources:
            places.append((info.place, None if footprint is None else footprint.wkb))
        key = (tuple(places), resampling, repr(nodata), is_ordered)
        if key not in self._known:
            self._known[key] = self._place(sources, resampling, nodata, is_ordered)
        return self._known[key]

    def _place(
        self, sources: Sequence[Outlined], resampling: str, nodata: float | None, is_ordered: bool
    ) -> list[Placement]:
        placements = []
        covered: BaseGeometry = shapely.Polygon()
        for source in sources:
            placement = Placement(source, self._grid, resampling, nodata, self._whole)
            placement.plan_blocks(self._chunks, covered)
            if is_ordered:
                # The following sources are not needed where this one should cover them.
                covered = shapely.union(covered, placement.footprint)
            placements.append(placement)
        return placements
