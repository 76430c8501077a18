"""Selection: pure functions, the same for any order of scenes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from pyproj import Geod
from shapely.geometry import box

from scenebeam.catalog.acquisition import coverage, group, rank
from scenebeam.catalog.area import area_geometry
from scenebeam.catalog.queries import queries_for
from scenebeam.catalog.scene import Scene
from scenebeam.catalog.search import scenes_from_items, search_items
from scenebeam.catalog.select import drop_duplicates, select
from scenebeam.products.mosaics.request import MosaicRequest
from scenebeam.request import RunRequest

Make = Callable[..., RunRequest]
NOON = datetime(2023, 6, 1, 12, tzinfo=UTC)


def scene(name: str, **changes: Any) -> Scene:
    plain = Scene(
        name, "c", "p", NOON, NOON, "sentinel-2a", "34TGL", pass_key="S2A_1", tile_key="34TGL", processed=("1",),
        cloud_cover=10.0, footprint=box(0, 0, 1, 1),
    )  # fmt: skip
    return replace(plain, **changes)


def chosen(make: Make, **changes: object) -> tuple[list[list[str]], str]:
    request = make(**changes)
    assert request.area is not None
    area = area_geometry(request.area)
    found = select(
        scenes_from_items(search_items(request, queries_for(request, area)), request),
        request,
        area,
        cast(MosaicRequest, request.product).group_by,
    )
    return [[s.id for s in one.scenes] for one in found.acquisitions], found.explain()


def test_the_sandbox_gives_two_acquisitions_best_first(make_request: Make) -> None:
    first, second = chosen(make_request)[0]
    assert first == [
        "S2A_34TGL_20210610_1_L2A",
        "S2A_34TGK_20210610_1_L2A",
        "S2A_35TKF_20210610_1_L2A",
    ]
    assert second[0] == "S2A_34TGL_20220615_1_L2A", "a cloud cover of 0 ranks first"
    assert "S2A_34TGL_20220615_0_L2A" not in second, "the older processing is left out"


def test_every_filter_tells_what_it_left_out(make_request: Make) -> None:
    groups, told = chosen(make_request, **{"select.max_cloud_cover": 2, "dates": "2021"})
    assert groups == []
    assert told == "7 scenes found; dates left out 4, select.max_cloud_cover left out 3"


@pytest.mark.parametrize(
    ("changes", "left"),
    [
        ({"select.max_nodata": 10}, 5),
        ({"select.platform": "Sentinel-2A"}, 6),
        ({"select.platform": ["sentinel-2b"]}, 0),
        ({"select.min_coverage": 0.99}, 6),
        ({"select.orbit_state": "ascending"}, 0),
        ({"area.bbox": [23.91, 40.57, 23.92, 40.58]}, 2),
    ],
)
def test_filters(make_request: Make, changes: dict, left: int) -> None:
    assert sum(map(len, chosen(make_request, **changes)[0])) == left


@given(
    st.permutations(range(6)),
    st.lists(st.sampled_from([None, 0.0, 0.5, 30.0]), min_size=6, max_size=6),
)
def test_order_does_not_depend_on_which_request_came_back_first(
    order: list[int], clouds: list[float | None]
) -> None:
    scenes = [scene(f"s{i}", cloud_cover=clouds[i], tile=f"{i}") for i in range(6)]
    one = group(scenes, None, "acquisition")
    other = group([scenes[i] for i in order], None, "acquisition")
    assert one == other
    ranked = [s.cloud_cover for s in one[0].scenes]
    known = [cloud for cloud in ranked if cloud is not None]
    assert ranked == sorted(known) + [None] * (6 - len(known)), "least cloud first, unknown last"


@given(st.permutations(["01.00", "02.00", "03.00", "04.00"]))
def test_the_newest_processing_wins(order: list[str]) -> None:
    kept = drop_duplicates([scene(f"s{version}", processed=(version,)) for version in order])
    assert [one.id for one in kept] == ["s04.00"]


def test_complementary_halves_are_both_kept() -> None:
    left, right = (
        scene("left", footprint=box(0, 0, 0.5, 1)),
        scene("right", footprint=box(0.5, 0, 1, 1)),
    )
    again = scene("again", footprint=box(0.5, 0, 1, 1), processed=("2",))
    assert [s.id for s in drop_duplicates([left, right])] == ["left", "right"]
    assert [s.id for s in drop_duplicates([left, right, again])] == ["again", "left"]


def test_other_tiles_and_times_are_no_duplicates() -> None:
    others = [
        scene("a"),
        scene("b", tile="34TGK", tile_key="34TGK"),
        scene("c", pass_key="S2A_2", acquired=NOON + timedelta(days=1)),
    ]
    assert len(drop_duplicates(others)) == 3
    without_tile = [
        scene("a", tile_key=None),
        scene("b", tile_key=None, footprint=box(0.3, 0, 1.3, 1)),
    ]
    assert len(drop_duplicates(without_tile)) == 2


def test_a_solar_day_is_not_a_utc_day() -> None:
    far_east = box(170, 0, 171, 1)
    evening = scene(
        "evening", acquired=datetime(2023, 6, 1, 22, 30, tzinfo=UTC), footprint=far_east, tile="1"
    )
    later = scene(
        "later",
        acquired=datetime(2023, 6, 2, 0, 10, tzinfo=UTC),
        footprint=far_east,
        tile="2",
        tile_key="2",
        pass_key="x",
    )
    (day,) = group([later, evening], None, "day")
    assert day.timestamp == "20230601T223000Z"
    assert len(group([later, evening], None, "acquisition")) == 2


def test_two_platforms_in_one_second_do_not_share_an_output() -> None:
    (one,) = group([scene("a"), scene("b", platform="sentinel-2b", tile="x")], None, "acquisition")
    assert [s.id for s in one.scenes] == ["a", "b"]


def test_coverage_is_measured_on_equal_areas() -> None:
    area = box(0, 0, 10, 80)
    north, south = scene("n", footprint=box(0, 40, 10, 80)), scene("s", footprint=box(0, 0, 10, 40))
    # On a sphere sin(40°) / sin(80°) = 0.6527 of the area lies south of 40°, on the flattened Earth a little less.
    flat = Geod(ellps="WGS84")
    parts = [
        abs(flat.geometry_area_perimeter(shapely.segmentize(one, 0.01))[0])
        for one in (box(0, 0, 10, 40), area)
    ]
    assert coverage([south], area) == pytest.approx(parts[0] / parts[1], abs=1e-6)
    assert coverage([south, north], area) == pytest.approx(1.0)
    assert coverage([scene("x", footprint=None)], area) is None


def test_rank_prefers_coverage_after_cloud() -> None:
    area = box(0, 0, 1, 1)
    scenes = [
        scene("b"),
        scene("a", footprint=box(0, 0, 0.2, 1)),
        scene("c", cloud_cover=0.0, footprint=box(5, 5, 6, 6)),
    ]
    assert [s.id for s in sorted(scenes, key=lambda s: rank(s, area))] == ["c", "b", "a"]


def test_the_recorded_archive_has_real_splits_and_duplicates(real_data: Path) -> None:
    import json

    from scenebeam.catalog.item_reader import scene_from_item
    from scenebeam.collections import known_records

    record = next(r for r in known_records() if r.provider == "planetary-computer")
    files = sorted((real_data / "stac-items" / "planetary-computer__sentinel-2-l2a").glob("*.json"))
    scenes = [scene_from_item(json.loads(file.read_text()), record) for file in files]
    (one,) = group(drop_duplicates(scenes), None, "acquisition")
    assert one.timestamp == "20190101T000001Z"
    assert {s.tile[:2] for s in one.scenes if s.tile} == {"59", "60"}, (
        "one acquisition, two UTM zones"
    )
