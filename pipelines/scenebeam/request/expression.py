"""Expressions of band names, such as `(nir - red) / (nir + red)`, and the known spectral indices.

Expressions are parsed by Python's grammar and checked here. Nothing in them is evaluated by Python.
"""

from __future__ import annotations

import ast
from typing import NamedTuple

FUNCTIONS = {"abs": 1, "sqrt": 1, "log": 1, "exp": 1, "min": 2, "max": 2, "where": 3}
"""Function → number of its arguments."""
_LONGEST = 2000
_LARGEST_NUMBER = 3.4e38
_DEEPEST = 100
"""Nested operations. Evaluation recurses, and so do functions of `ast`."""


class Formula(NamedTuple):
    """A spectral index."""

    title: str
    expression: str
    """An expression of bands as reflectance, 0 to 1."""
    source: str
    differenced: bool = False
    """Whether it is the index before an event minus the index after it."""


INDICES = {
    "ndvi": Formula(
        "Normalized difference vegetation index",
        "(nir - red) / (nir + red)",
        "Rouse et al. 1974, NASA SP-351, p. 309",
    ),
    "ndwi": Formula(
        "Normalized difference water index",
        "(green - nir) / (green + nir)",
        "McFeeters 1996, Int. J. Remote Sens. 17(7), doi:10.1080/01431169608948714",
    ),
    "mndwi": Formula(
        "Modified normalized difference water index",
        "(green - swir16) / (green + swir16)",
        "Xu 2006, Int. J. Remote Sens. 27(14), doi:10.1080/01431160600589179",
    ),
    "nbr": Formula(
        "Normalized burn ratio",
        "(nir - swir22) / (nir + swir22)",
        "Key and Benson 2006, USDA RMRS-GTR-164-CD, LA-1",
    ),
    "dnbr": Formula(
        "Differenced normalized burn ratio",
        "(nir - swir22) / (nir + swir22)",
        "Key and Benson 2006, USDA RMRS-GTR-164-CD, LA-1",
        differenced=True,
    ),
    "evi": Formula(
        "Enhanced vegetation index",
        "2.5 * (nir - red) / (nir + 6 * red - 7.5 * blue + 1)",
        "Huete et al. 2002, Remote Sens. Environ. 83, doi:10.1016/S0034-4257(02)00096-2",
    ),
}

_ALLOWED = (
    ast.BinOp,
    ast.UnaryOp,
    ast.Compare,
    ast.Add,
    ast.Sub,
    ast.Mult,
    ast.Div,
    ast.Pow,
    ast.USub,
    ast.UAdd,
    ast.Lt,
    ast.LtE,
    ast.Gt,
    ast.GtE,
    ast.Load,
)


def parse_expression(text: str) -> ast.expr:
    """Parse an expression of band names.

    Args:
        text: Numbers, band names, `+ - * / **`, comparisons, parentheses and FUNCTIONS; at most
            2,000 characters, and 100 nested operations.

    Returns:
        The syntax tree.

    Raises:
        ValueError: The text contains anything else; the message says what.
    """
    if len(text) > _LONGEST:
        raise ValueError(
            f"an expression has at most {_LONGEST:,} characters; this one has {len(text):,}"
        )
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ValueError(f"{text!r} is not an expression of band names: {error}") from None
    _check_depth(tree)
    _check(tree)
    if not names_in(tree):
        raise ValueError(f"{text!r} names no band")
    return tree


def _check_depth(tree: ast.AST) -> None:
    """Raise ValueError if a tree is too deep for the functions that recurse into it."""
    level: list[ast.AST] = [tree]
    for _ in range(_DEEPEST):
        next_level: list[ast.AST] = []
        for node in level:
            next_level += ast.iter_child_nodes(node)
        if not next_level:
            return
        level = next_level
    raise ValueError(f"an expression has at most {_DEEPEST} nested operations: simplify it")


def _check(node: ast.AST) -> None:
    if isinstance(node, ast.Call):
        name = node.func.id if isinstance(node.func, ast.Name) else ""
        if FUNCTIONS.get(name) != len(node.args) or node.keywords:
            known = ", ".join(f"{name} ({count})" for name, count in FUNCTIONS.items())
            raise ValueError(
                f"{ast.unparse(node)!r}: functions and the number of their arguments: {known}"
            )
        inner: list[ast.AST] = list(node.args)
    elif isinstance(node, ast.Constant):
        if isinstance(node.value, bool) or not isinstance(node.value, int | float):
            raise ValueError(f"{node.value!r} is not a number")
        if not abs(node.value) <= _LARGEST_NUMBER:
            raise ValueError("a number in the expression is outside the range of float32")
        inner = []
    elif isinstance(node, ast.Name):
        inner = []
    elif isinstance(node, _ALLOWED):
        if isinstance(node, ast.Compare) and len(node.ops) > 1:
            raise ValueError(f"{ast.unparse(node)!r}: compare two values at a time")
        inner = list(ast.iter_child_nodes(node))
    else:
        raise ValueError(
            f"{ast.unparse(node)!r}: only numbers, bands, + - * / **, comparisons and functions"
        )
    for child in inner:
        _check(child)


def names_in(tree: ast.AST) -> list[str]:
    """The bands that a checked expression names, in the order of their first occurrence."""
    if isinstance(tree, ast.Name):
        return [tree.id]
    children = tree.args if isinstance(tree, ast.Call) else list(ast.iter_child_nodes(tree))
    names: dict[str, None] = {}
    for child in children:
        names.update(dict.fromkeys(names_in(child)))
    return list(names)
