"""Draw chips from the places, and split them for training. Pure functions of ids and columns."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from scenebeam.errors import RequestError
from scenebeam.imaging.split import CellIndex, split_chips, warn_of_empty_splits
from scenebeam.products.chips.request import ChipsRequest, Draw
from scenebeam.products.chips.windows import ChipWindows
from scenebeam.raster.validity import Array

_FOLDERS = {"all", "cells", "chips", "parts", "raw", "report"}
"""Folders that an output has besides those of splits."""


def draw_chips(windows: ChipWindows, draw: Draw) -> Array:
    """Draw some of the chips.

    Each has a position that follows from its id and the seed alone, so that more places, or another
    `count`, leave the positions of all others.

    Args:
        windows: The chips.
        draw: How many, and of which column.

    Returns:
        Indices in ascending order.
    """
    if draw.count is None and draw.per_class is None and draw.balance is None:
        return np.arange(len(windows.ids))
    keys = [_draw_key(name, draw.seed) for name in windows.ids]
    order = sorted(range(len(keys)), key=lambda index: (keys[index], windows.ids[index]))
    if draw.column is not None:
        order = _stratified(order, windows.columns[draw.column], draw)
    limit = len(order) if draw.count is None else draw.count
    return np.array(sorted(order[:limit]), np.int64)


def _draw_key(name: str, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}/{name}".encode()).digest()[:8]


def _stratified(order: Sequence[int], classes: Sequence[Any], draw: Draw) -> list[int]:
    """Take the classes by turns, so that those drawn first have as many as each other."""
    limits = [len(order)]
    if draw.per_class is not None:
        limits.append(draw.per_class)
    if draw.balance is not None:
        limits.append(math.floor(min(Counter(classes).values()) * draw.balance))
    turns: Counter[Any] = Counter()
    ranked: list[tuple[int, int, int]] = []
    for index in order:
        turn = turns[classes[index]]
        turns[classes[index]] += 1
        if turn < min(limits):
            ranked.append((turn, len(ranked), index))
    return [index for _, _, index in sorted(ranked)]


def assign_splits(windows: ChipWindows, shapes: Array, product: ChipsRequest) -> list[str]:
    """Return the split of each chip; empty texts without splits.

    Args:
        windows: The chips.
        shapes: Their outlines in degrees.
        product: The request of the product.

    Raises:
        RequestError: The column of splits has another value.
    """
    if product.split_column is not None:
        return [str(value) for value in windows.columns[product.split_column]]
    if product.split is None:
        return [""] * len(windows.ids)
    cells: list[CellIndex] = []
    for crs, left, top in zip(windows.crs, windows.left, windows.top, strict=True):
        column = math.floor((left + windows.side / 2) / windows.side)
        row = math.floor((top - windows.side / 2) / windows.side)
        cells.append((str(crs), column, row))
    splits = split_chips(cells, shapes, product.split)
    warn_of_empty_splits(splits, product.split)
    return splits


def check_splits(splits: Sequence[str]) -> None:
    """Check the names of splits, which become folders.

    Raises:
        RequestError: One is not a plain name.
    """
    for name in sorted(set(splits)):
        is_plain = name.isascii() and name.replace("_", "").replace("-", "").isalnum()
        if name and (not is_plain or name.lower() in _FOLDERS):
            raise RequestError(
                f"product.split_column: {name[:40]!r} is not a plain name of a split"
            )
