"""Search against a real STAC API, files and static catalogues."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import rustac

from scenebeam.catalog.api import CatalogIO
from scenebeam.catalog.area import area_geometry
from scenebeam.catalog.queries import queries_for
from scenebeam.catalog.scene import Scene
from scenebeam.catalog.search import scenes_from_items, search_items
from scenebeam.errors import CatalogError, RequestError
from scenebeam.request import Area, RunRequest
from scenebeam.sandbox.scenes import SCENES
from scenebeam.sandbox.server import Fault, SandboxServer, serve

Make = Callable[..., RunRequest]


def ids(request: RunRequest) -> set[str]:
    assert request.area is not None
    return {
        item["id"]
        for item in search_items(request, queries_for(request, area_geometry(request.area)))
    }


EVERYTHING = {scene.id for scene in SCENES}


def test_an_api_is_searched_by_area_and_dates(make_request: Make, stac_api: str) -> None:
    assert ids(make_request(catalog=stac_api)) == EVERYTHING
    in_2021 = {scene.id for scene in SCENES if scene.acquired.year == 2021}
    assert ids(make_request(catalog=stac_api, dates="2021")) == in_2021
    assert ids(make_request(catalog=stac_api, dates=["2021-06-10", "2022-06"])) == EVERYTHING
    assert ids(make_request(catalog=stac_api, **{"area.bbox": [10, 40, 11, 41]})) == set()


def test_a_static_catalogue_over_http(make_request: Make, server: SandboxServer) -> None:
    # The server gives no conformance, so there is no search: everything is walked.
    request = make_request(catalog=f"{server.url}/catalog.json")
    assert ids(request) == EVERYTHING


def test_files_of_every_form_give_the_same_scenes(
    make_request: Make, sandbox: Path, tmp_path: Path
) -> None:
    items = rustac.read_sync(str(sandbox / "items.json"))
    rustac.write_sync(str(tmp_path / "items.parquet"), items)
    shutil.copy(sandbox / "items.json", tmp_path / "items.json")
    found = [
        scenes_from_items(search_items(request, queries_for(request, None)), request)
        for path in (
            sandbox / "items.json",
            sandbox / "catalog.json",
            tmp_path / "items.parquet",
            tmp_path / "items.json",
        )
        for request in [make_request(catalog=str(path))]
    ]
    for scenes in found:
        assert {scene.id for scene in scenes} == EVERYTHING
        # Where an item lies is its own affair; what it says is the same.
        assert set(map(hashable, scenes)) == set(map(hashable, found[0]))


def hashable(scene: Scene) -> Scene:
    told: dict[str, Any] = {
        "properties": tuple(scene.properties.items()),
        "assets": tuple(scene.assets.items()),
    }
    return replace(scene, item_href=None, **told)


def test_a_busy_api_is_asked_again_when_it_says(make_request: Make, server: SandboxServer) -> None:
    server.faults.append(Fault("catalog.json", times=2, status=429, retry_after="0"))
    assert ids(make_request(catalog=f"{server.url}/catalog.json")) == EVERYTHING
    assert server.statuses[429] == 2


def test_a_catalogue_is_asked_as_often_as_the_request_says(
    make_request: Make, server: SandboxServer
) -> None:
    server.faults.append(Fault("catalog.json", times=9, status=503, retry_after="0"))
    with pytest.raises(CatalogError, match="catalog.json"):
        ids(make_request(catalog=f"{server.url}/catalog.json", **{"limits.max_attempts": 2}))
    assert server.statuses[503] == 2


def test_an_api_that_is_not_there_is_named(make_request: Make, server: SandboxServer) -> None:
    server.faults.append(Fault("catalog.json", status=403))
    with pytest.raises(CatalogError, match="catalog.json"):
        ids(make_request(catalog=f"{server.url}/catalog.json"))


def test_a_missing_file_lists_what_else_a_catalogue_may_be(make_request: Make) -> None:
    with pytest.raises(RequestError, match="earth-search, planetary-computer, cdse"):
        ids(make_request(catalog="/nowhere/items.json"))


def test_more_scenes_than_allowed_are_refused(make_request: Make) -> None:
    with pytest.raises(RequestError, match="limits.max_scenes = 3"):
        ids(make_request(**{"limits.max_scenes": 3}))


def test_an_unknown_collection_lists_the_known(make_request: Make) -> None:
    with pytest.raises(
        RequestError,
        match="io-lulc-annual-v02, landsat-c2-l1, landsat-c2-l2, .* sentinel-2-l1c, sentinel-2-l2a",
    ):
        scenes_from_items([], make_request(collections=["unlike-any"]))
    with pytest.raises(RequestError, match="did you mean 'landsat-c2-l2'"):
        scenes_from_items([], make_request(collections=["landsat-c2l2"]))


def test_the_antimeridian_splits_a_box() -> None:
    area = area_geometry(Area(bbox=(179.0, -1.0, -179.0, 1.0)))
    assert sorted(part.bounds for part in area.geoms) == [(-180, -1, -179, 1), (179, -1, 180, 1)]


def test_a_tile_is_where_sentinel_2_has_it() -> None:
    from scenebeam.raster.grid import project

    bounds = project(area_geometry(Area(mgrs=["34TFK"])), "EPSG:32634").bounds
    assert bounds == pytest.approx((600_000, 4_390_200, 709_800, 4_500_000), abs=3)


@pytest.mark.parametrize(
    "geometry",
    [
        {"type": "Point", "coordinates": [1, 2]},
        {"type": "Polygon", "coordinates": []},
        {
            "type": "Polygon",
            "coordinates": [[[600000, 4e6], [700000, 4e6], [700000, 5e6], [600000, 4e6]]],
        },
    ],
)
def test_an_area_without_ground_is_refused(geometry: dict) -> None:
    with pytest.raises(RequestError, match="area"):
        area_geometry(Area(geometry=geometry))


@pytest.mark.parametrize(
    "href", ["/etc/hostname", "file:///etc/hostname", "../../../../../etc/hostname"]
)
def test_a_static_catalog_on_the_network_reads_no_local_file(
    make_request: Callable[..., RunRequest], tmp_path: Path, href: str
) -> None:
    document = {
        "type": "Catalog",
        "id": "c",
        "stac_version": "1.0.0",
        "description": "d",
        "links": [{"rel": "item", "href": href}],
    }
    (tmp_path / "catalog.json").write_text(json.dumps(document))
    with serve(tmp_path) as server:
        request = make_request(catalog=f"{server.url}/catalog.json")
        with pytest.raises(CatalogError):
            search_items(request, queries_for(request, None))


def test_what_a_catalog_on_the_network_names_is_never_opened_as_a_file(
    make_request: Callable[..., RunRequest],
) -> None:
    for name in (__file__, f"file://{__file__}", "FILE:///etc/hostname"):
        with pytest.raises(CatalogError, match="local file"):
            CatalogIO(make_request().limits).read_text(name)
