"""Each transform of the one graph, and that a replayed bundle changes nothing."""

from __future__ import annotations

import json
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
from scenebeam.execution.engine import Access, MakeTask, report, undone_tasks
from scenebeam.execution.make import MemoryGate, _available_memory
from scenebeam.planning.reuse import load_or_create_plan
from scenebeam.request import Limits, RunRequest
from scenebeam.status import RunStatus
from scenebeam.storage import open_store
from scenebeam.tasks import Outcome
from scenebeam.transfer.retry import shutdown

Make = Callable[..., RunRequest]


def settled(make_request: Make) -> str:
    request = make_request(**{"product.bands": ["scl"]})
    load_or_create_plan(request, open_store(request.output))
    return request.output


def test_undone_tasks_are_those_with_an_output_missing(make_request: Make) -> None:
    output = settled(make_request)
    both = [(output, ""), (output, "20210610T092031Z"), (output, "20220615T092029Z")]
    assert list(undone_tasks(output)) == both, "the first one carries the output to its report"
    folder = Path(output) / "mosaics" / "20210610T092031Z"
    folder.mkdir(parents=True)
    (folder / "scl.tif").touch()
    (folder / "thumbnail.png").touch()
    assert list(undone_tasks(output)) == both
    (folder / "20210610T092031Z.json").touch()
    assert list(undone_tasks(output)) == [both[0], both[2]]


def test_make_task_in_a_pipeline(make_request: Make) -> None:
    output = settled(make_request)
    with TestPipeline(runner="BundleBasedDirectRunner") as pipeline:
        states = (
            pipeline
            | beam.Create([(output, "20210610T092031Z")])
            | beam.ParDo(MakeTask(Access(Limits(), {})))
            | beam.MapTuple(
                lambda _, text: (
                    Outcome.model_validate_json(text).task,
                    Outcome.model_validate_json(text).state,
                )
            )
        )
        assert_that(states, equal_to([("20210610T092031Z", "done")]))
    assert (Path(output) / "mosaics/20210610T092031Z/scl.tif").exists()


def test_who_listens_is_told_while_it_goes_and_at_its_end(
    make_request: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[int] = []
    output = settled(make_request)
    make = MakeTask(Access(Limits(), {}), lambda: told.append(1))
    make.setup()
    made = list(make.process((output, "20210610T092031Z")))
    assert not told, "not after each task: there may be thousands a minute"
    monkeypatch.setattr("scenebeam.execution.engine._REPORT_INTERVAL", 0.0)
    made += make.process((output, "20220615T092029Z"))
    assert len(told) == 1
    report(
        (output, [text for _, text in made]),
        RunStatus(run="test", state="running", tasks=2).model_dump_json(),
        lambda: told.append(2),
    )
    assert told == [1, 2]


def test_a_bundle_that_is_replayed_changes_no_byte(make_request: Make) -> None:
    output = settled(make_request)
    make = MakeTask(Access(Limits(), {}))
    make.setup()
    once = [list(make.process(element)) for element in undone_tasks(output)]
    before = tree(Path(output))
    again = MakeTask(Access(Limits(), {}))
    again.setup()
    for name in ("20210610T092031Z", "20220615T092029Z", "20210610T092031Z"):
        assert json.loads(next(again.process((output, name)))[1])["state"] == "done"
    assert tree(Path(output)) == before
    status = RunStatus(run="test", state="running")
    outcomes = [text for elements in once for _, text in elements]
    final = RunStatus.model_validate_json(report((output, outcomes), status.model_dump_json()))
    assert (final.state, final.done, final.tasks) == ("succeeded", 2, 2)


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
    make = MakeTask(Access(Limits(), {}))
    make.setup()
    shutdown.set()
    try:
        with pytest.raises(RunnerError, match="interrupted"):
            list(make.process((output, "20210610T092031Z")))
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
