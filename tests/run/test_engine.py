"""Each transform of the one graph, and that a replayed bundle changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import apache_beam as beam
import pytest
from apache_beam.testing.test_pipeline import TestPipeline
from apache_beam.testing.util import assert_that, equal_to

from conftest import tree
from scenebeam.errors import RunnerError
from scenebeam.execution.driver import run
from scenebeam.execution.engine import MakeOptions, MakeRange, all_ranges, merge_outcomes, report
from scenebeam.execution.make import MemoryGate, _available_memory
from scenebeam.execution.row_ranges import split_ranges
from scenebeam.planning.reuse import load_or_create_plan
from scenebeam.report.outcomes import Outcomes, part_key
from scenebeam.request import RunRequest
from scenebeam.status import RunStatus, now
from scenebeam.storage import open_store
from scenebeam.transfer.retry import shutdown

Make = Callable[..., RunRequest]


@pytest.fixture(autouse=True)
def no_shutdown() -> None:
    """Other tests leave the event set, as an interrupted process does."""
    shutdown.clear()


def settled(make_request: Make) -> str:
    request = make_request(**{"product.bands": ["scl"]})
    load_or_create_plan(request, open_store(request.output))
    return request.output


FOLDER = "outcomes/20260101T000000Z/"


def made(make: MakeRange, output: str, *rows: tuple[int, int]) -> list[tuple[str, str]]:
    """Make ranges of rows, and merge their outcomes: what the last step of the graph gets."""
    parts = []
    for first, last in rows:
        parts += [key for _, key in make.process((output, first, last))]
    return [merge_outcomes(((output, 0), parts))]


def start(options: MakeOptions) -> MakeRange:
    make = MakeRange(options)
    make.setup()
    return make


def final_status(output: str, keys: list[str]) -> RunStatus:
    status = RunStatus(run="test", state="running", started=now())
    return RunStatus.model_validate_json(report((output, keys), status.model_dump_json()))


def test_ranges_are_those_with_an_output_missing(make_request: Make) -> None:
    output = settled(make_request)
    assert list(split_ranges(all_ranges(output))) == [(output, 0, 1), (output, 1, 2)]
    folder = Path(output) / "mosaics" / "20210610T092031Z"
    folder.mkdir(parents=True)
    for name in ("scl.tif", "thumbnail.png"):
        (folder / name).touch()
    assert len(list(split_ranges(all_ranges(output)))) == 2
    (folder / "20210610T092031Z.json").touch()
    assert list(split_ranges(all_ranges(output))) == [(output, 1, 2)]


def test_make_range_in_a_pipeline(make_request: Make) -> None:
    output = settled(make_request)
    with TestPipeline(runner="BundleBasedDirectRunner") as pipeline:
        keys = pipeline | beam.Create([(output, 0, 1)]) | beam.ParDo(MakeRange(MakeOptions(FOLDER)))
        assert_that(keys, equal_to([((output, 0), part_key(FOLDER, 0))]))
    assert (Path(output) / "mosaics/20210610T092031Z/scl.tif").exists()
    outcomes = Outcomes([part_key(FOLDER, 0)], open_store(output))
    assert {task: outcome.state for task, outcome in outcomes.items()} == {
        "20210610T092031Z": "done"
    }


def test_who_listens_is_told_while_it_goes_and_at_its_end(
    make_request: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[int] = []
    output = settled(make_request)
    make = start(MakeOptions(FOLDER, on_progress=lambda: told.append(1)))
    made(make, output, (0, 1))
    assert not told, "not after each task: there may be thousands a minute"
    monkeypatch.setattr("scenebeam.execution.engine._REPORT_INTERVAL", 0.0)
    [(_, key)] = made(make, output, (1, 2))
    assert len(told) == 1
    status = RunStatus(run="test", state="running", tasks=2, started=now()).model_dump_json()
    report((output, [key]), status, lambda: told.append(2))
    assert told == [1, 2]


def test_a_bundle_that_is_replayed_changes_no_byte(make_request: Make) -> None:
    output = settled(make_request)
    make = start(MakeOptions(FOLDER))
    parts = [key for row in (0, 1) for _, key in make.process((output, row, row + 1))]
    before = tree(Path(output))
    again = start(MakeOptions(FOLDER))
    for row in (0, 1, 0):
        assert list(again.process((output, row, row + 1))) == [((output, 0), parts[row])]
    assert tree(Path(output)) == before, "outcomes are kept, too"
    _, merged = merge_outcomes(((output, 0), parts))
    # The answer of the worker that merged them was lost, and the ranges are made once more.
    for row in (0, 1):
        list(start(MakeOptions(FOLDER)).process((output, row, row + 1)))
    assert merge_outcomes(((output, 0), parts)) == (output, merged)
    assert len(Outcomes([merged], open_store(output))) == 2
    final = final_status(output, [merged])
    assert (final.state, final.done, final.tasks) == ("succeeded", 2, 2)
    assert final.read_bytes > 0, "of the first attempt"
    assert not (Path(output) / "outcomes").exists()


@pytest.mark.parametrize(
    ("limit", "used", "expected"),
    [("max", 5, 10**12), ("1000000", 400000, 700000), ("100", 500000, 0), ("odd", 5, 10**12)],
)
def test_memory_is_that_of_the_container(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, used: int, expected: int
) -> None:
    (tmp_path / "memory.max").write_text(f"{limit}\n")
    (tmp_path / "memory.current").write_text(f"{used}\n")
    (tmp_path / "memory.stat").write_text("anon 1\ninactive_file 100000\nactive_file 7\n")
    monkeypatch.setattr("scenebeam.execution.make._CGROUP", tmp_path)
    monkeypatch.setattr(
        "scenebeam.execution.make.psutil.virtual_memory", lambda: SimpleNamespace(available=10**12)
    )
    assert _available_memory() == expected
    monkeypatch.setattr("scenebeam.execution.make._CGROUP", tmp_path / "none")
    assert _available_memory() == 10**12


def test_threads_that_outlive_an_interrupt_make_nothing(make_request: Make) -> None:
    output = settled(make_request)
    make = start(MakeOptions(FOLDER))
    shutdown.set()
    try:
        with pytest.raises(RunnerError, match="interrupted"):
            list(make.process((output, 0, 1)))
    finally:
        shutdown.clear()
    assert not (Path(output) / "mosaics").exists()


def test_a_finished_run_makes_nothing_again(make_request: Make) -> None:
    request = make_request(**{"product.bands": ["scl"]})
    run(request)
    before = {path: path.stat().st_mtime_ns for path in Path(request.output).glob("mosaics/*/*")}
    status = run(request)
    assert (status.state, status.requests) == ("succeeded", 0)
    assert {
        path: path.stat().st_mtime_ns for path in Path(request.output).glob("mosaics/*/*")
    } == before


def test_the_gate_bounds_what_is_held_at_once() -> None:
    import threading
    import time

    gate, held, most = MemoryGate(100), [0], [0]
    lock = threading.Lock()

    def work(size: int) -> None:
        with gate.hold(size):
            with lock:
                held[0] += size
                most[0] = max(most[0], held[0])
            time.sleep(0.01)
            with lock:
                held[0] -= size

    threads = [
        threading.Thread(target=work, args=(size,)) for size in [40, 40, 40, 60, 30, 90, 10] * 3
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 40 < most[0] <= 100
    with gate.hold(1000):
        pass  # one task always fits
