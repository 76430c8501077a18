"""A time-series table is an order: a row is a timestamp with its tiles, clouds and outcome."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import scenebeam
from conftest import OF_ITS_TIME, tree
from scenebeam.cli import main
from scenebeam.errors import RequestError
from scenebeam.execution.driver import run
from scenebeam.planning.search import make_plan
from scenebeam.request import RunRequest
from series import (
    item_of,
    level_of,
    row,
    rows_of,
    series_request,
    stamp,
    statuses,
    tile,
    write_table,
)

A, B = 0, 500
"""Levels of two tiles of the same ground."""
INDEX = {"kind": "index", "expression": "red", "mask": False}


@pytest.fixture
def two_tiles(tmp_path: Path) -> Path:
    tile(tmp_path / "raw", "A", level=A)
    tile(tmp_path / "raw", "B", level=B)
    return tmp_path


def times(folder: Path) -> dict[str, int]:
    """When each file of the mosaics was written."""
    found = {}
    for path in sorted((folder / "out" / "mosaics").rglob("*.*")):
        found[str(path.relative_to(folder))] = path.stat().st_mtime_ns
    return found


# Rows


def test_a_row_without_tiles_is_in_all_reports(two_tiles: Path) -> None:
    write_table(two_tiles / "time_serie.csv", row("02", "A"), row("12", ""))
    status = run(series_request(two_tiles))
    assert (status.state, status.tasks, status.failed) == ("partial", 2, 1)
    assert statuses(two_tiles) == {stamp("02"): "success", stamp("12"): "failed_no_tiles"}
    _, summary = rows_of(two_tiles, "timestamps_aggregation_summary.csv")
    assert (summary["success"], summary["failed_bands"]) == ("False", "red")
    _, band = rows_of(two_tiles, "timestamps_aggregation_band_report.csv")
    assert (band["timestamp"], band["band"]) == (stamp("12"), "red")
    assert band["status"] == "failed_no_tiles"
    (failure,) = rows_of(two_tiles, "failures.csv")
    assert (failure["task"], failure["kind"]) == (stamp("12"), "failed_no_tiles")
    _, listed = rows_of(two_tiles, "time_serie.csv")
    assert (listed["tile_ids"], listed["tiles_count"]) == ("", "0")


def test_a_row_without_tiles_is_in_the_report_of_an_index(two_tiles: Path) -> None:
    write_table(two_tiles / "time_serie.csv", row("02", "A"), row("12", ""))
    status = run(series_request(two_tiles, product=INDEX))
    assert (status.state, status.tasks, status.failed) == ("partial", 2, 1)
    reported = {row["name"]: row["status"] for row in rows_of(two_tiles, "indices_status.csv")}
    assert reported == {stamp("02"): "success", stamp("12"): "failed_no_tiles"}
    monthly = make_plan(
        series_request(two_tiles, product={**INDEX, "per": "month", "min_scenes_per_period": 1})
    )
    assert len(monthly.tasks) == 1


def test_a_scene_of_two_rows_is_one_image_of_an_index(two_tiles: Path) -> None:
    write_table(two_tiles / "time_serie.csv", row("02", "A|B"), row("03", "A"))
    plan = make_plan(series_request(two_tiles, product={**INDEX, "per": "scene"}))
    assert [task.id for task in plan.tasks] == ["A", "B"]


def test_a_row_without_tiles_is_skipped_where_it_may_be(two_tiles: Path) -> None:
    write_table(two_tiles / "time_serie.csv", row("02", "A"), row("12", ""))
    product = {"kind": "mosaic", "bands": ["red"], "on_missing": "skip"}
    status = run(series_request(two_tiles, product=product))
    assert (status.state, status.skipped) == ("succeeded", 1)
    assert statuses(two_tiles)[stamp("12")] == "failed_no_tiles"


@pytest.mark.parametrize(
    ("changes", "days"),
    [
        ({"dates": "2023-02-01/2023-02-05"}, ["02"]),
        ({"select": {"min_coverage": 0.5}}, ["02", "12"]),
        ({"select": {"max_cloud_cover": 20}}, ["02", "12"]),
        ({"select": {"mode": "least-cloudy-per-period"}}, ["02"]),
        ({"select": {"mode": "anchors", "n_anchors": 2}}, ["02"]),
        ({"select": {"scenes": [{"id": "A"}]}}, ["02"]),
        ({"product": {"kind": "mosaic", "bands": ["red"], "group_by": "day"}}, ["02", "12"]),
    ],
)
def test_an_empty_row_is_asked_for_by_its_day_alone(
    two_tiles: Path,
    changes: dict[str, Any],
    days: list[str],
) -> None:
    write_table(two_tiles / "time_serie.csv", row("02", "A"), row("12", ""))
    plan = make_plan(series_request(two_tiles, **changes))
    assert [task.id for task in plan.tasks] == [stamp(day) for day in days]


def test_an_empty_row_beside_one_of_the_same_second_is_no_failure(two_tiles: Path) -> None:
    write_table(two_tiles / "time_serie.csv", row("02", ""), row("02", "A"))
    run(series_request(two_tiles))
    assert statuses(two_tiles) == {stamp("02"): "success"}


def test_a_scene_in_two_rows_is_in_both_timestamps(two_tiles: Path) -> None:
    write_table(two_tiles / "time_serie.csv", row("02", "A|B"), row("03", "A"))
    status = run(series_request(two_tiles))
    assert (status.state, status.done, status.incomplete) == ("succeeded", 2, 0)
    for day, scenes in (("02", ["A", "B"]), ("03", ["A"])):
        assert item_of(two_tiles, day)["assets"]["red"]["scenebeam:scenes"] == scenes
    assert [one["id"] for one in rows_of(two_tiles, "scenes_selected.csv")] == ["A", "B", "A"]
    assert [one["id"] for one in rows_of(two_tiles, "scenes_catalog.csv")] == ["A", "B"]


def test_each_row_of_a_scene_has_its_own_anchor(two_tiles: Path) -> None:
    header = "anchor_date,acq_datetime,tile_ids"
    lines = [f"2023-02-{anchor},{row(day, 'A')}" for anchor, day in (("01", "02"), ("05", "03"))]
    write_table(two_tiles / "time_serie.csv", *lines, header=header)
    run(series_request(two_tiles))
    found = [one["anchor_date"] for one in rows_of(two_tiles, "time_serie.csv")]
    assert found == ["2023-02-01", "2023-02-05"]


def test_a_scene_of_two_rows_is_one_stack(two_tiles: Path) -> None:
    write_table(two_tiles / "time_serie.csv", row("02", "A|B"), row("03", "A"))
    product = {"kind": "stack", "bands": ["B04"], "required": [], "format": "geotiff"}
    plan = make_plan(series_request(two_tiles, product=product, grid={}))
    assert [task.id for task in plan.tasks] == ["A", "B"]


def test_rows_of_one_day_may_be_one_mosaic(two_tiles: Path) -> None:
    later = "2023-02-02 09:21:24+00:00,A|B"
    write_table(two_tiles / "time_serie.csv", row("02", "B"), later)
    product = {"kind": "mosaic", "bands": ["red"], "group_by": "day"}
    assert run(series_request(two_tiles, product=product)).tasks == 1
    assert item_of(two_tiles, "02")["assets"]["red"]["scenebeam:scenes"] == ["B", "A"]
    assert run(series_request(two_tiles, output=str(two_tiles / "each"))).tasks == 2


# Order


@pytest.mark.parametrize(("tiles", "level"), [("A|B", A), ("B|A", B), ("B|A|B", B)])
def test_the_order_of_the_table_is_the_order_of_first(
    two_tiles: Path,
    tiles: str,
    level: int,
) -> None:
    write_table(two_tiles / "time_serie.csv", row("02", tiles))
    run(series_request(two_tiles))
    assert level_of(two_tiles, "02") == level


def test_the_order_of_the_table_counts_more_than_clouds(tmp_path: Path) -> None:
    tile(tmp_path / "raw", "A", level=A, item={"eo:cloud_cover": 0.0})
    tile(tmp_path / "raw", "B", level=B, item={"eo:cloud_cover": 80.0})
    write_table(tmp_path / "time_serie.csv", row("02", "B|A"))
    run(series_request(tmp_path))
    assert level_of(tmp_path, "02") == B
    last = {"kind": "mosaic", "bands": ["red"], "method": "last"}
    run(series_request(tmp_path, product=last), overwrite=True)
    assert level_of(tmp_path, "02") == A


def test_the_table_that_a_run_writes_has_the_order_that_it_read(two_tiles: Path) -> None:
    write_table(two_tiles / "time_serie.csv", row("02", "B|A"))
    run(series_request(two_tiles))
    first = make_plan(series_request(two_tiles))
    written = str(two_tiles / "out" / "time_serie.csv")
    catalog = {"time_series": written, "root": str(two_tiles / "raw")}
    assert make_plan(series_request(two_tiles, catalog=catalog)).tasks == first.tasks


def test_selection_does_not_depend_on_the_order_of_scenes(two_tiles: Path) -> None:
    write_table(two_tiles / "time_serie.csv", row("02", "B|A"), row("12", "A|B"))
    request = series_request(two_tiles)
    scenes = scenebeam.search(request)
    selection = scenebeam.select(reversed(scenes), request)
    assert selection == scenebeam.select(scenes, request)
    names = [[scene.id for scene in one.scenes] for one in selection.acquisitions]
    assert names == [["B", "A"], ["A", "B"]]


# Clouds


def clouds(folder: Path, first: str, second: str) -> None:
    header = "acq_datetime,tile_ids,cloud_score"
    rows = [row("02", "A", first), row("12", "B", second)]
    write_table(folder / "time_serie.csv", *rows, header=header)


@pytest.mark.parametrize(
    "select",
    [
        {"mode": "least-cloudy-per-period", "period": "month"},
        {"mode": "anchors", "anchors": ["2023-02-07"]},
        {"max_cloud_cover": 20},
    ],
)
def test_the_cloud_score_of_a_row_is_the_cloud_of_its_acquisition(
    two_tiles: Path,
    select: dict[str, Any],
) -> None:
    clouds(two_tiles, "90.0", "1.0")
    run(series_request(two_tiles, select=select))
    assert list(statuses(two_tiles)) == [stamp("12")]
    (listed,) = rows_of(two_tiles, "time_serie.csv")
    assert listed["cloud_score"] == "1.0"
    assert item_of(two_tiles, "12")["properties"]["eo:cloud_cover"] == 1.0


@pytest.mark.parametrize("score", ["", "nan", "NaN", " ", "None"])
def test_an_empty_cloud_score_says_nothing(two_tiles: Path, score: str) -> None:
    clouds(two_tiles, score, "30")
    plan = make_plan(series_request(two_tiles, select={"max_cloud_cover": 20}))
    assert [task.id for task in plan.tasks] == [stamp("02")], "what is not known is kept"


def test_what_an_item_says_of_clouds_counts_before_its_row(tmp_path: Path) -> None:
    tile(tmp_path / "raw", "A", item={"eo:cloud_cover": 5.0})
    tile(tmp_path / "raw", "B")
    clouds(tmp_path, "90.0", "50.0")
    plan = make_plan(series_request(tmp_path, select={"max_cloud_cover": 20}))
    assert [task.id for task in plan.tasks] == [stamp("02")]


@pytest.mark.parametrize("score", ["cloudy", "101", "-1"])
def test_a_cloud_score_that_is_none_is_told(two_tiles: Path, score: str) -> None:
    clouds(two_tiles, score, "1")
    with pytest.raises(RequestError, match="line 2: cloud_score"):
        run(series_request(two_tiles))


# A table that grows


def test_a_table_that_grows_is_planned_anew(two_tiles: Path) -> None:
    write_table(two_tiles / "time_serie.csv", row("12", "B"))
    request = series_request(two_tiles)
    assert run(request).done == 1
    before = times(two_tiles)
    write_table(two_tiles / "time_serie.csv", row("02", "A"), row("12", "B"), row("20", ""))
    status = run(request)
    assert (status.tasks, status.done, status.failed) == (3, 2, 1)
    assert list(statuses(two_tiles)) == [stamp("02"), stamp("12"), stamp("20")]
    after = times(two_tiles)
    assert {name: after[name] for name in before} == before, "what stands stays"
    assert len(rows_of(two_tiles, "time_serie.csv")) == 3


def test_a_table_that_says_the_same_changes_nothing(two_tiles: Path) -> None:
    write_table(two_tiles / "time_serie.csv", row("02", "A|B"))
    request = series_request(two_tiles)
    run(request)
    plan = (two_tiles / "out" / "plan.parquet").stat().st_mtime_ns
    header = "tile_ids,note,acq_datetime"
    line = "\"['A', 'B']\",hello,2023-02-02T09:21:09.024Z"
    write_table(two_tiles / "time_serie.csv", line, header=header)
    assert run(request).state == "succeeded"
    assert (two_tiles / "out" / "plan.parquet").stat().st_mtime_ns == plan


def test_a_row_that_changes_is_made_again_and_no_other(two_tiles: Path) -> None:
    write_table(two_tiles / "time_serie.csv", row("02", "A|B"), row("12", "B"))
    request = series_request(two_tiles)
    run(request)
    before = times(two_tiles)
    write_table(two_tiles / "time_serie.csv", row("02", "B|A"), row("12", "B"))
    run(request)
    assert level_of(two_tiles, "02") == B
    changed = {name for name, when in times(two_tiles).items() if before[name] != when}
    assert {name.split("/")[2] for name in changed} == {stamp("02")}


def test_where_new_rows_widen_the_grid_the_series_stays_on_one(two_tiles: Path) -> None:
    write_table(two_tiles / "time_serie.csv", row("02", "A"))
    request = series_request(two_tiles)
    run(request)
    tile(two_tiles / "raw", "C", east=640)
    write_table(two_tiles / "time_serie.csv", row("02", "A"), row("12", "C"))
    assert run(request).state == "succeeded"
    first, second = (item_of(two_tiles, day)["properties"] for day in ("02", "12"))
    for name in ("proj:transform", "proj:shape"):
        assert first[name] == second[name]


@pytest.mark.parametrize(
    "product",
    [
        {"kind": "index", "expression": "red", "mask": False},
        {"kind": "index", "expression": "red", "mask": False, "per": "month"},
        {"kind": "stack", "bands": ["B04"], "required": [], "format": "geotiff"},
    ],
    ids=["index", "index by month", "stack"],
)
def test_other_products_of_a_table_grow_with_it(two_tiles: Path, product: dict[str, Any]) -> None:
    write_table(two_tiles / "time_serie.csv", row("02", "A"))
    grid = {} if product["kind"] == "stack" else {"crs": "EPSG:32634"}
    request = series_request(two_tiles, product=product, grid=grid)
    assert run(request).state == "succeeded"
    write_table(two_tiles / "time_serie.csv", row("02", "A"), row("12", "A"), row("20", "B"))
    assert run(request).state == "succeeded"
    untold = (*OF_ITS_TIME, "stacks_status.csv")
    grown = tree(two_tiles / "out", untold)
    assert run(request, overwrite=True).state == "succeeded"
    assert tree(two_tiles / "out", untold) == grown


def test_a_quarter_gives_way_to_its_months(two_tiles: Path) -> None:
    product = {"kind": "index", "expression": "red", "mask": False, "per": "month"}
    product["min_scenes_per_period"] = 2
    request = series_request(two_tiles, product=product)
    write_table(two_tiles / "time_serie.csv", row("02", "A"))
    run(request)
    assert [one["name"] for one in rows_of(two_tiles, "indices_status.csv")] == ["2023-Q1"]
    write_table(two_tiles / "time_serie.csv", row("02", "A"), row("12", "B"))
    run(request)
    assert [one["name"] for one in rows_of(two_tiles, "indices_status.csv")] == ["2023-02"]
    images = (two_tiles / "out" / "indices").glob("*/*.tif")
    assert [path.parent.name for path in images] == ["2023-02"]


def test_a_grid_that_grows_into_shards_is_made_in_shards(
    two_tiles: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("scenebeam.imaging.shards._LARGEST_SHARD", 2**14)
    monkeypatch.setattr("scenebeam.imaging.shards._CELL_LEVELS", 1)
    request = series_request(two_tiles)
    write_table(two_tiles / "time_serie.csv", row("02", "A"))
    assert run(request).tasks == 1
    tile(two_tiles / "raw", "C", south=10_000)
    write_table(two_tiles / "time_serie.csv", row("02", "A"), row("12", "C"))
    status = run(request)
    assert (status.state, status.tasks, status.done) == ("succeeded", 6, 6)
    first, second = (item_of(two_tiles, day)["properties"] for day in ("02", "12"))
    assert first["proj:shape"] == second["proj:shape"]


def test_products_stay_although_their_row_or_their_files_go(
    two_tiles: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    write_table(two_tiles / "time_serie.csv", row("02", "A"), row("05", "A"))
    request = series_request(two_tiles)
    run(request)
    before = times(two_tiles)
    shutil.rmtree(two_tiles / "raw" / "A")
    write_table(two_tiles / "time_serie.csv", row("05", "A"), row("12", "B"))
    status = run(request)
    assert (status.state, status.done) == ("succeeded", 3)
    after = times(two_tiles)
    assert {name: after[name] for name in before} == before
    assert f"no longer in the table, but kept: {stamp('02')}" in caplog.text


def test_a_run_goes_on_although_its_table_is_gone(two_tiles: Path) -> None:
    path = write_table(two_tiles / "time_serie.csv", row("02", "A"))
    request = series_request(two_tiles)
    run(request)
    (two_tiles / "out" / "mosaics" / stamp("02") / f"{stamp('02')}.json").unlink()
    path.unlink()
    assert run(request).state == "succeeded"
    assert statuses(two_tiles) == {stamp("02"): "success"}


def test_grown_and_made_at_once_give_the_same_bytes(two_tiles: Path) -> None:
    write_table(two_tiles / "time_serie.csv", row("12", "B"))
    request = series_request(two_tiles)
    run(request)
    write_table(two_tiles / "time_serie.csv", row("02", "A"), row("12", "B"))
    run(request)
    grown = tree(two_tiles / "out")
    run(request, overwrite=True)
    assert tree(two_tiles / "out") == grown


# A tile that comes later


def later(folder: Path) -> Callable[[], object]:
    """A table of two rows whose second tile is not there yet; what brings it."""
    write_table(folder / "time_serie.csv", row("02", "A"), row("12", "B"))
    shutil.move(folder / "raw" / "B", folder / "later")
    return lambda: shutil.move(folder / "later", folder / "raw" / "B")


def test_the_advice_of_a_failure_works_when_its_tile_has_come(
    two_tiles: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bring = later(two_tiles)
    run(series_request(two_tiles))
    before = times(two_tiles)
    (failure,) = rows_of(two_tiles, "failures.csv")
    bring()
    monkeypatch.chdir("/")
    program, *words = shlex.split(failure["retry"])
    assert program == "scenebeam"
    assert CliRunner().invoke(main, words).exit_code == 0
    assert set(statuses(two_tiles).values()) == {"success"}
    after = times(two_tiles)
    assert {name: after[name] for name in before} == before


def test_relative_paths_of_a_request_mean_the_same_in_its_advice(
    two_tiles: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bring = later(two_tiles)
    monkeypatch.chdir(two_tiles)
    relative = {"time_series": "time_serie.csv", "root": "raw"}
    request = series_request(two_tiles, catalog=relative, output="out")
    run(request)
    written = json.loads((two_tiles / "out" / "run.json").read_text())["request"]
    assert written["catalog"] == {
        "time_series": str(two_tiles / "time_serie.csv"),
        "root": str(two_tiles / "raw"),
    }
    bring()
    assert run(request).state == "succeeded", "the request itself is not another one"
    words = shlex.split(f"run {two_tiles}/out/run.json")
    os.chdir("/")
    assert CliRunner().invoke(main, words).exit_code == 0


def test_until_its_tile_comes_a_row_fails_and_nothing_else_changes(two_tiles: Path) -> None:
    later(two_tiles)
    request = series_request(two_tiles)
    run(request)
    before = tree(two_tiles / "out")
    plan = (two_tiles / "out" / "plan.parquet").stat().st_mtime_ns
    time.sleep(0.01)
    assert run(request).failed == 1
    assert tree(two_tiles / "out") == before
    assert (two_tiles / "out" / "plan.parquet").stat().st_mtime_ns == plan


def test_a_tile_that_comes_to_a_product_is_taken_when_asked_again(
    two_tiles: Path,
) -> None:
    write_table(two_tiles / "time_serie.csv", row("02", "B|A"))
    shutil.move(two_tiles / "raw" / "B", two_tiles / "later")
    request: RunRequest = series_request(two_tiles)
    assert run(request).incomplete == 1
    assert level_of(two_tiles, "02") == A
    shutil.move(two_tiles / "later", two_tiles / "raw" / "B")
    assert run(request).incomplete == 1, "what is made stays"
    assert run(request, retry_failed=True).incomplete == 0
    assert level_of(two_tiles, "02") == B
