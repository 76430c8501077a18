"""The command as people use it: its words, its exit codes, and the demo."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from scenebeam.catalog.bands import resolve_bands
from scenebeam.cli import main
from scenebeam.execution.make import make_task
from scenebeam.execution.progress import report_progress
from scenebeam.planning.reuse import load_or_create_plan
from scenebeam.request import RunRequest
from scenebeam.requestfile import load_request
from scenebeam.sandbox.scenes import AREA
from scenebeam.sandbox.server import Fault, SandboxServer
from scenebeam.storage import open_store

Make = Callable[..., RunRequest]


def scenebeam(*words: str) -> Result:
    return CliRunner().invoke(main, list(words))


@pytest.fixture
def file(make_request: Make, tmp_path: Path) -> str:
    path = tmp_path / "request.json"
    path.write_text(make_request(**{"product.bands": ["scl"]}).model_dump_json())
    return str(path)


def test_run_then_status_then_run_again(file: str, tmp_path: Path) -> None:
    first = scenebeam("run", file)
    assert first.exit_code == 0, first.output
    assert "succeeded, 2 of 2 tasks done" in first.output
    assert "succeeded" in scenebeam("status", str(tmp_path / "out")).output
    again = scenebeam("run", str(tmp_path / "out" / "run.json"), "--json")
    assert again.exit_code == 0
    assert json.loads(again.output)["done"] == 2


def test_plan_writes_nothing(file: str, tmp_path: Path) -> None:
    told = scenebeam("plan", file)
    assert told.exit_code == 0
    for word in ("scenes", "requests", "bytes to read", "memory per task", "time here", "USD"):
        assert word in told.output
    assert json.loads(scenebeam("plan", file, "--json").output)["tasks"] == 2
    assert not (tmp_path / "out").exists()


def test_plan_says_what_is_kept_and_replaced(file: str, tmp_path: Path) -> None:
    """A changed filter replaces products: `plan` says so before, and `run` when it does."""
    scenebeam("run", file)
    whole = json.loads(scenebeam("plan", file, "-o", str(tmp_path / "new"), "--json").output)
    assert whole["existing"] == ""
    done = json.loads(scenebeam("plan", file, "--json").output)
    assert (done["existing"], done["blocks"], done["read_bytes"]) == ("2 kept", 0, [0, 0])
    fewer = ("--set", "select.max_cloud_cover=15")
    changed = json.loads(scenebeam("plan", file, *fewer, "--json").output)
    assert changed["existing"] == "1 kept, 1 replaced"
    assert 0 < changed["blocks"] < whole["blocks"]
    again = scenebeam("run", file, *fewer)
    assert "2 of 2 tasks done (1 kept, 1 replaced)" in again.output
    assert "2 of 2 tasks done (2 kept)" in scenebeam("run", file, *fewer).output


def test_run_warns_before_it_replaces_products(file: str, caplog: pytest.LogCaptureFixture) -> None:
    scenebeam("run", file)
    assert "made again" not in caplog.text
    scenebeam("run", file, "--set", "select.max_cloud_cover=15")
    assert "1 finished product is made again: select.max_cloud_cover: None → 15.0" in caplog.text


def test_plan_refuses_the_output_of_another_request_as_run_does(file: str) -> None:
    scenebeam("run", file)
    other = ("--set", "product.method=last")
    refused = scenebeam("plan", file, *other)
    assert refused.exit_code == 2
    assert "belongs to another request" in refused.output
    replaced = json.loads(scenebeam("plan", file, *other, "--overwrite", "--json").output)
    assert replaced["existing"] == "2 replaced"


def test_shards_count_as_progress_and_their_products_as_products(
    make_request: Make, tmp_path: Path
) -> None:
    shards = {"limits.memory": "100MB", "product.bands": ["scl"], "runner": "serial"}
    request = make_request(**shards)
    seen: list[tuple[int, int]] = []
    store = open_store(request.output)
    plan = load_or_create_plan(request, store)
    assert (plan.products, len(plan.tasks)) == (2, 4)
    for task in plan.tasks[:1]:
        make_task("mosaic", task, store, request.limits, "note")
    with report_progress(plan, store, lambda done, total: seen.append((done, total))):
        pass
    assert seen[-1] == (1, 4)
    path = tmp_path / "shards.json"
    path.write_text(request.model_dump_json())
    assert "4 of 4 tasks done (2 products)" in scenebeam("run", str(path)).output


def test_show_request_says_where_values_came_from(file: str) -> None:
    told = scenebeam("plan", file, "--show-request", "--set", "select.max_cloud_cover=7").output
    assert "select.max_cloud_cover = 7.0  (command line)" in told
    assert f"catalog = {json.loads(Path(file).read_text())['catalog']!r}".replace("'", '"') in told
    assert "limits.memory = 1073741824" in told


def test_mosaic_without_a_file(sandbox: Path, tmp_path: Path) -> None:
    told = scenebeam(
        "mosaic", "--catalog", str(sandbox / "items.json"), "--bbox", ",".join(map(str, AREA)), "--dates", "2021-06",
        "--bands", "B8,scl".replace("B8", "B08"), "--max-cloud-cover", "9", "--output", str(tmp_path / "m"), "--runner", "serial",
    )  # fmt: skip
    assert told.exit_code == 0, told.output
    assert {path.stem for path in (tmp_path / "m").glob("mosaics/*/*.tif")} == {"B08", "scl"}
    assert (
        len(
            json.loads(next((tmp_path / "m").glob("mosaics/*/*.json")).read_text())["assets"][
                "B08"
            ]["scenebeam:scenes"]
        )
        == 2
    )


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["run", "/nowhere.yaml"], "cannot read the request file"),
        (["plan", "{file}", "--set", "selct.x=1"], "did you mean 'select'"),
        (["plan", "{file}", "--set", "dates"], "write NAME=VALUE"),
        (["run", "{file}", "--set", "dates=2019"], "dates left out 7"),
        (["status", "/nowhere"], "has no run"),
        (["info", "--collection", "x"], "io-lulc-annual-v02, landsat-c2-l1, landsat-c2-l2"),
        (["mosaic", "--dates", "2021", "--bands", "red", "--output", "o"], "area is required"),
    ],
)
def test_a_bad_request_ends_with_2_and_the_fix(file: str, words: list[str], told: str) -> None:
    result = scenebeam(*[file if word == "{file}" else word for word in words])
    assert result.exit_code == 2
    assert told in result.output
    assert "Traceback" not in result.output


def test_an_expression_may_begin_with_a_minus_sign(sandbox: Path, tmp_path: Path) -> None:
    """What is typed for an option is its text: it is not read as YAML, where this is a list."""
    words = ["--expression", "- red + nir", "--catalog", str(sandbox / "items.json")]
    words += ["--bbox", ",".join(map(str, AREA)), "--dates", "2021-06", "--runner", "serial"]
    answer = scenebeam("index", *words, "--output", str(tmp_path / "out"))
    assert answer.exit_code == 0, answer.output
    assert list((tmp_path / "out").glob("indices/*/expression.tif"))


def test_discovery_tells_each_band(file: str, sandbox: Path) -> None:
    """What a program needs to go on from a scene by itself."""
    told = json.loads(
        scenebeam("scenes", file, "--set", "product.bands=red,swir16,coastal", "--json").output
    )
    scene = next(one for one in told["scenes"] if one["id"] == "S2A_34TGL_20210610_1_L2A")
    assert scene["source"] == "earth-search/sentinel-2-l2a"
    assert scene["datetime"] == "2021-06-10T09:20:31Z"
    assert (scene["cloud_cover"], scene["resolution_m"], scene["missing_bands"]) == (
        5.0,
        10,
        ["coastal"],
    )
    assert list(scene["band_urls"]) == ["red", "swir16"]
    assert scene["band_urls"]["red"] == str(sandbox / scene["id"] / "red.tif")
    assert scene["visualization_url"] is None
    assert scene["size_bytes"] == 1024 * 1024 * 2 // 2 + 512 * 512 * 2 // 2, (
        "by the shapes that the catalog tells"
    )
    assert len(scene["bbox"]) == 4
    assert set(scene["assets"]) >= {"red", "scl"}
    assert {"scenes_catalog", "time_serie"} <= set(told)


def test_info_tells_the_bands_of_a_sensor() -> None:
    told = scenebeam("info", "--bands", "sentinel-2").output
    for words in (
        ["red", "B04", "10 m", "0.665 µm", "required"],
        ["swir22", "B12", "20 m", "2.19 µm"],
        ["scl", "classes"],
    ):
        assert any(all(word in line for word in words) for line in told.splitlines()), words
    assert "landsat" not in told
    assert "vv" in scenebeam("info", "--bands", "Sentinel1").output
    assert "sur_refl_b01" in scenebeam("info", "--bands", "modis").output
    assert scenebeam("info", "--bands", "viirs").exit_code == 2


def test_stack_and_index_without_a_file(sandbox: Path, tmp_path: Path) -> None:
    where = [
        "--catalog",
        str(sandbox / "items.json"),
        "--bbox",
        ",".join(map(str, AREA)),
        "--runner",
        "serial",
    ]
    words = [
        "--bands",
        "B04,nir",
        "--format",
        "geotiff",
        "--screenshot",
        "--max-cloud-cover",
        "7",
        "--dates",
        "2021",
    ]
    told = scenebeam("stack", *where, *words, "-o", str(tmp_path / "s"))
    assert told.exit_code == 0, told.output
    assert (
        len(list(tmp_path.glob("s/stacks/*/*.tif")))
        == len(list(tmp_path.glob("s/stacks/*/*.png")))
        == 1
    )
    told = scenebeam(
        "index", *where, "--index", "dnbr", "--dates", "2021,2022", "-o", str(tmp_path / "i")
    )
    assert told.exit_code == 0, told.output
    assert (tmp_path / "i" / "indices" / "20210101-20221231" / "dnbr.tif").exists()
    told = scenebeam(
        "index",
        *where,
        "--expression",
        "nir - red",
        "--no-mask",
        "--dates",
        "2021",
        "-o",
        str(tmp_path / "e"),
    )
    assert told.exit_code == 0, told.output
    item = json.loads(next(tmp_path.glob("e/indices/*/*.json")).read_text())
    assert item["properties"]["scenebeam:masked_by"] == []


def test_a_plan_lists_its_blocks_and_becomes_vrts(make_request: Make, tmp_path: Path) -> None:
    path = tmp_path / "request.json"
    path.write_text(make_request(product={"kind": "index", "index": "ndvi"}).model_dump_json())
    words = ["--blocks", str(tmp_path / "blocks.csv"), "--vrt", str(tmp_path / "vrt")]
    told = scenebeam("plan", str(path), *words)
    assert told.exit_code == 0, told.output
    lines = (tmp_path / "blocks.csv").read_text().splitlines()
    assert lines[0] == "task,band,scene,href,blocks,requests,bytes,window"
    assert len(lines) == 1 + 2 * 3 * 3, "two acquisitions of three scenes, three bands each"
    assert len(list((tmp_path / "vrt").glob("2*.vrt"))) == 2
    assert not (tmp_path / "out").exists()


def test_a_failed_run_ends_with_1(
    make_request: Make, served_items: Path, server: SandboxServer, tmp_path: Path
) -> None:
    server.faults.append(Fault("scl.tif", status=404))
    path = tmp_path / "request.json"
    path.write_text(
        make_request(catalog=str(served_items), **{"product.bands": ["scl"]}).model_dump_json()
    )
    result = scenebeam("run", str(path))
    assert result.exit_code == 1
    assert "failures.csv" in result.output


def test_info_lists_what_is_known() -> None:
    assert "earth-search  sentinel-2-c1-l2a" in scenebeam("info").output
    assert "B8A" in scenebeam("info", "--collection", "sentinel-2-l2a").output
    assert len(json.loads(scenebeam("info", "--json").output)) >= 4


@pytest.mark.parametrize(
    ("product", "tasks", "files"),
    [("mosaic", 2, 10), ("stack", 6, 6), ("index", 2, 2), ("assets", 6, 18)],
)
def test_the_demo(tmp_path: Path, product: str, tasks: int, files: int) -> None:
    told = scenebeam("demo", "--product", product, "--output", str(tmp_path / "demo"))
    assert told.exit_code == 0, told.output
    assert f"demo: succeeded, {tasks} of {tasks} tasks" in told.output
    assert len(list(tmp_path.glob(f"demo/{product}/*/*/*.tif"))) == files


@pytest.mark.parametrize(
    "path", sorted((Path(__file__).parents[2] / "config").glob("*.yaml")), ids=lambda p: p.stem
)
def test_the_worked_examples_are_valid_requests(path: Path) -> None:
    request, _ = load_request(path, environ={})
    assert request.product.kind == path.stem.partition("-")[0]
    assert resolve_bands(request)


def test_assets_without_a_file(sandbox: Path, tmp_path: Path) -> None:
    words = [
        "assets",
        "--catalog",
        str(sandbox / "items.json"),
        "--dates",
        "2021-06",
        "--output",
        str(tmp_path / "a"),
    ]
    more = [
        "--bands",
        "B04,scl",
        "--max-scenes",
        "2",
        "--download-n",
        "1",
        "--sort-mode",
        "time",
        "--band-resolution",
        "20",
    ]
    told = scenebeam(*words, *more)
    assert told.exit_code == 0, told.output
    assert "1 of 1 tasks done" in told.output
    assert len(list(tmp_path.glob("a/raw/*/*.tif"))) == 2
    assert len((tmp_path / "a" / "assets_manifest_selected.csv").read_text().splitlines()) == 3


def test_download_workers_come_from_the_command_line_before_the_environment(
    monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    monkeypatch.setenv("SCENEBEAM_MAX_DOWNLOAD_WORKERS", "3")
    request, came_from = load_request(file)
    assert request.limits.max_download_workers == 3
    assert came_from["limits.max_download_workers"] == "environment"
    request, _ = load_request(file, overrides={"limits.max_download_workers": 5})
    assert request.limits.max_download_workers == 5


def test_a_plan_of_downloads_tells_what_it_takes(served_items: Path, tmp_path: Path) -> None:
    path = tmp_path / "assets.yaml"
    path.write_text(
        f"{{catalog: {served_items}, collections: [sentinel-2-l2a], product: {{kind: assets}}, output: out}}"
    )
    facts = json.loads(scenebeam("plan", str(path), "--json").output)
    assert (facts["scenes"], facts["tasks"], facts["requests"], facts["runner"]) == (
        6,
        6,
        [18, 36],
        "serial",
    )
