"""Band maths: a checked expression over arrays of reflectance."""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from scenebeam.raster.validity import Array, Mask, valid_mask

_OPERATORS: dict[type, Callable[..., Any]] = {
    ast.Add: np.add,
    ast.Sub: np.subtract,
    ast.Mult: np.multiply,
    ast.Div: np.divide,
    ast.Pow: np.power,
    ast.USub: np.negative,
    ast.UAdd: np.positive,
    ast.Lt: np.less,
    ast.LtE: np.less_equal,
    ast.Gt: np.greater,
    ast.GtE: np.greater_equal,
}
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "abs": np.abs,
    "sqrt": np.sqrt,
    "log": np.log,
    "exp": np.exp,
    "min": np.minimum,
    "max": np.maximum,
    "where": np.where,
}


def evaluate(tree: ast.expr, bands: Mapping[str, Array]) -> Array:
    """The value of an expression (`request.expression.parse_expression`) for arrays of one shape, float32.

    NaN where a band is NaN, and where the result is no finite number (a division by zero).
    """
    with np.errstate(all="ignore"):
        found = np.asarray(_value(tree, bands), np.float32)
    shape = next(iter(bands.values())).shape
    found = np.array(np.broadcast_to(found, shape)) if found.shape != shape else found
    found[~np.isfinite(found)] = np.nan
    if _hides_nan(tree):
        for values in bands.values():
            found[np.isnan(values)] = np.nan
    return found


def _value(node: ast.AST, bands: Mapping[str, Array]) -> Any:
    match node:
        case ast.Constant(value=value):
            assert isinstance(value, int | float)
            return np.float32(value)
        case ast.Name(id=name):
            return bands[name]
        case ast.BinOp(left=left, op=op, right=right):
            return _OPERATORS[type(op)](_value(left, bands), _value(right, bands))
        case ast.UnaryOp(op=op, operand=operand):
            return _OPERATORS[type(op)](_value(operand, bands))
        case ast.Compare(left=left, ops=[op], comparators=[right]):
            return _OPERATORS[type(op)](_value(left, bands), _value(right, bands))
        case ast.Call(func=ast.Name(id=name), args=args):
            return _FUNCTIONS[name](*(_value(arg, bands) for arg in args))
        case _:
            raise AssertionError(f"{ast.dump(node)} has been refused before")


def _hides_nan(tree: ast.AST) -> bool:
    """Whether a NaN can vanish on the way: in a comparison, or as a power of 0."""
    return any(isinstance(node, ast.Compare | ast.Pow) for node in ast.walk(tree))


def physical(numbers: Array, nodata: float | None, scale: float, offset: float) -> Array:
    """Harmonized numbers → scale x number + offset as float32, NaN where there is no data."""
    values = np.asarray(numbers).astype(np.float32)
    if scale != 1.0:
        values *= np.float32(scale)
    if offset != 0.0:
        values += np.float32(offset)
    valid = valid_mask(numbers, nodata)
    if valid is not None:
        values[~valid] = np.nan
    return values


def obscured(
    classes: Array, nodata: float | None, masked: tuple[int, ...], bits: tuple[int, ...]
) -> Mask:
    """Where a classification has one of the classes `masked`, or any of the bits set, or nothing at all."""
    valid = valid_mask(classes, nodata)
    classes = np.asarray(classes)
    if bits:
        found = (classes & classes.dtype.type(sum(1 << bit for bit in bits))) != 0
    else:
        table = np.zeros(256, bool)
        table[list(masked)] = True
        found = table[classes] if classes.dtype == np.uint8 else np.isin(classes, masked)
    return np.asarray(found if valid is None else found | ~valid)
