"""Stacks of other sensors: radar in its own unit, and the bands of every recorded item."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine

from scenebeam.execution.driver import run
from scenebeam.planning.search import make_plan
from scenebeam.products.stacks.task import StackBand, StackTask
from scenebeam.requestfile import validate_request

OPTICAL = ["blue", "green", "red", "nir", "swir16", "swir22"]
LANDSAT = ["blue", "green", "red", "nir08", "swir16", "swir22"]


def radar(folder: Path, unit: str = "linear") -> Path:
    """A scene of two polarizations and its catalogue."""
    rng = np.random.default_rng(4)
    folder.mkdir()
    for band, level in (("vv", -9), ("vh", -16)):
        decibels = rng.normal(level, 4, (700, 600))
        pixels = (10 ** (decibels / 10) if unit == "linear" else decibels).astype(np.float32)
        pixels[:100] = -32768
        with rasterio.open(
            folder / f"{band}.tif", "w", driver="COG", height=700, width=600, count=1, dtype="float32", nodata=-32768,
            crs="EPSG:32634", transform=Affine(10, 0, 600_000, 0, -10, 4_500_000), compress="deflate",
        ) as file:  # fmt: skip
            file.write(pixels, 1)
    item = {
        "type": "Feature", "stac_version": "1.0.0", "id": "S1A_IW_rtc", "collection": "sentinel-1-rtc", "geometry": {"type": "Polygon", "coordinates": [[[22.18, 40.58], [22.26, 40.58], [22.26, 40.65], [22.18, 40.65], [22.18, 40.58]]]},
        "properties": {"datetime": "2023-04-09T04:58:01Z", "platform": "SENTINEL-1A", "sat:orbit_state": "ascending"}, "links": [],
        "assets": {band: {"href": str(folder / f"{band}.tif")} for band in ("vh", "vv")},
    }  # fmt: skip
    (folder / "items.json").write_text(
        json.dumps({"type": "FeatureCollection", "features": [item]})
    )
    return folder / "items.json"


def request_of(catalog: Path, tmp_path: Path, collection: str, **product: Any) -> Any:
    return validate_request(
        {
            "catalog": str(catalog),
            "collections": [collection],
            "product": {"kind": "stack", **product},
            "output": str(tmp_path / "out"),
            "runner": "serial",
        }
    )


@pytest.mark.parametrize("form", ["geotiff", "vrt"])
def test_vv_stands_before_vh(tmp_path: Path, form: str) -> None:
    catalog = radar(tmp_path / "scene")
    request = request_of(catalog, tmp_path, "sentinel-1-rtc", format=form, bands=["VH", "VV"])
    status = run(request)
    assert status.state == "succeeded", status.message
    path = next((tmp_path / "out" / "stacks" / "S1A_IW_rtc").glob("*.[tv][ir][ft]"))
    with rasterio.open(path) as stack:
        assert stack.descriptions == ("vv", "vh")
        assert stack.nodatavals == (-32768, -32768)
        for number, band in enumerate(("vv", "vh"), start=1):
            with rasterio.open(tmp_path / "scene" / f"{band}.tif") as file:
                np.testing.assert_array_equal(stack.read(number), file.read(1))


def test_decibels_where_power_is_declared_are_refused(tmp_path: Path) -> None:
    status = run(request_of(radar(tmp_path / "scene", "db"), tmp_path, "sentinel-1-rtc"))
    assert status.state == "failed"
    assert "0/2 bands complete, 2 failed: vv: declared linear, but" in status.message


@pytest.mark.parametrize(
    ("folder", "collection", "bands", "signing"),
    [
        ("earth-search-v1__sentinel-2-l2a", "sentinel-2-l2a", OPTICAL, "none"),
        ("earth-search-v1__sentinel-2-c1-l2a", "sentinel-2-c1-l2a", OPTICAL, "none"),
        ("planetary-computer__sentinel-2-l2a", "sentinel-2-l2a", OPTICAL, "planetary-computer"),
        ("cdse__sentinel-2-l2a", "sentinel-2-l2a", OPTICAL, "cdse"),
        ("earth-search-v1__landsat-c2-l2", "landsat-c2-l2", LANDSAT, "s3-requester-pays"),
        ("planetary-computer__landsat-c2-l2", "landsat-c2-l2", LANDSAT, "planetary-computer"),
        (
            "planetary-computer__sentinel-1-rtc",
            "sentinel-1-rtc",
            ["vv", "vh"],
            "planetary-computer",
        ),
    ],
)
def test_the_bands_of_recorded_items(
    real_data: Path, tmp_path: Path, folder: str, collection: str, bands: list[str], signing: str
) -> None:
    items = [
        json.loads(path.read_text())
        for path in sorted((real_data / "stac-items" / folder).glob("*.json"))
    ]
    catalog = tmp_path / "items.json"
    catalog.write_text(json.dumps({"type": "FeatureCollection", "features": items}))
    plan = make_plan(request_of(catalog, tmp_path, collection))
    assert plan.tasks
    for task in plan.tasks:
        assert isinstance(task, StackTask)
        assert task.format == "geotiff", "its files lie elsewhere"
        assert [band.name for band in task.bands] == bands
        there = [band.asset for band in task.bands if isinstance(band, StackBand)]
        assert len(there) == len(bands) or collection == "sentinel-1-rtc", (
            "some radar scenes have other polarizations"
        )
        assert {asset.signing for asset in there} == {signing}
        assert task.estimate.memory <= 2**30
