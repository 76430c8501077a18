"""Validate all of an image: every block of it, a picture of it whatever it is like, and VRTs over files elsewhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import tifffile
from affine import Affine
from click.testing import CliRunner, Result

from scenebeam.cli import main
from scenebeam.errors import ReadError
from scenebeam.raster.damage import damaged_blocks, find_damage
from scenebeam.raster.preview import read_preview, to_picture
from scenebeam.raster.reader import open_source
from scenebeam.raster.validate import validate
from scenebeam.request import Checks
from scenebeam.sandbox.server import Fault, serve
from scenebeam.transfer.retry import Budget

RNG = np.random.default_rng(3)
LOOPBACK = Budget(private=True, attempts=2, first_wait=0.01)


def smooth(side: int) -> np.ndarray:
    down, right = np.mgrid[:side, :side]
    return (1500 + right // 16 * 3 + down // 16 * 2).astype("uint16")


def write(path: Path, *bands: np.ndarray, **options: Any) -> Path:
    height, width = bands[0].shape
    profile = {"driver": "COG", "compress": "deflate", "nodata": 0, "crs": "EPSG:32632", **options}
    shape = {"count": len(bands), "height": height, "width": width, "dtype": bands[0].dtype}
    transform = Affine(10, 0, 600_000, 0, -10, 5_200_000)
    with rasterio.open(path, "w", **profile, **shape, transform=transform) as file:
        file.write(np.stack(bands))
    return path


def spoil(path: Path, *numbers: int) -> None:
    """Overwrite blocks of the full-size image with zeros, by their place in the file."""
    with tifffile.TiffFile(path) as file:
        page = file.pages[0]
        places = [(page.dataoffsets[number], page.databytecounts[number]) for number in numbers]
    content = bytearray(path.read_bytes())
    for offset, size in places:
        content[offset : offset + size] = bytes(size)
    path.write_bytes(content)


def command(*words: object) -> Result:
    return CliRunner().invoke(main, ["validate", *map(str, words)])


# Every block


def test_a_damaged_block_in_the_middle_is_found_by_a_deep_look(tmp_path: Path) -> None:
    path = write(tmp_path / "B04.tif", smooth(1100), predictor=2, blocksize=256)
    assert command(path, "--deep").exit_code == 0
    spoil(path, 2 * 5 + 2)
    assert command(path).exit_code == 0, "an overview does not show it"
    done = command(path, "--deep")
    assert done.exit_code == 1
    assert (
        "red: 1 of 25 blocks cannot be decoded: (row, column) (2, 2); fetch the file again"
        in done.output
    )
    report = validate(str(path), Checks(), deep=True)
    assert [(one.level, one.check, one.band) for one in report.findings] == [
        ("error", "block", "red")
    ]


@pytest.mark.parametrize("number", range(0, 25, 6))
def test_any_block_is_found(tmp_path: Path, number: int) -> None:
    path = write(tmp_path / "B04.tif", smooth(1100), predictor=2, blocksize=256)
    spoil(path, number)
    assert f"(row, column) ({number // 5}, {number % 5})" in find_damage(str(path), 1)


def test_every_band_is_decoded(tmp_path: Path) -> None:
    """Bands that lie one after another are damaged one by one."""
    bands = [smooth(600) + offset for offset in (0, 500, 900)]
    options = {
        "driver": "GTiff",
        "tiled": True,
        "blockxsize": 256,
        "blockysize": 256,
        "interleave": "band",
    }
    path = write(tmp_path / "three.tif", *bands, **options)
    spoil(path, 9 + 4)
    report = validate(str(path), Checks(), deep=True)
    blocks = [(one.check, one.band) for one in report.findings if one.check == "block"]
    assert blocks == [("block", "band 2")]


def test_many_damaged_blocks_are_counted_and_some_named(tmp_path: Path) -> None:
    path = write(tmp_path / "B04.tif", smooth(1100), blocksize=256)
    spoil(path, *range(20))
    told = find_damage(str(path), 1)
    assert told.startswith("20 of 25 blocks cannot be decoded: (row, column) (0, 0), (0, 1)")
    assert " and 8 more; fetch the file again" in told


def test_strips_are_decoded_too(tmp_path: Path) -> None:
    path = write(tmp_path / "B04.tif", smooth(1100), driver="GTiff", blockysize=100)
    assert find_damage(str(path), 1) == ""
    spoil(path, 5)
    assert "1 of 6 blocks cannot be decoded: (row, column) (2, 0)" in find_damage(str(path), 1)


def test_a_truncated_file_is_damaged(tmp_path: Path) -> None:
    path = write(tmp_path / "B04.tif", smooth(1100), blocksize=256)
    path.write_bytes(path.read_bytes()[:-2000])
    assert find_damage(str(path), 1)
    assert command(path, "--deep").exit_code == 1


def test_a_server_that_is_unwell_is_no_damage(tmp_path: Path) -> None:
    write(tmp_path / "B04.tif", RNG.integers(1, 9000, (1100, 1100)).astype("uint16"), blocksize=256)
    with serve(tmp_path) as server:
        source = open_source(f"{server.url}/B04.tif", 1, LOOPBACK)
        server.faults.append(Fault("B04", status=503))
        with pytest.raises(ReadError) as fault:
            list(damaged_blocks(source))
        assert not fault.value.permanent
        source.close()


def test_checks_may_be_off_for_the_numbers_but_not_for_the_file(tmp_path: Path) -> None:
    path = write(tmp_path / "B04.tif", np.full((600, 600), 7, "uint16"))
    assert command(path).exit_code == 1
    assert command(path, "--set", "enabled=off").exit_code == 0
    path.write_bytes(path.read_bytes()[:-100])
    assert command(path, "--set", "enabled=off").exit_code == 1


# A picture of anything


def drawn(folder: Path, name: str) -> np.ndarray:
    with rasterio.open(folder / f"{name}.png") as file:
        assert file.driver == "PNG"
        return file.read()


def radar(side: int) -> np.ndarray:
    return RNG.gamma(4, 10**-1.2 / 4, (side, side)).astype("float32")


@pytest.mark.parametrize("driver", ["COG", "GTiff"])
def test_radar_of_more_than_a_megapixel_is_drawn(tmp_path: Path, driver: str) -> None:
    """Its checks look at full-size blocks, which are no picture."""
    pixels = radar(1300)
    pixels[:, 650:] *= 20
    layout = {"tiled": True, "blockxsize": 256, "blockysize": 256} if driver == "GTiff" else {}
    path = write(tmp_path / "vv.tif", pixels, nodata=-32768, driver=driver, **layout)
    done = command(
        path,
        "--collection",
        "sentinel-1-rtc",
        "--bands",
        "vv",
        "--screenshot",
        tmp_path / "pictures",
    )
    assert done.exit_code == 0, done.output
    found = drawn(tmp_path / "pictures", "vv")
    middle = found.shape[2] // 2
    assert found[0, :, middle + 5 :].mean() > found[0, :, : middle - 5].mean() + 50


def test_a_large_image_without_overviews_is_drawn_as_it_is(tmp_path: Path) -> None:
    pixels = smooth(2500)
    pixels[:600, :700] = 0
    path = write(
        tmp_path / "B04.tif", pixels, driver="GTiff", tiled=True, blockxsize=256, blockysize=512
    )
    source = open_source(str(path), 1, Budget())
    found = read_preview(source, 0)
    source.close()
    np.testing.assert_array_equal(found, to_picture(pixels[::3, ::3], 0))
    assert command(path, "--screenshot", tmp_path / "pictures").exit_code == 0
    opacity = drawn(tmp_path / "pictures", "B04")[-1]
    assert (opacity[:200, :233] == 0).all()
    assert (opacity[205:, 240:] == 255).all()


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (7, 1)])
def test_the_smallest_images_are_drawn(tmp_path: Path, shape: tuple[int, int]) -> None:
    path = write(tmp_path / "tiny.tif", np.full(shape, 5, "uint16"), driver="GTiff", nodata=None)
    done = command(path, "--screenshot", tmp_path / "pictures")
    assert done.exit_code == 0, done.output
    assert drawn(tmp_path / "pictures", "tiny").shape[1:] == shape


def test_an_empty_image_is_reported_and_why_there_is_no_picture(tmp_path: Path) -> None:
    empty = write(tmp_path / "empty.tif", np.zeros((64, 64), "uint16"))
    good = write(tmp_path / "B04.tif", smooth(300))
    pictures = tmp_path / "pictures"
    done = CliRunner().invoke(
        main, ["validate", str(empty), str(good), "--screenshot", str(pictures), "--json"]
    )
    assert done.exit_code == 1
    reports = json.loads(done.stdout)
    assert [one["valid"] for one in reports] == [False, True]
    assert f"no picture of {empty}: there is nothing to draw: no band has data" in done.stderr
    assert [path.name for path in pictures.iterdir()] == ["B04.png"]


def test_what_cannot_be_read_or_written_is_reported_too(tmp_path: Path) -> None:
    page = tmp_path / "page.tif"
    page.write_text("<html>")
    done = command(page, "--screenshot", tmp_path / "pictures")
    assert done.exit_code == 1
    assert f"INVALID  {page}" in done.output
    assert f"no picture of {page}: none of its bands could be read" in done.output
    good = write(tmp_path / "B04.tif", smooth(300))
    (tmp_path / "taken").write_text("a file")
    done = CliRunner().invoke(
        main, ["validate", str(good), "--screenshot", str(tmp_path / "taken" / "below")]
    )
    assert done.exit_code == 0
    assert "no picture of" in done.output


# VRTs over files elsewhere


def test_a_stack_over_files_elsewhere_is_told_which_option_allows_it(
    sandbox: Path,
    tmp_path: Path,
) -> None:
    """scenebeam's own default stack of files on this machine names them where they lie."""
    words = ["stack", "--catalog", str(sandbox / "items.json"), "--output", str(tmp_path / "out")]
    done = CliRunner().invoke(
        main, [*words, "--dates", "2021-06-10", "--set", "checks.max_nodata_percent=100"]
    )
    assert done.exit_code == 0, done.output
    stack = next((tmp_path / "out" / "stacks").glob("*/*.vrt"))
    refused = command(stack, "--collection", "sentinel-2-l2a")
    assert refused.exit_code == 1
    assert "--set outside_sources=true" in refused.output
    words = [
        "--collection",
        "sentinel-2-l2a",
        "--set",
        "outside_sources=true",
        "--set",
        "max_nodata_percent=100",
    ]
    allowed = command(stack, *words)
    assert allowed.exit_code == 0, allowed.output
