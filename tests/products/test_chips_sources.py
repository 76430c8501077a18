"""Chips of several collections and of real scenes: other images, labels of a collection, and rasterio's pixels."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pyproj
import pytest
import rasterio
import rasterio.features
import shapely
from affine import Affine
from rasterio.enums import Resampling
from rasterio.warp import reproject
from rasterio.windows import Window

import scenebeam.chips
from conftest import tree
from lives import Killed, Lives
from scenebeam.execution.driver import run
from scenebeam.planning.search import make_plan
from scenebeam.requestfile import validate_request
from scenebeam.sandbox import earth
from scenebeam.sandbox.landcover import EPSG, LEFT, SEAM, TOP, records
from scenebeam.storage import open_store

Document = dict[str, Any]
SIDE = 48


@pytest.fixture
def document(landcover: Path, tmp_path: Path) -> Document:
    """Sentinel-2 with radar, elevation and land cover, on a lattice over a part of the tile."""
    to_lonlat = pyproj.Transformer.from_crs(EPSG, 4326, always_xy=True)
    west, south = to_lonlat.transform(LEFT + 1_500, TOP - 5_000)
    east, north = to_lonlat.transform(LEFT + 7_500, TOP - 1_000)
    return {
        "run": "several",
        "catalog": str(landcover / "items.json"),
        "collections": [record.model_dump(mode="json") for record in records()],
        "area": {"bbox": [west, south, east, north]},
        "dates": ["2021-03", "2021-11"],
        "product": {
            "kind": "chips",
            "grid": {"step": 960},
            "size": SIDE,
            "bands": ["red", "nir"],
            "max_cloud": 100,
            "others": [
                {"name": "sar", "collection": "sentinel-1-rtc", "bands": ["vv", "vh"], "within_days": 6},
                {"name": "dem", "collection": "cop-dem-glo-30", "bands": ["elevation"]},
            ],
            "labels": [{"name": "cover", "collection": "io-lulc-annual-v02"}],
            "split": None,
        },
        "select": {"max_cloud_cover": 100},
        "output": str(tmp_path / "out"),
        "runner": "serial",
    }  # fmt: skip


def collections_without(document: Document, *names: str) -> list[Any]:
    return [one for one in document["collections"] if one["id"] not in names]


def files_of(landcover: Path, scene: str, band: str) -> Path:
    return landcover / scene / f"{band}.tif"


def read_window(path: Path, left: float, top: float) -> np.ndarray:
    with rasterio.open(path) as file:
        column, row = ~file.transform @ (left, top)
        found: np.ndarray = file.read(1, window=Window(round(column), round(row), SIDE, SIDE))
        return found


def test_images_of_several_collections_and_their_labels(
    document: Document, landcover: Path
) -> None:
    document["collections"] = collections_without(document, "landsat-c2-l2")
    status = run(validate_request(document))
    assert status.state == "succeeded", status.message
    samples = list(scenebeam.chips.open(document["output"]))
    rows = pq.read_table(Path(document["output"]) / "chips.parquet").to_pylist()
    assert len(samples) > 15
    # Where the map has no class, 0 is its nodata value.
    assert {row["reason"] for row in rows} == {
        "",
        "no sar within 6 days of each image",
        "the label cover has no data there",
    }
    with rasterio.open(landcover / "DEM_N40_E023" / "data.tif") as file:
        western = file.read(1), file.transform
    for sample in samples:
        metadata = sample["metadata"]
        left, _, _, top = metadata["bounds"]
        x = (left + 5 + 10 * np.arange(SIDE)).astype(np.int64)[None, :]
        y = (top - 5 - 10 * np.arange(SIDE)).astype(np.int64)[:, None]
        assert (sample["mask"]["cover"] == earth.land_class(x, y)).all()
        described = metadata["images"]["sar"]
        assert sample["sar"].shape == (len(sample["image"]), 2, SIDE, SIDE)
        for when, text, [scene], pixels in zip(
            sample["time"], described["times"], described["scenes"], sample["sar"], strict=True
        ):
            assert abs(when - datetime.fromisoformat(text)) <= timedelta(days=6)
            for band, values in zip(("vv", "vh"), pixels, strict=True):
                expected = read_window(files_of(landcover, scene, band), left, top)
                assert (values == expected).all()
        assert sample["dem"].shape == (1, 1, SIDE, SIDE)
        to_lonlat = pyproj.Transformer.from_crs(EPSG, 4326, always_xy=True)
        if to_lonlat.transform(left + 10 * SIDE, top)[0] < SEAM - 0.001:
            expected = np.zeros((SIDE, SIDE), np.float32)
            reproject(
                western[0], expected, src_transform=western[1], src_crs="EPSG:4326",
                dst_transform=Affine(10, 0, left, 0, -10, top), dst_crs=f"EPSG:{EPSG}", resampling=Resampling.bilinear, src_nodata=None,
            )  # fmt: skip
            assert np.abs(sample["dem"][0, 0] - expected).max() < 0.5
    classes = scenebeam.chips.open(document["output"]).statistics()
    assert set(classes["bands"]) == {"image", "sar", "dem"}
    assert classes["class_names"]["cover"]["11"] == "rangeland"


def test_other_images_too_far_in_time_leave_the_chip_out(document: Document) -> None:
    document["collections"] = collections_without(document, "landsat-c2-l2")
    document["product"]["others"][0]["within_days"] = 0.1
    status = run(validate_request(document))
    assert status.state != "running"
    rows = pq.read_table(Path(document["output"]) / "chips.parquet").to_pylist()
    assert {row["reason"] for row in rows} == {"no sar within 0.1 days of each image"}
    assert "no chip could be made" in status.message


def test_radar_alone_needs_no_classification(document: Document, landcover: Path) -> None:
    document["collections"] = [
        one for one in document["collections"] if one["id"] == "sentinel-1-rtc"
    ]
    document["product"] |= {"bands": ["vv", "vh"], "others": [], "labels": [], "layout": "zarr"}
    assert run(validate_request(document)).state == "succeeded"
    samples = list(scenebeam.chips.open(document["output"]))
    assert len(samples) > 15
    for sample in samples:
        left, _, _, top = sample["metadata"]["bounds"]
        for [scene], pixels in zip(
            sample["metadata"]["images"]["image"]["scenes"], sample["image"], strict=True
        ):
            assert (pixels[0] == read_window(files_of(landcover, scene, "vv"), left, top)).all()


def test_a_bucket_gets_the_same_files(document: Document, prefix: str, tmp_path: Path) -> None:
    document["collections"] = collections_without(document, "landsat-c2-l2")
    document["product"]["layout"] = "webdataset"
    run(validate_request(document))
    run(validate_request({**document, "output": f"{prefix}/chips"}))
    store = open_store(f"{prefix}/chips")
    expected = tree(Path(document["output"]))
    for key, content in expected.items():
        if key.endswith(
            (".tar", "manifest.parquet", "chips.parquet", "statistics.json", "README.md")
        ):
            assert store.read(key) == content, key
    found = {one["id"] for one in scenebeam.chips.open(f"{prefix}/chips")}
    assert found == {one["id"] for one in scenebeam.chips.open(document["output"])}


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["cogs", "webdataset", "parquet", "zarr"])
def test_killed_anywhere_it_goes_on_and_ends_the_same(
    document: Document, layout: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    document["collections"] = collections_without(document, "landsat-c2-l2")
    document["product"]["layout"] = layout
    run(validate_request({**document, "output": str(tmp_path / "whole")}))
    lives = Lives(monkeypatch)
    killed = 0
    for life in range(1, 60):
        lives.left = life * 8
        try:
            run(validate_request(document))
        except Killed:
            killed += 1
        else:
            break
    lives.left = 10**9
    assert killed > 1
    left, right = tree(tmp_path / "whole"), tree(Path(document["output"]))
    assert left.keys() == right.keys()
    volatile = ("plan.parquet", "report/index.html")
    assert [key for key in left if left[key] != right[key] and not key.endswith(volatile)] == []


# Real data


def test_real_pixels_are_those_of_rasterio(real_data: Path, tmp_path: Path) -> None:
    folder = real_data / "sentinel-2-l2a-29RKH"
    item = json.loads((folder / "S2A_29RKH_20200219_0_L2A.json").read_text())
    names = {"blue": "B02", "green": "B03", "red": "B04", "nir": "B08", "scl": "SCL"}
    for band, name in names.items():
        item["assets"][band]["href"] = str(folder / f"{name}.tif")
    (tmp_path / "items.json").write_text(
        json.dumps({"type": "FeatureCollection", "features": [item]})
    )
    with rasterio.open(folder / "B04.tif") as file:
        left, top, pixel = file.transform.c, file.transform.f, file.transform.a
        sources = {
            band: rasterio.open(folder / f"{names[band]}.tif").read(1) for band in ("red", "nir")
        }
    to_lonlat = pyproj.Transformer.from_crs(32629, 4326, always_xy=True)
    rows = [(column, row) for column in range(100, 900, 130) for row in range(100, 900, 160)]
    lines, outlines = ["id,lon,lat"], []
    for number, (column, row) in enumerate(rows):
        x, y = left + (column + 16) * pixel, top - (row + 16) * pixel
        lon, lat = to_lonlat.transform(x, y)
        lines.append(f"p{number},{lon!r},{lat!r}")
        ring = shapely.Point(x + 300, y).buffer(700 + 35 * number)
        outlines.append({"type": "Feature", "properties": {"kind": number % 3 + 1}, "geometry": shapely.geometry.mapping(shapely.transform(ring, to_lonlat.transform, interleaved=False))})  # fmt: skip
    (tmp_path / "places.csv").write_text("\n".join(lines) + "\n")
    (tmp_path / "rings.geojson").write_text(
        json.dumps({"type": "FeatureCollection", "features": outlines})
    )
    request = validate_request({
        "catalog": str(tmp_path / "items.json"), "collections": ["sentinel-2-l2a"], "dates": "2020-02",
        "product": {
            "kind": "chips", "places": str(tmp_path / "places.csv"), "size": 32, "resolution": pixel, "bands": ["red", "nir"], "max_cloud": 100,
            "labels": [{"name": "rings", "vector": str(tmp_path / "rings.geojson"), "column": "kind"}], "split": None, "max_nodata": 100, "snap": False,
        },
        "checks": "off", "output": str(tmp_path / "out"), "runner": "serial",
    })  # fmt: skip
    run(request)
    samples = list(scenebeam.chips.open(request.output))
    assert len(samples) == len(rows)
    to_utm = pyproj.Transformer.from_crs(4326, 32629, always_xy=True)
    burned = [(shapely.transform(shapely.geometry.shape(one["geometry"]), to_utm.transform, interleaved=False), one["properties"]["kind"]) for one in outlines]  # fmt: skip
    for sample in samples:
        column, row = rows[int(sample["id"][1:])]
        for band, pixels in zip(("red", "nir"), sample["image"][0], strict=True):
            assert (pixels == sources[band][row : row + 32, column : column + 32]).all()
        west, _, _, north = sample["metadata"]["bounds"]
        assert (west, north) == pytest.approx((left + column * pixel, top - row * pixel), abs=1e-6)
        expected = rasterio.features.rasterize(
            burned, (32, 32), transform=Affine(pixel, 0, west, 0, -pixel, north), dtype="uint8"
        )
        assert (sample["mask"]["rings"] == expected).all()


@pytest.mark.slow
def test_worldcover_labels_are_the_nearest_pixels_of_rasterio(
    real_data: Path, tmp_path: Path
) -> None:
    """Elevation and land cover of the same island, both real."""
    [cover] = (real_data / "esa-worldcover-2021").glob("*.tif")
    [dem] = (real_data / "cop-dem-glo-30").glob("*.tif")
    item = {
        "type": "Feature", "stac_version": "1.0.0", "id": "dem", "collection": "cop-dem-glo-30",
        "geometry": shapely.geometry.mapping(shapely.box(6, 0, 7, 1)), "bbox": [6, 0, 7, 1],
        "properties": {"datetime": "2021-04-22T00:00:00Z"}, "links": [],
        "assets": {"data": {"href": str(dem)}},
    }  # fmt: skip
    (tmp_path / "items.json").write_text(
        json.dumps({"type": "FeatureCollection", "features": [item]})
    )
    request = validate_request({
        "catalog": str(tmp_path / "items.json"), "collections": ["cop-dem-glo-30"], "dates": "2021", "area": {"bbox": [6.55, 0.2, 6.62, 0.27]},
        "product": {
            "kind": "chips", "grid": {}, "size": 64, "bands": ["elevation"], "split": None,
            "labels": [{"name": "cover", "raster": str(cover)}],
        },
        "checks": "off", "output": str(tmp_path / "out"), "runner": "serial",
    })  # fmt: skip
    assert run(request).state == "succeeded"
    samples = list(scenebeam.chips.open(request.output))
    assert len(samples) > 100
    found = set()
    with rasterio.open(cover) as file:
        for sample in samples:
            west, _, _, north = sample["metadata"]["bounds"]
            expected = np.zeros((64, 64), np.uint8)
            transform = Affine(10, 0, west, 0, -10, north)
            reproject(
                rasterio.band(file, 1), expected, dst_transform=transform,
                dst_crs=sample["metadata"]["crs"], resampling=Resampling.nearest, tolerance=0,
            )  # fmt: skip
            assert (sample["mask"]["cover"] == expected).mean() > 0.999
            found.update(np.unique(expected).tolist())
    assert len(found) >= 4


# Plans


def test_a_plan_reads_no_pixel_and_the_tables_are_those_of_the_cells(document: Document) -> None:
    document["collections"] = collections_without(document, "landsat-c2-l2")
    plan = make_plan(validate_request(document))
    task = plan.tasks[0]
    assert task.estimate.blocks > 0
    assert f"cells/{task.id}/chips.parquet" in plan.tables
