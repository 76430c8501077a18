"""How near two images must be if one was warped by an approximate transformation."""

from __future__ import annotations

import numpy as np

SIDE = 5


def check_near(found: np.ndarray, expected: np.ndarray, share: float = 0.99) -> None:
    """GDAL places a warped pixel to within an eighth: numbers differ by a part of those around."""
    off = np.abs(found.astype(int) - expected.astype(int))
    padded = np.pad(expected.astype(int), SIDE // 2, mode="edge")
    around = np.lib.stride_tricks.sliding_window_view(padded, (SIDE, SIDE))
    reach = around.max(axis=(-1, -2)) - around.min(axis=(-1, -2))
    assert (off <= 2 + reach / 5).mean() > share
    assert np.median(off) <= 2
