"""Field chips in odd places and of other collections: the antimeridian, a cloud probability, flags."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import shapely
from pyproj import Transformer

from scenebeam.catalog.scene import Asset
from scenebeam.execution.driver import run
from scenebeam.imaging.chip_clouds import clouds_in
from scenebeam.imaging.chip_scenes import Clouds
from scenebeam.request import RunRequest
from scenebeam.sandbox import earth
from scenebeam.sandbox.fields import SCENES
from scenebeam.sandbox.scenes import SandboxScene, write_image, write_sandbox

PLANTING = next(scene for scene in SCENES if scene.acquired == datetime(2021, 4, 10, 9, 20, 31))


def test_on_both_sides_of_the_antimeridian(
    fields_request: Callable[..., RunRequest], tmp_path: Path
) -> None:
    """One tile of zone 1 lies across it: its own chips are pasted, those of zone 60 are warped, and none is lost."""
    tile = SandboxScene(
        "01KAB", 32701, 175_000, 8_130_000, datetime(2021, 4, 5, 9, 0), cloud_cover=1.0
    )
    later = replace(tile, acquired=datetime(2021, 10, 25, 9, 0))
    catalog = write_sandbox(tmp_path / "scenes", scenes=[tile, later])
    to_lonlat = Transformer.from_crs(32701, 4326, always_xy=True)
    corners = [
        to_lonlat.transform(176_500 + x, 8_128_500 - y)
        for x, y in ((0, 7000), (7000, 7000), (7000, 0), (0, 0))
    ]
    assert {longitude > 0 for longitude, _ in corners} == {True, False}
    path = tmp_path / "fields.geojson"
    feature = {
        "type": "Feature",
        "id": 1,
        "properties": {},
        "geometry": shapely.geometry.mapping(shapely.Polygon(corners)),
    }
    path.write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))
    request = fields_request(**{"catalog": str(catalog), "product.boundaries": str(path)})
    assert run(request).state == "succeeded"
    output = Path(request.output)
    report = json.loads((output / "report.json").read_text())
    items = {
        path.parent.name: json.loads(path.read_text())
        for path in output.glob("ftw-*/ftw-*_2021.json")
    }
    codes = {name: item["properties"]["proj:code"] for name, item in items.items()}
    assert set(codes.values()) == {"EPSG:32701", "EPSG:32760"}
    assert all(
        item["bbox"][2] - item["bbox"][0] < 1
        for item in items.values()
        if item["bbox"][0] < item["bbox"][2]
    )
    made = {name for name in items if (output / name / f"{name}_planting_image_s2.tif").exists()}
    assert len(made) == report["successful"]
    assert {codes[name] for name in made} == {"EPSG:32701", "EPSG:32760"}
    numbers = np.zeros(0)
    for name in made:
        with rasterio.open(output / name / f"{name}_planting_image_s2.tif") as image:
            assert (image.read() > 0).all()
            if codes[name] == "EPSG:32701":
                x = image.transform.c + 5 + 10 * np.arange(160)[None, :]
                y = image.transform.f - 5 - 10 * np.arange(160)[:, None]
                red = earth.pixel("red", x, y, earth.day_number(tile.acquired))
                np.testing.assert_array_equal(image.read(1), red)
        with rasterio.open(output / name / f"{name}_instance.tif") as mask:
            numbers = np.union1d(numbers, mask.read(1))
    assert numbers.tolist() == [0, 1]  # both parts are the one field


def test_a_cloud_probability_is_looked_at_before_classes(
    fields: Path, on_chips: Callable[..., RunRequest], tmp_path: Path
) -> None:
    """As Sentinel-2 Collection 1 at Earth Search has it: 50 percent is cloud, 49 is none; shadows do not count."""
    x, y = PLANTING.pixel_centers(20)
    probability = np.where(
        earth.is_cloud(x, y, earth.day_number(PLANTING.acquired)), 50, 49
    ).astype(np.uint8)
    corner = (float(PLANTING.left), float(PLANTING.top))
    write_image(tmp_path / "cloud.tif", probability, f"EPSG:{PLANTING.epsg}", corner, 20, 256)
    items: list[dict[str, Any]] = [
        {**scene.item(str(fields)), "collection": "sentinel-2-c1-l2a"}
        for scene in SCENES
        if scene.acquired.month > 9 or scene == PLANTING
    ]
    for item in items:
        if item["id"] == PLANTING.id:
            item["assets"]["cloud"] = {"href": str(tmp_path / "cloud.tif")}
    catalog = tmp_path / "items.json"
    catalog.write_text(json.dumps({"type": "FeatureCollection", "features": items}))
    request = on_chips(
        **{
            "catalog": str(catalog), "collections": ["sentinel-2-c1-l2a"], "product.pixel_check": True,
            "product.cloud_cover_pixel": 100, "product.images": "select", "product.buffer_days": 5,
            "product.buffer_expansions": 0,
        }
    )  # fmt: skip
    assert run(request).state == "succeeded"
    seen = set()
    for path in Path(request.output).glob("*/*_planting_s2.json"):
        item = json.loads(path.read_text())
        assert "cloud_probability" in item["assets"]
        if item["properties"]["proj:code"] != "EPSG:32634":
            continue
        _, _, left, _, _, top = item["properties"]["proj:transform"]
        east, north = (
            np.arange(left + 10, left + 1600, 20)[None, :],
            np.arange(top - 10, top - 1600, -20)[:, None],
        )
        share = 100 * earth.is_cloud(east, north, earth.day_number(PLANTING.acquired)).mean()
        assert abs(item["properties"]["eo:cloud_cover"] - share) < 1e-3
        seen.add(share > 0)
    assert seen == {True, False}


def test_flags_tell_clouds_too() -> None:
    """Landsat's quality band: any of the bits."""
    clouds = Clouds(bits={"qa_pixel": (3, 4)})
    asset = Asset("qa_pixel", "x", 1, 30, "uint16", 1, 1, 0, 0, True)
    values = np.array([[1 << 3, 1 << 4, 1 << 6, 1]], np.uint16)  # cloud, shadow, clear, fill
    found = clouds_in({"qa_pixel": values}, {"qa_pixel": asset}, clouds)
    assert (found.cloud, found.nodata) == (round(200 / 3, 4), 25.0)
