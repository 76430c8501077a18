"""Where the pixels of a cube are in its Zarr store: levels, shards and chunks.

Every level of the pyramid is an array of shape (time, y, x) per band. Its chunks are the blocks of
a COG, of one time and 512 x 512 pixels, and a shard holds many of them. Where images are cut into
windows that several tasks make, shards divide the distance between cuts: a task writes whole
shards, and nobody else touches them. The levels whose blocks would reach beyond a window are
written by the task that finishes last: see `imaging.shards`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from scenebeam.imaging.shards import Window
from scenebeam.raster.pyramid import BLOCK_SIZE, level_shapes
from scenebeam.tasks import CubeSlice

ZARR_ROOT = "cube.zarr/"
"""Folder of the store."""
REPOSITORY = "cube.icechunk"
"""Folder of the Icechunk repository."""
STAGED_ROOT = "staged.zarr/"
"""Folder of shards that are not committed to Icechunk yet."""
SHARD_SIDE = 4096
"""Pixels per side of a shard, unless cuts are finer."""


def root_of(place: CubeSlice) -> str:
    """Return the folder to which a task writes its shards."""
    return ZARR_ROOT if place.format == "zarr" else STAGED_ROOT


@dataclass(frozen=True)
class CubeLayout:
    """The levels of a cube and their shards."""

    shape: tuple[int, int]
    """Rows and columns of the grid."""
    cuts: tuple[int, int]
    """Rows, and columns, of which all cuts are multiples; 0: not cut along that axis."""

    @property
    def levels(self) -> list[tuple[int, int]]:
        """Rows and columns of each level."""
        return level_shapes(*self.shape)

    @property
    def shared(self) -> int:
        """Number of levels that a window of a cut image has by itself."""
        levels = len(self.levels)
        for cut in self.cuts:
            # At the level after these, a block would reach beyond a cut.
            while cut and cut % (BLOCK_SIZE << (levels - 1)):
                levels -= 1
        return levels

    def shard_shape(self, level: int) -> tuple[int, int]:
        """Return the rows and columns of a shard: a multiple of the chunks."""
        height, width = self.levels[level]
        row_cut, column_cut = self.cuts if level < self.shared else (0, 0)
        rows = min(_shard_side(row_cut >> level), _whole_blocks(height))
        columns = min(_shard_side(column_cut >> level), _whole_blocks(width))
        return rows, columns

    def shards(self, level: int, window: Window | None = None) -> Iterator[tuple[int, int]]:
        """Yield the row and column of each shard of a level.

        Args:
            level: The level.
            window: A part of the grid that is made of whole shards; None for all of it.
        """
        top, bottom, left, right = window or (0, self.shape[0], 0, self.shape[1])
        height, width = self.shard_shape(level)
        scale = 1 << level
        for row in range(top // (height * scale), -(-bottom // (height * scale))):
            for column in range(left // (width * scale), -(-right // (width * scale))):
                yield row, column

    def paths(
        self,
        index: int,
        names: Iterable[str],
        levels: Sequence[int],
        window: Window | None = None,
    ) -> list[str]:
        """Return the paths of the shards of an image in the store.

        Args:
            index: Its place along time.
            names: Its bands.
            levels: The levels.
            window: A part of the grid that is made of whole shards; None for all of it.
        """
        paths = []
        for name in names:
            for level in levels:
                for row, column in self.shards(level, window):
                    paths.append(shard_path(level, name, index, row, column))
        return paths


def array_path(level: int, name: str) -> str:
    """Return the path of an array in the store."""
    return f"{level}/{name}"


def image_path(place: CubeSlice, name: str) -> str:
    """Return where readers find a band, relative to the output."""
    return f"{ZARR_ROOT}{array_path(0, name)}" if place.format == "zarr" else REPOSITORY


def shard_path(level: int, name: str, index: int, row: int, column: int) -> str:
    """Return the path of a shard in the store."""
    return f"{array_path(level, name)}/c/{index}/{row}/{column}"


def _shard_side(cut: int) -> int:
    """Return the largest side that divides the distance between cuts, in whole blocks."""
    if not cut:
        return SHARD_SIDE
    sides = range(min(SHARD_SIDE, cut), 0, -BLOCK_SIZE)
    return next(side for side in sides if cut % side == 0)


def _whole_blocks(size: int) -> int:
    return -(-size // BLOCK_SIZE) * BLOCK_SIZE
