"""Grow and shrink masks by Euclidean distances, exactly."""

from __future__ import annotations

import numpy as np

from scenebeam.raster.validity import Array, Mask

_SMALL = 181
"""Distance in pixels up to which the sum of two squares fits into 16 bits."""
_COLUMNS = 64
"""Columns that are computed together: with a thousand rows they fit into the cache of a core."""


def distance_to(mask: Mask, limit: int) -> Array:
    """Compute the distance of each pixel to the nearest pixel of a mask, up to a limit.

    The squared distance is separable (Felzenszwalb and Huttenlocher 2012, doi:10.4086/toc.2012.
    v008a019): the distance within each row first, then the least of the rows up to `limit` away.

    Args:
        mask: Boolean array of shape (rows, columns).
        limit: Largest distance of interest in pixels.

    Returns:
        float32 array of the same shape, in pixels: 0 inside the mask, and `limit` where the mask
        is that far away or farther.
    """
    if not limit or not mask.any():
        return np.where(mask, np.float32(0), np.float32(limit))
    # Squares of whole distances are integers, and small ones are the faster to compare.
    kind = np.uint16 if limit <= _SMALL else np.uint32
    squared = (_distance_in_rows(mask, limit) ** 2).astype(kind)
    for left in range(0, mask.shape[1], _COLUMNS):
        columns = np.ascontiguousarray(squared[:, left : left + _COLUMNS])
        squared[:, left : left + _COLUMNS] = _nearest_rows(columns, limit)
    distance: Array = np.sqrt(squared, dtype=np.float32)
    return distance


def _nearest_rows(along_rows: Array, limit: int) -> Array:
    """Return the least sum of a squared distance along a row and that to the row."""
    nearest, sums = along_rows.copy(), np.empty_like(along_rows)
    for away in range(1, min(limit, len(along_rows))):
        square = along_rows.dtype.type(away * away)
        # Rows that are farther away than all that is found already cannot be nearer.
        if away % 8 == 1 and square >= nearest.max():
            break
        reached = np.add(along_rows, square, out=sums)
        np.minimum(nearest[away:], reached[:-away], out=nearest[away:])
        np.minimum(nearest[:-away], reached[away:], out=nearest[:-away])
    return nearest


def _distance_in_rows(mask: Mask, limit: int) -> Array:
    """Distance to the nearest pixel of the mask in the same row, up to a limit."""
    width = mask.shape[1]
    columns = np.arange(width, dtype=np.float32)
    # The last column of the mask to the left, and the first one to the right.
    left = np.maximum.accumulate(np.where(mask, columns, np.float32(-limit)), axis=1)
    right = np.where(mask, columns, np.float32(width + limit))[:, ::-1]
    right = np.minimum.accumulate(right, axis=1)[:, ::-1]
    return np.asarray(np.minimum(np.minimum(columns - left, right - columns), np.float32(limit)))


def dilate(mask: Mask, radius: int) -> Mask:
    """Grow a mask by a disk: all pixels at most `radius` pixels away, from center to center."""
    if not radius or not mask.any():
        return mask
    return np.asarray(distance_to(mask, radius + 1) <= radius)


def erode(mask: Mask, radius: int) -> Mask:
    """Shrink a mask by a disk: its pixels farther than `radius` pixels from all others."""
    return ~dilate(~mask, radius)


def opened(mask: Mask, radius: int) -> Mask:
    """Drop the parts of a mask into which a disk of `radius` pixels does not fit."""
    return dilate(erode(mask, radius), radius)
