"""Land-cover chips: areas that overlap, splits, windows of mostly one class, and what a plan tells before any is made."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from click.testing import CliRunner

from scenebeam.cli import main
from scenebeam.errors import RequestError
from scenebeam.execution.driver import run
from scenebeam.planning.search import make_plan, search
from scenebeam.products.landcover.candidates import _homogeneous_windows
from scenebeam.products.landcover.class_counts import areas_by_cloud, count_classes
from scenebeam.products.landcover.plan import LandcoverScope
from scenebeam.products.landcover.request import LandcoverRequest
from scenebeam.products.landcover.task import LandcoverTask
from scenebeam.request import RunRequest
from scenebeam.transfer.retry import Budget

Make = Callable[..., RunRequest[LandcoverRequest]]


def rows(output: str | Path) -> list[dict[str, str]]:
    with (Path(output) / "chip_metadata.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def released(output: str | Path) -> list[dict[str, str]]:
    return [row for row in rows(output) if row["status"] == "released"]


@pytest.fixture
def twice(landcover: Path, tmp_path: Path) -> Path:
    """The first area of interest, and once more as another."""
    areas = json.loads((landcover / "aois.geojson").read_text())
    first = areas["features"][0]
    areas["features"] = [first, {**first, "id": "again", "properties": {"name": "again"}}]
    path = tmp_path / "aois.geojson"
    path.write_text(json.dumps(areas))
    return path


def test_ground_that_two_areas_show_is_released_once(
    landcover_request: Make, twice: Path, tmp_path: Path
) -> None:
    once = landcover_request(output=str(tmp_path / "once"), **{"product.include": [0]})
    both = landcover_request(output=str(tmp_path / "both"), **{"product.aois": str(twice)})
    assert run(once).state == run(both).state == "succeeded"
    places = [(row["lat"], row["lon"]) for row in released(both.output)]
    assert len(places) == len(set(places))
    assert sorted(places) == sorted((row["lat"], row["lon"]) for row in released(once.output))
    left = [row for row in rows(both.output) if row["status"] != "released"]
    assert {row["status"] for row in left} == {"left out: area 00000 shows the same ground"}
    assert len(left) == len(places)
    assert {row["id"] for row in left} == {""}


def test_areas_that_meet_at_an_edge_keep_their_chips(landcover_run: Path) -> None:
    assert not [row for row in rows(landcover_run) if "same ground" in row["status"]]


def test_chips_are_told_apart_for_training(landcover_request: Make) -> None:
    split = {"train": 0.5, "val": 0.25, "test": 0.25, "block": 1}
    request = landcover_request(**{"product.split": split, "product.chips_per_class": 400})
    assert run(request).state == "succeeded"
    told = {row["id"]: row["split"] for row in released(request.output)}
    assert set(told.values()) <= {"train", "val", "test", "buffer"}
    assert len(set(told.values()) - {"buffer"}) > 1
    items = Path(request.output) / "processed" / "v1"
    for path in items.glob("chip_*.json"):
        properties = json.loads(path.read_text())["properties"]
        assert properties["scenebeam:split"] == told[str(int(path.stem.removeprefix("chip_")))]


def test_another_split_makes_no_chip_anew(landcover_request: Make) -> None:
    request = landcover_request(**{"product.include": [0]})
    run(request)
    before = {path: path.stat().st_mtime_ns for path in Path(request.output).glob("chips/*/*")}
    again = landcover_request(**{"product.include": [0], "product.split": {"block": 1}})
    assert run(again).requests == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert all(row["split"] for row in released(again.output))


def test_without_a_split_there_is_no_such_column(landcover_run: Path) -> None:
    assert "split" not in rows(landcover_run)[0]


@pytest.mark.parametrize("share", [1.0, 0.95, 0.75, 0.51])
def test_windows_of_mostly_one_class(share: float) -> None:
    """Against a count of every window."""
    rng = np.random.default_rng(7)
    windows = rng.choice([0, 1, 2], (10, 40, 10), p=[0.02, 0.9, 0.08]).astype(np.uint8)
    windows[:, ::4] = 5
    windows[:, 1::8] = 0
    expected = []
    for number in range(40):
        counts = Counter(windows[:, number].ravel().tolist())
        land_class, count = max(counts.items(), key=lambda pair: pair[1])
        if land_class > 0 and count >= share * 100:
            expected.append((number, land_class))
    assert sorted(_homogeneous_windows(windows, share)) == expected


@pytest.mark.slow
def test_a_smaller_share_gives_more_chips_of_no_less(
    landcover_request: Make, tmp_path: Path
) -> None:
    strict = landcover_request(output=str(tmp_path / "strict"), **{"product.chips_per_class": 400})
    lax = landcover_request(
        output=str(tmp_path / "lax"),
        **{"product.chips_per_class": 400, "product.lulc.min_share": 0.8},
    )
    run(strict)
    run(lax)
    assert len(released(lax.output)) > len(released(strict.output))
    for row in released(lax.output):
        (name,) = row["lulc_files"].split("|")
        with rasterio.open(Path(lax.output) / "processed" / "v1" / name.rpartition("/")[2]) as file:
            share = float((file.read(1) == int(row["class"])).mean())
        assert share >= 0.8


# Before any chip is made


def test_classes_are_counted_as_the_run_counts_them(landcover_request: Make) -> None:
    request = landcover_request()
    plan = make_plan(request)
    tasks = [task for task in plan.tasks if isinstance(task, LandcoverTask)]
    assert len(tasks) == len(plan.tasks)
    found = count_classes(tasks, request.product, Budget())
    assert not Path(request.output).exists()
    run(request)
    counts: Counter[str] = Counter()
    for path in Path(request.output).glob("chips/*/chips.json"):
        record = json.loads(path.read_text())
        for number, windows in record["homogeneous"].items():
            counts[number] += windows
    names = {task_class.name: str(number) for number, task_class in tasks[0].classes.items()}
    for name, by_share in found["windows"].items():
        assert by_share["1"] == counts[names[name]]
        assert by_share["1"] <= by_share["0.95"] <= by_share["0.9"] <= by_share["0.8"]
    for by_factor in found["released"].values():
        assert by_factor["1"] <= by_factor["2"] <= by_factor["4"] <= by_factor["all"]


def test_the_command_shows_classes_by_thresholds(landcover_request: Make, tmp_path: Path) -> None:
    file = tmp_path / "request.json"
    file.write_text(landcover_request().model_dump_json())
    shown = CliRunner().invoke(main, ["plan", str(file), "--classes"])
    assert shown.exit_code == 0, shown.output
    assert "2 areas; chips by class" in shown.output
    facts = json.loads(CliRunner().invoke(main, ["plan", str(file), "--classes", "--json"]).output)
    assert facts.keys() == {"areas", "windows", "chips", "released", "areas_by_cloud"}
    assert facts["areas_by_cloud"]["30"] == 2
    assert "2 at 30 %" in shown.output


def test_lower_clouds_leave_no_more_areas(landcover_request: Make) -> None:
    """As a plan with that threshold counts them."""
    request = landcover_request(**{"product.s2l2a.max_cloud_cover": 30})
    found = search(request)
    assert isinstance(found.search_scope, LandcoverScope)
    told = areas_by_cloud(request, found.selection, found.search_scope)
    counts = list(told.values())
    assert counts == sorted(counts, reverse=True)
    for most, count in told.items():
        try:
            tasks = make_plan(
                landcover_request(**{"product.s2l2a.max_cloud_cover": float(most)})
            ).tasks
        except RequestError:
            tasks = ()
        assert count == sum(not task.fault for task in tasks)


def test_other_products_have_no_classes(fields_request: Make, tmp_path: Path) -> None:
    file = tmp_path / "request.json"
    file.write_text(fields_request(**{"product.images": "none"}).model_dump_json())
    refused = CliRunner().invoke(main, ["plan", str(file), "--classes"])
    assert refused.exit_code == 2
    assert "has no such view" in refused.output


def test_missing_bands_are_not_taken_for_clouds(
    landcover: Path, landcover_request: Make, tmp_path: Path
) -> None:
    catalog = json.loads((landcover / "items.json").read_text())
    for item in catalog["features"]:
        for asset in item["assets"].values():
            asset["href"] = str(landcover / asset["href"])
        if item["collection"] == "sentinel-2-l2a":
            item["assets"].pop("B08", None)
            item["assets"].pop("nir", None)
    path = tmp_path / "items.json"
    path.write_text(json.dumps(catalog))
    with pytest.raises(RequestError, match=r"scenes of sentinel-2-l2a lack nir"):
        make_plan(landcover_request(catalog=str(path)))


@pytest.mark.parametrize("word", ["null", "~", "NULL"])
def test_null_is_null(landcover_request: Make, tmp_path: Path, word: str) -> None:
    file = tmp_path / "request.json"
    file.write_text(landcover_request(**{"product.sampling_factor": 1}).model_dump_json())
    command = ["plan", str(file), "--show-request", "--json"]
    before: dict[str, Any] = json.loads(CliRunner().invoke(main, command).output)
    after = json.loads(
        CliRunner().invoke(main, [*command, "--set", f"product.sampling_factor={word}"]).output
    )
    assert before["request"]["product"]["sampling_factor"] == 1
    assert after["request"]["product"]["sampling_factor"] is None
    assert after["from"]["product.sampling_factor"] == "command line"
