"""Validity: which pixels hold data. The one definition, for every reader, merge, check and writer.

A pixel is no data where its file's nodata value says so, compared in the file's dtype; where the
file's mask or alpha band says so (GDAL RFC 15); and where the image does not reach. Pixels that no
nodata value can mark travel as NumPy masked arrays, True in the mask where there is no data, as
NumPy has it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]
Mask = np.ndarray[Any, np.dtype[np.bool_]]


def held_nodata(nodata: float | None, dtype: np.dtype[Any]) -> float | None:
    """The number of `dtype` that a declared nodata value is; None where the dtype cannot hold it,
    so that it marks nothing.

    A float is rounded to the dtype: 0.1 in a float32 file is the float32 nearest to 0.1.
    """
    if nodata is None or not fits(nodata, dtype):
        return None
    if dtype.kind != "f":
        return float(nodata)
    with np.errstate(over="ignore"):
        return float(dtype.type(nodata))


def fits(nodata: float, dtype: np.dtype[Any]) -> bool:
    """Whether a nodata value can stand in a dtype at all."""
    if dtype.kind == "f":
        # The greatest float32 is often written with few digits, which come to a little more and are rounded to it.
        return not np.isfinite(nodata) or abs(nodata) <= float(np.finfo(dtype).max) * (1 + 2**-25)
    limits = np.iinfo(dtype)
    return float(nodata).is_integer() and limits.min <= nodata <= limits.max


def same_nodata(one: float | None, other: float | None) -> bool:
    """Whether two declarations mean the same number, NaN included. As float32: files are written by
    way of text.
    """
    if one is None or other is None:
        return one is other
    with np.errstate(over="ignore"):
        return (
            bool(np.array_equal(np.float32(one), np.float32(other), equal_nan=True)) or one == other
        )


def valid_mask(values: Array, nodata: float | None) -> Mask | None:
    """True where `values` holds data; None where every number is data."""
    marked = _unmarked(np.asarray(values), nodata)
    if not np.ma.is_masked(values):
        return marked
    unmasked = ~np.ma.getmaskarray(values)
    return np.asarray(unmasked if marked is None else marked & unmasked)


def _unmarked(values: Array, nodata: float | None) -> Mask | None:
    if nodata is None:
        return None
    if np.isnan(nodata):
        return np.asarray(~np.isnan(values)) if values.dtype.kind == "f" else None
    held = held_nodata(nodata, values.dtype)
    return None if held is None else np.asarray(values != values.dtype.type(held))


def all_valid(values: Array, nodata: float | None) -> bool:
    """Whether no pixel is nodata. By least and greatest, which need no mask; so False may mean "not
    certain".
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
    """Pixels that hold data."""
    mask = None if all_valid(values, nodata) else valid_mask(values, nodata)
    return int(values.size if mask is None else np.count_nonzero(mask))


def masked(values: Array, valid: Mask | None) -> Array:
    """`values` as a masked array where some are not `valid`, else as they are."""
    return values if valid is None or valid.all() else np.ma.MaskedArray(values, mask=~valid)


def marked(values: Array, nodata: float | None) -> Array:
    """A masked array as a plain one, its masked pixels marked by `nodata`; as it is where there is
    no such value.
    """
    if nodata is None or not isinstance(values, np.ma.MaskedArray):
        return values
    return np.asarray(values.filled(values.dtype.type(nodata)))


def split(values: Array, inside: Mask | None) -> tuple[Array, Mask | None]:
    """A masked array → its numbers, and `inside` without its masked pixels."""
    if not isinstance(values, np.ma.MaskedArray):
        return values, inside
    valid = ~np.ma.getmaskarray(values)
    return np.asarray(values), valid if inside is None else valid & inside
