"""Tasks that stand still are named by the status, and slow ones fail."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from scenebeam.execution import stalls
from scenebeam.execution.driver import run, start_status
from scenebeam.execution.live import live_status
from scenebeam.execution.stalls import StallWatch, _Running, check_stall
from scenebeam.planning.reuse import load_or_create_plan
from scenebeam.report.outcomes import outcomes_folder, part_key, stall_key
from scenebeam.request import RunRequest
from scenebeam.status import RunStatus, now
from scenebeam.storage import open_store
from scenebeam.transfer.retry import Budget

Make = Callable[..., RunRequest]


def test_a_stalled_task_is_named_until_it_goes_on(
    make_request: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = make_request(**{"product.bands": ["scl"]})
    store = open_store(request.output)
    # No process of this machine makes it: `dataflow`.
    status = start_status(load_or_create_plan(request, store), store, "dataflow")
    note = stall_key(part_key(outcomes_folder(status), 0))
    running = _Running("20210610T092031Z", Budget(), store, note)
    check_stall(running)
    monkeypatch.setattr(stalls, "STALL_SECONDS", 0.0)
    time.sleep(0.01)
    check_stall(running)
    [stalled] = live_status(request.output).stalled
    assert stalled.startswith("20210610T092031Z on ")
    assert json.loads(store.read(note) or b"{}")["task"] == "20210610T092031Z"
    running.budget.count(1)
    check_stall(running)
    assert live_status(request.output).stalled == ()


def test_a_task_that_ends_takes_its_note_along(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stalls, "STALL_SECONDS", 0.0)
    monkeypatch.setattr(stalls, "_CHECK_SECONDS", 0.01)
    store, watch = open_store(str(tmp_path)), StallWatch()
    with watch.watch("a", Budget(), store, "note.json"):
        for _ in range(500):
            if store.size("note.json") is not None:
                break
            time.sleep(0.01)
        assert store.list() == {"note.json"}
    assert not store.list()


def test_a_task_beyond_its_time_is_an_outcome_that_a_retry_may_mend(
    served_request: Make,
) -> None:
    slow = {"product.bands": ["scl"], "limits.task_seconds": 0.0001}
    status = run(served_request(**slow))
    assert (status.state, status.failed, status.retriable) == ("failed", 2, 2)
    assert "limits.task_seconds = 0.0001" in status.message
    assert run(served_request(**{"product.bands": ["scl"]})).state == "succeeded"


def test_tasks_per_minute_are_those_of_this_run() -> None:
    start = now()
    status = RunStatus(run="a", state="running", started=start, updated=start, done=40, kept=10)
    assert status.tasks_per_minute is None
    later = status.model_copy(update={"updated": start + timedelta(minutes=2)})
    assert later.tasks_per_minute == 15
    again = RunStatus.model_validate_json(later.to_bytes())
    assert again == later
