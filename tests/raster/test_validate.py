"""Validate: files as they come, whole and broken, named and nameless; VRTs before GDAL sees them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from click.testing import CliRunner

from scenebeam.cli import main
from scenebeam.collections import CollectionRecord, known_records
from scenebeam.raster.identify import identify
from scenebeam.raster.reader import open_source
from scenebeam.raster.validate import ImageReport, validate
from scenebeam.raster.vrt import VrtBand, VrtSource, make_vrt
from scenebeam.request import Checks
from scenebeam.sandbox.server import serve
from scenebeam.transfer.retry import Budget

SIX = ("blue", "green", "red", "nir", "swir16", "swir22")
S2 = next(
    record
    for record in known_records()
    if record.provider == "earth-search" and record.id == "sentinel-2-l2a"
)
RTC = next(record for record in known_records() if record.id == "sentinel-1-rtc")
SPECTRUM = {"blue": 500, "green": 800, "red": 600, "nir": 3200, "swir16": 2000, "swir22": 1100}
"""Of fields, more or less."""


def pixels(band: str, shape: tuple[int, int] = (600, 600), dtype: str = "uint16") -> np.ndarray:
    rng = np.random.default_rng(len(band))
    ground = np.linspace(0.8, 1.2, shape[1])[None, :]
    return (SPECTRUM.get(band, 1000) * ground + rng.normal(0, 25, shape)).clip(1).astype(dtype)


def write(
    path: Path, bands: Sequence[np.ndarray], names: Sequence[str] = (), **options: Any
) -> Path:
    height, width = bands[0].shape
    resolution = options.pop("resolution", 10)
    with rasterio.open(
        path, "w", **{"driver": "COG", "compress": "deflate", "nodata": 0, **options}, count=len(bands), height=height,
        width=width, dtype=bands[0].dtype, crs="EPSG:32634", transform=Affine(resolution, 0, 600_000, 0, -resolution, 4_500_000),
    ) as file:  # fmt: skip
        file.write(np.stack(bands))
        for number, name in enumerate(names, start=1):
            file.set_band_description(number, name)
    return path


@pytest.fixture
def stack(tmp_path: Path) -> Path:
    return write(
        tmp_path / "stack.tif", [pixels(band) for band in SIX], [name.upper() for name in SIX]
    )


def told(report: ImageReport, level: str = "error") -> list[str]:
    return [one.check for one in report.findings if one.level == level]


def test_a_good_stack_by_its_descriptions_in_any_case(stack: Path) -> None:
    report = validate(str(stack), Checks(), S2)
    assert report.valid
    assert not report.findings
    assert report.bands == {name: number for number, name in enumerate(SIX, start=1)}
    assert report.statistics["nir"].mean == pytest.approx(3200, rel=0.02)


@pytest.mark.parametrize(
    ("name", "band"),
    [
        ("B04.tif", "red"), ("b8a_20m.tif", "nir08"), ("T34TGL_20210610T092031_B11_20m.tif", "swir16"), ("SCL.tif", "scl"),
        ("LC08_L2SP_001062_20201031_20201106_02_T2_SR_B5.TIF", "nir08"), ("LC08_X_QA_PIXEL.TIF", "qa_pixel"),
        ("S1A_IW_GRDH_VH_rtc.tif", "vh"), ("nir.tif", "nir"), ("picture.tif", "band 1"), ("Copernicus_DSM_COG_10.tif", "band 1"),
    ],
)  # fmt: skip
def test_one_band_by_the_name_of_its_file(name: str, band: str) -> None:
    assert [one.name for one in identify(f"/data/{name}", [""], None)] == [band]


def test_by_position_only_where_the_count_is_right(tmp_path: Path) -> None:
    path = write(tmp_path / "nameless.tif", [pixels(band) for band in SIX])
    assert list(validate(str(path), Checks(), S2).bands) == list(SIX)
    four = write(tmp_path / "four.tif", [pixels(band) for band in SIX[:4]])
    assert list(validate(str(four), Checks(), S2, SIX[:4]).bands) == list(SIX[:4])
    report = validate(str(four), Checks(), S2)
    assert list(report.bands) == ["band 1", "band 2", "band 3", "band 4"]
    assert told(report) == ["band"] * 6, "not one of the required bands can be told"


def test_a_band_that_should_be_there_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "five.tif", [pixels(band) for band in SIX[:5]], SIX[:5])
    report = validate(str(path), Checks(), S2)
    assert [(one.check, one.band) for one in report.findings] == [("band", "swir22")]
    assert "swir22 is missing; it holds blue, green, red, nir, swir16" in report.findings[0].message
    more = validate(str(path), Checks(), S2, SIX[:4])
    assert more.valid
    assert told(more, "warning") == ["band"], "a count that differs is a warning"


def test_another_order_is_a_warning_and_a_name_twice_an_error(tmp_path: Path) -> None:
    names = ("red", "green", "blue")
    path = write(tmp_path / "rgb.tif", [pixels(band) for band in names], names)
    report = validate(str(path), Checks(), S2, ("blue", "green", "red"))
    assert report.valid
    assert told(report, "warning") == ["order"]
    twice = write(tmp_path / "twice.tif", [pixels("red"), pixels("nir")], ("red", "B04"))
    assert told(validate(str(twice), Checks(), S2, ("red",))) == ["order"]
    liar = write(tmp_path / "B08.tif", [pixels("red")], ("red",))
    assert told(validate(str(liar), Checks(), S2)) == ["order"], (
        "its name says another band than its description"
    )


@pytest.mark.parametrize("pair", [("red", "nir"), ("green", "swir16"), ("blue", "nir")])
def test_bands_in_each_others_place_are_noticed(tmp_path: Path, pair: tuple[str, str]) -> None:
    other = dict(zip(SIX, SIX, strict=True)) | {pair[0]: pair[1], pair[1]: pair[0]}
    path = write(tmp_path / "swapped.tif", [pixels(other[band]) for band in SIX], SIX)
    report = validate(str(path), Checks(), S2)
    assert told(report, "warning") == ["order"]
    assert set(report.findings[0].band.split(" and ")) == set(pair)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda p: p.write_bytes(b""), "is an empty file"),
        (lambda p: p.write_bytes(p.read_bytes()[: p.stat().st_size * 3 // 4]), "truncated"),
        (lambda p: p.write_bytes(b"NOT A VALID GEOTIFF"), "cannot be opened as an image"),
        (lambda p: p.write_bytes(b"<html>not found</html>"), "cannot be opened as an image"),
        (lambda p: p.unlink(), "cannot be read"),
        (lambda p: p.write_bytes(p.read_bytes()[:-3000] + bytes(3000)), "corrupt"),
    ],
)
def test_a_broken_file_is_a_finding_not_a_crash(stack: Path, spoil: Callable, words: str) -> None:
    spoil(stack)
    report = validate(str(stack), Checks(), S2)
    assert not report.valid
    assert words in " ".join(one.message for one in report.findings)


def test_a_truncated_file_in_strips_is_told_too(tmp_path: Path) -> None:
    path = write(tmp_path / "B04.tif", [pixels("red")], driver="GTiff", compress="none")
    assert validate(str(path), Checks()).valid
    path.write_bytes(path.read_bytes()[:-5000])
    assert "truncated" in validate(str(path), Checks()).findings[0].message


def test_without_overviews_blocks_from_all_over_it_are_looked_at(tmp_path: Path) -> None:
    red = pixels("red", (3000, 3000))
    path = write(
        tmp_path / "B04.tif", [red], driver="GTiff", tiled=True, blockxsize=256, blockysize=256
    )
    assert validate(str(path), Checks(), S2).statistics["red"].mean == pytest.approx(
        red.mean(), rel=0.01
    )
    red[: 3000 * 6 // 10] = 0
    path = write(
        tmp_path / "B04.tif", [red], driver="GTiff", tiled=True, blockxsize=256, blockysize=256
    )
    assert told(validate(str(path), Checks(), S2)) == ["nodata"]


def test_little_is_read_of_a_large_file(tmp_path: Path) -> None:
    write(tmp_path / "B04.tif", [pixels("red", (4096, 4096))], blocksize=512, overviews="AUTO")
    with serve(tmp_path) as server:
        assert validate(f"{server.url}/B04.tif", Checks(), S2).valid
        assert server.bytes_sent < 0.15 * (tmp_path / "B04.tif").stat().st_size


def radar(tmp_path: Path, unit: str) -> Path:
    decibels = np.random.default_rng(1).normal([[-9]], 4, (500, 500))
    both = [decibels, decibels - 7]
    bands = [(10 ** (one / 10) if unit == "linear" else one).astype(np.float32) for one in both]
    return write(tmp_path / f"{unit}.tif", bands, ("VV", "VH"), nodata=-32768)


def test_radar_by_the_unit_of_its_record(tmp_path: Path) -> None:
    in_db = CollectionRecord.model_validate({**RTC.model_dump(), "unit": "db"})
    linear, db = radar(tmp_path, "linear"), radar(tmp_path, "db")
    assert validate(str(linear), Checks(), RTC).valid
    assert validate(str(db), Checks(), in_db).valid
    assert set(told(validate(str(db), Checks(), RTC))) == {"unit"}
    assert set(told(validate(str(linear), Checks(), in_db))) == {"unit"}
    assert told(validate(str(db), Checks()), "note") == ["unit", "unit"], (
        "without a record nothing is guessed"
    )


def test_both_polarizations_are_wanted(tmp_path: Path) -> None:
    decibels = np.random.default_rng(1).normal(0.1, 0.02, (300, 300)).astype(np.float32)
    path = write(tmp_path / "x.tif", [decibels, decibels], ("vv", "hh"), nodata=-32768)
    missing = [
        one.band for one in validate(str(path), Checks(), RTC).findings if one.check == "band"
    ]
    assert missing == ["vh"]


@pytest.fixture
def vrt(tmp_path: Path) -> Path:
    """Six files and a VRT over them."""
    entries = []
    for band in SIX:
        size, resolution = (600, 10) if not band.startswith("swir") else (300, 20)
        path = write(tmp_path / f"{band}.tif", [pixels(band, (size, size))], resolution=resolution)
        info = open_source(str(path), 1, Budget(private=True)).info
        entries.append(
            VrtBand(
                band, "uint16", 0, 1e-4, 0.0, "bilinear", [VrtSource(f"{band}.tif", True, 1, info)]
            )
        )
    path = tmp_path / "stack.vrt"
    from scenebeam.raster.grid import Grid

    path.write_bytes(
        make_vrt(Grid((600, 600), Affine(10, 0, 600_000, 0, -10, 4_500_000), "EPSG:32634"), entries)
    )
    return path


def test_a_good_vrt_and_its_sources(vrt: Path) -> None:
    report = validate(str(vrt), Checks(), S2)
    assert report.valid, report.explain()
    assert not report.findings
    assert report.sources == [str(vrt.parent / f"{band}.tif") for band in SIX]
    assert list(report.bands) == list(SIX)


def test_vrt_missing_source(vrt: Path) -> None:
    (vrt.parent / "nir.tif").unlink()
    report = validate(str(vrt), Checks(), S2)
    assert [(one.check, one.band) for one in report.findings] == [("source", "nir")]
    assert "nir.tif not found" in report.findings[0].message


def test_vrt_corrupt_source(vrt: Path) -> None:
    (vrt.parent / "nir.tif").write_bytes(b"NOT A VALID GEOTIFF")
    report = validate(str(vrt), Checks(), S2)
    assert told(report) == ["source"]


def test_vrt_truncated_source(vrt: Path) -> None:
    path = vrt.parent / "nir.tif"
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 9 // 10])
    report = validate(str(vrt), Checks(), S2)
    assert [(one.check, one.band) for one in report.findings] == [("source", "nir")]
    assert "truncated" in report.findings[0].message


def test_a_vrt_among_the_sources_is_looked_into(vrt: Path) -> None:
    """Else it could name any file of the machine."""
    inner = vrt.parent / "inner.vrt"
    shutil.copy(vrt.parent / "nir.tif", vrt.parent.parent / "secret.tif")
    inner.write_text(vrt.read_text().replace(">nir.tif<", ">../secret.tif<"))
    vrt.write_text(vrt.read_text().replace(">nir.tif<", ">inner.vrt<"))
    assert told(validate(str(vrt), Checks(), S2)) == ["source"]
    inner.write_text("<html/>")
    assert "not a VRT" in validate(str(vrt), Checks(), S2).findings[0].message


def test_vrt_band_count_mismatch(vrt: Path) -> None:
    report = validate(str(vrt), Checks(), S2, SIX[:4])
    assert report.valid, "bands may be optional"
    assert told(report, "warning") == ["band"]


def test_vrt_no_descriptions(vrt: Path) -> None:
    text = vrt.read_text()
    for band in SIX:
        text = text.replace(f"    <Description>{band}</Description>\n", "")
    vrt.write_text(text)
    report = validate(str(vrt), Checks(), S2)
    assert report.valid
    assert list(report.bands) == list(SIX), "by position, as there are just as many"


@pytest.mark.parametrize(
    "target", ["../elsewhere/nir.tif", "/vsicurl/http://127.0.0.1:9/nir.tif", "/vsimem/nir.tif"]
)
def test_vrt_with_a_source_elsewhere_only_when_allowed(vrt: Path, target: str) -> None:
    (vrt.parent.parent / "elsewhere").mkdir(exist_ok=True)
    shutil.copy(vrt.parent / "nir.tif", vrt.parent.parent / "elsewhere" / "nir.tif")
    vrt.write_text(vrt.read_text().replace(">nir.tif<", f">{target}<"))
    report = validate(str(vrt), Checks(), S2)
    assert told(report) == ["source"]
    assert "checks.outside_sources" in report.findings[0].message
    if target.startswith(".."):
        assert validate(str(vrt), Checks(outside_sources=True), S2).valid


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("<VRTDataset", "not valid XML"),
        ("<html/>", "not a VRT"),
        ('<!DOCTYPE x [<!ENTITY a "b">]><VRTDataset>&a;</VRTDataset>', "entities"),
        ("", "not valid XML"),
    ],
)
def test_a_vrt_that_is_none(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "x.vrt"
    path.write_text(text)
    report = validate(str(path), Checks())
    assert not report.valid
    assert words in report.findings[0].message


def test_sources_under_the_wrong_description(vrt: Path) -> None:
    text = (
        vrt.read_text()
        .replace("red.tif", "@")
        .replace("nir.tif", "red.tif")
        .replace("@", "nir.tif")
    )
    vrt.write_text(text)
    report = validate(str(vrt), Checks(), S2)
    assert told(report) == ["order", "order"]


def test_the_command(stack: Path, tmp_path: Path) -> None:
    words = ["validate", str(stack), "--collection", "sentinel-2-l2a"]
    good = CliRunner().invoke(main, [*words, "--screenshot", str(tmp_path / "pictures")])
    assert good.exit_code == 0, good.output
    assert good.output.startswith("valid")
    with rasterio.open(tmp_path / "pictures" / "stack.png") as file:
        assert (file.driver, file.count) == ("PNG", 4)
    write(
        stack,
        [pixels("blue"), *(pixels(band) for band in SIX[1:5]), np.full((600, 600), 9, np.uint16)],
        SIX,
    )
    bad = CliRunner().invoke(main, [*words, "--json"])
    assert bad.exit_code == 1
    (report,) = json.loads(bad.output)
    assert report["valid"] is False
    assert [(one["check"], one["band"]) for one in report["findings"]] == [("blank", "swir22")]
    assert set(report["statistics"]) == set(SIX)
    assert CliRunner().invoke(main, [*words, "--set", "nosuch=1"]).exit_code == 2
    assert (
        CliRunner().invoke(main, ["validate", str(stack), "--collection", "nowhere"]).exit_code == 2
    )
