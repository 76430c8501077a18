"""The grid lies on the pixel lattice that its sources share: no pixel is moved, none averaged with its neighbors."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.warp import transform_bounds

from scenebeam.execution.driver import run
from scenebeam.request import RunRequest
from scenebeam.requestfile import validate_request

LEFT, TOP = 600_015, 5_199_975
"""Landsat's edges lie at 15 mod 30 in every zone."""


def write(
    path: Path, pixels: np.ndarray, left: float, top: float, pixel: float, nodata: float = 0
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    profile = {
        "driver": "GTiff",
        "dtype": pixels.dtype,
        "count": 1,
        "crs": "EPSG:32632",
        "nodata": nodata,
    }
    profile |= {
        "height": pixels.shape[0],
        "width": pixels.shape[1],
        "transform": Affine(pixel, 0, left, 0, -pixel, top),
    }
    with rasterio.open(
        path, "w", **profile, compress="deflate", tiled=True, blockxsize=64, blockysize=64
    ) as file:
        file.write(pixels, 1)
    return path


def item(
    name: str, collection: str, files: dict[str, Path], when: str = "2023-06-01T10:00:00Z"
) -> dict[str, Any]:
    with rasterio.open(next(iter(files.values()))) as file:
        west, south, east, north = transform_bounds(file.crs, "EPSG:4326", *file.bounds)
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    return {
        "type": "Feature", "stac_version": "1.0.0", "id": name, "collection": collection, "links": [],
        "bbox": [west, south, east, north], "geometry": {"type": "Polygon", "coordinates": [ring]},
        "properties": {"datetime": when, "eo:cloud_cover": 5.0},
        "assets": {key: {"href": str(path)} for key, path in files.items()},
    }  # fmt: skip


@pytest.fixture
def landsat(tmp_path: Path) -> Callable[..., RunRequest]:
    rng = np.random.default_rng(1)
    files = {
        "red": write(
            tmp_path / "red.tif",
            rng.integers(8000, 12_000, (120, 120)).astype("uint16"),
            LEFT,
            TOP,
            30,
        ),
        "nir08": write(
            tmp_path / "nir08.tif",
            rng.integers(15_000, 19_000, (120, 120)).astype("uint16"),
            LEFT,
            TOP,
            30,
        ),
        "qa_pixel": write(
            tmp_path / "qa.tif", np.full((120, 120), 21_824, "uint16"), LEFT, TOP, 30, nodata=1
        ),
    }
    items = [item("LC08_L2SP_194027_20230601_02_T1", "landsat-c2-l2", files)]
    (tmp_path / "items.json").write_text(
        json.dumps({"type": "FeatureCollection", "features": items})
    )

    def make(product: dict[str, Any], **more: Any) -> RunRequest:
        return validate_request(
            {
                "catalog": str(tmp_path / "items.json"), "collections": ["landsat-c2-l2"], "runner": "serial",
                "area": {"bbox": [10.315, 46.920, 10.350, 46.940]}, "product": product, "output": str(tmp_path / "out"),
                "checks": "off", **more,
            }
        )  # fmt: skip

    return make


def source(request: RunRequest, name: str, made: rasterio.DatasetReader) -> np.ndarray:
    """The source's own pixels on the ground of a product."""
    with rasterio.open(Path(str(request.catalog)).parent / f"{name}.tif") as file:
        row, column = (
            round((file.transform.f - made.transform.f) / 30),
            round((made.transform.c - file.transform.c) / 30),
        )
        return np.pad(file.read(1), 200)[200 + row :, 200 + column :][: made.height, : made.width]


@pytest.mark.parametrize("kind", ["mosaic", "stack"])
def test_landsats_pixels_stay_where_they_are(landsat: Callable[..., RunRequest], kind: str) -> None:
    product = {
        "kind": kind,
        "bands": ["red", "nir08"],
        **({"format": "geotiff"} if kind == "stack" else {}),
    }
    request = landsat(product, **({"grid": {"resolution": 30}} if kind == "stack" else {}))
    assert run(request).state == "succeeded"
    paths = sorted(path for path in Path(request.output).rglob("*.tif"))
    for path, band, name in (
        [(paths[0], 2, "nir08"), (paths[0], 1, "red")]
        if kind == "stack"
        else [(p, 1, p.stem) for p in paths]
    ):
        with rasterio.open(path) as made:
            assert (made.transform.c % 30, made.transform.f % 30, made.transform.a) == (15, 15, 30)
            found = made.read(band)
            np.testing.assert_array_equal(found, source(request, name, made))
            assert (found > 0).mean() > 0.5


def test_an_index_of_landsat_averages_no_neighbors(landsat: Callable[..., RunRequest]) -> None:
    request = landsat({"kind": "index", "index": "ndvi", "mask": False})
    assert run(request).state == "succeeded"
    (path,) = Path(request.output).rglob("ndvi.tif")
    with rasterio.open(path) as made:
        red, nir = (
            source(request, name, made).astype("float32") * 2.75e-5 - 0.2
            for name in ("red", "nir08")
        )
        with np.errstate(invalid="ignore"):
            expected = np.where(source(request, "red", made) > 0, (nir - red) / (nir + red), np.nan)
        np.testing.assert_allclose(made.read(1), expected, atol=1e-5)


ORIGINS = {
    "10 m at 5": (10, (5.0, 5.0), 10, (5.0, 5.0)),
    "10 m at multiples": (10, (0.0, 0.0), 10, (0.0, 0.0)),
    "30 m, east and north apart": (30, (15.0, 0.0), 30, (15.0, 0.0)),
    "20 m on a finer grid": (20, (10.0, 10.0), 10, (0.0, 0.0)),
    "30 m at 15 on a finer grid": (30, (15.0, 15.0), 10, (5.0, 5.0)),
    "10 m at 5 on a coarser grid": (10, (5.0, 5.0), 20, (5.0, 5.0)),
    "no whole factor": (30, (15.0, 15.0), 20, (0.0, 0.0)),
}


@pytest.mark.parametrize("name", ORIGINS)
def test_the_lattice_of_any_collection_is_found_in_its_files(tmp_path: Path, name: str) -> None:
    pixel, (x, y), resolution, expected = ORIGINS[name]
    pixels = np.random.default_rng(2).integers(1, 5000, (100, 100)).astype("uint16")
    path = write(tmp_path / "b.tif", pixels, 600_000 + x, 5_199_900 + y, pixel)
    items = [item("one", "c", {"b": path})]
    (tmp_path / "items.json").write_text(
        json.dumps({"type": "FeatureCollection", "features": items})
    )
    record = {
        "id": "c",
        "dtype": "uint16",
        "nodata": 0,
        "bands": {"b": {"asset": "b", "resolution": pixel}},
    }
    request = validate_request(
        {
            "catalog": str(tmp_path / "items.json"), "collections": [record], "product": {"kind": "mosaic", "bands": ["b"]},
            "grid": {"crs": "EPSG:32632", "resolution": resolution}, "output": str(tmp_path / "out"), "runner": "serial",
        }
    )  # fmt: skip
    assert run(request).state == "succeeded"
    (made,) = (tmp_path / "out").rglob("b.tif")
    with rasterio.open(made) as file:
        assert (file.transform.c % resolution, file.transform.f % resolution) == expected


def test_sources_of_different_lattices_share_none(tmp_path: Path) -> None:
    pixels = np.random.default_rng(3).integers(1, 5000, (100, 100)).astype("uint16")
    records, items = [], []
    for name, shift in (("a", 5), ("b", 0)):
        path = write(tmp_path / name / "x.tif", pixels, 600_000 + shift, 5_200_000 + shift, 10)
        items.append(item(name, name, {"x": path}))
        records.append(
            {
                "id": name,
                "dtype": "uint16",
                "nodata": 0,
                "bands": {"x": {"asset": "x", "resolution": 10}},
            }
        )
    (tmp_path / "items.json").write_text(
        json.dumps({"type": "FeatureCollection", "features": items})
    )
    request = validate_request(
        {
            "catalog": str(tmp_path / "items.json"), "collections": records, "product": {"kind": "mosaic", "bands": ["x"]},
            "grid": {"crs": "EPSG:32632"}, "output": str(tmp_path / "out"), "runner": "serial",
        }
    )  # fmt: skip
    assert run(request).state == "succeeded"
    (made,) = (tmp_path / "out").rglob("x.tif")
    with rasterio.open(made) as file:
        assert (file.transform.c % 10, file.transform.f % 10) == (0, 0)


def test_bounds_that_are_given_are_taken_as_they_are(landsat: Callable[..., RunRequest]) -> None:
    bounds = [600_030, 5_197_980, 602_040, 5_199_480]
    request = landsat(
        {"kind": "mosaic", "bands": ["red"]},
        grid={"crs": "EPSG:32632", "bounds": bounds, "resolution": 30},
    )
    assert run(request).state == "succeeded"
    (made,) = Path(request.output).rglob("red.tif")
    with rasterio.open(made) as file:
        assert tuple(file.bounds) == tuple(bounds)
