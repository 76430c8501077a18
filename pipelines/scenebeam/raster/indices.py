"""Evaluate band math: a parsed expression over arrays of reflectance, and what surrounds it."""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from scenebeam.raster.validity import Array, valid_mask

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
    """Evaluate an expression.

    Args:
        tree: The expression, as returned by `request.expression.parse_expression`.
        bands: float32 arrays of one shape by name, NaN where there is no data.

    Returns:
        float32 array of the same shape; NaN where a band is NaN, and where the result is not a
        finite number, as after a division by zero.
    """
    with np.errstate(all="ignore"):
        result = np.asarray(_value(tree, bands), np.float32)
    shape = next(iter(bands.values())).shape
    if result.shape != shape:  # an expression of constants
        result = np.array(np.broadcast_to(result, shape))
    result[~np.isfinite(result)] = np.nan
    if _can_hide_nan(tree):
        for values in bands.values():
            result[np.isnan(values)] = np.nan
    return result


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
            raise AssertionError(f"parse_expression should have refused {ast.dump(node)}")


def _can_hide_nan(tree: ast.AST) -> bool:
    """Return whether a NaN can get lost: a comparison is False, and NaN to the power of 0 is 1."""
    return any(isinstance(node, ast.Compare | ast.Pow) for node in ast.walk(tree))


def physical(numbers: Array, nodata: float | None, scale: float, offset: float) -> Array:
    """Convert harmonized numbers to physical values.

    Args:
        numbers: Pixels of any dtype.
        nodata: Their nodata value.
        scale: Scale of the band.
        offset: Offset of the band.

    Returns:
        scale * number + offset as float32, NaN where there is no data.
    """
    values = np.asarray(numbers).astype(np.float32)
    if scale != 1.0:
        values *= np.float32(scale)
    if offset != 0.0:
        values += np.float32(offset)
    valid = valid_mask(numbers, nodata)
    if valid is not None:
        values[~valid] = np.nan
    return values
