"""Band maths: expressions are what NumPy makes of them, and nothing else can be said in one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scenebeam.raster.indices import evaluate, physical
from scenebeam.raster.masks import PixelTest
from scenebeam.request.expression import INDICES, names_in, parse_expression

BANDS = {
    "nir": np.array([[0.4, 0.3], [np.nan, 0.1]], np.float32),
    "red": np.array([[0.1, 0.3], [0.2, -0.1]], np.float32),
}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("(nir - red) / (nir + red)", [[0.6, 0.0], [np.nan, np.nan]]),  # the last divides by zero
        ("-nir ** 2 + 1", [[0.84, 0.91], [np.nan, 0.99]]),
        ("where(nir > red, 1, 0)", [[1, 0], [np.nan, 1]]),
        ("max(nir, red) - min(nir, red)", [[0.3, 0], [np.nan, 0.2]]),
        ("sqrt(red)", [[np.sqrt(0.1), np.sqrt(0.3)], [np.sqrt(0.2), np.nan]]),
        ("abs(red) + 0 * nir", [[0.1, 0.3], [np.nan, 0.1]]),
        ("nir ** 0", [[1, 1], [np.nan, 1]]),
    ],
)
def test_an_expression_of_reflectance(text: str, expected: list) -> None:
    tree = parse_expression(text)
    found = evaluate(tree, {name: BANDS[name] for name in names_in(tree)})
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize(
    "text",
    [
        "", "1 + 2", "nir.real", "nir[0]", "open('x')", "lambda: nir", "nir if red else 1", "[nir]", "nir; red",
        "'a' + nir", "True * nir", "nir and red", "sqrt(nir, red)", "sqrt(x=nir)", "nir < red < 1", "nir := 1", "1j * nir",
        "nir" + " + nir" * 800, "(" * 300 + "nir" + ")" * 300, "nir @ red", "~nir", "f'{nir}'",
    ],
)  # fmt: skip
def test_nothing_else_can_be_said(text: str) -> None:
    with pytest.raises(
        ValueError,
        match=r"expression|names no band|only numbers|functions|number|compare|characters",
    ):
        parse_expression(text)


@given(st.text(max_size=40))
def test_any_text_is_an_expression_or_a_plain_refusal(text: str) -> None:
    try:
        tree = parse_expression(text)
    except ValueError:
        return
    bands = {name: np.full((2, 2), 0.5, np.float32) for name in names_in(tree)}
    assert evaluate(tree, bands).shape == (2, 2)


def test_every_index_is_an_expression_with_its_source() -> None:
    for name, formula in INDICES.items():
        assert names_in(parse_expression(formula.expression)), name
        assert formula.source


def test_numbers_become_reflectance() -> None:
    numbers = np.array([[0, 7273, 43636]], np.uint16)
    np.testing.assert_allclose(physical(numbers, 0, 2.75e-5, -0.2), [[np.nan, 0.0, 1.0]], atol=1e-4)


def test_classes_and_bits_that_hide_the_ground() -> None:
    scl = np.array([[0, 3, 4, 9]], np.uint8)
    np.testing.assert_array_equal(
        PixelTest(drop=(3, 8, 9, 10)).hidden(scl, 0), [[True, True, False, True]]
    )
    qa = np.array(
        [[1, 21824, 22280, 55052, 30048]], np.uint16
    )  # fill, clear, cloud, cirrus and cloud, water and cloud
    found = PixelTest(bits=(0, 1, 2, 3, 4)).hidden(qa, 1)
    np.testing.assert_array_equal(found, [[True, False, True, True, bool(30048 & 0b11111)]])
