"""Merging, against the obvious way of doing it. Nodata never overwrites data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from scenebeam.raster.merge import harmonize, new_merge
from scenebeam.raster.validity import all_valid, valid_count, valid_mask

WHOLE = (slice(0, 4), slice(0, 5))
tiles = st.lists(
    hnp.arrays(np.uint16, (4, 5), elements=st.sampled_from([0, 1, 2, 900, 65535])),
    min_size=1,
    max_size=5,
)


def obvious(method: str, stack: list[np.ndarray], nodata: int | None) -> np.ndarray:
    """Pixel by pixel, in plain Python."""
    found = np.zeros(stack[0].shape, stack[0].dtype)
    for index in np.ndindex(found.shape):
        values = [int(tile[index]) for tile in stack if nodata is None or tile[index] != nodata]
        if not values:
            continue
        merge: dict[str, Callable[[list[int]], Any]] = {
            "first": lambda v: v[0],
            "min": min,
            "max": max,
            "mean": lambda v: np.rint(np.mean(v)),
            "median": lambda v: np.rint(np.median(v)),
        }
        number = merge[method](values)
        found[index] = 1 if nodata == 0 and number == 0 else number
    return found


@pytest.mark.parametrize("nodata", [0, None])
@pytest.mark.parametrize("method", ["first", "min", "max", "mean", "median"])
@settings(max_examples=40)
@given(stack=tiles)
def test_every_method_is_what_it_says(
    method: str, nodata: int | None, stack: list[np.ndarray]
) -> None:
    merge = new_merge(method, (4, 5), np.dtype(np.uint16), nodata)
    for tile in stack:
        merge.add(WHOLE, tile, None)
    np.testing.assert_array_equal(merge.result(), obvious(method, stack, nodata))


@pytest.mark.parametrize("method", ["first", "min", "max", "mean", "median"])
def test_tiles_side_by_side_and_overlapping(method: str) -> None:
    merge = new_merge(method, (2, 6), np.dtype(np.int16), -1)
    merge.add((slice(0, 2), slice(0, 3)), np.full((2, 3), 10, np.int16), None)
    merge.add((slice(0, 2), slice(2, 5)), np.full((2, 3), 20, np.int16), None)
    middle = {"first": 10, "min": 10, "max": 20, "mean": 15, "median": 15}[method]
    np.testing.assert_array_equal(merge.result(), [[10, 10, middle, 20, 20, -1]] * 2)


@pytest.mark.parametrize("method", ["mean", "median"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_mean_that_equals_the_highest_number_is_not_nodata(method: str, dtype: type) -> None:
    """The mean of 254 and 255 rounds to 254, and that of 255s, where it is data, is moved by one."""
    nodata = np.iinfo(dtype).max
    merge = new_merge(method, (1, 2), np.dtype(dtype), float(nodata))
    for value in (nodata - 1, nodata - 1):
        merge.add((slice(0, 1), slice(0, 1)), np.full((1, 1), value, dtype), None)
    np.testing.assert_array_equal(merge.result(), [[nodata - 1, nodata]])


@pytest.mark.parametrize("method", ["first", "min", "max", "mean", "median"])
def test_nan_is_nodata_like_any_other(method: str) -> None:
    merge = new_merge(method, (1, 3), np.dtype(np.float32), float("nan"))
    region = (slice(0, 1), slice(0, 3))
    merge.add(region, np.array([[np.nan, 1, np.nan]], np.float32), None)
    merge.add(region, np.array([[5, np.nan, np.nan]], np.float32), None)
    np.testing.assert_array_equal(merge.result(), np.array([[5, 1, np.nan]], np.float32))


def test_inside_bounds_a_tile_that_has_no_nodata() -> None:
    merge = new_merge("first", (1, 3), np.dtype(np.uint8), None)
    region = (slice(0, 1), slice(0, 3))
    merge.add(region, np.array([[0, 7, 0]], np.uint8), np.array([[True, True, False]]))
    merge.add(region, np.array([[9, 9, 9]], np.uint8), None)
    np.testing.assert_array_equal(merge.result(), [[0, 7, 9]])


def test_a_full_strip_wants_no_more() -> None:
    merge = new_merge("first", (4, 5), np.dtype(np.uint16), 0)
    left = (slice(0, 4), slice(0, 2))
    assert merge.can_change(WHOLE)
    merge.add(left, np.full((4, 2), 3, np.uint16), None)
    assert not merge.can_change(left)
    assert merge.can_change(WHOLE)
    assert new_merge("max", (4, 5), np.dtype(np.uint16), 0).can_change(left)


@given(hnp.arrays(np.uint16, (4, 5)), st.integers(1, 2000))
def test_harmonizing_never_makes_nodata_of_data(values: np.ndarray, add_offset: int) -> None:
    found = harmonize(values, valid_mask(values, 0), add_offset, 0)
    np.testing.assert_array_equal(found == 0, values == 0)
    bright = values > add_offset
    np.testing.assert_array_equal(found[bright], values[bright] - add_offset)
    assert found.dtype == values.dtype


@given(hnp.arrays(np.int16, (3, 3)))
def test_harmonizing_steps_over_a_nodata_in_the_middle(values: np.ndarray) -> None:
    found = harmonize(values, valid_mask(values, -5), 1000, -5)
    np.testing.assert_array_equal(found == -5, values == -5)


@given(
    hnp.arrays(np.int16, (3, 4), elements=st.integers(-3, 3)),
    st.sampled_from([None, -3.0, 0.0, 2.0, 99999.0]),
)
def test_counting_and_certainty_agree(values: np.ndarray, nodata: float | None) -> None:
    truth = values.size if nodata is None else int((values != nodata).sum())
    assert valid_count(values, nodata) == truth
    if all_valid(values, nodata):
        assert truth == values.size
