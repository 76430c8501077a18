"""Real items of four providers become the same kind of Scene."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from scenebeam.catalog.bands import record_for_item
from scenebeam.catalog.item_reader import scene_from_item
from scenebeam.collections import CollectionRecord, known_records
from scenebeam.errors import CatalogError
from scenebeam.sandbox.scenes import SCENES

PROVIDERS = {
    "earth-search-v1__sentinel-2-l2a": ("earth-search", 0),
    "earth-search-v1__sentinel-2-c1-l2a": ("earth-search", 1000),
    "planetary-computer__sentinel-2-l2a": ("planetary-computer", 0),
    "cdse__sentinel-2-l2a": ("cdse", 1000),
}


@pytest.mark.parametrize(
    ("folder", "where"),
    [
        ("earth-search-v1__landsat-c2-l2", "s3://usgs-landsat/"),
        ("planetary-computer__landsat-c2-l2", "https://landsateuwest.blob.core.windows.net/"),
    ],
)
def test_recorded_landsat_items_are_understood(real_data: Path, folder: str, where: str) -> None:
    paths = sorted((real_data / "stac-items" / folder).glob("*.json"))
    assert paths
    for file in paths:
        item = json.loads(file.read_text())
        record = next(
            r
            for r in known_records()
            if (r.id, r.provider) == (item["collection"], folder.split("_")[0].removesuffix("-v1"))
        )
        scene = scene_from_item(item, record)
        assert scene.platform in ("landsat-8", "landsat-9")
        assert scene.assets["red"].href.startswith(where)
        assert scene.assets["qa_pixel"].categorical
        for band, asset in scene.assets.items():
            told = (item["assets"][record.bands[band].asset].get("raster:bands") or [{}])[0]
            assert asset.nodata == told.get("nodata", asset.nodata)
            assert asset.scale == told.get("scale", asset.scale)
            assert asset.offset == told.get("offset", asset.offset)


@pytest.mark.parametrize("folder", PROVIDERS)
def test_recorded_items_are_understood(real_data: Path, folder: str) -> None:
    provider, add_offset = PROVIDERS[folder]
    files = sorted((real_data / "stac-items" / folder).glob("*.json"))
    assert files
    for file in files:
        item = json.loads(file.read_text())
        record = record_for_item(item, [r for r in known_records() if r.id == item["collection"]])
        assert record is not None
        assert record.provider == provider
        scene = scene_from_item(item, record)
        assert scene.tile is not None
        assert len(scene.tile) == 5
        assert scene.pass_key is not None
        assert scene.assets["red"].add_offset == add_offset
        assert set(scene.assets) >= {"blue", "red", "nir", "swir16", "scl"}
        assert scene.nodata is not None
        assert f"{scene.acquired:%Y%m%dT%H%M%S}" in scene.pass_key


def item(**changes: object) -> dict:
    return {**SCENES[0].item("http://127.0.0.1/x"), **changes}


def record() -> CollectionRecord:
    return next(
        r for r in known_records() if r.id == "sentinel-2-l2a" and r.provider == "earth-search"
    )


@pytest.mark.parametrize(
    "href", ["file:///etc/passwd", "/etc/passwd", "ftp://host/x.tif", "gopher://x"]
)
def test_a_catalogue_on_the_network_may_not_name_other_places(href: str) -> None:
    bad = item(assets={"red": {"href": href}})
    with pytest.raises(CatalogError, match="refused|will not read"):
        scene_from_item(bad, record())


def test_a_local_catalogue_may_be_relative() -> None:
    scene = scene_from_item(item(assets={"red": {"href": "a/red.tif"}}), record(), base="/data")
    assert scene.assets["red"].href == "/data/a/red.tif"


def test_a_zero_cloud_cover_is_not_an_unknown_one() -> None:
    plain = item()
    plain["properties"] = {**plain["properties"], "eo:cloud_cover": 0}
    assert scene_from_item(plain, record()).cloud_cover == 0.0
    del plain["properties"]["eo:cloud_cover"]
    assert scene_from_item(plain, record()).cloud_cover is None


def test_an_item_without_a_time_is_an_error() -> None:
    with pytest.raises(CatalogError, match="no datetime"):
        scene_from_item(item(properties={}), record())
