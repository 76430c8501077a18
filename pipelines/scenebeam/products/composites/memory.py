"""How much memory a composite takes per column of its grid."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from scenebeam.imaging.bands import Band
from scenebeam.raster.compose import ROW_CHUNK

_BLOCK_ROWS = 1024
"""Rows of the largest source blocks that are common."""
_BUSY_BANDS = 16
"""Bands of which whole rows of blocks are decoded at the same time: those decoded ahead, and those
that are composed."""


def column_bytes(bands: Sequence[Band], observations: int, dtypes: Sequence[str]) -> int:
    """Return the bytes that one column takes while a period is composed.

    Args:
        bands: All bands that are read, with masks.
        observations: Number of acquisitions.
        dtypes: Dtype of each band of the composite.
    """
    total = 0
    for band in bands:
        itemsize = np.dtype(band.dtype).itemsize
        # The part of a row of blocks below the chunk of rows stays decoded, and the chunk
        # itself waits for the other observations, while the one before is reduced.
        total += _BLOCK_ROWS * itemsize + 2 * ROW_CHUNK * itemsize
    widest = max((np.dtype(dtype).itemsize for dtype in dtypes), default=1)
    busy = min(len(bands), _BUSY_BANDS) * 2 * _BLOCK_ROWS * widest
    # Clear pixels and counts of each observation, and the finished bands while they are encoded.
    counting = ROW_CHUNK * (2 * observations + 8)
    finished = sum(4 * ROW_CHUNK * np.dtype(dtype).itemsize for dtype in dtypes)
    return total + busy + counting + finished
