"""Composites of other sensors: Landsat 8 and 9 by quality bits, probabilities, and a real scene."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio

from composites import read
from scenebeam.execution.driver import run
from scenebeam.request import RunRequest
from scenebeam.requestfile import validate_request
from scenebeam.sandbox.scenes import write_image

SIDE = 200
CORNER = (600_000.0, 4_500_000.0)
NODATA = {"qa_pixel": 1}
Scenes = dict[str, dict[str, np.ndarray]]
"""Id of a scene → band → pixels."""


def write_scenes(
    folder: Path, scenes: Scenes, collection: str, resolution: int, crs: str = "EPSG:32634"
) -> Path:
    """Write the files and an ItemCollection. An id is `<platform>_<day>`."""
    from pyproj import Transformer

    items = []
    for name, bands in scenes.items():
        platform, _, day = name.partition("_")
        assets = {}
        for band, pixels in bands.items():
            path = folder / f"{name}.{band}.tif"
            write_image(path, pixels, crs, CORNER, resolution, 128, NODATA.get(band, 0))
            assets[band] = {"href": str(path), "type": "image/tiff", "roles": ["data"]}
        rows, columns = next(iter(bands.values())).shape
        to_lonlat = Transformer.from_crs(crs, 4326, always_xy=True)
        west, south, east, north = to_lonlat.transform_bounds(
            CORNER[0], CORNER[1] - rows * resolution, CORNER[0] + columns * resolution, CORNER[1]
        )
        ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
        properties = {"datetime": f"{day}T10:00:00Z", "platform": platform, "eo:cloud_cover": 10}
        items.append(
            {
                "type": "Feature",
                "stac_version": "1.0.0",
                "id": name,
                "collection": collection,
                "geometry": {"type": "Polygon", "coordinates": [ring]},
                "bbox": [west, south, east, north],
                "links": [],
                "properties": properties,
                "assets": assets,
            }
        )
    path = folder / "items.json"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": items}))
    return path


def request_for(
    catalog: Path, record: dict[str, Any], shape: tuple[int, int], **product: Any
) -> RunRequest:
    resolution = record["bands"]["red"]["resolution"]
    right, bottom = CORNER[0] + shape[1] * resolution, CORNER[1] - shape[0] * resolution
    return validate_request(
        {
            "catalog": str(catalog),
            "collections": [record],
            "dates": "2023-06",
            "grid": {
                "crs": "EPSG:32634",
                "resolution": resolution,
                "bounds": [CORNER[0], bottom, right, CORNER[1]],
            },
            "product": {"kind": "composite", "bands": ["red"], **product},
            "output": str(catalog.parent / "out"),
            "runner": "serial",
        }
    )


LANDSAT = {
    "id": "landsat",
    "dtype": "uint16",
    "nodata": 0,
    "scale": 2.75e-05,
    "offset": -0.2,
    "bands": {
        "red": {"asset": "red", "resolution": 30},
        "qa_pixel": {"asset": "qa_pixel", "resolution": 30, "categorical": True, "nodata": 1},
    },
    "mask_bits": {"qa_pixel": [1, 2, 3, 4]},
}


def landsat(seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    red = rng.integers(1, 40_000, (SIDE, SIDE)).astype(np.uint16)
    flags = rng.choice(np.array([21824, 22280, 23888, 55052], np.uint16), (SIDE, SIDE))
    return {"red": red, "qa_pixel": flags}


@pytest.mark.parametrize("mask", [True, {"band": "qa_pixel", "bits": [3, 4]}])
def test_landsat_8_and_9_are_one_series(tmp_path: Path, mask: object) -> None:
    days = {"landsat-8_2023-06-03": 1, "landsat-9_2023-06-11": 2, "landsat-8_2023-06-19": 3}
    scenes = {name: landsat(seed) for name, seed in days.items()}
    catalog = write_scenes(tmp_path, scenes, "landsat", 30)
    request = request_for(catalog, LANDSAT, (SIDE, SIDE), mask=mask, extra=["observations"])
    status = run(request)
    assert status.state == "succeeded", status.message
    bits = 0b11110 if mask is True else 0b11000
    red = np.stack([bands["red"] for bands in scenes.values()]).astype(float)
    flags = np.stack([bands["qa_pixel"] for bands in scenes.values()])
    clear = (flags & bits) == 0
    assert 0 < clear.mean() < 1
    stack = np.where(clear.any(axis=0), np.where(clear, red, np.nan), 0)
    expected = np.rint(np.nanmedian(stack, axis=0))
    np.testing.assert_array_equal(read(request, "2023-06", "red"), expected)
    np.testing.assert_array_equal(read(request, "2023-06", "observations"), clear.sum(axis=0))


def test_a_platform_can_be_preferred(tmp_path: Path) -> None:
    days = {"landsat-8_2023-06-03": 1, "landsat-9_2023-06-11": 2}
    scenes = {name: landsat(seed) for name, seed in days.items()}
    catalog = write_scenes(tmp_path, scenes, "landsat", 30)
    weights = {"distance": 0, "day": 0, "sensor": 1, "opacity": 0}
    score = {"weights": weights, "sensors": {"landsat-8": 0.2}}
    request = request_for(
        catalog, LANDSAT, (SIDE, SIDE), method="best-pixel", score=score, mask=False
    )
    status = run(request)
    assert status.state == "succeeded", status.message
    np.testing.assert_array_equal(
        read(request, "2023-06", "red"), scenes["landsat-9_2023-06-11"]["red"]
    )


def test_a_probability_with_a_threshold(tmp_path: Path) -> None:
    """The band has 20 m and the composite 10 m."""
    record = {
        "id": "probable",
        "dtype": "uint16",
        "nodata": 0,
        "bands": {
            "red": {"asset": "red", "resolution": 10},
            "cloud": {"asset": "cloud", "resolution": 20, "dtype": "uint8", "nodata": 255},
        },
    }
    rng = np.random.default_rng(9)
    red = {day: rng.integers(1, 9000, (SIDE, SIDE)).astype(np.uint16) for day in (5, 15)}
    cloud = {day: rng.integers(0, 101, (SIDE // 2, SIDE // 2)).astype(np.uint8) for day in (5, 15)}
    scenes = {f"s2_2023-06-{day:02d}": {"red": red[day]} for day in red}
    catalog = write_scenes(tmp_path, scenes, "probable", 10)
    document = json.loads(catalog.read_text())
    for item, day in zip(document["features"], red, strict=True):
        path = tmp_path / f"{day}.cloud.tif"
        write_image(path, cloud[day], "EPSG:32634", CORNER, 20, 128, nodata=255)
        item["assets"]["cloud"] = {"href": str(path)}
    catalog.write_text(json.dumps(document))
    mask = {"probability": "cloud", "above": 40}
    request = request_for(catalog, record, (SIDE, SIDE), mask=mask, method="first-clear")
    status = run(request)
    assert status.state == "succeeded", status.message
    expected = np.zeros((SIDE, SIDE), np.uint16)
    for day in red:
        clear = np.repeat(np.repeat(cloud[day] < 40, 2, axis=0), 2, axis=1)
        expected = np.where((expected == 0) & clear, red[day], expected)
    np.testing.assert_array_equal(read(request, "2023-06", "red"), expected)


@pytest.mark.parametrize("method", ["median", "medoid"])
def test_a_real_scene_on_several_dates(real_data: Path, tmp_path: Path, method: str) -> None:
    """Dates made of one scene: shifted numbers, and masks of squares beside its classes."""
    folder = real_data / "sentinel-2-l2a-29RKH"
    with rasterio.open(folder / "B04.tif") as file:
        red, profile = file.read(1), file.profile
    with rasterio.open(folder / "B08.tif") as file:
        nir = file.read(1)
    with rasterio.open(folder / "SCL.tif") as file:
        classes, class_profile = file.read(1), file.profile
    rng = np.random.default_rng(4)
    made = []
    items = []
    item = json.loads(next(folder.glob("*.json")).read_text())
    for number in range(5):
        noise = rng.integers(-300, 300, red.shape)
        bands = {"red": red, "nir": nir}
        noisy = {}
        for name, pixels in bands.items():
            moved = np.clip(pixels.astype(int) + noise, 1, 20_000)
            noisy[name] = np.where(pixels > 0, moved, 0).astype(np.uint16)
        scl = classes.copy()
        scl[number * 60 : number * 60 + 150, number * 50 : number * 50 + 200] = 9
        made.append({**noisy, "scl": scl})
        copy = {**item, "id": f"S2A_29RKH_2020030{number + 1}_0_L2A", "assets": {}}
        copy["properties"] = {**item["properties"], "datetime": f"2020-03-0{number + 1}T11:34:25Z"}
        # What names the date of the real scene.
        for key in ("s2:datastrip_id", "s2:granule_id", "s2:product_uri", "s2:datatake_id"):
            copy["properties"].pop(key, None)
        for name in ("red", "nir", "scl"):
            path = tmp_path / f"{number}.{name}.tif"
            used = class_profile if name == "scl" else profile
            with rasterio.open(path, "w", **used) as file:
                file.write(made[-1][name], 1)
            copy["assets"][name] = {**item["assets"][name], "href": str(path)}
        items.append(copy)
    catalog = tmp_path / "items.json"
    catalog.write_text(json.dumps({"type": "FeatureCollection", "features": items}))
    transform = profile["transform"]
    right = transform.c + 100 * profile["width"]
    bottom = transform.f - 100 * profile["height"]
    bounds = [transform.c, bottom, right, transform.f]
    request = validate_request(
        {
            "catalog": str(catalog),
            "collections": ["sentinel-2-l2a"],
            "dates": "2020-03",
            "grid": {"crs": "EPSG:32629", "resolution": 100, "bounds": bounds},
            "product": {"kind": "composite", "bands": ["red", "nir"], "method": method},
            "output": str(tmp_path / "out"),
            "runner": "serial",
        }
    )
    status = run(request)
    assert status.state == "succeeded", status.message
    stack = np.stack([[one["red"], one["nir"]] for one in made], axis=1).astype(float)
    scl = np.stack([one["scl"] for one in made])
    scl = np.repeat(np.repeat(scl, 2, axis=1), 2, axis=2)
    clear = (stack > 0).all(axis=0) & (scl > 0) & ~np.isin(scl, (3, 8, 9, 10))
    seen = clear.any(axis=0)
    middle = np.nanmedian(np.where(seen, np.where(clear, stack, np.nan), 0), axis=1)
    expected = np.rint(middle)
    if method == "medoid":
        away = ((stack - middle[:, None]) ** 2).sum(axis=0)
        chosen = np.where(clear, away, np.inf).argmin(axis=0)
        expected = np.take_along_axis(stack, chosen[None, None], axis=1)[:, 0]
    expected = np.where(seen, expected, 0)
    for name, image in zip(("red", "nir"), expected, strict=True):
        np.testing.assert_array_equal(read(request, "2020-03", name), image)


def test_collections_of_one_family_are_one_series(tmp_path: Path) -> None:
    """The bands have other keys in each, and the same units."""
    rng = np.random.default_rng(2)
    records, items, images = [], [], []
    for number, key in enumerate(("B04", "red_10m")):
        folder = tmp_path / key
        folder.mkdir()
        image = rng.integers(1, 9000, (SIDE, SIDE)).astype(np.uint16)
        scenes = {f"sentinel-2{'ab'[number]}_2023-06-0{number + 3}": {key: image}}
        catalog = write_scenes(folder, scenes, f"family-{key}", 10)
        items += json.loads(catalog.read_text())["features"]
        bands = {"red": {"asset": key, "resolution": 10}}
        records.append({"id": f"family-{key}", "dtype": "uint16", "nodata": 0, "bands": bands})
        images.append(image)
    catalog = tmp_path / "items.json"
    catalog.write_text(json.dumps({"type": "FeatureCollection", "features": items}))
    request = request_for(catalog, records[0], (SIDE, SIDE), method="mean", mask=False)
    both = request.model_dump(mode="json", exclude_unset=True)
    both["collections"] = records
    request = validate_request(both)
    assert run(request).state == "succeeded"
    expected = np.rint(np.stack(images).astype(float).mean(axis=0))
    np.testing.assert_array_equal(read(request, "2023-06", "red"), expected)
