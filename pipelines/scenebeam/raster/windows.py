"""Read one band of a file on many small grids, fetching and decoding each block once.

The grids (chips) are read in the order in which their blocks lie in the file. Two mechanisms keep
memory to a few rows of blocks, however many grids there are:

- Blocks are fetched by whole rows of blocks, `ROWS_AHEAD` rows before they are needed, so that
  neighbors share a request.
- Every block has a use count, the number of grids that still need it, and is dropped at 0.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from concurrent.futures import Future

import numpy as np

from scenebeam.raster.grid import Grid
from scenebeam.raster.mapping import GridMapping, Piece
from scenebeam.raster.source import Block, RasterInfo, Source
from scenebeam.raster.validity import Array, Mask, fill_masked, split_mask
from scenebeam.raster.warp import map_to_grid

ROWS_AHEAD = 1
"""Rows of blocks that are fetched while the grids over earlier rows are read."""


class WindowMappings:
    """Where bands are on grids 0 … n - 1. Bands in the same place share their mappings."""

    def __init__(self, grids: Sequence[Grid]) -> None:
        self._grids = grids
        self._known: dict[object, tuple[list[GridMapping], list[list[Block]]]] = {}

    def of(
        self, info: RasterInfo, resampling: str, nodata: float | None
    ) -> tuple[list[GridMapping], list[list[Block]]]:
        """Return the mapping of a band to each grid, and the blocks that each grid needs."""
        key = (info.place, resampling, repr(nodata))
        if key not in self._known:
            mappings = [map_to_grid(info, grid, resampling, nodata) for grid in self._grids]
            self._known[key] = mappings, [_needed_blocks(mapping) for mapping in mappings]
        return self._known[key]


class Windows:
    """One band on grids 0 … n - 1. Not safe to share between threads."""

    def __init__(
        self,
        source: Source,
        grids: Sequence[Grid],
        resampling: str,
        nodata: float | None,
        shared: WindowMappings | None = None,
    ) -> None:
        """Plan which blocks are needed. Nothing is read yet.

        Args:
            source: The band.
            grids: The grids.
            resampling: Name of a member of `rasterio.enums.Resampling`.
            nodata: Nodata value of the band; None if none marks its pixels.
            shared: Mappings of other bands to the same grids.
        """
        self._source, self._nodata = source, nodata
        self._grids = grids
        shared = WindowMappings(grids) if shared is None else shared
        self._mappings, self._needed = shared.of(source.info, resampling, nodata)
        self._use_count: Counter[Block] = Counter()
        for blocks in self._needed:
            self._use_count.update(blocks)
        # Rows of blocks in file order, each with its blocks.
        self._rows_to_fetch: deque[tuple[int, list[Block]]] = deque()
        for block in sorted(self._use_count):
            if not self._rows_to_fetch or self._rows_to_fetch[-1][0] != block[0]:
                self._rows_to_fetch.append((block[0], []))
            self._rows_to_fetch[-1][1].append(block)
        self._blocks: dict[Block, Future[Array]] = {}

    def first_block(self, number: int) -> Block:
        """Return the first block that a grid needs: the key to sort grids by before reading."""
        return min(self._needed[number], default=(0, 0))

    @property
    def blocks(self) -> list[Block]:
        """All blocks that the grids need, in file order."""
        return sorted(self._use_count)

    def read(self, number: int) -> Array:
        """Read the band on a grid.

        Args:
            number: Index of the grid. Each grid can be read once, best in the order of
                `first_block`.

        Returns:
            2-D array, nodata (or 0) where the file has no data. It may be a view of a block that
            other grids share: do not write to it.

        Raises:
            ReadError: A block cannot be read.
        """
        return self.read_and_extent(number)[0]

    def read_and_extent(self, number: int) -> tuple[Array, Mask | None]:
        """Read the band on a grid, and return where the file reaches.

        Returns:
            As `read`, and a mask that is True where the file has data; None for everywhere, or if
            the nodata value marks where it does not.
        """
        mapping, needed = self._mappings[number], self._needed[number]
        self._fetch_rows(max((row for row, _ in needed), default=-1) + ROWS_AHEAD)
        height, width = self._grids[number].shape
        # The grid is a single chunk of rows: regions are relative to its first row.
        pieces = list(mapping.resample(0, height, needed, self._get))
        # Pixels may be views of blocks: they stay valid when the blocks are dropped below.
        pixels_and_extent = self._assemble(pieces, (height, width))
        for block in needed:
            self._use_count[block] -= 1
            if not self._use_count[block]:
                del self._blocks[block]
        return pixels_and_extent

    def _get(self, block: Block) -> Array:
        return fill_masked(self._blocks[block].result(), self._nodata)

    def _assemble(
        self, pieces: Sequence[Piece], shape: tuple[int, int]
    ) -> tuple[Array, Mask | None]:
        """Put the pieces of a grid together."""
        split_pieces: list[Piece] = []
        covered = 0  # pixels of pieces that have no holes
        for region, pixels, reach in pieces:
            values, inside = split_mask(pixels, reach)
            split_pieces.append((region, values, inside))
            covered += values.size if inside is None else 0
        is_covered = covered == shape[0] * shape[1]
        # Most chips lie within one block: return the view of it, without a copy.
        if len(split_pieces) == 1 and is_covered:
            return split_pieces[0][1], None
        whole: Array = np.empty(shape, self._source.info.dtype)
        extent = None
        if not is_covered:
            whole.fill(0 if self._nodata is None else self._nodata)
            extent = np.zeros(shape, bool) if self._nodata is None else None
        # Pieces do not overlap, so their order does not matter.
        for region, values, inside in split_pieces:
            np.copyto(whole[region], values, where=True if inside is None else inside)
            if extent is not None:
                extent[region] |= True if inside is None else inside
        return whole, extent

    def _fetch_rows(self, last_row: int) -> None:
        """Start to fetch all rows of blocks up to `last_row` that have not been fetched."""
        blocks: list[Block] = []
        while self._rows_to_fetch and self._rows_to_fetch[0][0] <= last_row:
            blocks += self._rows_to_fetch.popleft()[1]
        if blocks:
            self._blocks.update(self._source.fetch(blocks))


def _needed_blocks(mapping: GridMapping) -> list[Block]:
    """Blocks that a whole grid needs, each once."""
    required = mapping.required_blocks(0, mapping.grid.shape[0])
    return list(dict.fromkeys(block for block, _ in required))
