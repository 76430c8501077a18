"""What VRT and GeoTIFF stacks say alike of a band on their grid, and how the files of a stack come."""

from __future__ import annotations

import csv
import hashlib
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import rasterio
import tifffile
from click.testing import CliRunner
from rasterio.transform import from_origin
from rasterio.warp import transform_bounds

from conftest import changed
from scenebeam.cli import main
from scenebeam.errors import RequestError
from scenebeam.execution.driver import run
from scenebeam.planning.search import make_plan
from scenebeam.products.stacks.request import StackRequest
from scenebeam.products.stacks.task import StackTask
from scenebeam.request import RunRequest
from scenebeam.requestfile import validate_request
from scenebeam.sandbox.server import Fault, SandboxServer, serve

SIX = ("blue", "green", "red", "nir", "swir16", "swir22")
LEFT, TOP, SIDE = 600_000, 5_200_000, 1000
"""Of the scene, in metres of UTM zone 32."""
WEST_HALF = [10.3139, 46.937, 10.3203, 46.9459]
SCENE = "S2B_32TQT_20260125_0_L2A"
RNG = np.random.default_rng(1)


def noise(side: int, low: int = 1200, high: int = 4000) -> np.ndarray:
    return RNG.integers(low, high, (side, side)).astype("uint16")


def write(
    path: Path,
    pixels: np.ndarray,
    left: float = LEFT,
    top: float = TOP,
    **options: Any,
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixel = SIDE / 100 if pixels.shape[0] != 50 else SIDE / 50
    profile = {
        "driver": "GTiff",
        "dtype": pixels.dtype,
        "crs": "EPSG:32632",
        "nodata": 0,
        "count": 1,
    }
    shape = {"height": pixels.shape[0], "width": pixels.shape[1]}
    with rasterio.open(
        path, "w", **{**profile, **shape, **options}, transform=from_origin(left, top, pixel, pixel)
    ) as file:
        file.write(pixels, 1)


def footprint(path: Path) -> list[list[float]]:
    with rasterio.open(path) as file:
        west, south, east, north = transform_bounds(file.crs, "EPSG:4326", *file.bounds)
    return [[west, south], [east, south], [east, north], [west, north], [west, south]]


@pytest.fixture
def bands(tmp_path: Path) -> Path:
    """A folder with the six bands of a scene, one kilometre wide."""
    folder = tmp_path / "bands"
    for band in SIX:
        write(folder / f"{band}.tif", noise(50 if band.startswith("swir") else 100))
    return folder


def catalog(
    bands: Path,
    where: str = "",
    hrefs: dict[str, str] | None = None,
    extra: dict[str, Any] | None = None,
    collection: str = "sentinel-2-l2a",
    **properties: Any,
) -> Path:
    """Write the catalog of one scene whose files lie in a folder, or at a server."""
    assets = {}
    for band in SIX:
        href = f"{where or bands}/{(hrefs or {}).get(band, f'{band}.tif')}"
        assets[band] = {
            "href": href,
            "type": "image/tiff; application=geotiff",
            **(extra or {}).get(band, {}),
        }
    item = {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": SCENE,
        "collection": collection,
        "geometry": {"type": "Polygon", "coordinates": [footprint(bands / "blue.tif")]},
        "properties": {"datetime": "2026-01-25T10:32:09Z", "eo:cloud_cover": 5.0, **properties},
        "links": [],
        "assets": assets,
    }
    path = bands.parent / "items.json"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": [item]}))
    return path


def stack_of(items: Path, form: str, output: str = "", /, **changes: Any) -> RunRequest:
    document: dict[str, Any] = {
        "catalog": str(items),
        "collections": ["sentinel-2-l2a"],
        "product": {"kind": "stack", "format": form},
        "output": str(items.parent / (output or f"out-{form}")),
        "runner": "serial",
        "limits": {"retry_wait": 0.01},
    }
    return validate_request(changed(document, changes))


def row(request: RunRequest) -> dict[str, str]:
    with (Path(request.output) / "stacks_status.csv").open() as file:
        (found,) = csv.DictReader(file)
    return found


def item_of(request: RunRequest) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(
        (Path(request.output) / "stacks" / SCENE / f"{SCENE}.json").read_text()
    )
    return found


def in_both_ways(
    items: Path,
    name: str = "out",
    /,
    **changes: Any,
) -> tuple[dict[str, str], dict[str, str]]:
    """The rows that a GeoTIFF stack and a VRT stack of one catalog come to, without what differs by nature."""
    rows = []
    for form in ("geotiff", "vrt"):
        request = stack_of(items, form, f"{name}-{form}", **changes)
        run(request)
        rows.append(row(request))
        for column in ("output_path", "seconds", "bytes", "retries"):
            del rows[-1][column]
    return rows[0], rows[1]


# What lies on the stack's own grid


def test_a_required_band_that_lies_elsewhere_fails_a_vrt_stack_too(bands: Path) -> None:
    write(bands / "nir_far.tif", noise(100), LEFT + 100_000, TOP + 100_000)
    geotiff, vrt = in_both_ways(catalog(bands, hrefs={"nir": "nir_far.tif"}))
    assert geotiff == vrt
    assert (vrt["status"], vrt["missing_bands"]) == ("failed_required_bands", "nir")
    assert "nir: all nodata" in vrt["message"]


def half_blank(bands: Path, columns: int = 45) -> Path:
    pixels = noise(100, 3000, 5000)
    pixels[:, :columns] = 0
    write(bands / "nir_half.tif", pixels)
    return catalog(bands, hrefs={"nir": "nir_half.tif"})


def test_a_band_that_is_blank_in_the_area_fails_a_vrt_stack_too(bands: Path) -> None:
    """The whole file is fit to use: what counts is what lies on the grid."""
    items = half_blank(bands)
    geotiff, vrt = in_both_ways(items, area={"bbox": WEST_HALF})
    assert geotiff == vrt
    assert vrt["status"] == "failed_required_bands"
    assert "90.0 % is nodata, more than checks.max_nodata_percent = 50" in vrt["message"]
    assert [one["status"] for one in in_both_ways(items, "whole")] == ["success"] * 2


def test_warnings_of_what_lies_on_the_grid_are_the_same(bands: Path) -> None:
    odd = noise(100)
    odd[:, 50:] += 40_000
    write(bands / "red.tif", odd)
    items = catalog(bands)
    geotiff, vrt = in_both_ways(items)
    assert geotiff == vrt
    assert "red: implausible" in vrt["warnings"]
    geotiff, vrt = in_both_ways(items, "west", area={"bbox": WEST_HALF})
    assert geotiff == vrt
    assert vrt["warnings"] == "", "the odd half is not in the stack"


def test_items_of_both_tell_the_valid_fraction_of_each_band(bands: Path) -> None:
    items, found = half_blank(bands), []
    for form in ("geotiff", "vrt"):
        request = stack_of(items, form)
        assert run(request).state == "succeeded"
        numbers = item_of(request)["assets"]["stack"]["raster:bands"]
        found.append([one["statistics"]["valid_percent"] for one in numbers])
    assert found[0] == found[1] == [100, 100, 100, 55, 100, 100]


def damaged_block(path: Path, side: int = 1100) -> None:
    """Write a COG of more than a megapixel, and overwrite the block in row 2, column 2 with zeros."""
    down, right = np.mgrid[:side, :side]
    smooth = (1500 + right // 16 * 3 + down // 16 * 2).astype("uint16")
    write(path, smooth, driver="COG", compress="deflate", predictor=2, blocksize=256)
    with tifffile.TiffFile(path) as file:
        page, number = file.pages[0], 2 * -(-side // 256) + 2
        offset, size = page.dataoffsets[number], page.databytecounts[number]
    content = bytearray(path.read_bytes())
    content[offset : offset + size] = bytes(size)
    path.write_bytes(content)


def test_a_damaged_block_on_the_grid_fails_both_ways(bands: Path) -> None:
    damaged_block(bands / "red.tif")
    items = catalog(bands)
    geotiff, vrt = in_both_ways(items, **{"product.bands": ["red"]})
    assert geotiff == vrt
    assert "block (2, 2) is corrupt" in vrt["message"]
    corner = [10.3139, 46.9441, 10.3165, 46.9459]
    rows = in_both_ways(items, "corner", area={"bbox": corner}, **{"product.bands": ["red"]})
    assert [one["status"] for one in rows] == ["success"] * 2, "it lies outside of the grid"


def masked(path: Path, pixels: np.ndarray, valid: np.ndarray) -> None:
    """Write a file without a nodata value whose mask band says where there is data."""
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        write(path, pixels, nodata=None)
        with rasterio.open(path, "r+") as file:
            file.write_mask(valid)


@pytest.mark.parametrize("kept", [False, True])
def test_what_the_mask_of_one_band_hides_is_no_data_in_the_stack(
    bands: Path,
    host: SandboxServer,
    kept: bool,
) -> None:
    """A GeoTIFF has one mask for all its bands. `kept`: the masked bands come from an earlier run."""
    valid = {band: np.ones((100, 100), bool) for band in ("green", "red")}
    valid["green"][:10] = False
    valid["red"][:, 90:] = False
    for band, where in valid.items():
        masked(bands / f"{band}.tif", noise(100), where)
    write(bands / "blue.tif", noise(100), nodata=None)
    record = {
        "id": "masked",
        "dtype": "uint16",
        "sensor": "optical",
        "bands": {
            band: {"asset": band, "resolution": 10, "wavelength": 0.4 + 0.1 * number}
            for number, band in enumerate(("blue", "green", "red"))
        },
    }
    items = catalog(bands, host.url, collection="masked")
    request = stack_of(items, "geotiff", collections=[record], **{"limits.max_attempts": 1})
    if kept:
        host.faults.append(Fault("blue", status=503))
        assert run(request).state == "failed"
        host.faults.clear()
    assert run(request).state == "succeeded"
    with rasterio.open(Path(request.output) / "stacks" / SCENE / f"{SCENE}.tif") as file:
        np.testing.assert_array_equal(file.dataset_mask() > 0, valid["green"] & valid["red"])
    numbers = item_of(request)["assets"]["stack"]["raster:bands"]
    assert [one["statistics"]["valid_percent"] for one in numbers] == [100, 90, 90]


def test_a_vrt_stack_takes_no_more_memory_than_it_may(bands: Path) -> None:
    items = catalog(bands)
    with pytest.raises(RequestError, match="limits.memory: a stack of"):
        make_plan(stack_of(items, "vrt", **{"limits.memory": "100MB"}))
    (task,) = make_plan(stack_of(items, "vrt")).tasks
    assert 200e6 < task.estimate.memory <= 2**30


# What a VRT stack's own files hold


@pytest.fixture
def host(bands: Path) -> Iterator[SandboxServer]:
    """The scene's files over HTTP."""
    with serve(bands) as served:
        yield served


AFTER_0400: dict[str, Any] = {"s2:processing_baseline": "05.11"}


def test_an_index_over_a_vrt_stack_reads_the_shift_of_its_files(
    bands: Path,
    host: SandboxServer,
    tmp_path: Path,
) -> None:
    """Band files carry +1000 as their provider made them, whatever the VRT over them takes out."""
    c1 = "sentinel-2-c1-l2a"
    items = catalog(bands, host.url, collection=c1, **AFTER_0400)
    request = stack_of(items, "vrt", "stack", collections=[c1])
    assert run(request).state == "succeeded"
    told = item_of(request)
    assert told["properties"]["scenebeam:values"] == "harmonized"
    assert told["assets"]["stack"]["raster:bands"][0]["offset"] == 0
    green = told["assets"]["green"]
    assert (green["scenebeam:shift"], green["scenebeam:index"], green["scenebeam:values"]) == (
        1000,
        1,
        "raw",
    )
    assert green["raster:bands"] == [
        {
            "data_type": "uint16",
            "nodata": 0,
            "scale": 1e-4,
            "offset": pytest.approx(-0.1),
            "spatial_resolution": 10,
        }
    ]
    assert green["bands"] == [{"name": "green"}]
    table = tmp_path / "series.csv"
    table.write_text(f"acq_datetime,tile_ids\n2026-01-25T10:32:09Z,{SCENE}\n")
    series = {"time_series": str(table), "root": str(tmp_path / "stack" / "stacks")}
    means = []
    for name, source in (("direct", str(items)), ("series", series)):
        ndwi = validate_request(
            {
                "catalog": source,
                "collections": [c1],
                "area": {"bbox": [10.31, 46.93, 10.33, 46.95]},
                "grid": {
                    "crs": "EPSG:32632",
                    "resolution": 10,
                    "bounds": [LEFT, TOP - SIDE, LEFT + SIDE, TOP],
                },
                "product": {"kind": "index", "index": "ndwi", "per": "scene", "mask": False},
                "output": str(tmp_path / name),
                "runner": "serial",
            }
        )
        assert run(ndwi).state == "succeeded"
        (path,) = (tmp_path / name).glob("indices/*/ndwi.tif")
        with rasterio.open(path) as file:
            means.append(file.read(1))
    np.testing.assert_array_equal(means[0], means[1])
    with rasterio.open(bands / "green.tif") as one, rasterio.open(bands / "nir.tif") as other:
        visible, infrared = one.read(1).astype(float) - 1000, other.read(1).astype(float) - 1000
    np.testing.assert_allclose(means[1], (visible - infrared) / (visible + infrared), atol=1e-6)


def test_the_numbers_of_both_formats_mean_the_same(bands: Path, host: SandboxServer) -> None:
    c1 = "sentinel-2-c1-l2a"
    items = catalog(bands, host.url, collection=c1, **AFTER_0400)
    for values in ("harmonized", "raw"):
        found = []
        for form in ("geotiff", "vrt"):
            changes = {"product.values": values, "collections": [c1]}
            request = stack_of(items, form, f"{form}-{values}", **changes)
            assert run(request).state == "succeeded"
            (path,) = (Path(request.output) / "stacks" / SCENE).glob(f"{SCENE}.[tv]*")
            with rasterio.open(path) as file:
                found.append((file.read(4), file.scales, file.offsets))
            numbers = item_of(request)["assets"]["stack"]["raster:bands"]
            assert numbers[3]["offset"] == pytest.approx(found[-1][2][3])
        np.testing.assert_array_equal(found[0][0], found[1][0])
        assert found[0][1:] == found[1][1:]


# How files come, and what is found in place


def truncated(path: Path) -> bytes:
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * 2 // 3])
    return whole


def half_made(items: Path, host: SandboxServer, **changes: Any) -> RunRequest:
    """A VRT stack that lacks one of its files for now."""
    request = stack_of(items, "vrt", **{"limits.max_attempts": 1, **changes})
    host.faults.append(Fault("swir22", status=503))
    assert run(request).state == "failed"
    host.faults.clear()
    host.reset_counts()
    return request


def test_a_truncated_file_under_its_final_name_is_fetched_again(
    bands: Path, host: SandboxServer, caplog: pytest.LogCaptureFixture
) -> None:
    request = half_made(catalog(bands, host.url), host)
    nir = Path(request.output) / "stacks" / SCENE / "nir.tif"
    whole = truncated(nir)
    assert run(request).state == "succeeded"
    assert nir.read_bytes() == whole
    assert set(host.requests) == {"/nir.tif", "/swir22.tif"}, "what is intact is not fetched again"
    told = "nir.tif existed but was damaged, and was downloaded again"
    assert told in caplog.text
    assert told in row(request)["warnings"]
    assert told not in json.dumps(item_of(request)), "an item follows from the plan alone"


@pytest.mark.parametrize("known", ["file:checksum", "file:size", "nothing"])
def test_files_in_place_are_held_against_what_is_known_of_them(
    bands: Path,
    host: SandboxServer,
    known: str,
) -> None:
    write(bands / "nir.tif", noise(100, 3000, 5000), compress="deflate")
    content = (bands / "nir.tif").read_bytes()
    facts = {
        "file:checksum": f"sha256:{hashlib.sha256(content).hexdigest()}",
        "file:size": len(content),
    }
    extra = {name: value for name, value in facts.items() if name == known}
    request = half_made(catalog(bands, host.url, extra={"nir": extra}), host)
    nir = Path(request.output) / "stacks" / SCENE / "nir.tif"
    spoilt = bytearray(content)
    if known == "file:size":
        spoilt += b"more"  # which no decoder minds
    elif known == "file:checksum":
        spoilt[-1] ^= 1
    else:
        with tifffile.TiffFile(nir) as file:
            start, size = file.pages[0].dataoffsets[1], file.pages[0].databytecounts[1]
        spoilt[start : start + size] = bytes(size)
    nir.write_bytes(spoilt)
    assert run(request).state == "succeeded"
    assert nir.read_bytes() == content
    assert host.requests["/nir.tif"] == 1


def test_an_intact_file_in_place_stays(bands: Path, host: SandboxServer) -> None:
    request = half_made(catalog(bands, host.url), host)
    assert run(request).state == "succeeded"
    assert set(host.requests) == {"/swir22.tif"}


def test_a_whole_file_without_a_checksum_is_decoded_on_arrival(
    bands: Path,
    host: SandboxServer,
) -> None:
    damaged_block(bands / "red.tif")
    items = catalog(bands, host.url)
    request = stack_of(items, "vrt", **{"product.bands": ["red"]})
    assert run(request).state == "failed"
    assert "1 of 25 blocks cannot be decoded: (row, column) (2, 2)" in row(request)["message"]
    assert not list((Path(request.output) / "stacks" / SCENE).glob("*.tif")), "it is not kept"


@pytest.mark.parametrize(
    ("checksum", "status", "told"),
    [
        ("multihash:1220" + "0" * 64, "failed_required_bands", "the catalog says 0000"),
        ("1220" + "0" * 64, "failed_required_bands", "the catalog says 0000"),
        ("multihash:0000", "success", ""),
        ("crc32c:00000000", "success", ""),
    ],
)
def test_checksums_are_checked_or_told_to_be_unchecked(
    bands: Path, host: SandboxServer, checksum: str, status: str, told: str
) -> None:
    request = stack_of(catalog(bands, host.url, extra={"nir": {"file:checksum": checksum}}), "vrt")
    run(request)
    found = row(request)
    assert (found["status"], told in found["message"]) == (status, True)
    if status == "success":
        warning = f"nir.tif: the catalog's checksum {checksum!r} is malformed or unknown, and was not checked"
        assert found["warnings"] == warning
        assert item_of(request)["properties"]["scenebeam:warnings"] == [warning]


# What a request accepts


@pytest.mark.parametrize("form", ["geotiff", "vrt"])
def test_checks_off_and_a_least_spread_of_zero_take_a_constant_band(bands: Path, form: str) -> None:
    write(bands / "red.tif", np.full((100, 100), 700, "uint16"))
    items = catalog(bands)
    assert run(stack_of(items, form, "checked")).state == "failed"
    assert run(stack_of(items, form, "off", checks=False)).state == "succeeded"
    assert (
        run(stack_of(items, form, "zero", **{"checks.optical.min_std_dev": 0})).state == "succeeded"
    )


@pytest.mark.parametrize("words", [["--set", "checks=off"], ["--set", "checks.enabled=false"]])
def test_the_command_turns_checks_off(bands: Path, tmp_path: Path, words: list[str]) -> None:
    write(bands / "red.tif", np.full((100, 100), 700, "uint16"))
    common = ["stack", "--catalog", str(catalog(bands)), "--output", str(tmp_path / "out")]
    assert CliRunner().invoke(main, common).exit_code == 1
    assert CliRunner().invoke(main, [*common, "--overwrite", *words]).exit_code == 0


def test_a_request_file_turns_checks_off(bands: Path, tmp_path: Path) -> None:
    """YAML reads `off` as false."""
    write(bands / "red.tif", np.full((100, 100), 700, "uint16"))
    request = tmp_path / "r.yaml"
    lines = [
        f"catalog: {catalog(bands)}",
        "collections: [sentinel-2-l2a]",
        "product: {kind: stack}",
        "checks: off",
    ]
    request.write_text("\n".join([*lines, "output: out", "runner: serial"]))
    done = CliRunner().invoke(main, ["run", str(request)])
    assert done.exit_code == 0, done.output


@pytest.mark.parametrize("form", ["geotiff", "vrt"])
def test_five_good_bands_of_six_make_a_stack_with_a_warning_where_the_request_says_so(
    bands: Path,
    form: str,
) -> None:
    (bands / "swir22.tif").unlink()
    items = catalog(bands)
    assert run(stack_of(items, form, "six")).state == "failed"
    request = stack_of(
        items, form, "five", **{"product.required": ["B02", "green", "red", "nir", "swir16"]}
    )
    assert run(request).state == "succeeded"
    found = row(request)
    assert (found["bands"], found["missing_bands"]) == ("blue|green|red|nir|swir16", "swir22")
    assert found["warnings"].startswith("swir22 is not in the stack: ")
    assert item_of(request)["properties"]["scenebeam:warnings"] == [found["warnings"]]
    assert run(stack_of(items, form, "none", **{"product.required": []})).state == "succeeded"


def test_required_bands_are_bands_of_the_stack(bands: Path) -> None:
    items = catalog(bands)
    with pytest.raises(
        RequestError,
        match="product.required: 'B12' is not among the bands of the stack .*blue, red",
    ):
        make_plan(
            stack_of(
                items, "vrt", **{"product.bands": ["red", "blue"], "product.required": ["B12"]}
            )
        )
    with pytest.raises(RequestError, match="product.required: visualization_only"):
        stack_of(items, "vrt", **{"product.visualization_only": True, "product.required": ["red"]})
    listed = stack_of(items, "vrt", **{"product.required": "blue, B04"})
    assert cast(StackRequest, listed.product).required == ["blue", "B04"]
    task = cast(StackTask, make_plan(listed).tasks[0])
    required = [band.name for band in task.bands if band.required]
    assert required == ["blue", "red"]


# What is told while it goes


def spent(request: RunRequest, kind: str) -> dict[str, float]:
    pairs = [pair.split("=") for pair in row(request)[kind].split("|")]
    return {band: float(value) for band, value in pairs}


def test_a_fetched_band_is_told_from_start_to_end(
    bands: Path, host: SandboxServer, caplog: pytest.LogCaptureFixture
) -> None:
    size = 1600
    large = RNG.integers(1000, 9000, (size, size)).astype("uint16")
    write(bands / "red.tif", large)
    host.faults += [Fault("red", status=503, times=2), Fault("red", cut=3_000_000, times=1)]
    request = stack_of(catalog(bands, host.url), "vrt", **{"product.bands": ["red"]})
    with caplog.at_level(logging.INFO, "scenebeam.progress"):
        assert run(request).state == "succeeded"
    lines = [record.getMessage().removeprefix(f"{SCENE}: red: ") for record in caplog.records]
    assert lines.count("downloading 5.1 MB") == 1
    assert "retry 1: the server returned 503; try 2 in " in "\n".join(lines)
    assert "retry 2: the server returned 503; try 3 in " in "\n".join(lines)
    assert "retry 3: the response was cut off, resuming at byte 3,000,000" in lines
    percents = [line for line in lines if line.endswith(" %)")]
    assert len(percents) >= 4
    assert all("B of 5.1 MB (" in line for line in percents)
    assert spent(request, "retries") == {"red": 3}
    assert spent(request, "bytes")["red"] == (bands / "red.tif").stat().st_size
    assert all(value > 0 for value in spent(request, "seconds").values())


def test_a_band_read_by_range_is_told_too(
    bands: Path,
    host: SandboxServer,
    caplog: pytest.LogCaptureFixture,
) -> None:
    host.faults.append(Fault("nir", status=503, times=1))
    request = stack_of(catalog(bands, host.url), "geotiff")
    with caplog.at_level(logging.INFO, "scenebeam.progress"):
        assert run(request).state == "succeeded"
    assert f"{SCENE}: blue: reading {host.url}/blue.tif" in caplog.text
    assert f"{SCENE}: nir: retry 1: the server returned 503" in caplog.text
    assert spent(request, "retries") == {band: float(band == "nir") for band in SIX}
    assert spent(request, "bytes")["blue"] >= (bands / "blue.tif").stat().st_size


def test_a_try_that_is_the_last_is_no_retry(bands: Path, host: SandboxServer) -> None:
    host.faults.append(Fault("nir", status=503))
    request = stack_of(catalog(bands, host.url), "vrt", **{"limits.max_attempts": 3})
    assert run(request).state == "failed"
    assert spent(request, "retries")["nir"] == 2
    assert host.requests["/nir.tif"] == 3
