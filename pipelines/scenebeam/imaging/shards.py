"""Cut a large grid into shards, each of which one task makes.

A shard is a window of the grid. Its task encodes the blocks of the window in the image itself and
in the first overviews, stores them as a part (`imaging.parts`), and the shard that finishes last
assembles the COG from all parts (`imaging.assemble`), without decoding any block again.

For that, a block of a shard must be a block of the whole image. A block has 512 x 512 pixels of
its level, so a block of the overview n covers 512 * 2^n pixels of the image:

    level                  0      1      2      3
    image pixels a block   512    1024   2048   4096

Cuts at multiples of 4096 pixels let a shard encode four levels by itself. At the next level, a
block would reach beyond the shard. The shard keeps its pixels of that level, 1/256 of the image,
and the assembly encodes that level and the following ones from the pixels of all shards.
"""

from __future__ import annotations

from scenebeam.raster.pyramid import BLOCK_SIZE, level_shapes

PARTS_PREFIX = "parts/"
"""Folder of the parts of images that are not finished."""
Window = tuple[int, int, int, int]
"""First row, last row, first column, last column of a grid; the last ones are exclusive."""

_CELL_LEVELS = 4
"""Levels that a shard encodes itself: cuts are at multiples of 512 * 2^3 pixels."""
_NARROW_SHARD = 2**24
"""Approximate pixels of a shard where memory does not allow the whole width of the grid.

Such shards are tall, so that few cuts run across.
"""
_LARGEST_SHARD = 2**28
"""Pixels of a shard at most: the shards of one large mosaic keep many workers busy."""


def cut_windows(shape: tuple[int, int], widest: int) -> tuple[list[Window], int]:
    """Cut a grid into windows.

    Args:
        shape: Rows and columns of the grid.
        widest: Columns of a window at most, as memory allows.

    Returns:
        (windows, cell): the windows by rows, then by columns, and the number of pixels of which
        all cuts are multiples. A small grid is one window, and `cell` is 0.
    """
    height, width = shape
    if width <= widest and height * width <= _LARGEST_SHARD:
        return [(0, height, 0, width)], 0
    cell = BLOCK_SIZE << (_CELL_LEVELS - 1)
    if width <= widest:
        columns = _round_up(width, cell)
        rows = max(cell, _LARGEST_SHARD // columns // cell * cell)
    else:
        columns, cell = _narrow_columns(width, widest, cell)
        rows = max(cell, _NARROW_SHARD // columns // cell * cell)
    windows = []
    for top in range(0, height, rows):
        for left in range(0, width, columns):
            windows.append((top, min(top + rows, height), left, min(left + columns, width)))
    return windows, cell


def _narrow_columns(width: int, widest: int, cell: int) -> tuple[int, int]:
    """Return the columns of a shard that is narrower than the grid, and the cell of its cuts."""
    # Source blocks that intersect a cut are read on both sides of it: use as few and as wide shards
    # as memory allows. They need not end at multiples of the whole cell for that, a quarter of the
    # width is fine enough.
    quarter = 1 << max((widest // 4).bit_length() - 1, 0)
    # But the finer the cuts, the fewer levels a shard encodes, and the more pixels the assembly has
    # to hold: cut at multiples of 1024 pixels at least, if so many fit into memory.
    least = 2 * BLOCK_SIZE if widest >= 2 * BLOCK_SIZE else BLOCK_SIZE
    unit = max(least, min(cell, quarter))
    count = -(-width // max(unit, widest // unit * unit))
    # Make all shards equally wide, instead of a narrow one at the end.
    columns = -(-width // (count * unit)) * unit
    while columns % cell:
        cell //= 2
    return columns, cell


def _round_up(size: int, unit: int) -> int:
    return -(-size // unit) * unit


def shared_levels(shape: tuple[int, int], cell: int) -> int:
    """Return how many levels of an image its shards encode themselves.

    Args:
        shape: Rows and columns of the image.
        cell: Pixels of which all cuts are multiples: see `cut_windows`.
    """
    return min((cell // BLOCK_SIZE).bit_length(), len(level_shapes(*shape)))


def shard_shapes(window: Window, levels: int) -> list[tuple[int, int]]:
    """Return the rows and columns of a shard at each of its levels."""
    height, width = window[1] - window[0], window[3] - window[2]
    return [(-(-height >> level), -(-width >> level)) for level in range(levels)]
