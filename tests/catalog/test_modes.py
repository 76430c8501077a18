"""Modes of selection: documented, stable, and each acquisition at most once."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scenebeam.catalog.acquisition import Acquisition
from scenebeam.catalog.scene import Scene
from scenebeam.catalog.selection_modes import (
    best_near_anchors,
    calendar_periods,
    choose,
    evenly_spaced_days,
    least_cloudy_per_period,
    nearest_to_anchors,
)
from scenebeam.errors import RequestError
from scenebeam.request import Select
from scenebeam.requestfile import validate_request

START = datetime(2023, 1, 1, 9, tzinfo=UTC)


def taken(
    day: float, cloud: float | None = 10.0, coverage: float | None = 1.0, tiles: int = 1
) -> Acquisition:
    when = START + timedelta(days=day)
    scenes = tuple(
        Scene(f"{when:%Y%m%d}-{n}", "c", "p", when, when, cloud_cover=cloud) for n in range(tiles)
    )
    return Acquisition(when, scenes, coverage)


def days(chosen: list[Acquisition]) -> list[int]:
    return [round((one.acquired - START) / timedelta(days=1)) for one in chosen]


def at(*offsets: int) -> list[datetime]:
    return [datetime(2023, 1, 1, tzinfo=UTC) + timedelta(days=offset) for offset in offsets]


def test_the_best_near_an_anchor_is_the_least_cloudy_then_the_fullest_then_the_nearest() -> None:
    assert days(best_near_anchors([taken(9, 5.0), taken(10, 6.0)], at(10), 3)) == [9]
    assert days(best_near_anchors([taken(9, 5.0, 0.97), taken(11, 5.0, 0.99)], at(10), 3)) == [11]
    assert days(best_near_anchors([taken(8, 5.0), taken(11, 5.0)], at(10), 3)) == [11]
    assert days(best_near_anchors([taken(6, 0.0), taken(11, 50.0)], at(10), 3)) == [11], (
        "outside the window"
    )
    assert best_near_anchors([taken(6)], at(10), 3) == []


def test_a_cloud_cover_of_0_is_the_best_and_unknown_the_last() -> None:
    chosen = best_near_anchors([taken(9, None), taken(10, 90.0), taken(11, 0.0)], at(10), 3)
    assert days(chosen) == [11]
    assert days(best_near_anchors([taken(9, None), taken(10, 90.0)], at(10), 3)) == [10]


def test_an_acquisition_is_as_cloudy_as_its_cloudiest_tile_and_unknown_if_one_is() -> None:
    one = taken(1, 5.0, tiles=2)
    worse = replace(one, scenes=(one.scenes[0], replace(one.scenes[1], cloud_cover=40.0)))
    unknown = replace(one, scenes=(one.scenes[0], replace(one.scenes[1], cloud_cover=None)))
    assert (one.cloud_cover, worse.cloud_cover, unknown.cloud_cover) == (5.0, 40.0, None)


def test_no_acquisition_serves_two_anchors() -> None:
    chosen = best_near_anchors([taken(10, 0.0), taken(12, 30.0)], at(9, 13), 5)
    assert [(one.anchor, days([one])) for one in chosen] == [(at(9)[0], [10]), (at(13)[0], [12])]


def test_nearest_is_nearest_whatever_the_clouds() -> None:
    assert days(nearest_to_anchors([taken(9, 99.0), taken(12, 0.0)], at(10), 5)) == [9]
    assert days(nearest_to_anchors([taken(1)], at(10), 5)) == []


def test_the_least_cloudy_of_each_period() -> None:
    candidates = [taken(3, 50.0), taken(20, 4.0), taken(40, 9.0), taken(100, 0.0)]
    months = calendar_periods(START, START + timedelta(days=110), "month")
    chosen = least_cloudy_per_period(candidates, months)
    assert days(chosen) == [20, 40, 100]
    assert [f"{one.anchor:%Y-%m-%d}" for one in chosen] == [
        "2023-01-01",
        "2023-02-01",
        "2023-04-01",
    ]


def test_calendar_periods_are_cut_to_the_dates() -> None:
    first, last = datetime(2023, 11, 20, tzinfo=UTC), datetime(2024, 2, 10, tzinfo=UTC)
    assert [f"{a:%m-%d}/{b:%m-%d}" for a, b in calendar_periods(first, last, "month")] == [
        "11-20/11-30",
        "12-01/12-31",
        "01-01/01-31",
        "02-01/02-10",
    ]
    assert [f"{a:%m-%d}/{b:%m-%d}" for a, b in calendar_periods(first, last, "quarter")] == [
        "11-20/12-31",
        "01-01/02-10",
    ]


def test_anchors_are_spread_from_the_first_day_to_the_last() -> None:
    found = evenly_spaced_days(START, START + timedelta(days=100), 5)
    assert [(one - found[0]).days for one in found] == [0, 25, 50, 75, 100]
    assert evenly_spaced_days(START, START + timedelta(days=100), 1) == at(50)


def test_what_does_not_cover_the_area_is_no_candidate_of_an_anchor() -> None:
    asked = Select(mode="anchors", anchors=["2023-01-11"], full_cover_threshold=0.95)
    assert days(choose([taken(10, 0.0, 0.9), taken(12, 30.0, 0.96)], asked, [])) == [12]
    assert days(choose([taken(10, 0.0, None)], asked, [])) == [10], (
        "an unknown coverage is not a small one"
    )


def test_periods_may_be_intervals() -> None:
    asked = Select(
        mode="least-cloudy-per-period", period=["2023-01-05/2023-01-12", "2023-01-20/2023-01-25"]
    )
    assert days(choose([taken(1, 0.0), taken(9, 9.0), taken(22, 80.0)], asked, [])) == [9, 22]


@pytest.mark.parametrize(
    ("select", "told"),
    [
        ({"mode": "nearest-to-date"}, "nearest-to-date needs dates"),
        ({"mode": "anchors", "scenes": [{"id": "x"}]}, "use mode: all"),
        ({"mode": "best"}, "select.mode"),
        ({"mode": "anchors", "anchors": ["soon"]}, "not a date"),
        ({"mode": "anchors", "n_anchors": 0}, "select.n_anchors"),
    ],
)
def test_a_mode_that_lacks_something_is_told(select: dict, told: str) -> None:
    document = {
        "catalog": "x.json",
        "collections": ["sentinel-2-l2a"],
        "output": "o",
        "select": select,
    }
    with pytest.raises(RequestError, match=told):
        validate_request({**document, "product": {"kind": "assets"}})


acquisitions = st.lists(
    st.builds(
        taken,
        st.integers(0, 400),
        st.none() | st.integers(0, 100).map(float),
        st.none() | st.sampled_from([0.0, 0.5, 0.95, 1.0]),
    ),
    unique_by=lambda one: one.acquired,
    max_size=30,
)
modes = st.sampled_from(
    [
        Select(mode="all"),
        Select(mode="anchors", n_anchors=6, window_days=30),
        Select(
            mode="nearest-to-date",
            anchors=["2023-03-01", "2023-03-02", "2023-12-24"],
            window_days=60,
        ),
        Select(mode="least-cloudy-per-period", period="quarter"),
    ]
)


@given(acquisitions, modes, st.randoms())
def test_any_order_gives_the_same_and_none_comes_twice(
    found: list, asked: Select, random: Random
) -> None:
    chosen = choose(found, asked, [])
    shuffled = list(found)
    random.shuffle(shuffled)
    if asked.mode != "all":
        assert choose(shuffled, asked, []) == chosen
    names = [one.timestamp for one in chosen]
    assert (
        names == sorted(set(names)) if asked.mode != "all" else sorted(names) == sorted(set(names))
    )
    assert set(names) <= {one.timestamp for one in found}


@given(acquisitions, st.integers(0, 60))
def test_each_anchor_has_none_better_that_nobody_took(found: list, window: int) -> None:
    anchors = at(0, 120, 121, 300)
    chosen = best_near_anchors(found, anchors, window)
    names = {one.timestamp for one in chosen}
    for one in chosen:
        assert one.anchor is not None
        assert abs((one.acquired.date() - one.anchor.date()).days) <= window
        for other in found:
            near = abs((other.acquired.date() - one.anchor.date()).days) <= window
            if near and other.timestamp not in names:
                assert (one.cloud_cover is None, one.cloud_cover) <= (
                    other.cloud_cover is None,
                    other.cloud_cover,
                )
