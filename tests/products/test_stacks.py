"""Stacks of the sandbox: every pixel known, every way of asking, and what becomes of a band that fails."""

from __future__ import annotations

import csv
import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pystac
import pytest
import rasterio
from affine import Affine
from click.testing import CliRunner
from rasterio.enums import Resampling
from rasterio.warp import calculate_default_transform, reproject
from rio_cogeo import cog_validate

from conftest import tree
from near import check_near
from scenebeam.cli import main
from scenebeam.errors import RequestError
from scenebeam.execution.driver import run
from scenebeam.planning.search import make_plan
from scenebeam.raster import codecs, pyramid
from scenebeam.request import RunRequest
from scenebeam.sandbox import earth
from scenebeam.sandbox.scenes import SCENES, SandboxScene
from scenebeam.sandbox.server import Fault, SandboxServer

Make = Callable[..., RunRequest]
SCENE = SCENES[0]
"""Before the offset change, and whole."""
AFTER = SCENES[3]
SIX = ("blue", "green", "red", "nir", "swir16", "swir22")


@pytest.fixture
def stack_request(make_request: Make) -> Make:
    """A stack request for one scene of the sandbox, whole."""

    def make(scene: SandboxScene = SCENE, **changes: Any) -> RunRequest:
        one = {"area": None, "product": {"kind": "stack"}, "select": {"scenes": [{"id": scene.id}]}}
        return make_request(**{**one, **changes})

    return make


def made(request: RunRequest, scene: SandboxScene = SCENE, ending: str = "") -> Path:
    status = run(request)
    assert status.state == "succeeded", status.message
    folder = Path(request.output) / "stacks" / scene.id
    return next(
        path
        for path in folder.iterdir()
        if path.stem == scene.id + ending and path.suffix in (".tif", ".vrt")
    )


def item_of(request: RunRequest, scene: SandboxScene = SCENE) -> dict[str, Any]:
    return json.loads((Path(request.output) / "stacks" / scene.id / f"{scene.id}.json").read_text())


def rows(request: RunRequest) -> list[dict[str, str]]:
    with (Path(request.output) / "stacks_status.csv").open() as file:
        return list(csv.DictReader(file))


def known(scene: SandboxScene, band: str) -> np.ndarray:
    """The scene's harmonized numbers of a 10 m band, or of a 20 m band on its own grid."""
    x, y = scene.pixel_centers(earth.BANDS[band])
    return np.where(
        scene.is_valid(x, y), earth.pixel(band, x, y, earth.day_number(scene.acquired)), 0
    )


def onto(
    path: Path, grid: rasterio.DatasetReader, resampling: Resampling = Resampling.bilinear
) -> np.ndarray:
    """A file's first band on another file's grid by GDAL's warper."""
    with rasterio.open(path) as file:
        found = np.zeros(grid.shape, file.dtypes[0])
        reproject(
            file.read(1), found, src_transform=file.transform, src_crs=file.crs, src_nodata=0, dst_nodata=0,
            dst_transform=grid.transform, dst_crs=grid.crs, resampling=resampling,
        )  # fmt: skip
    return found


def local_copy(sandbox: Path, folder: Path, scene: SandboxScene = SCENE) -> Path:
    """One scene with a catalogue of its own, to be spoilt; gives the catalogue."""
    shutil.copytree(sandbox / scene.id, folder / scene.id)
    path = folder / "items.json"
    path.write_text(
        json.dumps({"type": "FeatureCollection", "features": [scene.item(str(folder))]})
    )
    return path


def changed_file(path: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    with rasterio.open(path) as file:
        profile, pixels = file.profile, file.read(1)
    profile.update(driver="GTiff", nodata=0)
    with rasterio.open(path, "w", **profile) as file:
        file.write(change(pixels), 1)


@pytest.mark.parametrize("form", ["geotiff", "vrt"])
def test_six_bands_by_wavelength_on_one_grid(stack_request: Make, sandbox: Path, form: str) -> None:
    path = made(stack_request(**{"product.format": form}))
    with rasterio.open(path) as file:
        assert file.descriptions == SIX
        assert (file.shape, file.transform.a, file.crs.to_epsg()) == ((1024, 1024), 10, 32634)
        assert set(file.nodatavals) == {0}
        assert set(file.scales) == {1e-4}
        for number, band in enumerate(SIX, start=1):
            found = file.read(number).astype(int)
            if earth.BANDS[band] == 10:
                np.testing.assert_array_equal(found, known(SCENE, band))
            else:
                expected = onto(sandbox / SCENE.id / f"{band}.tif", file).astype(int)
                assert np.abs(found - expected).max() <= 1
    if form == "geotiff":
        assert cog_validate(path, strict=True) == (True, [], [])


def test_files_of_this_machine_are_laid_over_by_a_small_vrt(
    stack_request: Make, sandbox: Path
) -> None:
    path = made(stack_request())
    assert path.suffix == ".vrt"
    text = path.read_text()
    assert path.stat().st_size < 10_000
    assert text.count('relativeToVRT="1"') == 6
    assert str(sandbox) not in text, "paths are relative"
    assert text.count('resampling="bilinear"') == 6
    assert not list(path.parent.glob("*.tif")), "nothing is copied"


def test_classes_are_nearest_and_stand_behind(stack_request: Make, sandbox: Path) -> None:
    for form in ("vrt", "geotiff"):
        path = made(
            stack_request(
                **{
                    "product.format": form,
                    "product.bands": ["SCL", "B11", "red"],
                    "output": f"{sandbox}-{form}",
                }
            )
        )
        with rasterio.open(path) as file:
            assert file.descriptions == ("red", "swir16", "scl")
            np.testing.assert_array_equal(
                file.read(3), known(SCENE, "scl").repeat(2, axis=0).repeat(2, axis=1)
            )


@pytest.mark.parametrize("form", ["geotiff", "vrt"])
@pytest.mark.parametrize("values", ["harmonized", "raw"])
def test_before_and_after_the_offset_change_reflectance_is_the_same(
    stack_request: Make, form: str, values: str
) -> None:
    for scene, shift in ((SCENE, 0), (AFTER, 1000)):
        path = made(
            stack_request(
                scene, **{"product.format": form, "product.values": values, "product.bands": ["red"], "output": f"out-{scene.id}"}
            ),
            scene,
        )  # fmt: skip
        with rasterio.open(path) as file:
            numbers = file.read(1).astype(np.int64)
            assert file.offsets[0] == pytest.approx(-1e-4 * shift if values == "raw" else 0)
            np.testing.assert_array_equal(
                numbers, known(scene, "red") + (shift if values == "raw" else 0)
            )
            np.testing.assert_allclose(
                numbers * file.scales[0] + file.offsets[0], known(scene, "red") * 1e-4
            )


@pytest.fixture(autouse=True)
def in_tmp(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


def test_each_resolution_may_have_a_stack_of_its_own(stack_request: Make) -> None:
    request = stack_request(**{"product.resolution_mode": "preserve"})
    for ending, size, bands in (("_10m", 1024, SIX[:4]), ("_20m", 512, SIX[4:])):
        with rasterio.open(made(request, ending=ending)) as file:
            assert file.descriptions == bands
            assert file.shape == (size, size)
            np.testing.assert_array_equal(file.read(1), known(SCENE, bands[0]))
    assert set(item_of(request)["assets"]) == {"stack_10m", "stack_20m"}


def test_an_area_is_cut_out_and_nothing_else_is_read(
    stack_request: Make, served_items: Path, server: SandboxServer
) -> None:
    box = [23.935, 40.585, 23.955, 40.6]
    request = stack_request(catalog=str(served_items), area={"bbox": box})
    with rasterio.open(made(request)) as file:
        left, top = (
            round((a - b) / 10)
            for a, b in ((file.transform.c, SCENE.left), (SCENE.top, file.transform.f))
        )
        height, width = file.shape
        assert 150 < height < 200
        assert 150 < width < 200
        np.testing.assert_array_equal(
            file.read(1), known(SCENE, "blue")[top : top + height, left : left + width]
        )
    whole = sum((server.folder / SCENE.id / f"{band}.tif").stat().st_size for band in SIX)
    assert server.bytes_sent < 0.6 * whole


def test_one_grid_for_all_scenes_where_the_request_names_one(
    stack_request: Make, sandbox: Path
) -> None:
    grid = {
        "crs": "EPSG:32635",
        "resolution": 20,
        "bounds": [243_000, 4_496_000, 247_000, 4_500_000],
    }
    request = stack_request(grid=grid, **{"product.bands": ["red"], "product.format": "geotiff"})
    with rasterio.open(made(request)) as file:
        assert (file.crs.to_epsg(), file.shape) == (32635, (200, 200))
        expected = onto(sandbox / SCENE.id / "red.tif", file)
        check_near(file.read(1), expected)
    with pytest.raises(RequestError, match="leave grid out"):
        make_plan(stack_request(grid=grid, **{"product.resolution_mode": "preserve"}))


def test_intersect_ends_where_the_smallest_band_does(
    stack_request: Make, sandbox: Path, tmp_path: Path
) -> None:
    catalog = local_copy(sandbox, tmp_path / "scenes")
    nir = tmp_path / "scenes" / SCENE.id / "nir.tif"
    with rasterio.open(nir) as file:
        profile, pixels = file.profile, file.read(1)
    profile.update(
        driver="GTiff",
        height=600,
        width=700,
        transform=profile["transform"] @ Affine.translation(100, 50),
    )
    with rasterio.open(nir, "w", **profile) as file:
        file.write(pixels[50:650, 100:800], 1)
    for form in ("geotiff", "vrt"):
        request = stack_request(
            catalog=str(catalog),
            output=form,
            **{"product.resolution_mode": "intersect", "product.format": form},
        )
        with rasterio.open(made(request)) as file:
            assert file.shape == (600, 700)
            np.testing.assert_array_equal(file.read(4), known(SCENE, "nir")[50:650, 100:800])
            np.testing.assert_array_equal(file.read(1), known(SCENE, "blue")[50:650, 100:800])
    request = stack_request(
        catalog=str(catalog), output="whole", **{"checks.max_nodata_percent": 100}
    )
    with rasterio.open(made(request)) as file:
        assert file.shape == (1024, 1024)
        assert (file.read(4) > 0).mean() == pytest.approx(600 * 700 / 1024**2)
    assert item_of(request)["properties"]["scenebeam:warnings"] == [
        "nir covers less than the stack: the rest of it is nodata"
    ]


@pytest.mark.parametrize("crs", ["EPSG:32635", "EPSG:4326"])
@pytest.mark.parametrize("form", ["geotiff", "vrt"])
def test_a_band_in_another_crs_goes_onto_the_first_bands(
    stack_request: Make, sandbox: Path, tmp_path: Path, form: str, crs: str
) -> None:
    catalog = local_copy(sandbox, tmp_path / "scenes")
    path = tmp_path / "scenes" / SCENE.id / "red.tif"
    with rasterio.open(path) as file:
        transform, width, height = calculate_default_transform(
            file.crs, crs, file.width, file.height, *file.bounds
        )
        pixels = np.zeros((height, width), np.uint16)
        reproject(file.read(1), pixels, src_transform=file.transform, src_crs=file.crs, src_nodata=0,
                  dst_transform=transform, dst_crs=crs, dst_nodata=0)  # fmt: skip
        profile = {**file.profile, "driver": "GTiff", "crs": crs, "transform": transform}
    with rasterio.open(path, "w", **{**profile, "height": height, "width": width}) as file:
        file.write(pixels, 1)
    request = stack_request(catalog=str(catalog), **{"product.format": form})
    with rasterio.open(made(request)) as file:
        assert file.crs.to_epsg() == 32634
        check_near(file.read(3), onto(path, file))
        np.testing.assert_array_equal(file.read(4), known(SCENE, "nir"))
    assert item_of(request)["properties"]["scenebeam:warnings"] == [
        f"red is in {crs}, the stack in EPSG:32634: warped onto it"
    ]


@pytest.mark.parametrize("form", ["geotiff", "vrt"])
def test_a_required_band_that_is_missing_fails_the_stack_and_is_named(
    stack_request: Make, sandbox: Path, tmp_path: Path, form: str
) -> None:
    catalog = local_copy(sandbox, tmp_path / "scenes")
    (tmp_path / "scenes" / SCENE.id / "swir22.tif").unlink()
    request = stack_request(catalog=str(catalog), **{"product.format": form})
    status = run(request)
    assert (status.state, status.exit_code) == ("failed", 1)
    assert "5/6 bands complete, 1 failed: swir22:" in status.message
    (row,) = rows(request)
    assert (row["status"], row["missing_bands"]) == ("failed_required_bands", "swir22")
    document = json.loads(catalog.read_text())
    del document["features"][0]["assets"]["red"]
    catalog.write_text(json.dumps(document))
    request = stack_request(catalog=str(catalog), output="two", **{"product.format": form})
    assert (
        "4/6 bands complete, 2 failed: red: the item has no file of red; swir22:"
        in run(request).message
    )


@pytest.mark.parametrize("form", ["geotiff", "vrt"])
def test_an_optional_band_that_is_missing_is_listed(
    stack_request: Make, sandbox: Path, tmp_path: Path, form: str
) -> None:
    catalog = local_copy(sandbox, tmp_path / "scenes")
    (tmp_path / "scenes" / SCENE.id / "scl.tif").unlink()
    request = stack_request(
        catalog=str(catalog),
        **{"product.format": form, "product.bands": ["blue", "coastal", "scl"]},
    )
    with rasterio.open(made(request)) as file:
        assert file.descriptions == ("blue",)
    properties = item_of(request)["properties"]
    assert [one["band"] for one in properties["scenebeam:missing_bands"]] == ["coastal", "scl"]
    assert properties["scenebeam:complete"] is False
    (row,) = rows(request)
    assert (row["status"], row["bands"], row["missing_bands"]) == ("success", "blue", "coastal|scl")


def test_a_resolution_without_any_band_is_no_stack(stack_request: Make) -> None:
    request = stack_request(
        **{"product.bands": ["blue", "coastal"], "product.resolution_mode": "preserve"}
    )
    status = run(request)
    assert status.state == "failed"
    assert (
        "1/2 bands complete, 1 failed: coastal: the item has no file of coastal" in status.message
    )


def test_bands_come_from_the_command_line_then_the_environment_then_the_request(
    monkeypatch: pytest.MonkeyPatch, sandbox: Path, tmp_path: Path
) -> None:
    request = tmp_path / "r.yaml"
    request.write_text(
        f"{{catalog: {sandbox}/items.json, collections: [sentinel-2-l2a], output: out, product: {{kind: stack, bands: [nir]}}}}"
    )
    words = ["plan", str(request), "--show-request", "--json"]

    def bands(*more: str) -> list[str]:
        return json.loads(CliRunner().invoke(main, [*words, *more]).output)["request"]["product"][
            "bands"
        ]

    assert bands() == ["nir"]
    monkeypatch.setenv("SCENEBEAM_BANDS", "green,B08")
    assert bands() == ["green", "B08"]
    assert bands("--set", "product.bands=red") == ["red"]


def test_a_band_that_fails_for_now_loses_none_of_the_others(
    stack_request: Make, served_items: Path, server: SandboxServer
) -> None:
    request = stack_request(catalog=str(served_items), **{"limits.max_attempts": 1})
    server.faults.append(Fault(f"{SCENE.id}/nir.tif", status=503))
    status = run(request)
    assert status.state == "failed"
    assert "5/6 bands complete, 1 failed: nir:" in status.message
    server.faults.clear()
    server.reset_counts()
    calm = made(stack_request(output="calm"))
    path = made(request)
    read = {name.rpartition("/")[2] for name, start, _ in server.ranges if start > 0}
    assert read == {"nir.tif"}, "what is finished is not read again, but for headers"
    with rasterio.open(calm) as one, rasterio.open(path) as other:
        np.testing.assert_array_equal(one.read(4), other.read(4))
    assert not list(Path(request.output).glob("parts/**/*.part"))


def test_fetched_bands_are_gone_on_with(
    stack_request: Make, served_items: Path, server: SandboxServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:  # fmt: skip
    monkeypatch.setattr("scenebeam.transfer.download._MAX_STALLS", 1)
    request = stack_request(
        catalog=str(served_items), **{"product.format": "vrt", "limits.max_attempts": 1}
    )
    server.faults = [Fault(f"{SCENE.id}/nir.tif", status=503)]
    assert run(request).state == "failed"  # planned, with sizes and headers
    server.faults = [
        Fault(f"{SCENE.id}/nir.tif", times=1, cut=100_000),
        Fault(f"{SCENE.id}/nir.tif", status=503),
    ]
    assert run(request).state == "failed"
    server.faults.clear()
    server.reset_counts()
    with caplog.at_level(logging.INFO, "scenebeam.progress"):
        path = made(request)
    assert "blue.tif already exists, skipping" in caplog.text
    assert "6/6 bands complete" in caplog.text
    assert {(name.rpartition("/")[2], start >= 100_000) for name, start, _ in server.ranges} == {
        ("nir.tif", True)
    }
    with rasterio.open(path) as file:
        assert (
            file.files[1:] == [str(path.parent / f"{band}.tif") for band in SIX]
            or len(file.files) > 1
        )
        np.testing.assert_array_equal(file.read(4), known(SCENE, "nir"))
    moved = path.parent.rename(path.parents[2] / "elsewhere") / path.name
    with rasterio.open(moved) as file:
        np.testing.assert_array_equal(file.read(1), known(SCENE, "blue"))
    assert {"blue", "nir", "stack"} <= set(
        json.loads((moved.parent / f"{SCENE.id}.json").read_text())["assets"]
    )


def test_progress_is_told_band_by_band(
    stack_request: Make, served_items: Path, server: SandboxServer, caplog: pytest.LogCaptureFixture
) -> None:
    server.faults.append(Fault(f"{SCENE.id}/swir22.tif", status=404))
    with caplog.at_level(logging.INFO, "scenebeam.progress"):
        run(stack_request(catalog=str(served_items)))
    told = [record.getMessage() for record in caplog.records if record.name == "scenebeam.progress"]
    assert any("swir22 failed" in line and "404" in line for line in told)
    assert told[-1].endswith("5/6 bands complete, 1 failed")


def with_visual(sandbox: Path, folder: Path, server: str = "") -> Path:
    catalog = local_copy(sandbox, folder)
    bands = []
    for band in ("red", "green", "blue"):
        with rasterio.open(folder / SCENE.id / f"{band}.tif") as file:
            bands.append((file.read(1) // 20).clip(1, 255).astype(np.uint8))
            profile = {**file.profile, "driver": "GTiff", "count": 3, "dtype": "uint8"}
    with rasterio.open(
        folder / SCENE.id / "TCI.tif", "w", **{**profile, "interleave": "pixel"}
    ) as file:
        file.write(np.stack(bands))
    document = json.loads(catalog.read_text())
    href = f"{server or folder}/{SCENE.id}/TCI.tif"
    document["features"][0]["assets"]["visual"] = {"href": href, "type": "image/tiff"}
    catalog.write_text(json.dumps(document))
    return catalog


@pytest.mark.parametrize("form", ["geotiff", "vrt"])
def test_visualization_only_takes_the_true_colour_image_and_says_so(
    stack_request: Make, sandbox: Path, tmp_path: Path, form: str, caplog: pytest.LogCaptureFixture
) -> None:
    from scenebeam.sandbox.server import serve

    folder = tmp_path / "scenes"
    with serve(folder) as server:
        catalog = with_visual(sandbox, folder, server.url)
        request = stack_request(
            catalog=str(catalog), **{"product.visualization_only": True, "product.format": form}
        )
        path = made(request)
        assert {name.rpartition("/")[2] for name in server.requests} == {"TCI.tif"}
    with rasterio.open(path) as file:
        assert file.descriptions == ("visual_red", "visual_green", "visual_blue")
        assert file.dtypes == ("uint8",) * 3
    item = item_of(request)
    assert item["properties"]["scenebeam:analysis_ready"] is False
    assert "spectral analysis not possible" in item["properties"]["scenebeam:warnings"][0]
    assert "Visualization mode: spectral analysis not possible" in caplog.text
    if form == "vrt":
        assert sorted(one.name for one in path.parent.iterdir()) == [
            f"{SCENE.id}.json",
            f"{SCENE.id}.vrt",
            "visual.tif",
        ]


def test_without_a_true_colour_image_the_command_says_so(sandbox: Path, tmp_path: Path) -> None:
    words = [
        "stack",
        "--catalog",
        f"{sandbox}/items.json",
        "--visualization-only",
        "--output",
        str(tmp_path / "v"),
    ]
    told = CliRunner().invoke(main, words)
    assert told.exit_code == 1
    assert "No visualization asset available for this item" in told.output
    told = CliRunner().invoke(main, [*words, "--bands", "red"])
    assert told.exit_code == 2
    assert "name no bands" in told.output


SPOILT: dict[str, tuple[Callable[[np.ndarray], np.ndarray], str]] = {
    "blank": (lambda pixels: np.full_like(pixels, 700), "blank"),
    "all nodata": (np.zeros_like, "nodata|blank"),
    "half nodata": (lambda pixels: np.where(np.arange(len(pixels))[:, None] < 600, 0, pixels), "more than checks.max_nodata_percent"),
}  # fmt: skip


@pytest.mark.parametrize("form", ["geotiff", "vrt"])
@pytest.mark.parametrize("fault", SPOILT)
def test_a_band_that_is_not_fit_to_use_fails_the_stack(
    stack_request: Make, sandbox: Path, tmp_path: Path, form: str, fault: str
) -> None:
    catalog = local_copy(sandbox, tmp_path / "scenes")
    change, told = SPOILT[fault]
    changed_file(tmp_path / "scenes" / SCENE.id / "green.tif", change)
    request = stack_request(catalog=str(catalog), **{"product.format": form})
    status = run(request)
    assert status.state == "failed"
    assert "5/6 bands complete, 1 failed: green: " in status.message
    assert any(word in status.message for word in told.split("|"))
    if fault == "half nodata":
        made(stack_request(catalog=str(catalog), **{"product.format": form, "checks.max_nodata_percent": 70, "output": "x"}))  # fmt: skip


def test_a_screenshot_if_it_is_asked_for(stack_request: Make) -> None:
    request = stack_request(**{"checks.screenshot": True})
    picture = made(request).with_suffix(".png")
    with rasterio.open(picture) as file:
        assert (file.driver, file.count) == ("PNG", 4)
        assert file.read(1).std() > 20
    assert item_of(request)["assets"]["thumbnail"]["roles"] == ["thumbnail"]


@pytest.mark.parametrize("form", ["geotiff", "vrt"])
def test_the_same_bytes_on_every_runner_and_valid_items(
    make_request: Make, served_items: Path, tmp_path: Path, form: str
) -> None:
    trees = []
    for runner in ("serial", "direct"):
        request = make_request(
            catalog=str(served_items), runner=runner, output=str(tmp_path / runner),
            product={"kind": "stack", "format": form}, checks={"max_nodata_percent": 100},
        )  # fmt: skip
        assert run(request).state == "succeeded"
        trees.append({k: v for k, v in tree(tmp_path / runner).items() if k.startswith("stacks/")})
    assert trees[0] == trees[1]
    for path in (tmp_path / "serial").glob("stacks/*/*.json"):
        item = json.loads(path.read_text())
        pystac.Item.from_dict({**item, "stac_extensions": []}).validate()


def test_too_large_for_the_memory_is_said_before(stack_request: Make, served_items: Path) -> None:
    with pytest.raises(RequestError, match="limits.memory: a stack of"):
        make_plan(stack_request(catalog=str(served_items), **{"limits.memory": "100MB"}))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"product.bands": ["thermal"]}, "unknown band 'thermal'"),
        ({"product.format": "vrt", "product.compression": "zstd"}, "a VRT holds no pixels"),
        (
            {"product.format": "vrt", "output": "gs://bucket/x"},
            "cannot refer to files on this machine",
        ),
        ({"product.resolution_mode": "other"}, "product.resolution_mode"),
    ],
)
def test_what_cannot_be_is_refused(stack_request: Make, changes: dict[str, Any], told: str) -> None:
    with pytest.raises(RequestError, match=told):
        make_plan(stack_request(**changes))


def test_files_that_were_downloaded_before_are_stacked_where_they_lie(
    stack_request: Make, make_request: Make, served_items: Path, tmp_path: Path
) -> None:
    """The shift that their items tell is taken out by the VRT itself."""
    raw = make_request(
        catalog=str(served_items), area=None, select={"scenes": [{"id": AFTER.id}]}, output=str(tmp_path / "files"),
        product={"kind": "assets", "bands": ["B02", "B03", "B04", "B08", "B11", "B12"]},
    )  # fmt: skip
    assert run(raw).state == "succeeded"
    series = {
        "time_series": str(tmp_path / "files" / "time_serie.csv"),
        "root": str(tmp_path / "files" / "raw"),
    }
    path = made(stack_request(AFTER, catalog=series, select={}, dates=[]), AFTER)
    assert path.suffix == ".vrt"
    assert ">../../../files/raw/" in path.read_text()
    with rasterio.open(path) as file:
        assert file.descriptions == SIX
        np.testing.assert_array_equal(file.read(4), known(AFTER, "nir"))


def test_a_whole_scene_is_copied_block_by_block(
    stack_request: Make, sandbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Raw numbers on the scene's own grid: only overviews are encoded, where the file's are others."""
    encoded: list[np.ndarray] = []

    def encode(block: np.ndarray, codec: str) -> bytes:
        encoded.append(block)
        return codecs.encode(block, codec)

    monkeypatch.setattr(pyramid, "encode", encode)
    product = {"product.bands": ["red", "nir"], "product.values": "raw"}
    request = stack_request(**product, **{"product.format": "geotiff"})
    path = made(request)
    assert len(encoded) == 2 * (512 // 256) ** 2, "the blocks of one overview of two bands"
    for number, band in enumerate(["red", "nir"], start=1):
        with (
            rasterio.open(path) as file,
            rasterio.open(sandbox / SCENE.id / f"{band}.tif") as source,
        ):
            assert file.block_shapes[number - 1] == source.block_shapes[0]
            np.testing.assert_array_equal(file.read(number), source.read(1))
            valid = 100 * float((source.read(1) != 0).mean())
    (statistics,) = [
        band["statistics"]
        for band in next(iter(item_of(request)["assets"].values()))["raster:bands"][1:]
    ]
    assert statistics["valid_percent"] == pytest.approx(valid, abs=2)
