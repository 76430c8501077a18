"""Valid STAC survives: a search is kept exactly as it came, whatever its items hold, and read back as the same scenes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import rustac
from hypothesis import given
from hypothesis import strategies as st

from bad_api import serve_bad_api
from resident import PEAK_KIB
from scenebeam.catalog.item_reader import scene_from_item
from scenebeam.catalog.packed_items import PackedItems
from scenebeam.catalog.search import scenes_from_items, search_items
from scenebeam.collections import CollectionRecord, known_records
from scenebeam.planning.search_cache import read_search, write_search
from scenebeam.request import RunRequest
from scenebeam.sandbox.scenes import SCENES
from scenebeam.storage import open_store

Make = Callable[..., RunRequest]
PLAIN = SCENES[0].item("https://example.com")


def with_properties(**properties: Any) -> dict[str, Any]:
    return {**PLAIN, "id": "other", "properties": {**PLAIN["properties"], **properties}}


VALID: dict[str, list[dict[str, Any]]] = {
    "times of a microsecond": [with_properties(datetime="2021-06-10T09:20:31.024123Z", created="2021-06-10T09:20:31.0241239Z")],
    "null geometry": [{**PLAIN, "id": "other", "geometry": None}],
    "no bbox in one": [{key: value for key, value in PLAIN.items() if key != "bbox"} | {"id": "other"}],
    "proj:geometry in one": [with_properties(**{"proj:geometry": {"type": "Point", "coordinates": [1, 2]}})],
    "number and text": [with_properties(x=1), {**with_properties(x="one"), "id": "third"}],
    "list and number": [with_properties(x=[1]), {**with_properties(x=2), "id": "third"}],
    "object and text": [with_properties(x={"y": 1}), {**with_properties(x="z"), "id": "third"}],
    "a property named id": [with_properties(id="inner")],
    "a property named links": [with_properties(links=["a"])],
    "no assets in one": [{**PLAIN, "id": "other", "assets": {}}],
    "an empty list": [with_properties(x=[])],
    "a large number": [with_properties(x=2**70)],
    "a null datetime": [with_properties(datetime=None, start_datetime="2021-01-01T00:00:00Z", end_datetime="2021-12-31T00:00:00Z")],
    "a date only": [with_properties(datetime="2021-06-10")],
    "top-level fields": [{**PLAIN, "id": "other", "extra": {"a": [1, {"b": None}]}}],
    "point and polygon": [{**PLAIN, "id": "other", "geometry": {"type": "Point", "coordinates": [23.9, 40.6]}}],
    "heights": [
        {**PLAIN, "id": "other", "geometry": {"type": "Polygon", "coordinates": [[[*p, 7.5] for p in PLAIN["geometry"]["coordinates"][0]]]}}
    ],
    "no collection in one": [{key: value for key, value in PLAIN.items() if key != "collection"} | {"id": "other"}],
    "odd text": [with_properties(x="\u2028 \x00 é \U0001f6f0")],
}  # fmt: skip


@pytest.mark.parametrize("name", VALID)
def test_a_search_is_kept_as_it_came(make_request: Make, tmp_path: Path, name: str) -> None:
    items = [PLAIN, *VALID[name]]
    store = open_store(str(tmp_path / "out"))
    with serve_bad_api("good", items) as api:
        request = make_request(catalog=api.url)
        found = search_items(request, [])
        assert (list(found) == [] and not len(found)) or list(found) == items
        write_search(request, items, store)
        kept = read_search(request, store)
    assert kept is not None
    assert list(kept) == json.loads(json.dumps(items))
    assert scenes_from_items(kept, request) == scenes_from_items(items, request)
    exported = store.uri_for("scenes.parquet")
    assert {item["id"] for item in rustac.read_sync(exported)["features"]} <= {
        item["id"] for item in items
    }


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.lists(st.dictionaries(st.text(), json_values, max_size=4), max_size=6))
def test_kept_items_are_equal_to_what_was_given(items: list[dict[str, Any]]) -> None:
    kept = PackedItems(items)
    assert list(kept) == items
    assert [kept[index] for index in range(len(kept))] == items
    assert list(kept[1:3]) == items[1:3]
    assert list(PackedItems.from_lines(kept.lines())) == items


def test_an_item_without_an_instant_covers_its_interval(make_request: Make, tmp_path: Path) -> None:
    from scenebeam.catalog.select import select

    year = with_properties(
        datetime=None, start_datetime="2021-01-01T00:00:00Z", end_datetime="2021-12-31T23:59:59Z"
    )
    (tmp_path / "items.json").write_text(
        json.dumps({"type": "FeatureCollection", "features": [year]})
    )
    for dates, count in (("2021-06", 1), ("2020", 0), ("2021-12-31/2022-01-31", 1), ("2022", 0)):
        request = make_request(catalog=str(tmp_path / "items.json"), dates=dates)
        scenes = scenes_from_items(search_items(request, []), request)
        assert len(select(scenes, request, None, "acquisition").scenes) == count


def footprint(geometry: dict[str, Any], bbox: list[float] | None) -> Any:
    record = next(
        r for r in known_records() if r.id == "sentinel-2-l2a" and r.provider == "earth-search"
    )
    return scene_from_item({**PLAIN, "geometry": geometry, "bbox": bbox}, record).footprint


def ring(*corners: tuple[float, ...]) -> dict[str, Any]:
    return {"type": "Polygon", "coordinates": [[*map(list, corners), list(corners[0])]]}


def test_a_footprint_around_the_earth_is_no_strip_across_the_antimeridian() -> None:
    wide = ring((-179.95, -60), (179.95, -60), (179.95, 80), (-179.95, 80))
    assert footprint(wide, [-179.95, -60.0, 179.95, 80.0]).bounds == (-179.95, -60.0, 179.95, 80.0)
    strip = footprint(ring((179.5, 0), (-179.5, 0), (-179.5, 1), (179.5, 1)), [179.5, 0, -179.5, 1])
    assert strip.area == pytest.approx(1.0, rel=1e-3)
    naive = footprint(ring((179.5, 0), (-179.5, 0), (-179.5, 1), (179.5, 1)), [-179.5, 0, 179.5, 1])
    assert naive.area == pytest.approx(1.0, rel=1e-3)
    heights = footprint(
        ring((-179.95, -60, 5), (179.95, -60, 5), (179.95, 80, 5)), [-179.95, -60, 0, 179.95, 80, 9]
    )
    assert heights.area > 10_000


def test_longitudes_from_0_to_360_and_heights_are_read() -> None:
    found = footprint(ring((200, 10, 3), (201, 10, 3), (201, 11, 3), (200, 11, 3)), None)
    assert found.bounds == (-160, 10, -159, 11)
    assert not found.has_z


def test_the_alternate_that_a_record_can_sign_is_taken() -> None:
    asset = {
        "href": "https://example.com/login/B4.TIF",
        "alternate": {"s3": {"href": "s3://usgs-landsat/B4.TIF"}},
    }
    plain = {"id": "c", "dtype": "uint16", "bands": {"red": {"asset": "red", "resolution": 30}}}
    item = {**PLAIN, "collection": "c", "assets": {"red": asset}}
    signed = CollectionRecord.model_validate({**plain, "signing": "s3-requester-pays"})
    assert scene_from_item(item, signed).assets["red"].href == "s3://usgs-landsat/B4.TIF"
    assert (
        scene_from_item(item, CollectionRecord.model_validate(plain)).assets["red"].href
        == asset["href"]
    )
    turned = {
        "href": "s3://private/B4.TIF",
        "alternate": {"https": {"href": "https://example.com/B4.TIF"}},
    }
    found = scene_from_item(
        {**item, "assets": {"red": turned}}, CollectionRecord.model_validate(plain)
    )
    assert found.assets["red"].href == "https://example.com/B4.TIF"


def test_the_best_acquisition_has_the_bands_that_are_needed(
    make_request: Make, tmp_path: Path
) -> None:
    from scenebeam.catalog.select import select

    clear = {**PLAIN, "id": "clear", "properties": {**PLAIN["properties"], "eo:cloud_cover": 0.1}}
    clear["assets"] = {key: asset for key, asset in PLAIN["assets"].items() if key != "red"}
    later = with_properties(**{
        "datetime": "2021-06-20T09:20:31Z", "eo:cloud_cover": 3.0, "s2:datatake_id": "GS2A_20210620T092031_000669_N03.00",
    })  # fmt: skip
    (tmp_path / "items.json").write_text(
        json.dumps({"type": "FeatureCollection", "features": [clear, later]})
    )
    request = make_request(
        catalog=str(tmp_path / "items.json"), dates="2021-06", select={"mode": "least-cloudy-per-period", "period": "month"},
        product={"kind": "mosaic", "bands": ["red"]},
    )  # fmt: skip
    scenes = scenes_from_items(search_items(request, []), request)
    assert [scene.id for scene in select(scenes, request, None, "acquisition").scenes] == ["other"]


@pytest.mark.slow
def test_20000_items_take_bounded_memory(tmp_path: Path) -> None:
    """A search of a large archive, its tables and its plan."""
    ring = PLAIN["geometry"]["coordinates"][0]
    bulky = {**PLAIN["properties"], **{f"x:{number}": f"value {number}" for number in range(60)}}
    with (tmp_path / "items.json").open("w") as file:
        file.write('{"type": "FeatureCollection", "features": [')
        for number in range(20_000):
            day, hour = divmod(number, 24)
            when = f"{2000 + day // 336:04d}-{day % 336 // 28 + 1:02d}-{day % 28 + 1:02d}T{hour:02d}:00:00Z"
            item = {
                **PLAIN,
                "id": f"s{number}",
                "properties": {**bulky, "datetime": when, "s2:datatake_id": None},
            }
            item["geometry"] = {"type": "Polygon", "coordinates": [ring]}
            file.write(("," if number else "") + json.dumps(item))
        file.write("]}")
    request = {
        "catalog": str(tmp_path / "items.json"), "collections": ["sentinel-2-l2a"], "limits": {"max_scenes": 30_000},
        "product": {"kind": "assets", "bands": ["red"], "download_n": 10}, "output": str(tmp_path / "out"),
    }  # fmt: skip
    (tmp_path / "request.json").write_text(json.dumps(request))
    for command in ("scenes", "plan"):
        code = (
            "import sys; from scenebeam.cli import main\n"
            f"try: main(['{command}', sys.argv[1]])\n"
            f"finally: print({PEAK_KIB}, file=sys.stderr)"
        )
        ended = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / "request.json")],
            capture_output=True,
            text=True,
        )
        assert ended.returncode == 0, ended.stderr[-2000:]
        assert int(ended.stderr.strip().splitlines()[-1]) < 2**20, "kibibytes"
