"""What people who train models ask of field chips: days by hand, the next scene after a hole, the chip's own zone first."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow.parquet as pq
import pytest
import rasterio
import rustac
from click.testing import CliRunner

from scenebeam.cli import main
from scenebeam.errors import RequestError
from scenebeam.execution.driver import run
from scenebeam.imaging.chip_scenes import is_in_utm_zone
from scenebeam.planning.plan import read_plan
from scenebeam.products.fields import calendar
from scenebeam.products.fields.choose import choose
from scenebeam.products.fields.task import FieldsTask
from scenebeam.request import RunRequest
from scenebeam.sandbox.fields import HARVEST, PLANTING, SCENES, YEAR, boundaries
from scenebeam.sandbox.server import serve
from scenebeam.storage import open_store
from scenebeam.transfer.retry import Budget

Make = Callable[..., RunRequest]


def rows(output: str | Path) -> list[dict[str, str]]:
    with (Path(output) / "chips_status.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def chosen(output: str | Path) -> dict[tuple[str, str], str]:
    return {(row["chip"], row["season"]): row["scene"] for row in rows(output)}


# When


def test_days_by_hand_are_as_those_of_a_calendar(fields_request: Make, tmp_path: Path) -> None:
    by_calendar = fields_request(output=str(tmp_path / "calendar"), **{"product.images": "select"})
    days = {"planting": PLANTING, "harvest": HARVEST}
    by_hand = fields_request(
        output=str(tmp_path / "hand"),
        **{"product.images": "select", "product.crop_calendar": None, "product.days": days},
    )
    assert run(by_calendar).state == run(by_hand).state == "succeeded"
    assert chosen(tmp_path / "hand") == chosen(tmp_path / "calendar")


def test_days_and_a_calendar_are_one_too_many(fields_request: Make) -> None:
    with pytest.raises(RequestError, match="crop_calendar or days"):
        fields_request(**{"product.days": {"planting": 1, "harvest": 2}})


def test_the_default_calendar_is_fetched_on_first_use(
    fields: Path, fields_request: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    changes = {"product.crop_calendar": None, "product.images": "select"}
    with serve(fields / "calendar") as server:
        monkeypatch.setattr(calendar, "DEFAULT", server.url)
        assert run(fields_request(output=str(tmp_path / "first"), **changes)).state == "succeeded"
        assert set(server.requests) == {f"/{name}" for name in calendar.FILES.values()}
    # Now there is no network.
    assert run(fields_request(output=str(tmp_path / "second"), **changes)).state == "succeeded"
    assert chosen(tmp_path / "first") == chosen(tmp_path / "second")
    assert any(chosen(tmp_path / "first").values())


def test_without_a_network_the_ways_on_are_named(
    fields_request: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(calendar, "DEFAULT", "http://127.0.0.1:9/none")
    monkeypatch.setattr(Budget, "attempts", 1)
    with pytest.raises(RequestError, match=r"product\.crop_calendar.*product\.days"):
        run(fields_request(**{"product.crop_calendar": None, "product.images": "select"}))


# Which scene


@pytest.mark.parametrize(
    ("tile", "crs", "own"),
    [
        ("34TGL", "EPSG:32634", True),
        ("35TKF", "EPSG:32634", False),
        ("34HGL", "EPSG:32634", False),
        ("34HGL", "EPSG:32734", True),
        ("34NGL", "EPSG:32634", True),
        (None, "EPSG:32634", True),
        ("01CDM", "EPSG:32701", True),
    ],
)
def test_a_tile_is_of_a_zone(tile: str | None, crs: str, own: bool) -> None:
    assert is_in_utm_zone(tile, crs) is own


def test_at_equal_cloud_and_day_the_own_zone_is_first(fields_request: Make) -> None:
    """Of two scenes that differ in their zone alone, and by seconds, that of the chip's zone is taken, whatever its id."""
    request = fields_request(**{"product.images": "select"})
    run(request)
    plan = read_plan(open_store(request.output))
    assert plan is not None
    tasks = [cast(FieldsTask, task) for task in plan.tasks]
    task = max(
        (task for task in tasks if task.step == "planting"), key=lambda task: len(task.chips)
    )
    best = min(task.candidates, key=lambda candidate: candidate.cloud or 0.0)
    best = best.model_copy(update={"nodata": 0.0, "looked_at": ()})
    nearer = best.when + timedelta(seconds=20)
    foreign = best.model_copy(update={"id": f"A{best.id}", "own_grid": False, "when": nearer})
    for order in ([best, foreign], [foreign, best]):
        found = choose(task.model_copy(update={"candidates": tuple(order)}), Budget())
        assert {one.scene for one in found if one.scene} == {best.id}
    alone = choose(task.model_copy(update={"candidates": (foreign,)}), Budget())
    assert {one.scene for one in alone if one.scene} == {foreign.id}


@pytest.fixture
def with_hole(fields: Path, tmp_path: Path) -> Path:
    """A catalog whose clearest scene at planting is empty in one half, and says nothing of it."""
    taken = next(scene for scene in SCENES if scene.cloud_cover < 1).acquired
    cut = replace(
        next(s for s in SCENES if s.cloud_cover < 1),
        cut=True,
        cloud_cover=0.0,
        acquired=taken + timedelta(days=1),
    )
    cut.write(tmp_path / "cut")
    items = [scene.item(str(fields)) for scene in SCENES]
    wrong, whole = cut.item(str(tmp_path / "cut")), items[0]
    wrong["properties"]["s2:nodata_pixel_percentage"] = 0.0
    items.append({**wrong, "geometry": whole["geometry"], "bbox": whole["bbox"]})
    path = tmp_path / "items.json"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": items}))
    return path


def test_after_a_hole_the_next_scene_is_taken(
    fields_request: Make, with_hole: Path, tmp_path: Path
) -> None:
    usual = fields_request(output=str(tmp_path / "usual"))
    run(usual)
    request = fields_request(catalog=str(with_hole))
    assert run(request).state == "succeeded"
    before, after = chosen(usual.output), chosen(request.output)
    turned_down = [row for row in rows(request.output) if "has no data in" in row["message"]]
    assert turned_down
    for row in turned_down:
        key = row["chip"], row["season"]
        assert after[key] == before[key], "the next best is that which was best without it"
        item = json.loads(
            (Path(request.output) / row["chip"] / f"{row['chip']}_planting_s2.json").read_text()
        )
        assert item["properties"]["ftw:scene"] == row["scene"]
        (path,) = (Path(request.output) / row["chip"]).glob("*_planting_image_s2.tif")
        with rasterio.open(path) as file:
            assert (file.read() != file.nodata).all()
    assert run(request).requests == 0


def test_where_no_other_scene_will_do_the_chip_says_so(
    fields_request: Make, with_hole: Path
) -> None:
    catalog = json.loads(with_hole.read_text())
    catalog["features"] = catalog["features"][-1:]
    with_hole.write_text(json.dumps(catalog))
    request = fields_request(catalog=str(with_hole))
    run(request)
    skipped = [
        row
        for row in rows(request.output)
        if row["season"] == "planting" and row["status"] == "skipped"
    ]
    assert any("has no data in" in row["message"] for row in skipped)
    for row in skipped:
        assert not list((Path(request.output) / row["chip"]).glob("*_planting_*_s2.*"))


# What a trainer reads


@pytest.fixture
def made(fields_request: Make, caplog: pytest.LogCaptureFixture) -> tuple[Path, str]:
    request = fields_request(
        **{"product.bands": ["red"], "product.grid": {"size": 160, "split": {"block": 32}}}
    )
    run(request)
    return Path(request.output), caplog.text


def test_an_empty_split_is_warned_of(made: tuple[Path, str]) -> None:
    assert "no chip is in the split" in made[1]
    assert "val" in made[1]


def test_no_warning_where_no_split_is_empty(
    fields_request: Make, caplog: pytest.LogCaptureFixture
) -> None:
    run(
        fields_request(
            **{"product.images": "none", "product.grid": {"size": 64, "split": {"block": 1}}}
        )
    )
    assert "no chip is in the split" not in caplog.text


def test_masks_tell_their_type(made: tuple[Path, str]) -> None:
    paths = sorted(made[0].glob(f"ftw-*/ftw-*_{YEAR}.json"))
    assert paths
    for path in paths:
        for asset in json.loads(path.read_text())["assets"].values():
            with rasterio.open(path.parent / asset["href"]) as file:
                assert asset["raster:bands"][0]["data_type"] == file.dtypes[0]
                assert asset["raster:bands"][0]["spatial_resolution"] == file.res[0]


def test_instance_numbers_lead_to_the_fields(made: tuple[Path, str]) -> None:
    table = pq.read_table(made[0] / "field_numbers.parquet").to_pydict()
    ids = dict(zip(table["number"], table["id"], strict=True))
    features: list[dict[str, Any]] = boundaries()["features"]
    assert ids == {number: feature["id"] for number, feature in enumerate(features, start=1)}
    seen: set[int] = set()
    for path in made[0].glob("ftw-*/*_instance.tif"):
        with rasterio.open(path) as file:
            seen |= set(np.unique(file.read(1)).tolist())
    assert seen - {0} <= ids.keys()
    assert len(seen) > 20


def test_images_name_their_chip_in_the_table(made: tuple[Path, str]) -> None:
    items = rustac.read_sync(str(made[0] / "items.parquet"))["features"]
    images = [item for item in items if item["properties"].get("ftw:season")]
    assert len(images) > 10
    chips = {item["id"] for item in items} - {item["id"] for item in images}
    assert {item["properties"]["scenebeam:chip"] for item in images} <= chips


@pytest.mark.parametrize(
    ("given", "day"), [("04-06", 96), ("4-6", 96), ("96", 96), ("02-28", 59), ("12-31", 365)]
)
def test_a_day_is_a_number_or_a_month_and_a_day(given: str, day: int) -> None:
    from scenebeam.products.fields.request import SeasonDays

    assert SeasonDays.model_validate({"planting": given, "harvest": 200}).planting == day


@pytest.mark.parametrize("given", ["04-31", "13-01", "367", "spring"])
def test_a_day_that_is_none_is_refused(given: str) -> None:
    from scenebeam.products.fields.request import SeasonDays

    with pytest.raises(ValueError, match="planting"):
        SeasonDays.model_validate({"planting": given, "harvest": 200})


def test_small_chips_with_days_by_hand_from_the_command_line(fields: Path, tmp_path: Path) -> None:
    """64 pixels at 10 m: a kilometer has several, so their ids have more digits."""
    words = [
        "fields", "create", str(fields / "fields.geojson"), str(tmp_path), "--name", "small", "--year", "2021",
        "--chip-size", "64", "--planting", "04-06", "--harvest", "10-25", "--images", "select",
        "--catalog", str(fields / "catalog.json"), "--collection", "sentinel-2-l2a",
    ]  # fmt: skip
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 0, done.output
    with (tmp_path / "small-chips" / "chips.csv").open() as file:
        chips = [row["chip"] for row in csv.DictReader(file)]
    assert len(chips) > 100
    assert len(set(chips)) == len(chips)
    assert all(re.fullmatch(r"ftw-3[45]T[A-Z]{2}\d{6}_2021", chip) for chip in chips)


def test_the_page_shows_how_to_read_chips(
    fields_request: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = fields_request(output=str(tmp_path / "out/chips/mine-chips"))
    run(request)
    text = (Path(__file__).parents[2] / "docs" / "fields.md").read_text()
    [code] = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(compile(code, "fields.md", "exec"), names)
    assert names["images"].ndim == 4
    assert len(names["images"]) == len(names["masks"]) > 3
    assert names["images"].shape[2:] == names["masks"].shape[1:]
    assert set(np.unique(names["masks"])) <= {0, 1, 2}


def test_a_split_far_from_its_shares_is_said(caplog: pytest.LogCaptureFixture) -> None:
    from scenebeam.imaging.split import warn_of_empty_splits
    from scenebeam.request.sections import Split

    warn_of_empty_splits(["train"] * 80 + ["val"] * 10 + ["test"] * 10, Split())
    assert not caplog.records
    warn_of_empty_splits(["train"] * 6 + ["val"] * 4 + ["test"] * 21 + ["buffer"] * 43, Split())
    assert "the split is 6 train, 4 val, 21 test, 43 buffer, far from" in caplog.text


# Split


def splits(output: Path) -> dict[str, str]:
    with (output / "chips.csv").open() as file:
        return {row["chip"]: row["split"] for row in csv.DictReader(file)}


@pytest.mark.parametrize("gone", [False, True], ids=["with boundaries", "without boundaries"])
def test_the_split_can_be_changed_later_and_keeps_pixels(
    fields_request: Make, fields: Path, tmp_path: Path, gone: bool
) -> None:
    boundaries = tmp_path / "fields.geojson"
    shutil.copy(fields / "fields.geojson", boundaries)
    output, given = tmp_path / "out", {"product.boundaries": str(boundaries)}
    assert run(fields_request(**given)).state == "succeeded"
    before = {path: path.stat().st_mtime_ns for path in output.glob("*/*.tif")}
    first = splits(output)
    if gone:
        boundaries.unlink()
    changed = {**given, "product.grid.split": {"train": 0.4, "val": 0.3, "test": 0.3, "block": 1}}
    assert run(fields_request(**changed)).state == "succeeded"
    second = splits(output)
    assert first.keys() == second.keys()
    assert first != second
    assert {path: path.stat().st_mtime_ns for path in output.glob("*/*.tif")} == before
    for chip, split in second.items():
        item = json.loads((output / chip / f"{chip}.json").read_text())
        assert item["properties"]["ftw:split"] == split
    # As in a run of its own.
    alone = fields_request(output=str(tmp_path / "alone"), **{**changed, "product.boundaries": str(fields / "fields.geojson")})  # fmt: skip
    assert run(alone).state == "succeeded"
    assert splits(tmp_path / "alone") == second
