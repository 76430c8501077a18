"""A series goes on: scenes arrive late, twice, processed again or not at all, and every product fits its inputs."""

from __future__ import annotations

import json
import posixpath
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from conftest import tree
from growing_catalog import Catalog
from lives import Killed, Lives
from scenebeam.errors import RequestError
from scenebeam.execution import watch
from scenebeam.execution.driver import run
from scenebeam.execution.make import make_task
from scenebeam.multihash import content_multihash
from scenebeam.planning import reuse
from scenebeam.planning.search import make_plan
from scenebeam.request import RunRequest, interval
from scenebeam.requestfile import validate_request
from scenebeam.sandbox.scenes import AREA, COLLECTION
from scenebeam.storage import Store, open_store

Document = dict[str, Any]
BEFORE, AFTER = "20210610T092031Z", "20220615T092029Z"


@pytest.fixture
def catalog(sandbox: Path, tmp_path: Path) -> Catalog:
    return Catalog(sandbox, tmp_path)


@pytest.fixture
def series(catalog: Catalog, tmp_path: Path) -> Callable[..., RunRequest]:
    def make(output: str = "series", **changes: Any) -> RunRequest:
        document: Document = {
            "run": "test",
            "catalog": str(catalog.path),
            "collections": [COLLECTION],
            "area": {"bbox": list(AREA)},
            "dates": "2021-01-01/..",
            "product": {"kind": "mosaic", "bands": ["red", "scl"]},
            "series": True,
            "output": output if output.startswith("gs://") else str(tmp_path / output),
            "runner": "serial",
        }
        return validate_request({**document, **changes})

    return make


Make = Callable[..., RunRequest]
VOLATILE = (
    "status.json",
    "spending.csv",
    "report/",
    "plan.parquet",
    "superseded.json",
    "series.json",
)
"""What tells of runs rather than of products."""


def products(output: str) -> dict[str, Any]:
    """The files of a series by key, without when they were updated."""
    files: dict[str, Any] = {}
    for key, read in tree(Path(output)).items():
        content: Any = read
        if key.startswith(VOLATILE):
            continue
        if key.startswith("mosaics/") and key.endswith(".json"):
            item = json.loads(content)
            item["properties"].pop("updated", None)
            content = json.dumps(item).encode()
        if key == "items.parquet":
            table = pq.read_table(Path(output) / key)
            content = table.drop_columns([n for n in table.column_names if n == "updated"]).to_pylist()  # fmt: skip
        if key == "run.json":
            content = {**json.loads(content), "request": None}
        files[key] = content
    return files


def item_of(output: str, name: str) -> Document:
    document: Document = json.loads((Path(output) / f"mosaics/{name}/{name}.json").read_text())
    return document


def made(output: str) -> dict[str, int]:
    """The images of a series, with the time at which each was written."""
    return {str(path): path.stat().st_mtime_ns for path in Path(output).rglob("*.tif")}


def check_whole(output: str) -> int:
    """Open the collection and every item as a reader does; returns how many there are."""
    folder = Path(output)
    if not (folder / "collection.json").exists():
        return 0
    collection = json.loads((folder / "collection.json").read_text())
    links = [link["href"] for link in collection["links"] if link["rel"] == "item"]
    for href in links:
        item_path = folder / href
        item = json.loads(item_path.read_text())
        for asset in item["assets"].values():
            content = (item_path.parent / asset["href"]).read_bytes()
            assert content_multihash(content) == asset["file:checksum"], asset["href"]
    return len(links)


# What is new, what has changed, and what stays


def test_new_scenes_become_products_and_every_other_byte_stays(
    catalog: Catalog, series: Make
) -> None:
    catalog.add("20210610")
    first = run(series())
    assert (first.state, first.done, first.tasks) == ("succeeded", 1, 1)
    before = made(first.output)
    catalog.add("20220615")
    second = run(series())
    assert (second.state, second.tasks, second.kept) == ("succeeded", 2, 1)
    after = made(second.output)
    assert before.items() <= after.items()
    assert "updated" not in item_of(second.output, AFTER)["properties"]
    third = run(series())
    assert (third.kept, third.requests) == (2, 0)
    assert made(third.output) == after
    alone = run(series("alone"))
    assert products(alone.output) == products(third.output)
    assert check_whole(third.output) == 2


def test_a_late_tile_remakes_its_acquisition_alone(catalog: Catalog, series: Make) -> None:
    catalog.add("34TGL_20210610", "34TGK_20210610", "20220615")
    first = run(series())
    before, item = made(first.output), item_of(first.output, BEFORE)
    catalog.add("35TKF_20210610")
    second = run(series())
    assert (second.kept, second.replaced) == (1, 1)
    updated = item_of(second.output, BEFORE)
    assert updated["properties"]["updated"]
    assert len(updated["assets"]["red"]["scenebeam:scenes"]) == 3
    after = made(second.output)
    assert {path: when for path, when in before.items() if AFTER in path}.items() <= after.items()
    # Readers of the former item find the former files until the next run.
    old = Path(first.output) / f"mosaics/{BEFORE}" / item["assets"]["red"]["href"]
    assert old.exists()
    assert run(series()).kept == 2
    assert not old.exists()
    assert products(run(series("alone")).output) == products(first.output)


def test_a_newer_processing_replaces_a_scene(catalog: Catalog, series: Make) -> None:
    catalog.add("20210610")
    first = run(series())
    newer = catalog.reprocess("34TGL_20210610")
    assert run(series()).replaced == 1
    assert newer in item_of(first.output, BEFORE)["assets"]["red"]["scenebeam:scenes"]
    run(series())
    assert products(run(series("alone")).output) == products(first.output)


def test_what_the_catalog_drops_stays_and_is_named(catalog: Catalog, series: Make) -> None:
    catalog.add("20210610", "20220615")
    first = run(series())
    before = made(first.output)
    catalog.remove("20210610")
    second = run(series())
    assert (second.kept, second.tasks) == (2, 2)
    assert made(second.output) == before
    assert json.loads((Path(second.output) / "run.json").read_text())["gone"] == [BEFORE]
    assert check_whole(second.output) == 2
    assert "no longer in the catalog" in (Path(second.output) / "report/index.html").read_text()
    catalog.add("20210610")
    assert run(series()).kept == 2
    assert "gone" not in json.loads((Path(second.output) / "run.json").read_text())


def test_an_unreadable_tile_is_tried_again_when_asked(catalog: Catalog, series: Make) -> None:
    catalog.add("20210610")
    [key] = [key for key in catalog.items if "35TKF" in key]
    href = catalog.items[key]["assets"]["red"]["href"]
    catalog.items[key]["assets"]["red"]["href"] = "/nowhere.tif"
    catalog.write()
    first = run(series())
    assert first.incomplete == 1
    assert run(series()).kept == 1
    catalog.items[key]["assets"]["red"]["href"] = href
    catalog.write()
    # The item names another file: its state has changed.
    assert run(series()).incomplete == 0
    assert run(series(), retry_failed=True).kept == 1


def test_what_an_unfinished_update_would_replace_is_not_lost_with_its_scenes(
    catalog: Catalog, series: Make
) -> None:
    """The update fails, and then the catalog drops the scenes: the former item still finds its files."""
    product = {"kind": "mosaic", "bands": ["red"], "on_missing": "fail"}
    catalog.add("34TGL_20210610", "20220615")
    output = run(series(product=product)).output
    catalog.add("35TKF_20210610")
    [key] = [key for key in catalog.items if "35TKF_20210610" in key]
    catalog.items[key]["assets"]["red"]["href"] = "/nowhere.tif"
    catalog.write()
    assert run(series(product=product)).failed == 1
    catalog.remove("20210610")
    for _ in range(2):
        run(series(product=product))
        item = item_of(output, BEFORE)
        for asset in item["assets"].values():
            assert (Path(output) / "mosaics" / BEFORE / asset["href"]).exists()


def test_a_scene_that_the_catalog_loses_stays_in_its_product(
    catalog: Catalog, series: Make
) -> None:
    catalog.add("20210610", "20220615")
    output = run(series()).output
    before = made(output)
    catalog.remove("34TGK_20210610")
    assert run(series()).kept == 2
    assert run(series()).kept == 2
    assert made(output) == before
    assert json.loads((Path(output) / "run.json").read_text())["gone"] == [BEFORE]


def test_a_period_is_not_made_of_less_when_dates_roll_on(catalog: Catalog, series: Make) -> None:
    product = {"kind": "composite", "bands": ["red"], "period": "year"}
    catalog.add("34TGL_20220615", "34TGK_20220615")
    output = run(series(product=product, dates="2022-01-01/..")).output
    before = made(output)
    assert run(series(product=product, dates="2022-06-16/..")).failed == 0
    assert made(output) == before


def test_files_that_a_bucket_of_downloads_holds_are_never_removed(
    catalog: Catalog, series: Make, prefix: str
) -> None:
    catalog.add("34TGL_20210610")
    request = series(output=f"{prefix}/assets", product={"kind": "assets", "bands": ["red", "scl"]})
    for arrived in ("20210610", "20220615", "nothing", "nothing"):
        assert run(request).state == "succeeded"
        keys = open_store(request.output).list()
        assert "raw/S2A_34TGL_20210610_1_L2A/red.tif" in keys, (arrived, sorted(keys))
        catalog.add(arrived)


def test_an_update_that_waits_keeps_the_former_version(catalog: Catalog, series: Make) -> None:
    product = {"kind": "mosaic", "bands": ["red"], "on_missing": "fail"}
    catalog.add("34TGL_20210610", "34TGL_20220615")
    output = run(series(product=product)).output
    catalog.add("35TKF_20220615")
    [key] = [key for key in catalog.items if "35TKF_20220615" in key]
    catalog.items[key]["assets"]["red"]["href"] = "/nowhere.tif"
    catalog.write()
    assert run(series(product=product)).failed == 1
    catalog.add("34TGK_20210610")
    for _ in range(3):
        run(series(product=product, limits={"max_scenes": 3}))
        for asset in item_of(output, AFTER)["assets"].values():
            assert (Path(output) / "mosaics" / AFTER / asset["href"]).exists()


def test_a_sharded_product_goes_on_where_a_pass_has_ended(catalog: Catalog, series: Make) -> None:
    catalog.add("20210610")
    limits = {"memory": "100MB"}
    request = series(limits=limits, product={"kind": "mosaic", "bands": ["scl"]})
    store = open_store(request.output)
    plan = reuse.load_or_create_plan(request, store)
    assert len(plan.tasks) > 1
    make_task("mosaic", plan.tasks[0], store, request.limits, "note")
    [part] = store.list("parts/")
    reuse.load_or_create_plan(request, open_store(request.output))
    assert store.list("parts/") == {part}
    assert run(request).state == "succeeded"
    assert not store.list("parts/")


@pytest.fixture
def renamed(catalog: Catalog) -> Callable[..., str]:
    """Add a tile of the same day that is an hour earlier, which names the mosaic of the day."""

    def add(href: str = "") -> str:
        catalog.add("34TGL_20210610")
        [key] = [key for key in catalog.items if "34TGL_20210610" in key]
        earlier = json.loads(json.dumps(catalog.items[key]).replace("34TGL", "34TGK"))
        earlier["properties"]["datetime"] = "2021-06-10T08:20:31Z"
        earlier["properties"]["s2:datatake_id"] = "GS2B_20210610T082031_000001_N03.00"
        if href:
            earlier["assets"]["red"]["href"] = href
        catalog.items[earlier["id"]] = earlier
        catalog.write()
        return "20210610T082031Z"

    return add


DAY = {"kind": "mosaic", "bands": ["red"], "group_by": "day", "on_missing": "fail"}


def test_a_product_is_kept_until_its_successor_of_another_name_is_made(
    catalog: Catalog, series: Make, renamed: Callable[..., str]
) -> None:
    catalog.add("34TGL_20210610")
    request = series(product=DAY)
    assert run(request).tasks == 1
    name = renamed("/nowhere.tif")
    failed = run(request)
    assert (failed.state, failed.failed, failed.kept, failed.waiting) == ("failed", 1, 1, 1)
    assert check_whole(request.output) == 1
    renamed()
    assert run(request).state == "succeeded"
    # Both are there until the next pass, and never none.
    assert check_whole(request.output) == 2
    last = run(request)
    assert (last.tasks, last.kept, last.waiting) == (1, 1, 0)
    run(request)
    assert [path.name for path in (Path(request.output) / "mosaics").iterdir()] == [name]


@pytest.mark.parametrize("policy", [{"late": "freeze"}, {"settled_after": 10}])
def test_a_product_that_may_not_change_has_no_successor_of_another_name(
    catalog: Catalog, series: Make, renamed: Callable[..., str], policy: Document
) -> None:
    catalog.add("34TGL_20210610")
    request = series(product=DAY, series=policy)
    before = made(run(request).output)
    renamed()
    status = run(request)
    assert (status.tasks, status.kept) == (1, 1)
    assert made(request.output) == before
    assert json.loads((Path(request.output) / "run.json").read_text())["late"] == [BEFORE]


def test_what_fails_in_each_pass_holds_up_nothing(catalog: Catalog, series: Make) -> None:
    catalog.add("34TGL_20210610", "34TGL_20220615")
    [key] = [key for key in catalog.items if "20210610" in key]
    catalog.items[key]["assets"]["red"]["href"] = "/nowhere.tif"
    catalog.write()
    product = {"kind": "mosaic", "bands": ["red"], "on_missing": "fail"}
    request = series(product=product, limits={"max_scenes": 1})
    first = run(request)
    assert (first.failed, first.waiting) == (1, 1)
    second = run(request)
    assert (second.done, second.failed, second.waiting) == (1, 0, 1)


def test_another_attempt_has_files_of_its_own(
    catalog: Catalog, series: Make, tmp_path: Path
) -> None:
    catalog.add("20210610")
    [key] = [key for key in catalog.items if "35TKF" in key]
    source = Path(catalog.items[key]["assets"]["red"]["href"])
    copy = tmp_path / "red.tif"
    catalog.items[key]["assets"]["red"]["href"] = str(copy)
    catalog.write()
    request = series()
    assert run(request).incomplete == 1
    first = made(request.output)
    shutil.copy(source, copy)
    assert run(request).incomplete == 1
    again = run(request, retry_failed=True)
    assert (again.replaced, again.incomplete) == (1, 0)
    assert "updated" in item_of(request.output, BEFORE)["properties"]
    # Readers of the former item find its files until the next pass.
    assert first.items() <= made(request.output).items()
    second = {path for path in made(request.output) if path not in first}
    for retry_failed in (False, True, False):
        status = run(request, retry_failed=retry_failed)
        assert (status.kept, status.incomplete, status.replaced) == (1, 0, 0)
        assert set(made(request.output)) == second


def test_an_interrupted_attempt_goes_on_beside_the_files_of_the_former_one(
    catalog: Catalog, series: Make, tmp_path: Path
) -> None:
    catalog.add("20210610")
    [key] = [key for key in catalog.items if "35TKF" in key]
    source = catalog.items[key]["assets"]["red"]["href"]
    copy = tmp_path / "red.tif"
    catalog.items[key]["assets"]["red"]["href"] = str(copy)
    catalog.write()
    request = series()
    run(request)
    first = made(request.output)
    shutil.copy(source, copy)
    plan = reuse.load_or_create_plan(request, open_store(request.output), retry_failed=True)
    assert [task.attempt for task in plan.tasks] == [2]
    status = run(request)
    assert (status.kept, status.incomplete) == (0, 0)
    assert first.items() <= made(request.output).items()


def test_periods_of_a_duration_keep_their_names(
    catalog: Catalog, series: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    product = {"kind": "composite", "bands": ["red"], "period": "P30D"}
    catalog.add("20210610")
    at = datetime(2021, 6, 20, tzinfo=UTC)
    monkeypatch.setattr(interval, "today", lambda: at)
    request = {"product": product, "dates": "2021-06-01/.."}
    output = run(series(**request)).output
    at += timedelta(days=2)
    assert run(series(**request)).kept == 1
    names = [path.name for path in (Path(output) / "composites").iterdir()]
    assert names == ["20210601-20210630"]
    with pytest.raises(RequestError, match="product.period: P30D is counted from the first date"):
        series(product=product, dates="last 90 days")


# Policies


def test_a_frozen_series_never_remakes(catalog: Catalog, series: Make) -> None:
    catalog.add("34TGL_20210610")
    first = run(series(series={"late": "freeze"}))
    before = made(first.output)
    catalog.add("20210610")
    second = run(series(series={"late": "freeze"}))
    assert (second.kept, second.replaced) == (1, 0)
    assert made(second.output) == before
    assert json.loads((Path(second.output) / "run.json").read_text())["late"] == [BEFORE]


@pytest.mark.parametrize(("days", "replaced"), [(2, 0), (100_00, 1)])
def test_a_settled_product_stays(catalog: Catalog, series: Make, days: int, replaced: int) -> None:
    catalog.add("34TGL_20210610")
    policy = {"settled_after": days}
    run(series(series=policy))
    catalog.add("20210610")
    assert run(series(series=policy)).replaced == replaced


def test_a_period_is_made_again_until_it_is_settled(
    catalog: Catalog, series: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    product = {"kind": "composite", "bands": ["red"], "period": "month"}

    class Clock(datetime):
        at = datetime(2021, 7, 1, tzinfo=UTC)

        @classmethod
        def now(cls, tz: Any = None) -> datetime:  # type: ignore[override]
            return cls.at

    monkeypatch.setattr(reuse, "datetime", Clock)
    monkeypatch.setattr(interval, "today", lambda: Clock.at)
    catalog.add("34TGL_20210610")
    request = {"product": product, "dates": "2021-06/.."}
    assert run(series(**request)).state == "succeeded"
    catalog.add("34TGK_20210610")
    assert run(series(**request)).replaced == 1
    Clock.at += timedelta(days=61)
    catalog.add("35TKF_20210610")
    assert run(series(**request)).replaced == 0


def test_earlier_versions_are_kept_as_many_as_asked_for(catalog: Catalog, series: Make) -> None:
    policy = {"keep_versions": 1}
    catalog.add("34TGL_20210610")
    output = Path(run(series(series=policy)).output) / "mosaics" / BEFORE
    for late in ("34TGK_20210610", "35TKF_20210610"):
        catalog.add(late)
        assert run(series(series=policy)).replaced == 1
    run(series(series=policy))
    versions = [folder for folder in output.iterdir() if folder.is_dir()]
    assert len(versions) == 2
    [archived] = output.glob(f"*/{BEFORE}.json")
    item = json.loads(archived.read_text())
    assert item["properties"]["deprecated"] is True
    assert len(item["assets"]["red"]["scenebeam:scenes"]) == 2
    for asset in item["assets"].values():
        content = (archived.parent / asset["href"]).read_bytes()
        assert content_multihash(content) == asset["file:checksum"]
    for link in item["links"]:
        if link["rel"] in ("collection", "parent", "root"):
            assert (archived.parent / link["href"]).resolve() == output.parents[1] / "collection.json"  # fmt: skip


# Requests


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"area": None}, "series: needs area"),
        ({"select": {"mode": "nearest-to-date", "anchors": ["2021-06-01"]}}, "takes all acquisitions"),
        ({"product": {"kind": "index", "index": "dnbr"}, "dates": ["2021", "2022"]}, "one image of two periods"),
        ({"product": {"kind": "composite", "bands": ["red"], "period": "month", "fill": "previous"}}, "product.fill"),
        ({"dates": "../2022"}, "not a date"),
        ({"dates": "last 0 days"}, "number of days"),
        ({"dates": "2999-01-01/.."}, "starts in the future"),
    ],
)  # fmt: skip
def test_what_cannot_go_on_is_refused(
    catalog: Catalog, series: Make, changes: Document, said: str
) -> None:
    with pytest.raises(RequestError, match=said):
        series(**changes)


def test_dates_may_reach_further_and_the_fingerprint_stays(catalog: Catalog, series: Make) -> None:
    catalog.add("20210610", "20220615")
    short, long = series(dates="2021-01/2021-12"), series(dates="2021-01-01/..")
    assert short.fingerprint() == long.fingerprint()
    assert short.fingerprint() != series(series=False).fingerprint()
    assert run(short).tasks == 1
    status = run(long)
    assert (status.tasks, status.kept) == (2, 1)


def test_rolling_dates_keep_what_they_have_left_behind(catalog: Catalog, series: Make) -> None:
    catalog.add("20210610")
    days = (datetime.now(UTC) - datetime(2021, 6, 1, tzinfo=UTC)).days
    assert run(series(dates=f"last {days} days")).tasks == 1
    catalog.add("20220615")
    status = run(series(dates=f"last {days - 300} days"))
    assert (status.tasks, status.kept) == (2, 1)


# Readers


@pytest.fixture
def reader(series: Make) -> Iterator[list[Exception]]:
    """A reader that opens everything again and again while runs go on."""
    output, stop = series().output, threading.Event()
    faults: list[Exception] = []

    def read() -> None:
        while not stop.wait(0.001):
            try:
                check_whole(output)
            except Exception as error:
                faults.append(error)

    thread = threading.Thread(target=read)
    thread.start()
    yield faults
    stop.set()
    thread.join()


def test_a_reader_never_sees_half_an_update(
    catalog: Catalog, series: Make, reader: list[Exception]
) -> None:
    for arrived in ("34TGL_20210610", "34TGK_20210610", "20220615", "35TKF_20210610"):
        catalog.add(arrived)
        assert run(series()).state == "succeeded"
    assert check_whole(series().output) == 2
    assert not reader


def test_an_interrupted_update_goes_on_and_ends_the_same(
    catalog: Catalog, series: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every write of an update is the last one once; after each, a reader finds whole products."""
    catalog.add("34TGL_20210610")
    start = Path(run(series()).output)
    whole = start.with_name("whole")
    shutil.copytree(start, whole)
    catalog.add("20210610", "20220615")
    lives = Lives(monkeypatch)
    for number in range(200):
        shutil.rmtree(start)
        shutil.copytree(whole, start)
        lives.left = number
        try:
            run(series())
            break
        except Killed:
            lives.left = 10**9
        assert check_whole(str(start)) >= 1
        assert run(series()).state == "succeeded"
        assert check_whole(str(start)) == 2
    else:
        pytest.fail("the update never ends")
    assert number > 10
    lives.left = 10**9
    run(series())
    assert products(run(series("alone")).output) == products(str(start))


# Watching


def test_watch_waits_for_scenes_and_makes_each_once(
    catalog: Catalog, series: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalog.write()
    arrivals = iter(["20210610", "20220615", "nothing"])
    pauses = []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        catalog.add(next(arrivals))

    monkeypatch.setattr(time, "sleep", sleep)
    statuses = list(watch.watch_series(series(), 3600, 4))
    assert [(status.tasks, status.kept) for status in statuses] == [(1, 0), (2, 1), (2, 2)]
    assert all(3500 < seconds <= 3600 for seconds in pauses)


def test_a_series_without_scenes_for_now_keeps_what_it_has(catalog: Catalog, series: Make) -> None:
    catalog.add("20210610")
    run(series())
    status = run(series(dates="last 10 days"))
    assert (status.state, status.kept, status.tasks) == ("succeeded", 1, 1)


@pytest.mark.parametrize("text", ["6", "h", "0m", "400d", "6 hours", "-1h"])
def test_a_pause_is_a_number_and_a_unit(text: str) -> None:
    with pytest.raises(RequestError, match="--every"):
        watch.parse_pause(text)


def test_only_a_series_is_watched(catalog: Catalog, series: Make) -> None:
    assert watch.parse_pause("30m") == 1800
    with pytest.raises(RequestError, match="series: true"):
        next(watch.watch_series(series(series=False), 1))


# What it says of itself, and what it may cost


def test_a_series_says_what_it_has_made_of_what(catalog: Catalog, series: Make) -> None:
    catalog.add("34TGL_20210610", "20220615")
    output = Path(run(series(series={"late": "freeze"})).output)

    def products_of() -> list[Document]:
        document = json.loads((output / "series.json").read_text())
        assert (document["run"], document["kind"]) == ("test", "mosaic")
        rows: list[Document] = document["products"]
        return rows

    first, second = products_of()
    assert (first["product"], first["state"]) == (BEFORE, "made")
    assert first["datetime"] == "2021-06-10T09:20:31Z"
    assert first["delay_hours"] > 24 * 365
    assert any("34TGL_20220615" in scene for scene in second["scenes"])
    catalog.add("34TGK_20210610")
    run(series(series={"late": "freeze"}))
    assert [row["state"] for row in products_of()] == ["late", "made"]
    catalog.remove("20210610")
    run(series(series={"late": "freeze"}))
    assert [row["state"] for row in products_of()] == ["gone", "made"]


def test_limits_are_of_what_a_pass_makes(catalog: Catalog, series: Make) -> None:
    catalog.add("20210610")
    run(series())
    catalog.add("20220615")
    with pytest.raises(RequestError, match="limits.max_bytes"):
        run(series(limits={"max_bytes": 1000}))
    run(series())
    assert run(series(limits={"max_bytes": 1000})).kept == 2


def test_a_pass_makes_no_more_scenes_than_allowed_oldest_first(
    catalog: Catalog, series: Make
) -> None:
    catalog.add("20210610", "20220615")
    bounded = series(limits={"max_scenes": 4})
    first = run(bounded)
    assert (first.state, first.tasks, first.waiting) == ("succeeded", 1, 1)
    assert (Path(first.output) / f"mosaics/{BEFORE}").exists()
    assert json.loads((Path(first.output) / "run.json").read_text())["waiting"] == [AFTER]
    second = run(bounded)
    assert (second.tasks, second.kept, second.waiting) == (2, 1, 0)
    # A product of more scenes than are allowed would wait for ever: it is made alone.
    catalog.reprocess("34TGK_20210610")
    assert run(series(limits={"max_scenes": 2})).replaced == 1


def test_a_run_that_would_cost_too_much_is_refused_with_the_figure(
    catalog: Catalog, series: Make
) -> None:
    catalog.add("20210610")
    runner = {"kind": "dataflow", "workers": 2}
    with pytest.raises(RequestError, match=r"about 0.0\d USD on Dataflow, more than limits.max_cost = 0.01"):  # fmt: skip
        make_plan(series(runner=runner, series=False, limits={"max_cost": 0.01}))
    assert make_plan(series(runner=runner, series=False, limits={"max_cost": 1})).tasks
    assert make_plan(series(series=False, limits={"max_cost": 0})).tasks


def test_a_reader_of_a_bucket_never_sees_half_an_update(
    catalog: Catalog, series: Make, prefix: str
) -> None:
    store, stop = open_store(f"{prefix}/series"), threading.Event()
    faults: list[Exception] = []
    seen = 0

    def read() -> None:
        nonlocal seen
        while not stop.wait(0.001):
            try:
                seen += _read_bucket(store)
            except Exception as error:
                faults.append(error)

    thread = threading.Thread(target=read)
    thread.start()
    request = series(output=store.uri)
    for arrived in ("34TGL_20210610", "34TGK_20210610", "20220615", "35TKF_20210610"):
        catalog.add(arrived)
        assert run(request).state == "succeeded"
    stop.set()
    thread.join()
    assert not faults
    assert seen > 10
    assert run(request).kept == 2
    assert not store.superseded()


def _read_bucket(store: Store) -> int:
    """Open the collection and every item in a bucket, and the files that they name."""
    content = store.read("collection.json")
    if content is None:
        return 0
    links = [link["href"] for link in json.loads(content)["links"] if link["rel"] == "item"]
    for href in links:
        key = posixpath.normpath(href)
        item = json.loads(store.read(key) or b"")
        for asset in item["assets"].values():
            file = posixpath.normpath(posixpath.join(posixpath.dirname(key), asset["href"]))
            assert content_multihash(store.read(file) or b"") == asset["file:checksum"], file
    return len(links)
