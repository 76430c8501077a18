"""A collection that scenebeam does not know, given inline: the example of the manual on two rows of one Landsat path."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from pyproj import Transformer
from shapely import segmentize, transform
from shapely.geometry import box, mapping

from example import EXAMPLE
from scenebeam.execution.driver import run
from scenebeam.requestfile import load_request

LEFT, TOP = 694_005, -2_766_615


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(5)
    to_lonlat = Transformer.from_crs(32621, 4326, always_xy=True)
    items = []
    # Two rows that overlap by 300 lines; the northern is taken 24 s before, and less cloudy.
    for row, (top, seconds, cloud) in enumerate(((TOP + 3000, 10, 1.5), (TOP - 30_000, 34, 12.0))):
        name = f"LC08_row{row}"
        (tmp_path / name).mkdir()
        profile = {
            "driver": "GTiff",
            "height": 1400,
            "width": 2900,
            "crs": "EPSG:32621",
            "tiled": True,
            "nodata": 0,
        }
        profile |= {
            "transform": Affine(30, 0, LEFT - 600, 0, -30, top),
            "compress": "deflate",
            "predictor": 2,
        }
        for file, count, dtype in (("B2", 1, "uint16"), ("visual", 3, "uint8")):
            pixels = rng.integers(1, 250, (count, 1400, 2900)).astype(dtype)
            with rasterio.open(
                tmp_path / name / f"{file}.TIF", "w", count=count, dtype=dtype, **profile
            ) as target:
                target.write(pixels)
        outline = segmentize(box(LEFT - 600, top - 42_000, LEFT - 600 + 87_000, top), 5000)
        footprint = transform(outline, to_lonlat.transform, interleaved=False)
        items.append(
            {
                "type": "Feature",
                "stac_version": "1.0.0",
                "id": name,
                "collection": "landsat-l1",
                "geometry": mapping(footprint),
                "bbox": list(footprint.bounds),
                "properties": {"datetime": f"2020-05-18T13:30:{seconds}Z", "eo:cloud_cover": cloud},
                "links": [],
                "assets": {
                    "B2": {"href": f"{name}/B2.TIF"},
                    "visual": {"href": f"./{name}/visual.TIF"},
                },
            }
        )
    cloudy = {
        **items[0],
        "id": "cloudy",
        "properties": {**items[0]["properties"], "eo:cloud_cover": 80},
    }
    (tmp_path / "items.json").write_text(
        json.dumps({"type": "FeatureCollection", "features": [*items, cloudy]})
    )
    (tmp_path / "request.yaml").write_text(EXAMPLE)
    return tmp_path


def test_two_rows_of_a_day_become_one_mosaic(folder: Path) -> None:
    request, _ = load_request(folder / "request.yaml", environ={})
    status = run(request)
    assert (status.state, status.tasks, status.incomplete) == ("succeeded", 1, 0)
    out = folder / "out/landsat-pair/mosaics/20200518T133010Z"
    for band, file, index in (("blue", "B2", 1), ("red", "visual", 1)):
        with rasterio.open(out / f"{band}.tif") as ours:
            assert ours.bounds == (694_005, -2_832_795, 778_575, -2_766_615)
            assert ours.shape == (2206, 2819)
            found = ours.read(1)
        truth = np.zeros(found.shape, found.dtype)
        for row in (1, 0):
            with rasterio.open(folder / f"LC08_row{row}" / f"{file}.TIF") as source:
                down = round((source.transform.f - TOP) / 30)
                pixels = source.read(index)[max(down, 0) :, 20 : 20 + 2819]
            start = max(-down, 0)
            height = min(len(pixels), 2206 - start)
            truth[start : start + height] = pixels[:height]
        np.testing.assert_array_equal(found, truth)
