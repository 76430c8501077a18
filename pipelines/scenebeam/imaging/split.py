"""Split: chips for training, validation and test, in whole blocks, so that no two splits touch."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import shapely

from scenebeam.request import Split

CellIndex = tuple[int | str, int, int]
"""What tells lattices apart (a zone's EPSG code, a CRS), column and row."""

log = logging.getLogger(__name__)

BUFFER = "buffer"
"""A chip between two splits, and of neither."""
_ORDER = ("train", "val", "test")
"""Where two touch, the chip of the earlier gives way: there are the most of it."""
_TOUCH = 1e-6
"""Degrees (a tenth of a metre) between chips that share an edge or a corner."""


def split_chips(
    places: Sequence[CellIndex], outlines: np.ndarray[Any, np.dtype[Any]], asked: Split
) -> list[str]:
    """`train`, `val`, `test` or `buffer` for each chip. The same for any order of chips, and for any others beside them
    but for the buffer.
    """
    found = np.array([_ORDER.index(_draw(place, asked)) for place in places])
    gives_way = np.zeros(len(places), bool)
    for shapes in _both_ways(outlines):
        tree = shapely.STRtree(shapes)
        for one, other in tree.query(
            shapely.buffer(shapes, _TOUCH), predicate="intersects"
        ).T.tolist():
            gives_way[one] |= found[other] > found[one]
    return [
        BUFFER if gone else _ORDER[number]
        for number, gone in zip(found.tolist(), gives_way.tolist(), strict=True)
    ]


def _draw(place: CellIndex, asked: Split) -> str:
    """The split of the block that a place lies in, by a hash of block and seed."""
    epsg, column, row = place
    text = f"{asked.seed}/{epsg}/{column // asked.block}/{row // asked.block}"
    share = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2**64
    return "train" if share < asked.train else "val" if share < asked.train + asked.val else "test"


def _both_ways(outlines: np.ndarray[Any, np.dtype[Any]]) -> list[Any]:
    """The outlines, and where some lie at the antimeridian, all of them once more as seen from there."""
    west, _, east, _ = shapely.bounds(outlines).T
    if west.min() > -179 or east.max() < 179:
        return [outlines]
    return [
        outlines,
        shapely.transform(outlines, lambda xy: np.column_stack([xy[:, 0] % 360, xy[:, 1]])),
    ]


def warn_of_empty_splits(splits: Sequence[str], asked: Split) -> None:
    """Warn where a split that was asked for has no chip: few chips lie in few blocks."""
    empty = [name for name in _ORDER if getattr(asked, name) > 0 and name not in splits]
    if empty:
        log.warning(
            "no chip is in the split %s: the %d chips lie in few blocks of %d chips a side; make "
            "split.block smaller, or try another seed",
            " and ".join(empty),
            len(splits),
            asked.block,
        )
