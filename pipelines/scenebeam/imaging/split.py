"""Split chips into training, validation and test in whole blocks, so that no two splits touch.

Chips beside each other look alike. If one of them were in the training split and the other in the
test split, the test would tell too little. So the splits are drawn for blocks of chips, and a chip
at the border between two blocks of different splits goes into neither of them.
"""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import shapely

from scenebeam.request import Split

CellIndex = tuple[int | str, int, int]
"""Lattice of a chip (EPSG code of its zone, or CRS), column and row."""

log = logging.getLogger(__name__)

_FAR = 0.15
"""Difference of a share from the requested one that is worth a warning."""

BUFFER = "buffer"
"""The name for chips between two splits, which are in neither of them."""
_ORDER = ("train", "val", "test")
"""Where two splits touch, the chip of the earlier one becomes buffer: it has the most chips."""
_BATCH = 20_000
_TOUCH = 1e-6
"""Degrees between chips that share an edge or a corner, about 0.1 m."""


def split_chips(
    cells: Sequence[CellIndex], footprints: np.ndarray[Any, np.dtype[Any]], split: Split
) -> list[str]:
    """Assign chips to splits.

    A chip gets the same split whatever the order of the chips, and whichever other chips there are,
    except for the buffer.

    Args:
        cells: Where each chip is on its lattice.
        footprints: 1-D array of their polygons in degrees.
        split: Shares of the splits, seed, and chips per side of a block.

    Returns:
        `train`, `val`, `test` or `buffer` for each chip.
    """
    numbers = np.array([_ORDER.index(_draw_split(cell, split)) for cell in cells])
    is_buffer = np.zeros(len(cells), bool)
    for shapes in _unwrapped(footprints):
        tree = shapely.STRtree(shapes)
        # A buffer takes more memory than the chip itself.
        for start in range(0, len(shapes), _BATCH):
            grown = shapely.buffer(shapes[start : start + _BATCH], _TOUCH)
            chips, neighbors = tree.query(grown, predicate="intersects")
            is_later = numbers[neighbors] > numbers[chips + start]
            is_buffer[chips[is_later] + start] = True
    splits = []
    for number, buffered in zip(numbers.tolist(), is_buffer.tolist(), strict=True):
        splits.append(BUFFER if buffered else _ORDER[number])
    return splits


def _draw_split(cell: CellIndex, split: Split) -> str:
    """Draw the split of the block that a cell is in, by a hash of block and seed."""
    lattice, column, row = cell
    text = f"{split.seed}/{lattice}/{column // split.block}/{row // split.block}"
    draw = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2**64
    if draw < split.train:
        return "train"
    return "val" if draw < split.train + split.val else "test"


def _unwrapped(footprints: np.ndarray[Any, np.dtype[Any]]) -> list[Any]:
    """Return the footprints, and a second time with longitudes from 0 to 360 degrees if needed.

    Chips on both sides of the antimeridian only touch in the second one.
    """
    west, _, east, _ = shapely.bounds(footprints).T
    if west.min() > -179 or east.max() < 179:
        return [footprints]
    eastward = shapely.transform(footprints, lambda xy: np.column_stack([xy[:, 0] % 360, xy[:, 1]]))
    return [footprints, eastward]


def warn_of_empty_splits(splits: Sequence[str], split: Split) -> None:
    """Log a warning if a split has no chip, or if the shares are far from those requested.

    Args:
        splits: The split of each chip, as `split_chips` returns them.
        split: The requested shares.
    """
    empty = [name for name in _ORDER if getattr(split, name) > 0 and name not in splits]
    if empty:
        log.warning(
            "no chip is in the split %s: the %d chips are in too few blocks of %d chips per side; "
            "decrease `block` of the split, which leaves more chips in the buffer between splits, "
            "or try another `seed` of it",
            " and ".join(empty),
            len(splits),
            split.block,
        )
        return
    counts = Counter(splits)
    drawn = sum(counts[name] for name in _ORDER)
    if not drawn:
        return
    off = max(abs(counts[name] / drawn - getattr(split, name)) for name in _ORDER)
    if off > _FAR:
        log.warning(
            "the split is %s, far from the requested shares: the %d chips are in few blocks of %d "
            "chips per side; use more chips, or try another `seed` of the split",
            ", ".join(f"{counts[name]} {name}" for name in (*_ORDER, "buffer") if counts[name]),
            len(splits),
            split.block,
        )
