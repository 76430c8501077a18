"""JPEG 2000, which GDAL decodes: no fault of a server and no cut file becomes a blank block."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import rasterio

from hostile import EVERY_MODE, Calm, Hostile, Spoil, made, said, serve_hostile, spoil_in, weather
from scenebeam.execution.driver import run
from scenebeam.request import RunRequest
from scenebeam.requestfile import validate_request
from scenebeam.sandbox.scenes import SCENES
from scenebeam.transfer import addresses, http

Make = Callable[..., RunRequest]
BEFORE = [scene for scene in SCENES if scene.acquired.year == 2021]
BEST = "S2A_34TGL_20210610_1_L2A"
MODES = [mode for mode in EVERY_MODE if mode not in ("flip", "lying")]
"""JPEG 2000 has no checksums: where other bytes come than the file has, no reader can tell."""
TRIED = ["shifted", "gzip", "short", "endless200", "endless206", "whole", "404"]
MIDDLE = 100_000
"""A byte behind the headers and before the end of a 10 m band."""


def write_jp2(source: Path, target: Path) -> None:
    """Rewrite an image as lossless JPEG 2000."""
    with rasterio.open(source) as file:
        pixels, profile = file.read(), file.profile
    known = {key: profile[key] for key in ("width", "height", "count", "dtype", "crs", "transform")}
    lossless = {"QUALITY": "100", "REVERSIBLE": "YES"}
    with rasterio.open(target, "w", driver="JP2OpenJPEG", **known, **lossless) as file:
        file.write(pixels)


def jp2_items(base: str) -> list[dict[str, Any]]:
    items = [scene.item(base) for scene in BEFORE]
    for item in items:
        for asset in item["assets"].values():
            asset["href"] = asset["href"].replace(".tif", ".jp2")
            asset["type"] = "image/jp2"
    return items


@pytest.fixture(scope="module")
def scenes(sandbox: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Red and SCL of the scenes of one day."""
    folder = tmp_path_factory.mktemp("jp2")
    for scene in BEFORE:
        (folder / scene.id).mkdir()
        for band in ("red", "scl"):
            write_jp2(sandbox / scene.id / f"{band}.tif", folder / scene.id / f"{band}.jp2")
    assert (folder / BEST / "red.jp2").stat().st_size > 3 * MIDDLE
    return folder


@pytest.fixture(scope="module")
def host(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hostile]:
    with serve_hostile(scenes) as server:
        server.catalog = tmp_path_factory.mktemp("catalog") / "items.json"
        items = {"type": "FeatureCollection", "features": jp2_items(server.url)}
        server.catalog.write_text(json.dumps(items))
        yield server


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch, host: Hostile) -> Iterator[None]:
    monkeypatch.setattr(http, "_WINDOW", 0.3)
    monkeypatch.setattr(addresses, "_HEADER_SECONDS", 1.0)
    yield
    host.spoil = None


@pytest.fixture(scope="module")
def calm_products() -> Calm:
    return {}


@pytest.fixture
def ask(make_request: Make, host: Hostile) -> Make:
    def make(**changes: Any) -> RunRequest:
        return make_request(catalog=str(host.catalog), **{"grid.crs": "EPSG:32634", **changes})

    return make


def missing_of(request: RunRequest) -> list[dict[str, str]]:
    """The tiles that the mosaic's red band lacks."""
    (path,) = Path(request.output).glob("mosaics/*/2*.json")
    found: list[dict[str, str]] = json.loads(path.read_text())["assets"]["red"].get(
        "scenebeam:missing",
        [],
    )
    return found


@pytest.mark.parametrize(
    "mode",
    [m if m in TRIED else pytest.param(m, marks=pytest.mark.slow) for m in MODES],
)
def test_mosaics_of_a_hostile_server(
    ask: Make,
    host: Hostile,
    calm_products: Calm,
    mode: str,
) -> None:
    request = ask()
    status = weather(host, request, spoil_in(mode, seed=1), "mosaics/", calm_products, "mosaic")
    if mode != "429-far":
        assert status.state == "succeeded", said(request, status)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("mode", ["shifted", "html206", "short", "unended", "endless200", "503"])
def test_mosaics_of_a_very_hostile_server(
    ask: Make,
    host: Hostile,
    calm_products: Calm,
    mode: str,
    seed: int,
) -> None:
    """A third of all answers."""
    spoil = spoil_in(mode, seed=seed, share=0.34)
    weather(host, ask(), spoil, "mosaics/", calm_products, "mosaic")


@pytest.mark.parametrize("status", ["404", "403"])
def test_a_file_without_its_middle_is_a_missing_tile(ask: Make, host: Hostile, status: str) -> None:
    host.spoil = Spoil(status, pattern=f"{BEST}/red", share=1.0, since=MIDDLE)
    request = ask()
    found = run(request)
    assert (found.state, found.incomplete) == ("succeeded", 1), said(request, found)
    (missing,) = missing_of(request)
    assert missing["scene"] == BEST
    assert status in missing["reason"]


@pytest.mark.parametrize("status", ["500", "503"])
def test_a_server_that_is_unwell_in_the_middle_fails_the_task(
    ask: Make, host: Hostile, calm_products: Calm, status: str
) -> None:
    request = ask(**{"limits.max_attempts": 3})
    spoil = Spoil(status, pattern=f"{BEST}/red", share=1.0, since=MIDDLE)
    found = weather(host, request, spoil, "mosaics/", calm_products, "mosaic")
    assert found.state == "failed"
    assert status in found.message


def test_two_bad_answers_change_no_byte(ask: Make, host: Hostile, calm_products: Calm) -> None:
    for number, since in enumerate((0, MIDDLE)):
        request = ask(output=f"{ask().output}-{number}")
        spoil = Spoil("503", pattern=f"{BEST}/red", share=1.0, times=2, since=since)
        status = weather(host, request, spoil, "mosaics/", calm_products, "mosaic")
        assert status.state == "succeeded"
        assert spoil.spoiled.total() == 2


def cut(folder: Path, target: Path) -> Path:
    """The scenes, one of which has lost the last tenth of its red band."""
    shutil.copytree(folder, target)
    path = target / BEST / "red.jp2"
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 9 // 10])
    return target


def test_a_file_that_is_cut_off_is_a_missing_tile(
    make_request: Make,
    scenes: Path,
    tmp_path: Path,
) -> None:
    with serve_hostile(cut(scenes, tmp_path / "cut")) as server:
        items = {"type": "FeatureCollection", "features": jp2_items(server.url)}
        (tmp_path / "items.json").write_text(json.dumps(items))
        request = make_request(catalog=str(tmp_path / "items.json"))
        found = run(request)
    assert (found.state, found.incomplete) == ("succeeded", 1), said(request, found)
    assert [one["scene"] for one in missing_of(request)] == [BEST]


def test_a_cut_file_of_a_time_series_is_a_missing_tile(scenes: Path, tmp_path: Path) -> None:
    root = cut(scenes, tmp_path / "cut")
    table = tmp_path / "time_series.csv"
    names = "|".join(scene.id for scene in BEFORE)
    table.write_text(f"acq_datetime,tile_ids\n2021-06-10T09:20:31Z,{names}\n")
    document = {
        "catalog": {"time_series": str(table), "root": str(root)},
        "collections": ["sentinel-2-l2a"],
        "product": {"kind": "mosaic", "bands": ["red", "scl"]},
        "grid": {"crs": "EPSG:32634"},
        "output": str(tmp_path / "out"),
        "runner": "serial",
    }
    request = validate_request(document)
    found = run(request)
    assert (found.state, found.incomplete) == ("succeeded", 1), said(request, found)
    with (tmp_path / "out" / "timestamps_aggregation_summary.csv").open(newline="") as file:
        (summary,) = csv.DictReader(file)
    assert summary["missing_files"] == f"{BEST}/red"
    assert made(request, "mosaics/")
