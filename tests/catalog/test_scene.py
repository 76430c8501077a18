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


NEWER: dict[str, tuple[str, set[str], str]] = {
    "lpdaac__hlss30-2.0": ("lpdaac", {"blue", "nir08", "swir22", "fmask"}, "https://data.lpdaac."),
    "dea__ga-s2am-ard-3": ("dea", {"blue", "nir", "swir22", "fmask"}, "s3://dea-public-data/"),
    "deafrica__s2-l2a-c1": ("deafrica", {"blue", "nir", "scl"}, "s3://deafrica-sentinel-2-"),
    "planetary-computer__naip": ("planetary-computer", {"red", "nir"}, "https://naipeuwest."),
    "planetary-computer__modis-09a1-061": ("planetary-computer", {"red", "state"}, "https://modiseuwest."),
    "planetary-computer__esa-worldcover": ("planetary-computer", {"land_cover"}, "https://ai4edataeuwest."),
}  # fmt: skip


@pytest.mark.parametrize("folder", NEWER)
def test_recorded_items_of_other_providers_are_understood(real_data: Path, folder: str) -> None:
    provider, bands, where = NEWER[folder]
    files = sorted((real_data / "stac-items" / folder).glob("*.json"))
    assert files
    for file in files:
        item = json.loads(file.read_text())
        found = record_for_item(item, [r for r in known_records() if r.id == item["collection"]])
        assert found is not None, file
        # Some were recorded from files on a disk.
        scene = scene_from_item(item, found, base=str(file.parent))
        assert scene.provider == provider
        if not next(iter(scene.assets.values())).href.startswith(where):
            continue
        if not bands <= scene.assets.keys():
            continue  # a granule without its data
        assert scene.tile_key is not None or provider == "planetary-computer"
        for band, asset in scene.assets.items():
            declared = (item["assets"][found.bands[band].asset].get("raster:bands") or [{}])[0]
            assert asset.nodata == declared.get("nodata", asset.nodata), band
            assert asset.scale == declared.get("scale", asset.scale), band
            assert asset.dtype == declared.get("data_type", asset.dtype), band
        break
    else:
        pytest.fail(f"no item of {folder} has {bands}")


def test_recorded_mss_scenes_have_numbers_whose_factors_are_their_own(real_data: Path) -> None:
    """Level 1 of MSS: radiance has other factors in each scene, so the record gives none."""
    files = sorted((real_data / "stac-items" / "planetary-computer__landsat-c2-l1").glob("*.json"))
    assert files
    [own] = [r for r in known_records() if r.id == "landsat-c2-l1"]
    for file in files:
        scene = scene_from_item(json.loads(file.read_text()), own)
        for asset in scene.assets.values():
            assert (asset.scale, asset.offset) == (1.0, 0.0)


@pytest.mark.parametrize("collection", ["hls2-s30", "HLSS30_2.0", "hls2-l30", "HLSL30_2.0"])
def test_both_catalogs_of_hls_have_the_same_bands(collection: str) -> None:
    [found] = [r for r in known_records() if r.id == collection]
    assert (found.dtype, found.nodata, found.scale) == ("int16", -9999, 0.0001)
    assert found.mask_bits == {"fmask": [1, 2, 3]}
    item_id = f"HLS.{'S' if 's30' in collection.lower() else 'L'}30.T36NXF.2024011T075209.v2.0"
    scene = scene_from_item(
        {"id": item_id, "collection": collection, "geometry": None, "assets": {},
         "properties": {"datetime": "2024-01-11T08:09:57Z"}},
        found,
    )  # fmt: skip
    assert (scene.tile_key, scene.pass_key is not None) == ("36NXF", True)


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
