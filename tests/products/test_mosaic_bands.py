"""Bands of a mosaic are independent: one that no scene has leaves the others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import scenebeam
from conftest import tree
from scenebeam.execution.driver import run
from series import item_of, row, rows_of, series_request, stamp, statuses, tile, write_table

THREE = {"kind": "mosaic", "bands": ["red", "nir", "scl"]}
NO_BAND = "the scene has no such band"


@pytest.fixture
def without_scl(tmp_path: Path) -> Path:
    tile(tmp_path / "raw", "A", "B04", "B08")
    tile(tmp_path / "raw", "B", "B04", "B08", "SCL")
    write_table(tmp_path / "time_serie.csv", row("02", "A"), row("12", "B"))
    return tmp_path


def test_the_other_bands_are_made_where_no_scene_has_one(without_scl: Path) -> None:
    request = series_request(without_scl, product=THREE)
    status = run(request)
    assert (status.state, status.done, status.failed, status.incomplete) == ("succeeded", 2, 0, 1)
    folder = without_scl / "out" / "mosaics" / stamp("02")
    assert sorted(path.name for path in folder.glob("*.tif")) == ["nir.tif", "red.tif"]
    item = item_of(without_scl, "02")
    assert set(item["assets"]) == {"red", "nir", "thumbnail"}
    assert item["properties"]["scenebeam:complete"] is False
    missing = [{"band": "scl", "scene": "A", "reason": NO_BAND}]
    assert item["properties"]["scenebeam:missing"] == missing
    assert "scenebeam:missing" not in item_of(without_scl, "12")["properties"]
    ids = pq.read_table(without_scl / "out" / "items.parquet").column("id").to_pylist()
    assert ids == [stamp("02"), stamp("12")]


def test_the_tables_name_the_band_that_is_missing(without_scl: Path) -> None:
    run(series_request(without_scl, product=THREE))
    summary, whole = rows_of(without_scl, "timestamps_aggregation_summary.csv")
    assert summary == {
        "timestamp": stamp("02"),
        "success": "False",
        "failed_bands": "scl",
        "missing_files": "A/scl",
        "error_message": "incomplete: no scene has scl",
        "output_folder": f"mosaics/{stamp('02')}",
    }
    assert (whole["success"], whole["failed_bands"]) == ("True", "")
    assert statuses(without_scl) == {stamp("02"): "failed_missing_inputs", stamp("12"): "success"}
    bands = rows_of(without_scl, "timestamps_aggregation_band_report.csv")
    found = {one["band"]: (one["status"], one["output_path"], one["message"]) for one in bands[:3]}
    assert found == {
        "red": ("success", f"mosaics/{stamp('02')}/red.tif", ""),
        "nir": ("success", f"mosaics/{stamp('02')}/nir.tif", ""),
        "scl": ("failed_missing_inputs", "", f"A: {NO_BAND}"),
    }
    assert {one["status"] for one in bands[3:]} == {"success"}


def test_a_mosaic_without_a_band_is_done(without_scl: Path) -> None:
    request = series_request(without_scl, product=THREE)
    run(request)
    before = tree(without_scl / "out")
    when = (without_scl / "out" / "mosaics" / stamp("02") / "red.tif").stat().st_mtime_ns
    assert run(request).done == 2
    assert tree(without_scl / "out") == before
    assert (without_scl / "out" / "mosaics" / stamp("02") / "red.tif").stat().st_mtime_ns == when


def test_a_retry_makes_the_band_that_has_come_and_bears_that_it_has_not(without_scl: Path) -> None:
    request = series_request(without_scl, product=THREE)
    run(request)
    before = tree(without_scl / "out")
    assert run(request, retry_failed=True).incomplete == 1
    assert tree(without_scl / "out") == before
    tile(without_scl / "raw", "A", "SCL")
    status = run(request, retry_failed=True)
    assert (status.done, status.incomplete) == (2, 0)
    assert set(statuses(without_scl).values()) == {"success"}
    assert "scl" in item_of(without_scl, "02")["assets"]


def test_what_has_a_band_missing_can_be_opened(without_scl: Path) -> None:
    pytest.importorskip("xarray")
    run(series_request(without_scl, product=THREE))
    mosaics = scenebeam.open(without_scl / "out")
    assert set(mosaics.data_vars) == {"red", "nir", "scl"}
    assert int(mosaics.scl[0].max()) == 0
    assert int(mosaics.scl[1].max()) == 4


@pytest.mark.parametrize(
    ("policy", "state", "counted"),
    [("fail", "failed", ["failed"]), ("skip", "skipped", ["skipped"])],
)
def test_a_missing_band_fails_or_skips_its_timestamp_where_asked(
    without_scl: Path, policy: str, state: str, counted: list[str]
) -> None:
    status = run(series_request(without_scl, product={**THREE, "on_missing": policy}))
    assert (status.done, getattr(status, state)) == (1, 1)
    assert [one["state"] for one in rows_of(without_scl, "failures.csv")] == counted
    assert statuses(without_scl)[stamp("02")] == "failed_missing_inputs"
    assert not (without_scl / "out" / "mosaics" / stamp("02")).exists()


def test_a_band_of_one_tile_is_made_of_it(tmp_path: Path) -> None:
    tile(tmp_path / "raw", "A", "B04", "B08")
    tile(tmp_path / "raw", "B", "B04", "B08", "SCL")
    write_table(tmp_path / "time_serie.csv", row("02", "A|B"))
    assert run(series_request(tmp_path, product=THREE)).incomplete == 1
    assets = item_of(tmp_path, "02")["assets"]
    assert assets["scl"]["scenebeam:missing"] == [{"scene": "A", "reason": NO_BAND}]
    assert statuses(tmp_path) == {stamp("02"): "success"}


def test_a_classification_alone_is_made_too(tmp_path: Path) -> None:
    tile(tmp_path / "raw", "A", "SCL")
    write_table(tmp_path / "time_serie.csv", row("02", "A"))
    run(series_request(tmp_path, product=THREE))
    assert set(item_of(tmp_path, "02")["assets"]) == {"scl", "thumbnail"}
    (summary,) = rows_of(tmp_path, "timestamps_aggregation_summary.csv")
    assert summary["failed_bands"] == "red|nir"


def test_where_no_band_has_a_file_nothing_is_made(tmp_path: Path) -> None:
    tile(tmp_path / "raw", "A", "SCL")
    write_table(tmp_path / "time_serie.csv", row("02", "A"))
    area = {"bbox": [23.24, 40.62, 23.26, 40.64]}
    product = {"kind": "mosaic", "bands": ["B04", "B08"]}
    assert run(series_request(tmp_path, product=product, area=area)).failed == 1
    assert statuses(tmp_path) == {stamp("02"): "failed_no_tiles"}


def test_an_index_needs_all_its_bands(tmp_path: Path) -> None:
    tile(tmp_path / "raw", "A", "B04", "B08")
    write_table(tmp_path / "time_serie.csv", row("02", "A"))
    product: dict[str, Any] = {"kind": "index", "index": "ndvi"}
    assert run(series_request(tmp_path, product=product)).failed == 1
    without_mask = series_request(tmp_path, product={**product, "mask": False})
    assert run(without_mask, overwrite=True).done == 1


def test_shards_without_a_band_are_one_mosaic(
    without_scl: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write_table(without_scl / "time_serie.csv", row("02", "A"))
    bounds = [690_000, 4_480_000, 700_000, 4_500_000]
    grid = {"crs": "EPSG:32634", "resolution": 10, "bounds": bounds}
    request = series_request(without_scl, product=THREE, grid=grid)
    assert run(request).tasks == 1
    whole = tree(without_scl / "out" / "mosaics")
    monkeypatch.setattr("scenebeam.imaging.shards._LARGEST_SHARD", 2**18)
    monkeypatch.setattr("scenebeam.imaging.shards._CELL_LEVELS", 1)
    status = run(request, overwrite=True)
    assert (status.state, status.tasks, status.done) == ("succeeded", 4, 4)
    assert tree(without_scl / "out" / "mosaics") == whole
    missing = item_of(without_scl, "02")["properties"]["scenebeam:missing"]
    assert missing == [{"band": "scl", "scene": "A", "reason": NO_BAND}]


@pytest.mark.parametrize(
    "written", [["B04", "SCL"], ["b04", "scl"], ["red", "scl"], ["RED", "SCL"]]
)
def test_files_bear_the_names_that_the_request_has(tmp_path: Path, written: list[str]) -> None:
    """And the item tells the common name beside each."""
    tile(tmp_path / "raw", "A", "B04", "SCL")
    write_table(tmp_path / "time_serie.csv", row("02", "A"))
    request = series_request(tmp_path, product={"kind": "mosaic", "bands": written})
    assert run(request).state == "succeeded"
    folder = tmp_path / "out" / "mosaics" / stamp("02")
    assert {path.stem for path in folder.glob("*.tif")} == set(written)
    assets = item_of(tmp_path, "02")["assets"]
    assert [assets[name]["bands"] for name in written] == [
        [{"name": written[0], "eo:common_name": "red"}],
        [{"name": written[1], "eo:common_name": "scl"}],
    ]
    (report,) = [
        one
        for one in rows_of(tmp_path, "timestamps_aggregation_band_report.csv")
        if one["band"] == written[0]
    ]
    assert report["output_path"] == f"mosaics/{stamp('02')}/{written[0]}.tif"
    assert set(scenebeam.open(tmp_path / "out").data_vars) == set(written)
