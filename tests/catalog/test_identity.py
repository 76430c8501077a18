"""What makes a pass, a tile, a part of a tile and a processing, for every sensor."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from scenebeam.catalog.acquisition import Acquisition, group
from scenebeam.catalog.bands import record_for_item
from scenebeam.catalog.item_reader import scene_from_item
from scenebeam.catalog.scene import Scene
from scenebeam.catalog.select import drop_duplicates
from scenebeam.collections import CollectionRecord, known_records

PLAIN = CollectionRecord.model_validate(
    {"id": "c", "dtype": "int16", "bands": {"red": {"asset": "red", "resolution": 30}}}
)


def scene(name: str, when: str, west: float = 0.0, width: float = 1.0, **properties: Any) -> Scene:
    box = [[west, 0], [west + width, 0], [west + width, 1], [west, 1], [west, 0]]
    item = {
        "id": name, "collection": "c", "geometry": {"type": "Polygon", "coordinates": [box]}, "links": [],
        "properties": {"datetime": when, **{key.replace("__", ":"): value for key, value in properties.items()}},
        "assets": {"red": {"href": "https://example.com/red.tif"}},
    }  # fmt: skip
    return scene_from_item(item, PLAIN)


def kept(*scenes: Scene) -> list[str]:
    for order in (scenes, scenes[::-1]):
        found = [one.id for one in drop_duplicates(order)]
    assert {one.id for one in drop_duplicates(scenes)} == set(found), "the same for any order"
    return found


def passes(*scenes: Scene) -> list[list[str]]:
    return [sorted(s.id for s in one.scenes) for one in group(scenes, None, "acquisition")]


def s2(name: str, strip: str, baseline: str, made: str, **more: Any) -> Scene:
    return scene(
        name, "2024-07-19T17:49:09.024Z", platform="Sentinel-2B", s2__mgrs_tile="13SDD",
        s2__datatake_id=f"GS2B_20240719T174909_038491_N{baseline}", s2__processing_baseline=baseline, s2__generation_time=made,
        s2__datastrip_id=f"S2B_OPER_MSI_L2A_DS_MSFT_{made}_S{strip}_N{baseline}", **more,
    )  # fmt: skip


def test_parts_of_a_split_tile_are_both_kept() -> None:
    """Two datastrips of one datatake, with the whole tile as their footprints: no reprocessing."""
    one = s2("whole", "20240719T175419", "05.10", "20240720T012942")
    other = s2("sliver", "20240719T180317", "05.10", "20240720T014202")
    assert sorted(kept(one, other)) == ["sliver", "whole"]
    assert passes(one, other) == [["sliver", "whole"]]


def test_the_newest_processing_of_a_part_stays() -> None:
    """Even where its footprint was drawn anew."""
    old = s2("old", "20240719T175419", "05.09", "20240720T012942", west=0.0)
    new = s2("new", "20240719T175419", "05.10", "20240801T000000", west=0.9)
    again = s2("again", "20240719T175419", "05.10", "20240901T000000")
    assert kept(old, new, again) == ["again"]


def test_without_a_datastrip_footprints_tell_parts_from_processings() -> None:
    """As two items of one product id's datatake are in older catalogs: halves stay, the same ground is once."""
    ids: dict[str, Any] = {
        "sentinel__product_id": "S2B_MSIL2A_20200307T210529_N0214_R071_T01CCV_20200307T222902",
        "grid__code": "MGRS-01CCV",
    }
    west = scene(
        "west", "2020-03-07T21:05:57Z", 0.0, 0.6, platform="sentinel-2b", created="1", **ids
    )
    east = scene(
        "east", "2020-03-07T21:05:52Z", 0.55, 0.6, platform="sentinel-2b", created="2", **ids
    )
    assert sorted(kept(west, east)) == ["east", "west"]
    assert passes(west, east) == [["east", "west"]]
    twin = scene(
        "twin", "2020-03-07T21:05:57Z", 0.0, 0.6, platform="sentinel-2b", created="3", **ids
    )
    assert sorted(kept(west, east, twin)) == ["east", "twin"]


def landsat(
    name: str, when: str, row: str, category: str, created: str, west: float = 0.0
) -> Scene:
    return scene(
        name, when, west, platform="landsat-8", landsat__wrs_path="193", landsat__wrs_row=row,
        landsat__collection_category=category, created=created,
    )  # fmt: skip


def test_real_time_landsat_gives_way_whenever_it_was_made() -> None:
    real_time = landsat("rt", "2017-08-05T10:01:02.345Z", "026", "RT", "2018-08-12T00:00:00Z")
    final = landsat("t1", "2017-08-05T10:01:02.512Z", "026", "T1", "2018-05-23T00:00:00Z")
    assert kept(real_time, final) == ["t1"]


def test_rows_of_one_landsat_pass_are_one_acquisition() -> None:
    north = landsat("north", "2025-07-22T23:08:41.015Z", "073", "T1", "1", 0.0)
    south = landsat("south", "2025-07-22T23:09:04.953Z", "074", "T1", "1", 0.5)
    later = landsat("later", "2025-08-07T23:09:04.953Z", "074", "T1", "1", 0.5)
    assert len(kept(north, south, later)) == 3
    assert passes(north, south, later) == [["north", "south"], ["later"]]


def test_slices_of_one_radar_datatake_are_one_acquisition() -> None:
    def radar(
        name: str, when: str, slice_number: str, created: str = "1", west: float = 0.0
    ) -> Scene:
        return scene(
            name, when, west, platform="SENTINEL-1A", s1__datatake_id="425458", s1__slice_number=slice_number,
            s1__total_slices="30", created=created,
        )  # fmt: skip

    first, second = (
        radar("a", "2024-04-19T04:58:51Z", "29"),
        radar("b", "2024-04-19T04:59:10Z", "30", west=0.8),
    )
    assert passes(first, second) == [["a", "b"]]
    assert kept(first, second, radar("a2", "2024-04-19T04:58:51Z", "29", "2")) == ["a2", "b"]


def test_processings_without_a_tile_are_told_by_second_and_ground() -> None:
    def radar(name: str, created: str, west: float = 0.0) -> Scene:
        ids: dict[str, Any] = {"s1__datatake_id": "262144", "sat__absolute_orbit": 1}
        return scene(
            name, "2021-01-01T05:00:12Z", west, platform="SENTINEL-1A", created=created, **ids
        )

    assert kept(radar("AAAA", "2021-01-02"), radar("BBBB", "2021-06-02")) == ["BBBB"]
    assert sorted(kept(radar("AAAA", "2021-01-02"), radar("BBBB", "2021-06-02", 0.4))) == [
        "AAAA",
        "BBBB",
    ]


def test_modis_and_hls_have_tiles_of_their_own() -> None:
    tiles: dict[str, Any] = {
        "modis__horizontal-tile": 19,
        "modis__vertical-tile": 4,
        "platform": "terra",
    }
    old = scene("MCD43A4.2020", "2001-01-01T00:00:00Z", created="2020-03-10T00:00:00Z", **tiles)
    new = scene("MCD43A4.2021", "2001-01-01T00:00:00Z", created="2021-03-10T00:00:00Z", **tiles)
    assert kept(old, new) == ["MCD43A4.2021"]
    north = scene("HLS.S30.T36NXF.2024006T075321.v2.0", "2024-01-06T08:09:56.026Z")
    south = scene("HLS.S30.T36MXE.2024006T075321.v2.0", "2024-01-06T08:10:10.569Z", 0.5)
    later = scene("HLS.S30.T36MXE.2024011T075209.v2.0", "2024-01-11T08:10:12.169Z", 0.5)
    assert len(kept(north, south, later)) == 3
    assert [len(one) for one in passes(north, south, later)] == [2, 1]


@pytest.mark.parametrize("minutes", [0, 1, 9])
def test_without_properties_scenes_that_follow_each_other_are_a_pass(minutes: int) -> None:
    one = scene("a", "2024-01-01T10:00:00Z", platform="x")
    other = scene("b", f"2024-01-01T10:{minutes:02d}:30Z", 5.0, platform="x")
    assert passes(one, other) == [["a", "b"]]
    assert passes(one, scene("c", "2024-01-01T11:38:00Z", platform="x")) == [["a"], ["c"]]
    assert passes(one, scene("d", "2024-01-01T10:00:10Z", platform="y")) == [["a"], ["d"]]


def test_two_passes_of_a_day_over_one_tile_both_stay() -> None:
    """At high latitudes a satellite sees a tile again after an orbit."""
    tile: dict[str, Any] = {"grid__code": "MGRS-33XWG", "platform": "sentinel-2a"}
    assert (
        len(
            kept(
                scene("a", "2024-06-01T10:00:00Z", **tile),
                scene("b", "2024-06-01T11:40:00Z", **tile),
            )
        )
        == 2
    )


def test_a_record_may_say_what_makes_its_scenes() -> None:
    record = PLAIN.model_copy(update={})
    own = CollectionRecord.model_validate(
        {
            **record.model_dump(exclude={"identity"}),
            "identity": {
                "acquisition": [{"properties": ["id"], "pattern": r"^(\w+)-"}],
                "tile": [{"properties": ["id"], "pattern": r"-(\w+)-"}],
                "processing": [{"properties": ["v"]}],
            },
        }
    )
    items = [
        {
            "id": name,
            "collection": "c",
            "properties": {"datetime": when, "v": v},
            "geometry": None,
            "assets": {},
        }
        for name, when, v in (
            ("p1-A-1", "2024-01-01", 1),
            ("p1-A-2", "2024-01-01", 2),
            ("p1-B-1", "2024-01-01T05:00:00Z", 1),
        )
    ]
    scenes = [scene_from_item(item, own) for item in items]
    assert kept(*scenes) == ["p1-A-2", "p1-B-1"]
    found: list[Acquisition] = group(scenes[1:], None, "acquisition")
    assert len(found) == 1


def test_of_recorded_items_none_is_taken_for_another(real_data: Path) -> None:
    """Every recorded item of Sentinel-2 is a scene of its own: those that come twice are parts."""
    records = known_records()
    scenes = []
    for path in sorted((real_data / "stac-items").rglob("*.json")):
        item = json.loads(path.read_text())
        record = record_for_item(item, [one for one in records if one.id == item.get("collection")])
        if record is not None:
            # Some were recorded from files on a disk.
            scenes.append(scene_from_item(item, record, base=str(path.parent)))
    assert len(scenes) > 20
    unique = {(one.collection, one.provider, one.id): one for one in scenes}
    by_provider: dict[str, list[Scene]] = {}
    for one in unique.values():
        by_provider.setdefault(one.provider, []).append(one)
    for own in by_provider.values():
        lost = {one.id for one in own} - {one.id for one in drop_duplicates(own)}
        assert not lost
