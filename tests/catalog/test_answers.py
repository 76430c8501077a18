"""Catalogs that misbehave: every item comes, or an error that says why not. A search never ends in silence."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bad_api import serve_bad_api
from scenebeam.catalog.queries import SearchQuery, queries_for
from scenebeam.catalog.search import scenes_from_items, search_items
from scenebeam.errors import CatalogError, RequestError, SceneBeamError
from scenebeam.request import RunRequest
from scenebeam.sandbox.scenes import SCENES
from scenebeam.sandbox.server import serve

Make = Callable[..., RunRequest]


def items(count: int, west: float = 23.0) -> list[dict[str, Any]]:
    plain = SCENES[0].item("https://example.com")
    ring = [[west, 40], [west + 1, 40], [west + 1, 41], [west, 41], [west, 40]]
    shape = {
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "bbox": [west, 40, west + 1, 41],
    }
    return [{**plain, **shape, "id": f"S2A_{west:g}_{number:03d}"} for number in range(count)]


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scenebeam.catalog.api.REQUEST_INTERVAL", 0.0)


@pytest.fixture
def ask(make_request: Make) -> Callable[..., RunRequest]:
    def make(url: str, **changes: Any) -> RunRequest:
        return make_request(
            catalog=url, **{"limits.retry_wait": 0.01, "limits.max_attempts": 3, **changes}
        )

    return make


def found(request: RunRequest, *questions: SearchQuery) -> list[str]:
    return [
        item["id"]
        for item in search_items(request, questions or [SearchQuery((23.1, 40.1, 23.9, 40.9))])
    ]


COMPLETE = [
    "good", "getonly", "getonly-told", "502", "429date", "429garbage", "trunc", "reset", "badjson", "error200once",
    "emptymid", "dup", "merge", "getnext", "relnext", "wrongmatched", "context",
]  # fmt: skip


@pytest.mark.parametrize("mode", COMPLETE)
def test_all_items_come(ask: Callable[..., RunRequest], mode: str) -> None:
    whole = items(37)
    expected = whole[:10] + whole[20:] if mode == "emptymid" else whole
    with serve_bad_api(mode, whole) as api:
        assert found(ask(api.url)) == [item["id"] for item in expected]


def test_what_is_no_item_is_left_out_and_named(
    ask: Callable[..., RunRequest], caplog: pytest.LogCaptureFixture
) -> None:
    with serve_bad_api("nulls", items(37)) as api:
        assert len(found(ask(api.url))) == 37
    assert "item 3 is left out: not a JSON object" in caplog.text


REFUSED = {
    "noconf": "has neither item search",
    "landing-html": "responded with an HTML page",
    "html": "responded with an HTML page",
    "403": "refused the search",
    "429far": "asks to wait 3,600 s",
    "502always": "responded with status 502",
    "error200": "is not a FeatureCollection: database is down",
    "error200p2": "is not a FeatureCollection: database is down",
    "nofeatures": "is not a FeatureCollection",
    "list": "JSON that is not an object",
    "loop": "form a loop",
    "emptyloop": "empty pages in a row",
    "nolinks": "reports 37 matching items, and sent 10",
}


@pytest.mark.parametrize("mode", REFUSED)
def test_an_answer_that_is_incomplete_is_an_error_in_words(
    ask: Callable[..., RunRequest], mode: str
) -> None:
    with (
        serve_bad_api(mode, items(37)) as api,
        pytest.raises(CatalogError, match=REFUSED[mode]) as refused,
    ):
        found(ask(api.url))
    assert "Traceback" not in str(refused.value)


def test_many_polygons_bring_each_item_once_and_all_of_them(ask: Callable[..., RunRequest]) -> None:
    """The ceiling counts scenes, not answers: the same scenes come for each of many small parcels."""
    questions = [SearchQuery((23.1 + n / 100, 40.1, 23.104 + n / 100, 40.104)) for n in range(30)]
    questions.append(SearchQuery((24.6, 40.5, 24.604, 40.504)))
    with serve_bad_api("good", items(20) + items(20, 24.5), 100) as api:
        assert len(found(ask(api.url, **{"limits.max_scenes": 40}), *questions)) == 40
        with pytest.raises(RequestError, match=r"more than limits\.max_scenes = 39"):
            found(ask(api.url, **{"limits.max_scenes": 39}), *questions)


@pytest.mark.parametrize("name", ["items.json", "a.json", "collection.json", "catalog.json"])
@pytest.mark.parametrize("remote", [True, False], ids=["remote", "local"])
def test_documents_are_read_by_url_as_by_file(
    ask: Callable[..., RunRequest], tmp_path: Path, name: str, remote: bool
) -> None:
    """An ItemCollection, an item, a collection and a catalog, with hrefs relative to where they are."""
    item = {**SCENES[0].item("."), "assets": {"red": {"href": "./red.tif"}}, "links": []}
    link = {"rel": "item", "href": "./a.json"}
    common = {"stac_version": "1.0.0", "id": "x", "description": "d", "links": [link]}
    extent = {
        "spatial": {"bbox": [[-180, -90, 180, 90]]},
        "temporal": {"interval": [["2020-01-01T00:00:00Z", None]]},
    }
    documents = {
        "a.json": item,
        "items.json": {"type": "FeatureCollection", "features": [item]},
        "collection.json": {"type": "Collection", "license": "other", "extent": extent, **common},
        "catalog.json": {"type": "Catalog", **common},
    }
    for file, document in documents.items():
        (tmp_path / file).write_text(json.dumps(document))
    with serve(tmp_path) as server:
        place = server.url if remote else str(tmp_path)
        request = ask(f"{place}/{name}")
        (scene,) = scenes_from_items(search_items(request, queries_for(request, None)), request)
        assert scene.assets["red"].href in (f"{place}/red.tif", f"{place}/./red.tif")


ODD: dict[str, dict[str, Any]] = {
    "cloud cover as text": {"properties": {"eo:cloud_cover": "few"}},
    "cloud cover as a list": {"properties": {"eo:cloud_cover": [1]}},
    "datetime as a list": {"properties": {"datetime": ["2021-06-10"]}},
    "datetime as text": {"properties": {"datetime": "yesterday"}},
    "properties as a list": {"properties": [1]},
    "assets as a list": {"assets": [1, 2]},
    "an asset as text": {"assets": {"red": "red.tif"}},
    "links as text": {"links": "none"},
    "a link as a number": {"links": [1]},
    "geometry of two points": {
        "geometry": {"type": "Polygon", "coordinates": [[[23, 40], [24, 41]]]}
    },
    "geometry in meters": {
        "geometry": {
            "type": "Polygon",
            "coordinates": [[[6e5, 4e6], [7e5, 4e6], [7e5, 5e6], [6e5, 4e6]]],
        }
    },
    "geometry of text": {"geometry": "everywhere"},
    "geometry without coordinates": {"geometry": {"type": "Polygon"}},
    "geometry of another type": {"geometry": {"type": "Circle", "coordinates": [1, 2]}},
    "geometry with NaN": {
        "geometry": {"type": "Polygon", "coordinates": [[[23, None], [24, 41], [25, 40], [23, 40]]]}
    },
    "an id that is a number": {"id": 7},
    "no id": {"id": None},
    "no properties": {"properties": None},
    "orbit as text": {"properties": {"sat:relative_orbit": "odd"}},
    "file size as text": {"assets": {"red": {"href": "https://x/red.tif", "file:size": "large"}}},
    "collection as a list": {"collection": ["sentinel-2-l2a"]},
}


@pytest.mark.parametrize("name", ODD)
def test_one_odd_item_never_ends_the_search(
    ask: Callable[..., RunRequest], tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    good = SCENES[0].item("https://example.com")
    change = ODD[name]
    odd = {**good, "id": "odd", **change}
    if isinstance(change.get("properties"), dict):
        odd["properties"] = {**good["properties"], **change["properties"]}
    (tmp_path / "items.json").write_text(
        json.dumps({"type": "FeatureCollection", "features": [odd, good, None, 3]})
    )
    caplog.set_level(logging.WARNING)
    request = ask(str(tmp_path / "items.json"))
    scenes = scenes_from_items(search_items(request, []), request)
    assert good["id"] in {scene.id for scene in scenes}
    usable = {scene.id for scene in scenes} - {good["id"]}
    assert usable or "is left out" in caplog.text or name == "collection as a list"


def test_nothing_but_odd_items_is_an_error(ask: Callable[..., RunRequest], tmp_path: Path) -> None:
    odd = {**SCENES[0].item("https://example.com"), "geometry": "everywhere"}
    (tmp_path / "items.json").write_text(
        json.dumps({"type": "FeatureCollection", "features": [odd]})
    )
    request = ask(str(tmp_path / "items.json"))
    with pytest.raises(SceneBeamError, match="none of the 1 items can be used"):
        scenes_from_items(search_items(request, []), request)
