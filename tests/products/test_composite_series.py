"""Series of composites whose gaps are filled from other periods."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from composites import BANDS, GRID, Make, item_of, read, table
from conftest import tree
from known_series import observations
from scenebeam.errors import RequestError
from scenebeam.execution.driver import run
from scenebeam.planning.search import make_plan
from scenebeam.products.composites.task import CompositeTask
from scenebeam.raster.fill import fill_gaps

APRIL = "2023-04-01/2023-05-10"
PERIODS = ["20230401-20230410", "20230411-20230420", "20230421-20230430", "20230501-20230510"]
MIDDLES = np.array([0.0, 10.0, 20.0, 30.0])


def expected_series(band: int, drop: tuple[int, ...] = ()) -> np.ndarray:
    """The median of each ten days, NaN at gaps."""
    pixels, valid, dates = observations(BANDS, GRID)
    made = []
    for number in range(4):
        first = np.datetime64("2023-04-01") + 10 * number
        days = [np.datetime64(scenes[0].acquired.date()) for scenes in dates]
        own = np.array([first <= day < first + 10 for day in days])
        used = valid[own] & (number not in drop)
        stack = np.where(used, pixels[band][own].astype(float), np.nan)
        stack = np.where(used.any(axis=0), stack, 0)
        made.append(np.where(used.any(axis=0), np.rint(np.nanmedian(stack, axis=0)), np.nan))
    return np.stack(made)


def one_pixel(series: np.ndarray, method: str) -> np.ndarray:
    """A gap filled by hand, pixel by pixel."""
    filled = series.copy()
    known = np.flatnonzero(~np.isnan(series))
    for place in np.flatnonzero(np.isnan(series)):
        before, after = known[known < place], known[known > place]
        if method == "previous" and len(before):
            filled[place] = series[before[-1]]
        if method == "next" and len(after):
            filled[place] = series[after[0]]
        if method == "linear" and len(before) and len(after):
            filled[place] = np.interp(
                MIDDLES[place], MIDDLES[[before[-1], after[0]]], series[[before[-1], after[0]]]
            )
    return filled


@pytest.mark.parametrize("method", ["linear", "previous", "next"])
def test_gaps_are_filled_from_other_periods(composite: Make, method: str) -> None:
    """The second ten days have two dates, of which each pixel is seen by at least one or none."""
    request = composite(
        dates=APRIL,
        period="P10D",
        fill=method,
        extra=["filled", "observations"],
        min_observations=2,
    )
    assert len(make_plan(request).tasks) == 1
    assert run(request).state == "succeeded"
    pixels, valid, dates = observations(BANDS, GRID)
    days = [np.datetime64(scenes[0].acquired.date()) for scenes in dates]
    series, counts = [], []
    for number in range(4):
        first = np.datetime64("2023-04-01") + 10 * number
        own = np.array([first <= day < first + 10 for day in days])
        count = valid[own].sum(axis=0)
        stack = np.where(valid[own], pixels[0][own].astype(float), np.nan)
        stack = np.where(count > 0, stack, 0)
        series.append(np.where(count >= 2, np.rint(np.nanmedian(stack, axis=0)), np.nan))
        counts.append(count)
    before = np.stack(series)
    assert np.isnan(before).any()
    expected = np.apply_along_axis(one_pixel, 0, before.reshape(4, -1), method)
    expected = expected.reshape(before.shape)
    for number, period in enumerate(PERIODS):
        here = np.where(np.isnan(expected[number]), 0, np.rint(expected[number]))
        np.testing.assert_array_equal(read(request, period, "red"), here)
        gap = np.isnan(before[number]) & ~np.isnan(expected[number])
        flags = np.where(gap, 2, np.where(np.isnan(expected[number]), 255, 0))
        np.testing.assert_array_equal(read(request, period, "filled"), flags)
        np.testing.assert_array_equal(read(request, period, "observations"), counts[number])
        assert item_of(request, period)["properties"]["scenebeam:fill"] == method
    assert {row["status"] for row in table(request).values()} == {"success"}


def test_a_period_without_scenes_is_filled(composite: Make) -> None:
    periods = ["2023-04-01/2023-04-10", "2023-04-11/2023-04-12", "2023-04-13/2023-04-20"]
    request = composite(dates="2023-04", period=periods, fill="previous")
    assert run(request).state == "succeeded"
    np.testing.assert_array_equal(
        read(request, "20230411-20230412", "nir"), read(request, "20230401-20230410", "nir")
    )


def test_shards_and_killed_runs_have_the_same_bytes(composite: Make, tmp_path: Path) -> None:
    fields: dict[str, Any] = {
        "dates": APRIL,
        "period": "P10D",
        "fill": "linear",
        "extra": ["filled"],
    }
    whole = composite(**fields)
    assert run(whole).state == "succeeded"
    sharded = composite(**fields, limits={"memory": 420 * 2**20}).model_copy(
        update={"output": str(tmp_path / "sharded")}
    )
    assert len(make_plan(sharded).tasks) > 1, "the plan has no shards"
    assert run(sharded).state == "succeeded"
    for period in PERIODS:
        for name in (*BANDS, "filled"):
            np.testing.assert_array_equal(read(sharded, period, name), read(whole, period, name))
    before = tree(Path(whole.output, "composites"))
    for name in (f"{PERIODS[1]}.json", "nir.tif"):
        Path(whole.output, "composites", PERIODS[1], name).unlink()
    assert run(whole).state == "succeeded"
    assert tree(Path(whole.output, "composites")) == before


def test_smoothing_is_that_of_its_definition(composite: Make) -> None:
    request = composite(dates=APRIL, period="P10D", fill={"whittaker": 5}, bands=["nir"])
    assert run(request).state == "succeeded"
    before = expected_series(1)
    rows, columns = np.nonzero((~np.isnan(before)).sum(axis=0) >= 2)
    differences = np.diff(np.eye(4), 2, axis=0)
    made = np.stack([read(request, period, "nir") for period in PERIODS])
    for row, column in list(zip(rows, columns, strict=True))[::9973]:
        y = before[:, row, column]
        weights = np.diag((~np.isnan(y)).astype(float))
        z = np.linalg.solve(weights + 5 * differences.T @ differences, weights @ np.nan_to_num(y))
        np.testing.assert_array_equal(made[:, row, column], np.rint(z))


@given(
    series=arrays.arrays(
        np.float64,
        st.tuples(st.integers(1, 7), st.integers(1, 4)),
        elements=st.one_of(st.just(float("nan")), st.floats(-100, 100)),
    ),
    method=st.sampled_from(["linear", "previous", "next", "whittaker"]),
)
def test_filling_invents_nothing(series: np.ndarray, method: str) -> None:
    """Known pixels stay, unless they are smoothed; a pixel without any data stays without."""
    days = np.cumsum(np.arange(1, len(series) + 1)).astype(float)
    filled = fill_gaps(series, days, method, 10.0)
    known = ~np.isnan(series)
    if method != "whittaker":
        np.testing.assert_array_equal(filled[known], series[known])
        for column in range(series.shape[1]):
            values = series[known[:, column], column]
            found = filled[~np.isnan(filled[:, column]), column]
            if len(values):
                assert found.min() >= values.min() - 1e-9
                assert found.max() <= values.max() + 1e-9
    assert np.isnan(filled[:, ~known.any(axis=0)]).all()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"fill": "nearest"}, "'nearest' is not one of linear, previous"),
        ({"fill": {"whittaker": 0}}, "is not one of linear"),
        ({"fill": {"linear": 3}}, "is not one of linear"),
        (
            {"fill": "linear", "bands": ["scl"], "method": "first-clear"},
            "linear would mix the classes of scl",
        ),
    ],
)
def test_what_cannot_be_filled_is_refused(
    composite: Make, fields: dict[str, Any], message: str
) -> None:
    with pytest.raises((RequestError, ValueError)) as refused:
        make_plan(composite(**fields))
    assert message in str(refused.value)


def test_periods_of_unequal_length_are_cut_alike(composite: Make) -> None:
    """Where one period alone would need shards, all of the series have them."""
    periods = ["2023-04-01/2023-04-04", "2023-04-05/2023-05-31"]
    fields: dict[str, Any] = {"period": periods, "limits": {"memory": 420 * 2**20}}
    alone = make_plan(composite(**fields)).tasks
    assert len(alone) == 1 + 2, "the first period fits, and the second one does not"
    tasks = make_plan(composite(**fields, fill="linear")).tasks
    assert len(tasks) == 2
    for task in tasks:
        assert isinstance(task, CompositeTask)
        assert len(task.periods) == 2
        assert len({period.window for period in task.periods}) == 1
