"""Instances that are late, or crash between two writes: no later launch suffers from them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from test_launch import Desk, message, stored, with_state

from scenebeam.cloud.launch import LaunchHandler, RetryableError
from scenebeam.cloud.report import RUNNING, StatusUpdater
from scenebeam.cloud.runs import Runs
from scenebeam.cloud.settings import CloudSettings
from scenebeam.status import RunStatus
from scenebeam.storage import open_store


class Crash(BaseException):
    """The instance is gone."""


class Jobs:
    """A monitor that does something else just before it answers."""

    def __init__(self, answer: str, meanwhile: Callable[[], Any]) -> None:
        self.answer, self.meanwhile = answer, meanwhile

    def state(self, job: str) -> str:
        self.meanwhile()
        return self.answer

    def counters(self, job: str) -> dict[str, int]:
        return {}


@pytest.fixture
def launch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LaunchHandler:
    settings = CloudSettings(state=str(tmp_path / "state"), outputs=("gs://products",))
    # A folder in place of the bucket of the products.
    monkeypatch.setattr(
        "scenebeam.cloud.report.open_store", lambda uri: open_store(str(tmp_path / "products"))
    )
    return LaunchHandler(settings, Runs(open_store(settings.state)), Desk(), lambda *words: None)


def desk(launch: LaunchHandler) -> Desk:
    assert isinstance(launch.launcher, Desk)
    return launch.launcher


def failed(launch: LaunchHandler) -> str:
    """A run that was launched once, and failed. Returns its id."""
    run = launch.handle(message("0")).id
    launch.runs.update(run, with_state("failed"))
    desk(launch).active.clear()
    return run


def crash_before_status(launch: LaunchHandler, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Deliver a message to an instance that crashes before it writes the status."""
    with monkeypatch.context() as gone:
        gone.setattr(Runs, "update", lambda *words: (_ for _ in ()).throw(Crash))
        with pytest.raises(Crash):
            launch.handle(message(name))


def updater(launch: LaunchHandler, answer: str, meanwhile: Callable[[], Any]) -> StatusUpdater:
    return StatusUpdater(launch.settings, launch.runs, Jobs(answer, meanwhile), launch.publish)


def write_report(launch: LaunchHandler, run: str, folder: Path, began: datetime) -> None:
    fingerprint = stored(launch.runs.status(run)).fingerprint
    status = RunStatus(run="demo", state="succeeded", fingerprint=fingerprint, started=began)
    open_store(str(folder / "products")).write("status.json", status.to_bytes())


def test_a_run_whose_next_launch_has_no_status_yet_is_not_launched_again(
    launch: LaunchHandler, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = failed(launch)
    crash_before_status(launch, "1", monkeypatch)
    launch.handle(message("2"))
    assert desk(launch).started == [f"scenebeam-{run}", f"scenebeam-{run}-1"]


def test_the_status_of_a_second_launch_is_restored(
    launch: LaunchHandler, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = failed(launch)
    crash_before_status(launch, "1", monkeypatch)
    status = launch.handle(message("1"))
    assert (status.state, status.job) == ("queued", f"job-of-scenebeam-{run}-1")
    assert launch.runs.open_ids() == [run]


def test_a_late_status_does_not_replace_that_of_a_later_launch(
    launch: LaunchHandler, monkeypatch: pytest.MonkeyPatch
) -> None:
    update = Runs.update

    def late(self: Runs, run: str, change: Any) -> RunStatus:
        with monkeypatch.context() as others:
            others.setattr(Runs, "update", update)
            launch.handle(message("0"))
            launch.runs.update(run, with_state("failed"))
            desk(launch).active.clear()
            launch.handle(message("1"))
        return update(self, run, change)

    with monkeypatch.context() as first:
        first.setattr(Runs, "update", late)
        run = launch.handle(message("0")).id
    assert stored(launch.runs.status(run)).job == f"job-of-scenebeam-{run}-1"


def test_the_end_of_a_job_does_not_end_a_later_one(launch: LaunchHandler) -> None:
    run = launch.handle(message("0")).id

    def relaunch() -> None:
        launch.runs.update(run, with_state("failed"))
        desk(launch).active.clear()
        launch.handle(message("1"))

    assert updater(launch, "JOB_STATE_FAILED", relaunch).refresh(run) is None
    status = stored(launch.runs.status(run))
    assert (status.state, status.job) == ("queued", f"job-of-scenebeam-{run}-1")


def test_a_run_that_ends_while_its_job_is_looked_up_has_succeeded(
    launch: LaunchHandler, tmp_path: Path
) -> None:
    run = launch.handle(message("0")).id
    later = datetime.now(UTC) + timedelta(minutes=5)
    report = updater(launch, "JOB_STATE_DONE", lambda: write_report(launch, run, tmp_path, later))
    assert stored(report.refresh(run)).state == "succeeded"


def test_a_job_that_began_before_its_launch_was_recorded_is_heard(
    launch: LaunchHandler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    crash_before_status(launch, "0", monkeypatch)
    began = datetime.now(UTC)
    later = began + timedelta(minutes=10)
    with monkeypatch.context() as redelivery:
        redelivery.setattr("scenebeam.cloud.launch.now", lambda: later)
        run = launch.handle(message("0")).id
    write_report(launch, run, tmp_path, began)
    assert stored(updater(launch, "JOB_STATE_DONE", bool).refresh(run)).state == "succeeded"


def test_markers_that_crashes_left_of_earlier_jobs_are_removed(
    launch: LaunchHandler, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = launch.handle(message("0")).id
    with monkeypatch.context() as gone:
        gone.setattr(Runs, "close", lambda *words: None)
        launch.runs.update(run, with_state("failed"))
        desk(launch).active.clear()
        launch.handle(message("1"))
        launch.runs.update(run, with_state("failed"))
    assert launch.runs.store.list("open/") > {f"open/{run}+job-of-scenebeam-{run}"}
    updater(launch, RUNNING, bool).sweep()
    assert launch.runs.open_ids() == []


def test_a_claim_that_was_taken_over_is_not_released_by_its_first_owner(
    launch: LaunchHandler, monkeypatch: pytest.MonkeyPatch
) -> None:
    launched = launch.launcher.launch

    def taken_over(run: str, *words: Any) -> str:
        held, version = launch.runs.claim(run) or pytest.fail("no claim")
        assert launch.runs.try_claim(run, held.model_copy(update={"since": 1.0}), version)
        raise RetryableError("Dataflow has no time")

    monkeypatch.setattr(launch.launcher, "launch", taken_over)
    with pytest.raises(RetryableError):
        launch.handle(message("0"))
    monkeypatch.setattr(launch.launcher, "launch", launched)
    with pytest.raises(RetryableError, match="is being launched"):
        launch.handle(message("0"))
