"""Which dates an area of interest gets, which chips are released, and what their numbers become."""

from __future__ import annotations

import itertools
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from shapely.geometry import Polygon, box

from scenebeam.catalog.scene import Asset, Scene
from scenebeam.errors import CheckError
from scenebeam.products.landcover.aois import read_aois
from scenebeam.products.landcover.chips import balance_classes
from scenebeam.products.landcover.dates import cheapest_assignment, choose_dates
from scenebeam.products.landcover.encoding import check_fit, encode_pixels
from scenebeam.products.landcover.request import LandcoverRequest
from scenebeam.products.landcover.task import Recipe
from scenebeam.request import Checks

AREA = box(10.0, 50.0, 10.1, 50.1)
ALL = box(9.0, 49.0, 11.0, 51.0)
QUARTERS = [datetime(2023, month, 10, 10, tzinfo=UTC) for month in (2, 5, 8, 11)]


def scene(name: str, when: datetime, footprint: Polygon = ALL, **facts: Any) -> Scene:
    return Scene(
        name, facts.pop("collection", "x"), "inline", when, when, footprint=footprint, **facts
    )


def s2(when: datetime, tile: str = "32UNB", cloud: float | None = 5.0, **facts: Any) -> Scene:
    facts = {"nodata": 0.0, **facts}
    return scene(
        f"S2_{tile}_{when:%Y%m%d}_{cloud}",
        when,
        tile=tile,
        cloud_cover=cloud,
        platform="s2a",
        **facts,
    )


def s1(when: datetime, orbit: int = 66, **facts: Any) -> Scene:
    return scene(f"S1_{orbit}_{when:%Y%m%dT%H%M}", when, relative_orbit=orbit, **facts)


def l8(when: datetime, wrs: str = "194/025", cloud: float | None = 5.0, **facts: Any) -> Scene:
    return scene(
        f"LC_{wrs}_{when:%Y%m%d}_{cloud}",
        when,
        wrs=wrs,
        cloud_cover=cloud,
        platform="landsat-8",
        **facts,
    )


def request(**changes: Any) -> LandcoverRequest:
    return LandcoverRequest(kind="landcover", aois="aois.geojson", **changes)


def choose(product: LandcoverRequest | None = None, **scenes: list[Scene]) -> Any:
    product = product or request()
    near: dict[Any, list[Scene]] = {
        "s2l2a": [s2(day) for day in QUARTERS],
        "s1rtc": [s1(day + timedelta(days=2)) for day in QUARTERS],
        "lc2l2": [l8(day + timedelta(days=9)) for day in QUARTERS],
        "dem": [scene("dem", QUARTERS[0])],
        "lulc": [scene("map", datetime(2023, 1, 1, tzinfo=UTC))],
        **scenes,
    }
    return choose_dates(AREA, near, product)


def ids(found: Any, platform: str) -> list[str]:
    return [one.id for acquisition in found.dates[platform] for one in acquisition.scenes]


def test_the_least_cloudy_scene_of_each_quarter_is_taken() -> None:
    worse = [s2(day + timedelta(days=5), cloud=6.0) for day in QUARTERS]
    clear = [s2(day, cloud=0.0) for day in QUARTERS[1:]]
    found = choose(s2l2a=[*worse, *clear, s2(QUARTERS[0], cloud=29.9), s2(QUARTERS[0], cloud=None)])
    assert [one.cloud_cover for one in found.dates["s2l2a"]] == [6.0, 0.0, 0.0, 0.0]
    assert (found.tile, found.orbit, found.wrs) == ("32UNB", "66", "194/025")


def test_all_dates_are_of_the_tile_that_shows_most() -> None:
    half = box(10.05, 49.0, 11.0, 51.0)
    found = choose(
        s2l2a=[s2(day, "32UPB", 0.0, footprint=half) for day in QUARTERS]
        + [s2(day) for day in QUARTERS]
    )
    assert found.tile == "32UNB"
    assert found.common.equals(AREA)


def test_a_tile_without_a_scene_in_one_quarter_is_none() -> None:
    with pytest.raises(
        CheckError, match=r"in each of 4 periods: 32UNB has none in 2023-10/2023-12"
    ):
        choose(
            s2l2a=[s2(day) for day in QUARTERS[:3]]
            + [s2(QUARTERS[3], "32UPB"), s2(QUARTERS[3], cloud=30.0)]
        )
    with pytest.raises(CheckError, match="no scene was found"):
        choose(s2l2a=[])
    with pytest.raises(CheckError, match="none of the 4 scenes qualifies"):
        choose(s2l2a=[s2(day, nodata=5.0) for day in QUARTERS])


def test_two_frames_of_a_pass_are_one_acquisition() -> None:
    north, south = box(9.0, 50.05, 11.0, 51.0), box(9.0, 49.0, 11.0, 50.05)
    frames = [
        s1(day + timedelta(days=1, seconds=25 * number), footprint=ground)
        for day in QUARTERS
        for number, ground in enumerate((north, south))
    ]
    frames = [
        one.__class__(**{**one.__dict__, "id": f"{one.id}_{n}"}) for n, one in enumerate(frames)
    ]
    found = choose(s1rtc=frames)
    assert [len(one.scenes) for one in found.dates["s1rtc"]] == [2, 2, 2, 2]
    assert found.common.equals(AREA)


def test_one_orbit_has_a_pass_of_its_own_for_each_date() -> None:
    near = [s1(day) for day in QUARTERS[:3]]  # nearer, but there is none of the last date
    far = [s1(day + timedelta(days=12), 139) for day in QUARTERS]
    assert choose(s1rtc=[*near, *far]).orbit == "139"
    with pytest.raises(
        CheckError, match="no relative orbit has a separate Sentinel-1 scene within 12 days"
    ):
        choose(s1rtc=[*near, s1(QUARTERS[3] + timedelta(days=13))])


def test_landsat_is_the_clearest_of_one_path_and_row() -> None:
    days = [day + timedelta(days=16) for day in QUARTERS]
    found = choose(
        lc2l2=[*(l8(day, cloud=30.0) for day in QUARTERS), *(l8(day, cloud=2.0) for day in days)]
    )
    assert [one.cloud_cover for one in found.dates["lc2l2"]] == [2.0] * 4
    assert len({*ids(found, "lc2l2")}) == 4
    silent = [l8(day, cloud=None) for day in QUARTERS]  # nearer, but who knows
    found = choose(lc2l2=[*silent, *(l8(day, cloud=2.0) for day in days)])
    assert [one.cloud_cover for one in found.dates["lc2l2"]] == [2.0] * 4
    with pytest.raises(
        CheckError, match="no WRS path and row has a separate Landsat scene within 91 days"
    ):
        choose(
            lc2l2=[
                *(l8(day) for day in QUARTERS[:2]),
                *(l8(day, "193/025") for day in QUARTERS[2:]),
            ]
        )


def test_a_map_of_another_year_is_none() -> None:
    with pytest.raises(CheckError, match="no land-cover scene shows the area"):
        choose(lulc=[scene("map", datetime(2022, 1, 1, tzinfo=UTC))])


def test_modalities_that_show_different_parts_do_not_overlap() -> None:
    west, east = box(9.0, 49.0, 10.04, 51.0), box(10.06, 49.0, 11.0, 51.0)
    with pytest.raises(CheckError, match="the elevation scenes do not overlap the others"):
        choose(
            s2l2a=[s2(day, footprint=west) for day in QUARTERS],
            dem=[scene("dem", QUARTERS[0], east)],
        )


costs = st.tuples(st.integers(0, 50).map(float), st.integers(0, 20).map(float))


@given(st.lists(st.dictionaries(st.integers(0, 6), costs, max_size=5), min_size=1, max_size=4))
def test_each_place_gets_a_thing_of_its_own_at_the_least_cost(
    options: list[dict[int, Any]],
) -> None:
    ways = [way for way in itertools.product(*options) if len(set(way)) == len(way)]
    totals = [
        tuple(
            sum(options[place][thing][part] for place, thing in enumerate(way)) for part in (0, 1)
        )
        for way in ways
    ]
    found = cheapest_assignment(options)
    if not ways:
        assert found is None
        return
    assert found is not None
    cost, taken = found
    assert len(set(taken)) == len(options)
    assert cost == min(totals)
    assert cost == tuple(
        sum(options[place][thing][part] for place, thing in enumerate(taken)) for part in (0, 1)
    )


@given(
    st.lists(
        st.tuples(st.integers(1, 5), st.binary(min_size=2, max_size=4).map(bytes.hex)), max_size=80
    ),
    st.one_of(st.none(), st.floats(1, 5, allow_nan=False)),
)
def test_no_class_has_more_than_the_factor_allows(
    lots: list[tuple[int, str]], factor: float | None
) -> None:
    kept = balance_classes(lots, factor)
    before, after = Counter(one for one, _ in lots), Counter(lots[place][0] for place in kept)
    assert len(set(kept)) == len(kept)
    if factor is None or not lots:
        assert after == before
        return
    smallest = min(before.values())
    # No class is lost, the smallest keeps all, and of each as many stay as may.
    assert after == {number: min(count, int(smallest * factor)) for number, count in before.items()}
    assert max(after.values()) <= factor * min(after.values())
    for number in before:
        ours = sorted((lot, place) for place, (one, lot) in enumerate(lots) if one == number)
        assert {place for _, place in ours[: after[number]]} == {
            place for place in kept if lots[place][0] == number
        }


def asset(**facts: Any) -> Asset:
    known = {
        "band": "red",
        "href": "",
        "index": 1,
        "resolution": 10.0,
        "dtype": "uint16",
        "nodata": 0.0,
    }
    known |= {
        "scale": 0.0001,
        "offset": 0.0,
        "add_offset": 1000,
        "categorical": False,
        "sensor": "optical",
    }
    return Asset(**{**known, **facts})


def recipe(dtype: str, nodata: float = -999) -> Recipe:
    return Recipe(resolution=10, dtype=dtype, nodata=nodata, resampling="nearest")


def test_signed_numbers_keep_what_is_darker_than_nothing() -> None:
    values = np.array([[0, 1, 900, 1000, 40000, 65535]], np.uint16)
    found, valid = encode_pixels(asset(), values, 0, recipe("int16"))
    # 1 - 1000 would be nodata: the number beside it is data. What passes the dtype is its greatest number.
    assert found.tolist() == [[-999, -998, -100, 0, 32767, 32767]]
    assert valid is not None
    assert valid.tolist() == [[False, True, True, True, True, True]]


def test_floating_point_is_physical_and_nan_is_a_hole() -> None:
    values = np.array([[0, 1000, 11000]], np.uint16)
    found, valid = encode_pixels(asset(offset=-0.2), values, 0, recipe("float32"))
    np.testing.assert_allclose(found, [[-999, -0.2, 0.8]], rtol=1e-6)
    assert valid is not None
    assert valid.tolist() == [[False, True, True]]
    found, valid = encode_pixels(
        asset(add_offset=0, scale=1.0),
        np.array([[np.nan, 3.0, -999.0]], "f4"),
        None,
        recipe("float32"),
    )
    assert valid is not None
    assert valid.tolist() == [[False, True, True]]
    assert found[0, 0] == -999
    assert found[0, 1] == 3.0
    assert -999 < found[0, 2] < -998.9


def test_metres_in_whole_numbers_are_rounded() -> None:
    values = np.array([[0.0, 0.4, 2.6]], np.float32)
    found, valid = encode_pixels(
        asset(add_offset=0, scale=1.0, nodata=None), values, None, recipe("int16")
    )
    assert found.tolist() == [[0, 0, 3]]
    assert valid is None


def test_a_raster_with_a_hole_or_of_one_number_is_not_fit() -> None:
    noise = np.arange(16, dtype=np.int16).reshape(4, 4)
    checks = Checks()
    check_fit([asset()], [(noise, None)], recipe("int16"), checks)
    with pytest.raises(CheckError, match="^nodata$"):
        check_fit([asset()], [(noise, noise != 3)], recipe("int16"), checks)
    with pytest.raises(CheckError, match="^blank$"):
        check_fit([asset()], [(np.full((4, 4), 7, np.int16), None)], recipe("int16"), checks)
    with pytest.raises(CheckError, match="^blank$"):
        check_fit([asset()], [(np.full((4, 4), 0.7, np.float32), None)], recipe("float32"), checks)
    flat = np.zeros((4, 4), np.float32)
    check_fit([asset(constant_ok=True, sensor=None)], [(flat, None)], recipe("float32"), checks)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"periods": ["2023-01/2023-03", "2023-03/2023-05"]}, "overlap"),
        ({"sample_size": 95}, "31.6667 pixels of 30 m; choose"),
        ({"s2l2a": None}, "cannot be null"),
        ({"lulc": {"classes": [0, 1]}}, "greater than 0"),
        ({"sampling_factor": 0.5}, "greater than or equal to 1"),
        ({"version": "../v1"}, "match pattern"),
        ({"lc2l2": {"reject": ["clouds"]}}, "dilated_cloud"),
    ],
)
def test_a_request_that_cannot_be_meant_is_refused(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        request(**changes)


@pytest.mark.parametrize(
    ("geometry", "told"),
    [
        ({"type": "Point", "coordinates": [1, 2]}, "is a Point with nothing inside"),
        (
            {
                "type": "Polygon",
                "coordinates": [[[500000, 0], [500001, 0], [500001, 1], [500000, 0]]],
            },
            "not in degrees",
        ),
        ({"type": "Hexagon", "coordinates": [[1, 2]]}, "not GeoJSON"),
        (None, "is empty"),
    ],
)
def test_areas_that_cannot_be_drawn_say_why(tmp_path: Any, geometry: Any, told: str) -> None:
    import json

    good = {"type": "Polygon", "coordinates": [[[1, 1], [2, 1], [2, 2], [1, 1]]]}
    features = [{"type": "Feature", "properties": {}, "geometry": one} for one in (good, geometry)]
    (tmp_path / "aois.geojson").write_text(
        json.dumps({"type": "FeatureCollection", "features": features})
    )
    product = LandcoverRequest(kind="landcover", aois=str(tmp_path / "aois.geojson"))
    found = read_aois(product)
    assert [bool(aoi.fault) for aoi in found] == [False, True]
    assert told in found[1].fault
