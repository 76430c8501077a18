"""Order statistics of few observations: sort them with a network, all pixels at once.

The number of observations of a period is small, and the number of pixels large. So observations are
compared pairwise, whole arrays at a time: each comparison is a minimum and a maximum, which the CPU
computes for many pixels per instruction. `np.sort` and `np.partition` sort each pixel on its own.
For the same reason, numbers are chosen by bit operations here: `np.where` takes ten times as long.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from scenebeam.raster.validity import Array, Mask


@cache
def sorting_network(size: int, wanted: frozenset[int]) -> tuple[tuple[int, int], ...]:
    """Return the comparisons that bring the right numbers to some places of a sorted list.

    Batcher's odd-even merge sort (Knuth, The Art of Computer Programming, vol. 3, 5.2.2, algorithm
    M), without the comparisons on which the wanted places do not depend.

    Args:
        size: Number of values.
        wanted: Places that are needed, from 0.
    """
    comparisons = []
    half = 1 << max((size - 1).bit_length() - 1, 0)
    step = half
    while step > 0:
        power, offset, distance = half, 0, step
        while True:
            for low in range(size - distance):
                if low & step == offset:
                    comparisons.append((low, low + distance))
            if power == step:
                break
            distance, power, offset = power - step, power >> 1, step
        step >>= 1
    needed = set(wanted)
    kept = []
    for low, high in reversed(comparisons):
        if low in needed or high in needed:
            kept.append((low, high))
            needed |= {low, high}
    return tuple(reversed(kept))


def _sort(planes: list[Array], wanted: frozenset[int]) -> None:
    """Sort arrays in place, pixel by pixel, so far that the wanted places are right."""
    spare = np.empty_like(planes[0])
    for low, high in sorting_network(len(planes), wanted):
        np.minimum(planes[low], planes[high], out=spare)
        np.maximum(planes[low], planes[high], out=planes[high])
        planes[low], spare = spare, planes[low]


def _limits(dtype: np.dtype[Any]) -> tuple[Any, Any]:
    """Return the lowest and the highest number of a dtype."""
    if dtype.kind == "f":
        return dtype.type(-np.inf), dtype.type(np.inf)
    limits = np.iinfo(dtype)
    return dtype.type(limits.min), dtype.type(limits.max)


def _bits(mask: Mask, dtype: np.dtype[Any]) -> Array:
    """Return an unsigned integer per pixel of a dtype's size: all bits set where a mask is True."""
    ones: Array = mask.astype(f"u{dtype.itemsize}")
    return np.asarray(np.negative(ones, out=ones))


def where(mask: Mask, numbers: Array, others: Array) -> Array:
    """Choose numbers where a mask is True, and others elsewhere, as `np.where` does.

    Args:
        mask: Boolean array.
        numbers: Array of the same shape.
        others: Array of the dtype of `numbers` and of the same shape.
    """
    chosen = _bits(mask, numbers.dtype)
    bits = chosen.dtype
    kept = np.invert(chosen)
    kept &= others.view(bits)
    chosen &= np.ascontiguousarray(numbers).view(bits)
    chosen |= kept
    return chosen.view(numbers.dtype)


def first_true(masks: Mask) -> Array:
    """Return the first index along axis 0 at which a mask is True, as `argmax` does; 0 if none is.

    Args:
        masks: Boolean array of shape (observations, rows, columns).

    Returns:
        Array of unsigned integers of shape (rows, columns).
    """
    kind = np.dtype(np.uint8 if len(masks) <= 256 else np.uint16)
    first = np.zeros(masks.shape[1:], kind)
    for index in reversed(range(len(masks))):
        chosen = _bits(masks[index], kind)
        first &= ~chosen
        first |= chosen & kind.type(index)
    return first


def _padding(sorts_last: Mask, dtype: np.dtype[Any]) -> Array:
    """Return the highest number of a dtype where a mask is True, and the lowest elsewhere."""
    if dtype.kind == "u":  # all bits set, or none
        return _bits(sorts_last, dtype)
    lowest, highest = _limits(dtype)
    return np.asarray(np.where(sorts_last, highest, lowest))


def median(pixels: Array, valid: Mask) -> tuple[Array, Array]:
    """Return the middle two of the valid observations: twice the same one if their number is odd.

    Of the invalid observations of a pixel, every second one sorts first and the others last, so
    that the valid ones stay in the middle: its place does not depend on their number.

    Args:
        pixels: Array of shape (observations, rows, columns).
        valid: Where they count.

    Returns:
        Lower and higher number, of shape (rows, columns); any numbers where no observation counts.
    """
    size = len(pixels)
    planes = []
    sorts_last = np.zeros(pixels.shape[1:], bool)
    for observation, counts in zip(pixels, valid, strict=True):
        sorts_last ^= ~counts
        planes.append(where(counts, observation, _padding(sorts_last, pixels.dtype)))
    # Afterwards, `sorts_last` is whether the number of invalid observations is odd.
    below, middle = max(size // 2 - 1, 0), size // 2
    _sort(planes, frozenset((below, middle)))
    if size == 1:
        return planes[0], planes[0]
    if size % 2:
        return where(sorts_last, planes[below], planes[middle]), planes[middle]
    return planes[below], where(sorts_last, planes[below], planes[middle])


def percentile(pixels: Array, valid: Mask, count: Array, percent: float) -> Array:
    """Return a percentile of the valid observations, interpolated linearly as `np.percentile` does.

    Args:
        pixels: Array of shape (observations, rows, columns).
        valid: Where they count.
        count: Number of valid observations of each pixel.
        percent: 0 to 100.

    Returns:
        float64 array of shape (rows, columns); any numbers where `count` is 0.
    """
    last = np.full_like(pixels[0], _limits(pixels.dtype)[1])
    planes = [where(valid[index], observation, last) for index, observation in enumerate(pixels)]
    _sort(planes, frozenset(range(len(planes))))
    result = np.zeros(count.shape)
    for number in np.unique(count).tolist():
        if number == 0:
            continue
        place = percent / 100 * (number - 1)
        low = int(place)
        high = min(low + 1, number - 1)
        below, above = planes[low].astype(np.float64), planes[high].astype(np.float64)
        result = where(count == number, below + (above - below) * (place - low), result)
    return result
