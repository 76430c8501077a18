"""Validity: which pixels hold data. The one definition, for every reader, merge, check and writer.

A pixel is invalid if it equals the file's nodata value, compared in the file's dtype; if the file's
mask or alpha band says so (GDAL RFC 15); or if the image does not reach it. Where no nodata value
can mark invalid pixels, arrays are NumPy masked arrays; their mask is True where there is no data.
"""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]
Mask = np.ndarray[Any, np.dtype[np.bool_]]
"""Boolean array, True where there is data unless stated otherwise."""


def nodata_in_dtype(nodata: float | None, dtype: np.dtype[Any]) -> float | None:
    """Return a declared nodata value as a number of a dtype.

    Floats are rounded to the dtype: in a float32 file, 0.1 means the float32 nearest to 0.1.

    Returns:
        The number; None if the dtype cannot represent it, so that no pixel equals it.
    """
    if nodata is None or not fits(nodata, dtype):
        return None
    if dtype.kind != "f":
        return float(nodata)
    with np.errstate(over="ignore"):
        return float(dtype.type(nodata))


def fits(nodata: float, dtype: np.dtype[Any]) -> bool:
    """Return whether a dtype can represent a nodata value."""
    if dtype.kind == "f":
        # The greatest float32 is often written with a few digits only. Their value is a little
        # higher, and is rounded to it.
        largest = float(np.finfo(dtype).max) * (1 + 2**-25)
        return not np.isfinite(nodata) or abs(nodata) <= largest
    limits = np.iinfo(dtype)
    return float(nodata).is_integer() and limits.min <= nodata <= limits.max


def same_nodata(one: float | None, other: float | None) -> bool:
    """Return whether two nodata declarations mean the same number; NaN equals NaN.

    They are compared as float32, because files are often written by way of text.
    """
    if one is None or other is None:
        return one is other
    if one == other:
        return True
    with np.errstate(over="ignore"):
        return bool(np.array_equal(np.float32(one), np.float32(other), equal_nan=True))


def valid_mask(values: Array, nodata: float | None) -> Mask | None:
    """Return where an array holds data.

    Args:
        values: Pixels; their mask counts if it is a masked array.
        nodata: Nodata value; None if every number is data.

    Returns:
        True where there is data; None if no pixel can be invalid.
    """
    not_nodata = _not_nodata(np.asarray(values), nodata)
    if not np.ma.is_masked(values):
        return not_nodata
    unmasked = ~np.ma.getmaskarray(values)
    return np.asarray(unmasked if not_nodata is None else not_nodata & unmasked)


def _not_nodata(values: Array, nodata: float | None) -> Mask | None:
    if nodata is None:
        return None
    if np.isnan(nodata):
        return np.asarray(~np.isnan(values)) if values.dtype.kind == "f" else None
    number = nodata_in_dtype(nodata, values.dtype)
    return None if number is None else np.asarray(values != values.dtype.type(number))


def all_valid(values: Array, nodata: float | None) -> bool:
    """Return whether all pixels certainly hold data.

    Minimum and maximum are compared with nodata, which is much faster than a mask. So False can
    also mean that nodata is between them without occurring.
    """
    if np.ma.is_masked(values):
        return False
    values = np.asarray(values)
    if nodata is None or values.size == 0:
        return True
    least = values.min()
    return bool(
        least > nodata or values.max() < nodata or (np.isnan(nodata) and not np.isnan(least))
    )


def valid_count(values: Array, nodata: float | None) -> int:
    """Return the number of pixels that hold data."""
    mask = None if all_valid(values, nodata) else valid_mask(values, nodata)
    return int(values.size if mask is None else np.count_nonzero(mask))


def as_masked(values: Array, valid: Mask | None) -> Array:
    """Return `values` as a masked array, or unchanged if all are valid (None: all are)."""
    return values if valid is None or valid.all() else np.ma.MaskedArray(values, mask=~valid)


def fill_masked(values: Array, nodata: float | None) -> Array:
    """Return a masked array as a plain one with nodata; unchanged if there is no nodata value."""
    if nodata is None or not isinstance(values, np.ma.MaskedArray):
        return values
    return np.asarray(values.filled(values.dtype.type(nodata)))


def split_mask(values: Array, inside: Mask | None) -> tuple[Array, Mask | None]:
    """Split a masked array into its numbers, and `inside` without its masked pixels."""
    if not isinstance(values, np.ma.MaskedArray):
        return values, inside
    valid = ~np.ma.getmaskarray(values)
    return np.asarray(values), valid if inside is None else valid & inside
