"""Dataflow's real client against a stand-in that answers as Dataflow does, well or not; and runs as processes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from test_launch import REQUEST

from local_cloud import wait_for
from local_dataflow import Dataflow
from scenebeam.cloud import launchers
from scenebeam.cloud.jobs import DataflowJobs, LocalJobs
from scenebeam.cloud.launch import LaunchError, RetryableError
from scenebeam.cloud.launchers import DataflowLauncher, LocalLauncher
from scenebeam.cloud.report import RUNNING, UNKNOWN
from scenebeam.cloud.settings import CloudSettings
from scenebeam.request import RunRequest
from scenebeam.sandbox.scenes import AREA, COLLECTION, DATES
from scenebeam.status import RunStatus

REQUESTED = RunRequest.model_validate(REQUEST)


@pytest.fixture
def settings(dataflow: Dataflow, monkeypatch: pytest.MonkeyPatch) -> CloudSettings:
    monkeypatch.setattr(launchers, "RETRY", launchers.RETRY.with_delay(initial=0.01, maximum=0.05))
    return CloudSettings(
        state="gs://state", outputs=("gs://products",), project="p", region="r", template="gs://t/x.json",
        temp_location="gs://t/tmp", dataflow_endpoint=dataflow.url,
    )  # fmt: skip


def launch(settings: CloudSettings, name: str = "scenebeam-demo") -> str:
    return DataflowLauncher(settings).launch("demo", name, "gs://state/request.json", REQUESTED)


def test_a_job_that_goes_already_is_taken_for_ours(
    settings: CloudSettings, dataflow: Dataflow
) -> None:
    assert launch(settings) == launch(settings) == "2026-0"
    assert launch(settings, "scenebeam-other") == "2026-1"
    dataflow.jobs["2026-0"]["currentState"] = "JOB_STATE_DONE"
    assert launch(settings) == "2026-2", "one that has ended is none that goes"


def test_a_conflict_with_a_job_that_is_gone_passes(
    settings: CloudSettings, dataflow: Dataflow
) -> None:
    dataflow.faults = [409]
    with pytest.raises(RetryableError, match="it has ended since"):
        launch(settings)
    assert launch(settings) == "2026-0"


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_what_passes_is_tried_again(
    settings: CloudSettings, dataflow: Dataflow, status: int
) -> None:
    dataflow.faults = [status, status]
    assert launch(settings) == "2026-0"
    assert len(dataflow.launches) == 3


def test_what_does_not_pass_in_time_is_for_the_next_delivery(
    settings: CloudSettings, dataflow: Dataflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataflow.faults = [503] * 100
    monkeypatch.setattr(launchers, "RETRY", launchers.RETRY.with_timeout(1))
    with pytest.raises(RetryableError, match="cannot accept the job now"):
        launch(settings)


@pytest.mark.parametrize("status", [400, 403, 404])
def test_what_will_never_work_is_said_at_once(
    settings: CloudSettings, dataflow: Dataflow, status: int
) -> None:
    dataflow.faults = [status]
    with pytest.raises(LaunchError, match="Dataflow refused the job: .*not now"):
        launch(settings)
    assert len(dataflow.launches) == 1


def test_a_job_tells_its_state_and_its_counters(
    settings: CloudSettings, dataflow: Dataflow
) -> None:
    jobs = DataflowJobs(settings)
    job = launch(settings)
    assert (jobs.state(job), jobs.counters(job), jobs.state("another")) == (RUNNING, {}, UNKNOWN)
    dataflow.jobs[job] |= {
        "currentState": "JOB_STATE_CANCELLED",
        "counts": {"tasks_done": 3, "read_bytes": 7},
    }
    assert (jobs.state(job), jobs.counters(job)) == (
        "JOB_STATE_CANCELLED",
        {"tasks_done": 3, "read_bytes": 7},
    )


def test_a_run_as_a_process_of_this_machine(sandbox: Path, tmp_path: Path) -> None:
    document: dict[str, Any] = {
        **REQUEST, "catalog": str(sandbox / "items.json"), "collections": [COLLECTION], "area": {"bbox": list(AREA)},
        "dates": DATES, "output": str(tmp_path / "out"),
    }  # fmt: skip
    jobs = LocalJobs()
    job = LocalLauncher().launch("demo", "scenebeam-demo", "", RunRequest.model_validate(document))
    assert jobs.state(job) == RUNNING
    wait_for(lambda: jobs.state(job) != RUNNING)
    assert jobs.state(job) == "JOB_STATE_DONE"
    assert json.loads((tmp_path / "out" / "status.json").read_text())["state"] == "succeeded"
    assert RunStatus.model_validate_json((tmp_path / "out" / "status.json").read_bytes()).done == 2
    assert jobs.state("process-x") == jobs.state("2026-0") == UNKNOWN
