"""The real Sentinel-2 scene, served by a real STAC API and a range server, against rasterio."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.enums import Resampling
from rasterio.warp import reproject
from rasterio.windows import Window

from conftest import stac_server
from scenebeam.execution.driver import run
from scenebeam.request import RunRequest
from scenebeam.requestfile import validate_request
from scenebeam.sandbox.fields import write_calendar
from scenebeam.sandbox.server import serve

FILES = {
    "blue": "B02",
    "green": "B03",
    "red": "B04",
    "rededge1": "B05",
    "nir": "B08",
    "swir16": "B11",
    "swir22": "B12",
    "scl": "SCL",
}


@pytest.fixture(scope="module")
def api(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = real_data / "sentinel-2-l2a-29RKH"
    item = json.loads((folder / "S2A_29RKH_20200219_0_L2A.json").read_text())
    item["links"] = []
    with serve(folder) as server:
        for band, name in FILES.items():
            item["assets"][band]["href"] = f"{server.url}/{name}.tif"
        path = tmp_path_factory.mktemp("real") / "items.json"
        path.write_text(json.dumps({"type": "FeatureCollection", "features": [item]}))
        with stac_server(path) as url:
            yield url


@pytest.fixture
def request_for(api: str, real_data: Path, tmp_path: Path) -> Callable[..., RunRequest]:
    def make(grid: dict, **product: object) -> RunRequest:
        return validate_request(
            {
                "catalog": api,
                "collections": ["sentinel-2-l2a"],
                "area": {"mgrs": ["29RKH"]},
                "dates": "2020-02",
                "grid": grid,
                "product": {
                    key: value
                    for key, value in {"kind": "mosaic", "bands": list(FILES), **product}.items()
                    if value is not None
                },
                "output": str(tmp_path / "out"),
                "runner": "serial",
            }
        )

    return make


def mosaics(request: RunRequest) -> dict[str, Path]:
    assert run(request).state == "succeeded"
    return {path.stem: path for path in Path(request.output).glob("mosaics/20200219T112111Z/*.tif")}


@pytest.mark.parametrize(
    ("side", "bands"),
    [(100, ["blue", "green", "red", "nir"]), (200, ["rededge1", "swir16", "swir22", "scl"])],
)
def test_bit_for_bit_on_its_own_grid(
    real_data: Path, request_for: Callable, side: int, bands: list[str]
) -> None:
    with rasterio.open(real_data / "sentinel-2-l2a-29RKH" / f"{FILES[bands[0]]}.tif") as file:
        grid = {"crs": "EPSG:32629", "resolution": file.transform.a, "bounds": list(file.bounds)}
        assert file.transform.a == pytest.approx(side, rel=0.01)
    found = mosaics(request_for(grid, bands=bands))
    assert sorted(found) == sorted(bands)
    for band, path in found.items():
        with (
            rasterio.open(path) as ours,
            rasterio.open(real_data / "sentinel-2-l2a-29RKH" / f"{FILES[band]}.tif") as file,
        ):
            assert ours.transform == file.transform
            np.testing.assert_array_equal(ours.read(1), file.read(1))


@pytest.mark.parametrize("resampling", ["nearest", "bilinear", "cubic"])
@pytest.mark.parametrize(
    "grid",
    [{"crs": "EPSG:32628"}, {"crs": "EPSG:32630"}, {"crs": "EPSG:4326", "resolution": 0.001}],
    ids=str,
)
def test_within_one_number_of_reproject_on_another_crs(
    real_data: Path, request_for: Callable, grid: dict, resampling: str
) -> None:
    grid = {"resolution": 100, **grid}
    for band, path in mosaics(request_for(grid, resampling=resampling)).items():
        with (
            rasterio.open(path) as ours,
            rasterio.open(real_data / "sentinel-2-l2a-29RKH" / f"{FILES[band]}.tif") as file,
        ):
            expected = np.zeros(ours.shape, ours.dtypes[0])
            reproject(
                file.read(1), expected, src_transform=file.transform, src_crs=file.crs, src_nodata=0,
                dst_transform=ours.transform, dst_crs=ours.crs, dst_nodata=0,
                resampling=Resampling.nearest if band == "scl" else Resampling[resampling],
            )  # fmt: skip
            difference = np.abs(ours.read(1).astype(int) - expected.astype(int))
            assert (difference <= 1).all(), (
                f"{band}: {(difference > 1).sum()} pixels, at most {difference.max()}"
            )


def test_its_own_files_come_whole(request_for: Callable[..., RunRequest], real_data: Path) -> None:
    request = request_for({}, kind="assets")
    assert run(request).state == "succeeded"
    folder = Path(request.output) / "raw" / "S2A_29RKH_20200219_0_L2A"
    item = json.loads((folder / f"{folder.name}.json").read_text())
    for band, name in FILES.items():
        served = (real_data / "sentinel-2-l2a-29RKH" / f"{name}.tif").read_bytes()
        assert (folder / f"{band}.tif").read_bytes() == served
        assert item["assets"][band]["file:checksum"] == "1220" + hashlib.sha256(served).hexdigest()
        assert item["assets"][band]["scenebeam:shift"] == 0, (
            "its item says that the offset was taken out"
        )


@pytest.mark.parametrize("form", ["geotiff", "vrt"])
def test_six_bands_as_gdalwarp_stacks_them(
    request_for: Callable[..., RunRequest], real_data: Path, form: str
) -> None:
    request = request_for({}, kind="stack", bands=[], format=form)
    assert run(request).state == "succeeded"
    name = "S2A_29RKH_20200219_0_L2A"
    with rasterio.open(
        Path(request.output) / "stacks" / name / f"{name}.{'vrt' if form == 'vrt' else 'tif'}"
    ) as ours:
        assert ours.descriptions == ("blue", "green", "red", "nir", "swir16", "swir22")
        for number, band in enumerate(ours.descriptions, start=1):
            with rasterio.open(real_data / "sentinel-2-l2a-29RKH" / f"{FILES[band]}.tif") as file:
                expected = np.zeros(ours.shape, np.uint16)
                reproject(
                    file.read(1), expected, src_transform=file.transform, src_crs=file.crs, src_nodata=0, dst_nodata=0,
                    dst_transform=ours.transform, dst_crs=ours.crs, resampling=Resampling.bilinear,
                )  # fmt: skip
            found = ours.read(number)
            if band.startswith("swir"):
                assert np.abs(found.astype(int) - expected.astype(int)).max() <= 1
            else:
                np.testing.assert_array_equal(found, expected)


def test_its_ndvi_needs_no_offset(request_for: Callable[..., RunRequest], real_data: Path) -> None:
    with rasterio.open(real_data / "sentinel-2-l2a-29RKH" / "B04.tif") as file:
        grid = {"crs": "EPSG:32629", "resolution": file.transform.a, "bounds": list(file.bounds)}
    whole = request_for(grid, kind="index", index="ndvi", mask=False, bands=None)
    assert run(whole).state == "succeeded"
    with rasterio.open(Path(whole.output) / "indices" / "20200219T112111Z" / "ndvi.tif") as file:
        found = file.read(1)
    assert not np.isnan(found).any()
    assert found.mean(dtype=np.float64) == pytest.approx(0.0662, abs=5e-5)
    masked = whole.model_copy(
        update={
            "product": whole.product.model_copy(update={"mask": True}),
            "output": f"{whole.output}2",
        }
    )
    assert run(masked).state == "succeeded"
    with rasterio.open(Path(masked.output) / "indices" / "20200219T112111Z" / "ndvi.tif") as file:
        clear = ~np.isnan(file.read(1))
    with rasterio.open(real_data / "sentinel-2-l2a-29RKH" / "SCL.tif") as file:
        classes = file.read(1).repeat(2, axis=0).repeat(2, axis=1)
    np.testing.assert_array_equal(clear, ~np.isin(classes, (0, 3, 8, 9, 10)))


def test_chips_of_it_are_its_windows(api: str, real_data: Path, tmp_path: Path) -> None:
    """On the files' own grid, in a catalogue of chips with masks: the windows that rasterio reads."""
    folder, side = tmp_path / "chips", 24
    folder.mkdir()
    pick = np.random.default_rng(3)
    with rasterio.open(real_data / "sentinel-2-l2a-29RKH" / "B04.tif") as file:
        crs, whole, transform = file.crs, file.read(1), file.transform
    windows: dict[str, Window] = {}
    links = []
    while len(windows) < 40:
        row, column = (int(number) for number in pick.integers(0, whole.shape[0] - side, 2))
        if (whole[row : row + side, column : column + side] == 0).any():
            continue
        name = f"chip-{len(windows):03d}_2020"
        windows[name] = Window(column, row, side, side)
        (folder / name).mkdir()
        with rasterio.open(
            folder / name / "mask.tif", "w", driver="GTiff", width=side, height=side, count=1, dtype="uint8", crs=crs,
            transform=transform @ transform.translation(column, row),
        ) as mask:  # fmt: skip
            mask.write(np.ones((1, side, side), np.uint8))
        item = {
            "type": "Feature", "stac_version": "1.1.0", "stac_extensions": [], "id": name, "collection": "real",
            "geometry": {"type": "Point", "coordinates": [-11.5, 27.5]}, "bbox": [-11.5, 27.5, -11.5, 27.5], "links": [],
            "properties": {"datetime": "2020-01-01T00:00:00Z"},
            "assets": {"mask": {"href": "./mask.tif", "roles": ["labels"]}},
        }  # fmt: skip
        (folder / name / f"{name}.json").write_text(json.dumps(item))
        links.append({"rel": "item", "href": f"./{name}/{name}.json"})
    collection = {"type": "Collection", "id": "real", "stac_version": "1.1.0", "description": "x", "license": "other",
                  "extent": {"spatial": {"bbox": [[-180, -90, 180, 90]]}, "temporal": {"interval": [[None, None]]}}}  # fmt: skip
    (folder / "collection.json").write_text(json.dumps({**collection, "links": links}))
    request = validate_request(
        {
            "catalog": api,
            "collections": ["sentinel-2-l2a"],
            "product": {
                "kind": "fields", "year": 2020, "chips": str(folder), "pixel_check": True, "cloud_cover_pixel": 100,
                "crop_calendar": str(write_calendar(tmp_path / "calendar", 45, 55)), "nodata_max": 0,
                "bands": ["red", "green", "blue", "nir", "scl"],
            },
            "output": str(folder),
            "runner": "serial",
        }
    )  # fmt: skip
    assert run(request).state == "succeeded"
    report = json.loads((folder / "report.json").read_text())
    assert report["successful"] == len(windows), report
    with rasterio.open(real_data / "sentinel-2-l2a-29RKH" / "SCL.tif") as file:
        classes = file.read(1).repeat(2, axis=0).repeat(2, axis=1)
    for name, window in windows.items():
        for season in ("planting", "harvest"):
            with rasterio.open(folder / name / f"{name}_{season}_image_s2.tif") as image:
                assert image.descriptions == ("red", "green", "blue", "nir", "scl")
                with rasterio.open(folder / name / "mask.tif") as mask:
                    assert (image.crs, image.transform, image.shape) == (
                        mask.crs,
                        mask.transform,
                        mask.shape,
                    )
                for number, band in enumerate(image.descriptions[:4], start=1):
                    with rasterio.open(
                        real_data / "sentinel-2-l2a-29RKH" / f"{FILES[band]}.tif"
                    ) as file:
                        np.testing.assert_array_equal(
                            image.read(number), file.read(1, window=window)
                        )
                here = classes[
                    window.row_off : window.row_off + side, window.col_off : window.col_off + side
                ]
                np.testing.assert_array_equal(image.read(5), here)
            told = json.loads((folder / name / f"{name}_{season}_s2.json").read_text())[
                "properties"
            ]
            assert told["eo:cloud_cover"] == pytest.approx(
                100 * np.isin(here, (3, 8, 9, 10)).mean(), abs=1e-3
            )
