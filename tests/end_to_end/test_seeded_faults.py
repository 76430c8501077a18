"""How many seeded faults the image checks find, and that they cry out over none of the real files."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio

from scenebeam.collections import CollectionRecord, known_records
from scenebeam.raster.grid import Grid
from scenebeam.raster.reader import open_source
from scenebeam.raster.validate import ImageReport, validate
from scenebeam.raster.vrt import VrtBand, VrtSource, make_vrt
from scenebeam.request import Checks
from scenebeam.sandbox.scenes import SCENES
from scenebeam.transfer.retry import Budget

S2 = next(
    record
    for record in known_records()
    if (record.provider, record.id) == ("earth-search", "sentinel-2-l2a")
)
LANDSAT = next(
    r for r in known_records() if (r.provider, r.id) == ("planetary-computer", "landsat-c2-l2")
)
LINEAR = next(record for record in known_records() if record.id == "sentinel-1-rtc")
DB = CollectionRecord.model_validate({**LINEAR.model_dump(), "unit": "db", "nodata": -99})
SIX = ("blue", "green", "red", "nir", "swir16", "swir22")
REAL = {
    "Sentinel-2 29RKH": (S2, dict(zip(SIX, (f"sentinel-2-l2a-29RKH/B{n}.tif" for n in ("02", "03", "04", "08", "11", "12")), strict=True))),
    "Landsat 001062": (LANDSAT, {
        band: f"landsat-c2-l2-001062/LC08_L2SP_001062_20201031_20201106_02_T2_SR_B{n}.TIF"
        for band, n in zip(("blue", "green", "red", "nir08", "swir16", "swir22"), range(2, 8), strict=True)
    }),
}  # fmt: skip


def all_images(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".tif", ".tiff"))


def record_of(path: Path) -> CollectionRecord | None:
    folder = path.parent.name
    return {
        "sentinel-2-l2a-29RKH": S2,
        "landsat-c2-l2-001062": LANDSAT,
        "sentinel-1-vv-db": DB,
    }.get(folder)


def test_no_false_alarm_on_any_real_file(real_data: Path) -> None:
    images = all_images(real_data)
    assert len(images) >= 25
    for path in images:
        for record in {id(one): one for one in (None, record_of(path))}.values():
            if record is S2 and path.stem == "TCI":
                continue  # three bands of a picture are none of the measurements
            report = validate(str(path), Checks(), record)
            alarms = [one for one in report.findings if one.level != "note"]
            assert not alarms, report.explain()
    sample = real_data / "sentinel-2-sample-10m" / "S2_L2A_sample.tif"
    report = validate(str(sample), Checks(), S2, ("red", "green", "blue", "nir", "scl"))
    assert not report.findings, report.explain()
    assert list(report.bands) == ["red", "green", "blue", "nir", "scl"]


def test_no_false_alarm_on_a_stack_of_real_files(real_data: Path, tmp_path: Path) -> None:
    for number, (record, files) in enumerate(REAL.values()):
        folder = tmp_path / str(number)
        folder.mkdir()
        report = validate(str(stacked(real_data, files, folder)), Checks(), record)
        assert not report.findings, report.explain()


def stacked(
    root: Path, files: dict[str, str], folder: Path, order: dict[str, str] | None = None
) -> Path:
    """Copies of files and a VRT over them; `order` puts some under other names."""
    entries: list[VrtBand] = []
    grid: Grid | None = None
    for band, name in files.items():
        shutil.copy(root / files[(order or {}).get(band, band)], folder / f"{band}.tif")
        info = open_source(str(folder / f"{band}.tif"), 1, Budget(private=True)).info
        if grid is None:
            grid = Grid((info.height, info.width), info.transform, info.crs)
        source = VrtSource(f"{band}.tif", True, 1, info)
        entries.append(VrtBand(band, info.dtype.name, 0, 1.0, 0.0, "bilinear", [source]))
        assert name
    path = folder / "stack.vrt"
    assert grid is not None
    path.write_bytes(make_vrt(grid, entries))
    return path


def rewritten(
    path: Path, target: Path, change: Callable[[np.ndarray, float | None], np.ndarray]
) -> Path:
    with rasterio.open(path) as file:
        profile, pixels = file.profile, file.read()
    with rasterio.open(target, "w", **{**profile, "driver": "GTiff"}) as file:
        file.write(change(pixels, profile["nodata"]).astype(pixels.dtype))
    return target


def stuck(pixels: np.ndarray, nodata: float | None) -> np.ndarray:
    """Nodata stays; all else is one number."""
    return np.where(
        pixels == nodata,
        pixels,
        pixels[len(pixels) // 2, pixels.shape[1] // 2, pixels.shape[2] // 2] or 7,
    )


def of_decibels(pixels: np.ndarray, nodata: float | None) -> np.ndarray:
    """Nodata stays; all else is linear."""
    return np.where(pixels == nodata, pixels, 10 ** (pixels / 10))


ONE_FILE: dict[str, Callable[[Path, Path], Path]] = {
    "blanked band": lambda path, target: rewritten(path, target, lambda p, _: np.full_like(p, 1000)),
    "stuck value": lambda path, target: rewritten(path, target, stuck),
    "all nodata": lambda path, target: rewritten(path, target, lambda p, n: np.full_like(p, 0 if n is None else n)),
    "truncated file": lambda path, target: (target.write_bytes(path.read_bytes()[: path.stat().st_size * 4 // 5]), target)[1],
}  # fmt: skip


def seeded(real: Path, sandbox: Path, tmp_path: Path) -> Iterator[tuple[str, ImageReport, str]]:
    """(fault, report, the band that should be named) for every fault in every image that it can befall."""
    bands = [(S2, sandbox / SCENES[0].id / f"{band}.tif", band) for band in SIX]
    bands += [
        (record, real / name, band)
        for record, files in REAL.values()
        for band, name in files.items()
    ]
    bands += [(DB, path, "vv") for path in all_images(real / "sentinel-1-vv-db")]
    for fault, spoil in ONE_FILE.items():
        for number, (record, path, band) in enumerate(bands):
            folder = tmp_path / fault / str(number)
            folder.mkdir(parents=True)
            yield fault, validate(str(spoil(path, folder / f"{band}.tif")), Checks(), record), band
    sources = {"sandbox": (S2, {band: f"{SCENES[0].id}/{band}.tif" for band in SIX})}
    for name, (record, files) in {**REAL, **sources}.items():
        root = sandbox if name == "sandbox" else real
        for one, other in combinations(files, 2):
            folder = tmp_path / "pixels" / f"{name} {one} {other}"
            folder.mkdir(parents=True)
            path = stacked(root, files, folder, {one: other, other: one})
            yield (
                "swapped bands (pixels alone)",
                validate(str(path), Checks(), record),
                f"{one} and {other}",
            )
            folder = tmp_path / "names" / f"{name} {one} {other}"
            folder.mkdir(parents=True)
            path = stacked(root, files, folder)
            text = (
                path.read_text()
                .replace(f">{one}.tif", ">@")
                .replace(f">{other}.tif", f">{one}.tif")
            )
            path.write_text(text.replace(">@", f">{other}.tif"))
            yield "swapped bands (files in a VRT)", validate(str(path), Checks(), record), one
    for number, path in enumerate(all_images(real / "sentinel-1-vv-db")):
        yield "dB taken for linear", validate(str(path), Checks(), LINEAR, ["vv"]), "vv"
        linear = rewritten(path, tmp_path / f"vv_{number}.tif", of_decibels)
        yield "linear taken for dB", validate(str(linear), Checks(), DB), "vv"


@pytest.mark.slow
def test_at_least_95_of_100_seeded_faults_are_found(
    real_data: Path, sandbox: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table: dict[str, list[bool]] = {}
    for fault, report, band in seeded(real_data, sandbox, tmp_path):
        named = [one for one in report.findings if one.level != "note" and _names(one, band)]
        table.setdefault(fault, []).append(bool(named))
    found, all_of_them = sum(map(sum, table.values())), sum(map(len, table.values()))
    with capsys.disabled():
        print(f"\n\n{'seeded fault':32} found")
        for fault, hits in table.items():
            print(f"{fault:32} {sum(hits):3} of {len(hits):3}")
        print(f"{'all':32} {found:3} of {all_of_them:3}  ({100 * found / all_of_them:.1f} %)")
    assert found >= 0.95 * all_of_them
    assert all(
        all(hits) for fault, hits in table.items() if fault != "swapped bands (pixels alone)"
    )


def _names(finding: Any, band: str) -> bool:
    """Whether a finding is of the band that was spoilt; one of the whole file is."""
    return finding.band in ("", band) or finding.band in band.split(" and ") or set(finding.band.split(" and ")) == set(band.split(" and "))  # fmt: skip
