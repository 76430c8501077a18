"""Compose: bands of many sources → strips of one grid, in order, each compressed block read and
decoded once.

The grid is walked in strips of block rows. Reads run some strips ahead on the I/O pool, decoding
runs on the CPU pool as ranges arrive, and a block is forgotten after the last strip that needs it:
memory is a few strips, whatever the area. A block that better tiles cover is not asked for, unless
holes remain there after all.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import numpy as np
import shapely
from shapely.geometry import box
from shapely.geometry.base import BaseGeometry

from scenebeam.errors import CheckError, ReadError, SceneBeamError
from scenebeam.raster.grid import Grid
from scenebeam.raster.merge import Merge, Region, harmonize, new_merge
from scenebeam.raster.sample import Sample, blank
from scenebeam.raster.source import Block, Source
from scenebeam.raster.validity import Array, Mask, marked, split, valid_count, valid_mask
from scenebeam.raster.warp import GridMapping, map_to_grid

ROW_CHUNK = 512
"""Rows of a strip: one row of blocks of the output."""
_STRIDE = 8
"""Of the pixels that are looked at, at least: a sixty-fourth of the work, and noise is in all of
them.
"""
AHEAD = 1
"""Strips whose reads are under way while one is put together."""
_RIM = 16.0
"""Pixels by which a footprint may promise too much at its edge."""
_WHOLE = 0.999
"""Part of an image from which a footprint says no more than where the image is."""
_PROMISED = 4096
"""Pixels inside a footprint, none of which holds data, that show that the tile is blank there."""


@dataclass(frozen=True)
class Layer:
    """One tile's band, ready to be laid onto a grid."""

    name: str
    source: Source
    add_offset: int = 0
    """Taken out of every valid pixel."""
    footprint: BaseGeometry | None = None
    """Where the tile has data, in the grid's CRS; None: all of its image."""


@dataclass(frozen=True)
class BandLayers:
    """One band of the output: its tiles, best first, and how they are merged."""

    name: str
    layers: Sequence[Layer]
    dtype: np.dtype[Any]
    nodata: float | None
    resampling: str
    method: str
    min_std_dev: float | None = None
    """A tile whose numbers spread no more than this is blank; None: nothing says so."""


class LayerError(SceneBeamError):
    """A tile that cannot be used: `band` and `name` say which, `cause` why."""

    def __init__(self, band: str, name: str, cause: Exception) -> None:
        super().__init__(f"{band} of {name}: {cause}")
        self.band, self.name, self.cause = band, name, cause


def compose(
    grid: Grid, bands: Sequence[BandLayers], ahead: int = AHEAD
) -> Iterator[tuple[int, int, Array]]:
    """Yield (band, first row, strip) with strips of ROW_CHUNK x grid width, top to bottom, the bands in
    turn.

    `ahead` strips are being read while one is put together. Raises LayerError for a tile that is
    broken for good, and ReadError for one that may be read later.
    """
    stacks = [_Stack(grid, band, ahead) for band in bands]
    tops = list(range(0, grid.shape[0], ROW_CHUNK))
    for number, top in enumerate(tops):
        coming = tops[: 1 + ahead] if number == 0 else tops[number + ahead : number + ahead + 1]
        for stack in stacks:
            stack.prefetch([(row, min(row + ROW_CHUNK, grid.shape[0])) for row in coming])
        for index, stack in enumerate(stacks):
            yield index, top, stack.row_chunk(top, min(top + ROW_CHUNK, grid.shape[0]))
    for stack in stacks:
        stack.check_not_blank()


class _Stack:
    """All tiles of one band on one grid."""

    def __init__(self, grid: Grid, band: BandLayers, ahead: int) -> None:
        self._grid, self._band, self._ahead = grid, band, ahead
        ordered = list(reversed(band.layers)) if band.method == "last" else list(band.layers)
        self._tiles = [_Tile(layer, grid, band) for layer in ordered]
        covering: BaseGeometry = shapely.Polygon()
        for tile in self._tiles:
            tile.covered_before = (
                covering if band.method in ("first", "last") else shapely.Polygon()
            )
            shapely.prepare(tile.covered_before)
            covering = shapely.union(covering, tile.footprint)

    def prefetch(self, row_chunks: Sequence[tuple[int, int]]) -> None:
        """Start reading what the strips will need, as far as footprints foretell it."""
        for tile in self._tiles:
            tile.start(
                [block for top, bottom in row_chunks for block in tile.prefetch_blocks(top, bottom)]
            )

    def row_chunk(self, top: int, bottom: int) -> Array:
        merge = new_merge(
            self._band.method,
            (bottom - top, self._grid.shape[1]),
            self._band.dtype,
            self._band.nodata,
        )
        for tile in self._tiles:
            tile.composite(merge, top, bottom, self._band.nodata)
            tile.forget(bottom, self._ahead)
        return merge.result()

    def check_not_blank(self) -> None:
        for tile in self._tiles:
            reason = tile.why_blank()
            if reason:
                raise LayerError(self._band.name, tile.layer.name, CheckError(reason))


class _Tile:
    """One layer, its placement, and those of its blocks that are wanted now."""

    def __init__(self, layer: Layer, grid: Grid, band: BandLayers) -> None:
        self.layer, self._band = layer, band
        self.placement: GridMapping = map_to_grid(
            layer.source.info, grid, band.resampling, band.nodata
        )
        self.footprint = self._pixel_footprint(grid)
        shapely.prepare(self.footprint)
        self.covered_before: BaseGeometry = shapely.Polygon()
        self._seen = self._valid = 0  # pixels that were looked at, and those of them that hold data
        self._promised = 0.0  # pixels well inside the footprint, until one pixel holds data
        self._core = self.footprint.buffer(-_RIM)
        shapely.prepare(self._core)
        left, first, right, last = self.placement.outline
        on_grid = min(right - left, grid.shape[1]) * min(last - first, grid.shape[0])
        self.sample = Sample(int(max(on_grid, 1)), _STRIDE)
        self._blocks: dict[Block, Future[Array]] = {}

    def _pixel_footprint(self, grid: Grid) -> BaseGeometry:
        """Where the tile has data, in pixels of the grid."""
        image = self.placement.extent
        if self.layer.footprint is None:
            return image
        inverse = ~grid.transform
        pixels = shapely.transform(
            self.layer.footprint,
            lambda xy: np.column_stack(inverse @ (xy[:, 0], xy[:, 1])),
            include_z=False,
        )
        return shapely.intersection(shapely.make_valid(pixels), image)

    def prefetch_blocks(self, top: int, bottom: int) -> list[Block]:
        """Blocks that will be needed unless better tiles cover all that they show."""
        if self.covered_before.is_empty:
            return [block for block, _ in self.placement.required_blocks(top, bottom)]
        return [
            block
            for block, region in self.placement.required_blocks(top, bottom)
            if not self.covered_before.contains(_region_box(region, top))
        ]

    def start(self, blocks: list[Block]) -> None:
        missing = [block for block in dict.fromkeys(blocks) if block not in self._blocks]
        if missing:
            self._blocks.update(self.layer.source.fetch(missing))

    def composite(self, merge: Merge, top: int, bottom: int, nodata: float | None) -> None:
        """Put this tile's pixels onto a strip, reading only the blocks that can still change it."""
        wanted = [
            block
            for block, region in self.placement.required_blocks(top, bottom)
            if merge.wants(region)
        ]
        self.start(wanted)
        for region, pixels, reach in self.placement.resample(top, bottom, wanted, self._get):
            values, inside = split(pixels, reach)
            self._count(region, top, values, inside, nodata)
            if self.layer.add_offset:
                values = harmonize(
                    values, valid_mask(values, nodata), self.layer.add_offset, nodata
                )
            merge.add(region, values, inside)

    def _count(
        self, region: Region, top: int, values: Array, inside: Mask | None, nodata: float | None
    ) -> None:
        """Note how much of a piece holds data."""
        self._seen += values.size
        if not self._valid:
            self._promised += shapely.intersection(self._core, _region_box(region, top)).area
            self._valid += valid_count(values if inside is None else values[inside], nodata)
        if self._band.min_std_dev is not None:
            self.sample.add(values, nodata, inside)

    def why_blank(self) -> str:
        """Why the tile is blank, as far as it was looked at; empty where it is not.

        That there is no data is no fault where the swath may end: then all of the tile is looked
        at. A part of a tile that looks blank is judged by the whole, too, so that shards report
        like one image.
        """
        if self._seen and not self._valid:
            if self._promised >= _PROMISED and self._is_footprint_tight():
                return f"blank: not one of {round(self._promised):,} pixels inside its footprint holds data"
            whole = self._whole()
            return "" if whole.values.size else "blank: all of it is nodata"
        least = self._band.min_std_dev
        if least is None or not blank(self.sample, least):
            return ""
        return blank(self._whole(), least)

    def _is_footprint_tight(self) -> bool:
        """Whether the footprint says more than where the image lies."""
        return bool(self.footprint.area < _WHOLE * self.placement.extent.area)

    def _whole(self) -> Sample:
        """A sample of all of the tile."""
        try:
            pieces = self.layer.source.sample_overview(at_full_size=True)
        except ReadError as error:
            if error.permanent:
                raise LayerError(self._band.name, self.layer.name, error) from error
            raise
        sample = Sample(sum(piece.size for piece in pieces))
        for piece in pieces:
            sample.add(piece, self._band.nodata)
        return sample

    def _get(self, block: Block) -> Array:
        try:
            return marked(self._blocks[block].result(), self._band.nodata)
        except ReadError as error:
            if error.permanent:
                raise LayerError(self._band.name, self.layer.name, error) from error
            raise

    def forget(self, bottom: int, row_chunks: int) -> None:
        """Drop blocks that no row from `bottom` on needs."""
        ahead = {
            block
            for block, _ in self.placement.required_blocks(
                bottom, bottom + (row_chunks + 1) * ROW_CHUNK
            )
        }
        for block in [block for block in self._blocks if block not in ahead]:
            del self._blocks[block]


def _region_box(region: Region, top: int) -> BaseGeometry:
    rows, columns = region
    return box(columns.start, rows.start + top, columns.stop, rows.stop + top)
