"""Windows: one band of a file on many small grids, each compressed block fetched and decoded once.

The grids are read in the order of the file's rows. Reads run ahead by rows of blocks, neighbours in one request, and a
block is forgotten after the last grid that it lies under: memory is a few rows of blocks, however many grids there are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future

import numpy as np

from scenebeam.raster.grid import Grid
from scenebeam.raster.source import Block, Source
from scenebeam.raster.validity import Array, Mask, marked, split
from scenebeam.raster.warp import GridMapping, Piece, map_to_grid

ROWS_AHEAD = 1
"""Rows of blocks that are on their way while the grids over the rows before them are read."""


class Windows:
    """One band on grids 0 … n - 1. Not for several threads at once."""

    def __init__(
        self, source: Source, grids: Sequence[Grid], resampling: str, nodata: float | None
    ) -> None:
        self._source, self._nodata = source, nodata
        self._grids = grids
        self._placements: list[GridMapping] = [
            map_to_grid(source.info, grid, resampling, nodata) for grid in grids
        ]
        self._needs: list[list[Block]] = [
            list(
                dict.fromkeys(
                    block for block, _ in placement.required_blocks(0, placement.grid.shape[0])
                )
            )
            for placement in self._placements
        ]
        self._uses: Counter[Block] = Counter(block for needs in self._needs for block in needs)
        self._rows: dict[int, list[Block]] = {}
        for block in sorted(self._uses):
            self._rows.setdefault(block[0], []).append(block)
        self._to_come = sorted(self._rows)
        self._blocks: dict[Block, Future[Array]] = {}

    def place_of(self, number: int) -> Block:
        """Where the file's part of a grid begins: its first block, for the order in which to read."""
        return min(self._needs[number], default=(0, 0))

    @property
    def blocks(self) -> list[Block]:
        """All blocks that the grids need, in file order."""
        return sorted(self._uses)

    def read(self, number: int) -> Array:
        """The band on a grid, nodata where the file has none; once for each grid, best in the order of `place_of`.

        Not to be written to: it may be a part of what is read for others.
        Raises ReadError where a block cannot be read.
        """
        return self.read_and_extent(number)[0]

    def read_and_extent(self, number: int) -> tuple[Array, Mask | None]:
        """As `read`, with where the file reaches at all; None: everywhere, or its nodata value tells."""
        placement, needs = self._placements[number], self._needs[number]
        self._start(max((row for row, _ in needs), default=-1) + ROWS_AHEAD)
        height, width = self._grids[number].shape
        # The reading of one strip as high as the grid: regions lie within it.
        pieces = list(
            placement.resample(
                0, height, needs, lambda block: marked(self._blocks[block].result(), self._nodata)
            )
        )
        found = self._laid(pieces, (height, width))
        for block in needs:
            self._uses[block] -= 1
            if not self._uses[block]:
                del self._blocks[block]
        return found

    def _laid(self, pieces: Sequence[Piece], shape: tuple[int, int]) -> tuple[Array, Mask | None]:
        """Pieces as one array; where a single one is all of it, that itself, a part of its block."""
        pieces = [(region, *split(values, inside)) for region, values, inside in pieces]
        covered = sum(values.size for _, values, inside in pieces if inside is None)
        if len(pieces) == 1 and covered == shape[0] * shape[1]:
            return pieces[0][1], None
        found: Array = np.empty(shape, self._source.info.dtype)
        extent = np.zeros(shape, bool) if self._nodata is None and covered < found.size else None
        if covered < found.size:
            found.fill(0 if self._nodata is None else self._nodata)
        for region, values, inside in pieces:
            np.copyto(found[region], values, where=True if inside is None else inside)
            if extent is not None:
                extent[region] |= True if inside is None else inside
        return found, extent

    def _start(self, last_row: int) -> None:
        """Fetch all rows of blocks up to `last_row` that have not been asked for yet."""
        coming: list[Block] = []
        while self._to_come and self._to_come[0] <= last_row:
            coming += self._rows.pop(self._to_come.pop(0))
        if coming:
            self._blocks.update(self._source.fetch(coming))
