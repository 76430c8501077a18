"""The frozen plan, its estimate, and whose output folder it is."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import rustac

from scenebeam.errors import RequestError, StorageError
from scenebeam.execution.driver import run
from scenebeam.execution.explain import explain
from scenebeam.planning.plan import read_plan
from scenebeam.planning.reuse import load_or_create_plan
from scenebeam.planning.search import make_plan
from scenebeam.request import RunRequest
from scenebeam.sandbox.server import SandboxServer
from scenebeam.storage import open_store

Make = Callable[..., RunRequest]


def test_a_plan_is_frozen_as_files_to_open(make_request: Make) -> None:
    request = make_request()
    store = open_store(request.output)
    plan = load_or_create_plan(request, store)
    out = Path(request.output)
    assert pq.ParquetFile(out / "plan.parquet").read().column("task").to_pylist() == [
        task.id for task in plan.tasks
    ]
    head = json.loads((out / "run.json").read_text())
    assert head["fingerprint"] == request.fingerprint()
    assert head["versions"]["rasterio"]
    assert len(rustac.read_sync(str(out / "scenes.parquet"))["features"]) == 7
    assert read_plan(store) == plan


def test_what_was_searched_can_be_searched_again(make_request: Make, tmp_path: Path) -> None:
    request = make_request()
    first = load_or_create_plan(request, open_store(request.output))
    again = make_request(
        catalog=str(Path(request.output) / "scenes.parquet"), output=str(tmp_path / "again")
    )
    assert make_plan(again).tasks == first.tasks


def test_planning_reads_headers_alone(
    make_request: Make, served_items: Path, server: SandboxServer
) -> None:
    plan = make_plan(make_request(catalog=str(served_items)))
    assert sum(server.requests.values()) == 2, "one header a band"
    assert not Path(plan.request.output).exists()


def test_the_estimate_is_close_to_what_is_read(
    make_request: Make, served_items: Path, server: SandboxServer
) -> None:
    request = make_request(catalog=str(served_items))
    guess = make_plan(request).estimate
    server.reset_counts()
    run(request)
    assert guess.read_bytes == pytest.approx(server.bytes_sent, rel=0.5)
    assert guess.requests == pytest.approx(sum(server.requests.values()), rel=0.5)


def test_the_same_question_gives_the_same_plan(make_request: Make, tmp_path: Path) -> None:
    one, other = (make_plan(make_request(output=str(tmp_path / name))) for name in "ab")
    assert one.tasks == other.tasks


def test_a_resumed_run_does_not_search_again(
    make_request: Make, sandbox: Path, tmp_path: Path
) -> None:
    catalog = tmp_path / "items.json"
    catalog.write_bytes((sandbox / "items.json").read_bytes())
    request = make_request(catalog=str(catalog))
    plan = load_or_create_plan(request, open_store(request.output))
    catalog.unlink()
    assert load_or_create_plan(request, open_store(request.output)) == plan


def test_a_folder_of_another_request_is_refused_with_the_difference(make_request: Make) -> None:
    request = make_request()
    store = open_store(request.output)
    load_or_create_plan(request, store)
    other = make_request(dates="2021", **{"product.method": "max"})
    with pytest.raises(RequestError) as fault:
        run(other)
    assert "product.method: 'first' → 'max'" in str(fault.value)
    assert "--overwrite" in str(fault.value)
    plan = read_plan(store)
    assert plan is not None
    assert plan.request == request


def test_overwriting_leaves_nothing_of_the_other(make_request: Make) -> None:
    request = make_request()
    run(request)
    out = Path(request.output)
    (out / "mine.txt").write_text("not ours")
    run(make_request(dates="2021", **{"product.bands": ["nir"]}), overwrite=True)
    assert {path.name for path in out.glob("mosaics/*/*")} == {
        "nir.tif", "thumbnail.png", "20210610T092031Z.json",
    }  # fmt: skip
    assert (out / "mine.txt").exists(), "what scenebeam did not make it does not remove"


def test_a_plan_that_cannot_be_read_says_so(make_request: Make) -> None:
    request = make_request()
    load_or_create_plan(request, open_store(request.output))
    (Path(request.output) / "plan.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(StorageError, match="--overwrite"):
        run(request)
    assert run(request, overwrite=True).state == "succeeded"


def test_too_much_to_read_is_refused_before_it_is_read(make_request: Make) -> None:
    with pytest.raises(RequestError, match="limits.max_bytes"):
        make_plan(make_request(**{"limits.max_bytes": "1kB"}))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"dates": "2019"}, "dates left out 7"),
        ({"select.max_cloud_cover": 0, "dates": "2021"}, "select.max_cloud_cover left out 3"),
        ({"area.bbox": [10, 40, 11, 41]}, "area left out 7"),
        ({"product.bands": ["thermal"]}, "known: aot, blue, coastal"),
        ({"product.bands": ["red", "B04"]}, "red is requested under two names"),
        ({"grid.crs": "EPSG:99999"}, "grid.crs"),
        ({"grid.crs": "EPSG:4326"}, "resolution in degrees"),
        ({"grid.crs": "EPSG:32634", "grid.bounds": [0, 0, 1005, 1000]}, "make them whole"),
        (
            {"grid.crs": "EPSG:32634", "grid.bounds": [0, 0, 1000, 1000]},
            "none of the selected scenes",
        ),
    ],
)
def test_bad_requests_are_told_what_to_mend(make_request: Make, changes: dict, told: str) -> None:
    with pytest.raises(RequestError) as fault:
        make_plan(make_request(**changes))
    assert told in str(fault.value)


def test_explain_gives_figures_for_machines(make_request: Make) -> None:
    facts = explain(make_plan(make_request()))
    assert (facts["scenes"], facts["tasks"], facts["runner"]) == (6, 2, "serial")
    json.dumps(facts)
