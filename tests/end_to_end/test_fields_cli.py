"""`scenebeam fields` from a terminal: create, select, refine, download."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from scenebeam.cli import main

WHERE = ("--collection", "sentinel-2-l2a", "--runner", "serial")


def scenebeam(*words: str) -> Result:
    return CliRunner().invoke(main, list(words))


@pytest.fixture
def selection(fields: Path) -> list[str]:
    return [
        "--catalog",
        str(fields / "items.json"),
        "--crop-calendar",
        str(fields / "calendar"),
        *WHERE,
    ]


def images(folder: Path) -> set[str]:
    return {path.name for path in folder.glob("*/*_image_s2.tif")}


def test_create_makes_all_of_it(fields: Path, selection: list[str], tmp_path: Path) -> None:
    words = [
        "fields",
        "create",
        str(fields / "fields.geojson"),
        str(tmp_path),
        "--name",
        "test",
        "--year",
        "2021",
    ]
    report = tmp_path / "report.json"
    told = scenebeam(
        *words,
        *selection,
        "--chip-size",
        "160",
        "--output-report",
        str(report),
        "--show-stats",
        "--preview",
    )
    assert told.exit_code == 0, told.output
    folder = tmp_path / "test-chips"
    document = json.loads(report.read_text())
    assert document == json.loads((folder / "report.json").read_text())
    whole, every = document["successful"], document["total_processed"]
    assert (whole, every) == (len(images(folder)) / 2, len(list(folder.glob("ftw-*"))))
    assert (
        f"{whole} of {every} chips are complete, {every - whole} skipped, 0 failed" in told.output
    )
    assert whole > 25
    assert '"buffer_used"' in told.output
    assert len(list(folder.glob("*/*.png"))) == 2 * whole
    assert {"chip", "reason", "candidates_checked"} == document["skipped"][0].keys()
    assert json.loads((folder / "collection.json").read_text())["id"] == "test"
    again = scenebeam(*words, *selection, "--chip-size", "160", "--preview", "--json")
    assert again.exit_code == 0, again.output
    assert json.loads(again.stdout) == document


def written(folder: Path) -> dict[str, int]:
    """When each TIFF was written."""
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("*/*.tif")}


def test_one_step_after_another(
    fields: Path, chips: Path, selection: list[str], tmp_path: Path
) -> None:
    folder = tmp_path / "chips"
    shutil.copytree(chips, folder)
    here = str(folder)
    for early in ("download", "refine"):
        told = scenebeam("fields", early, here)
        assert (told.exit_code, "begin with `scenebeam fields select`" in told.output) == (2, True)

    told = scenebeam("fields", "select", here, "--year", "2021", *selection)
    assert told.exit_code == 0, told.output
    assert not images(folder)
    chosen = {
        path.name: json.loads(path.read_text())["properties"]["ftw:scene"]
        for path in folder.glob("*/*_s2.json")
    }
    assert len(chosen) > 50

    told = scenebeam("fields", "refine", here, "--output-report", str(tmp_path / "clouds.json"))
    assert told.exit_code == 0, told.output
    clouds = json.loads((tmp_path / "clouds.json").read_text())
    assert clouds["total_processed"] == len(chosen)
    cloudy = set(clouds["above_threshold"])
    assert cloudy
    assert f"{len(chosen)} images measured" in told.output

    told = scenebeam("fields", "download", here, "--num-workers", "2", "--runner", "serial")
    assert told.exit_code == 0, told.output
    assert len(images(folder)) == len(chosen)

    before = written(folder)
    told = scenebeam("fields", "refine", here, "--update-items", "--json")
    assert told.exit_code == 0, told.output
    items = {path.stem: json.loads(path.read_text()) for path in folder.glob("*/*_s2.json")}
    assert all(item["properties"]["eo:cloud_cover"] == 0 for item in items.values())
    changed = {
        name
        for name in items
        if f"{name}.json" in chosen
        and items[name]["properties"]["ftw:scene"] != chosen[f"{name}.json"]
    }
    assert changed == cloudy & items.keys()
    after = written(folder)
    anew = {name for name in after if after[name] != before.get(name)}
    assert anew == {f"{name.removesuffix('_s2')}_image_s2.tif" for name in changed}
    assert images(folder) == {f"{n.removesuffix('_s2')}_image_s2.tif" for n in items}

    told = scenebeam(
        "fields",
        "select",
        here,
        "--clear-selections",
        "--no-pixel-check",
        "--cloud-cover-pixel",
        "0",
        "--force",
    )
    assert told.exit_code == 0, told.output
    assert not images(folder)  # of what was chosen before nothing is left
    assert {
        path.name: json.loads(path.read_text())["properties"]["ftw:scene"]
        for path in folder.glob("*/*_s2.json")
    } == chosen


def test_elsewhere_and_without_remote_refs(
    chips: Path, selection: list[str], tmp_path: Path
) -> None:
    words = [
        "fields",
        "select",
        str(chips),
        "--year",
        "2021",
        *selection,
        "-o",
        str(tmp_path / "out"),
        "--no-keep-remote-refs",
    ]
    told = scenebeam(*words)
    assert told.exit_code == 0, told.output
    assert not list(chips.glob("*/*_s2.json"))
    told = scenebeam("fields", "download", str(tmp_path / "out"), "--runner", "serial")
    assert told.exit_code == 0, told.output
    (item, *_) = (
        json.loads(path.read_text()) for path in sorted((tmp_path / "out").glob("*/*_s2.json"))
    )
    assert item["assets"].keys() == {"clipped"}


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["select", "{chips}", "--year", "2021", "--set", "product.days.planting=0"], "product.days.planting"),
        (["select", "{chips}", "--year", "12"], "product.year"),
        (["select", "/nowhere", "--year", "2021", "--crop-calendar", "/x"], "holds neither items.parquet nor collection.json"),
        (["create", "{fields}", "o", "--name", "a b", "--year", "2021", "--images", "none"], "run:"),
        (["create", "{fields}", "o", "--name", "a", "--year", "2021", "--images", "none", "--chip-size", "7"], "product.grid.size"),
        (["create", "{fields}", "o", "--name", "a", "--year", "2021", "--set", "product.chips=x"], "give either chips"),
        (["create", "{fields}", "o", "--name", "a", "--year", "2021", "--images", "none", "--set", "dates=2021"], "leave them out"),
    ],
)  # fmt: skip
def test_a_bad_request_says_what_to_mend(
    fields: Path,
    chips: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    told: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    named = {"{chips}": str(chips), "{fields}": str(fields / "fields.geojson")}
    result = scenebeam("fields", *[named.get(word, word) for word in words])
    assert result.exit_code == 2, result.output
    assert told in result.output
    assert "Traceback" not in result.output
