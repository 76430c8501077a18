"""Whose clock counts for a claim, and what a sweep reads: open runs, and nothing of those that have ended."""

from __future__ import annotations

import os
import re
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from test_launch import Desk, message, with_state

from scenebeam.cloud.http import HttpRequest
from scenebeam.cloud.launch import LaunchHandler, RetryableError
from scenebeam.cloud.page import handle
from scenebeam.cloud.report import RUNNING, StatusUpdater
from scenebeam.cloud.runs import Claim, Runs, run_id
from scenebeam.cloud.settings import CloudSettings
from scenebeam.request import RunRequest
from scenebeam.status import RunStatus
from scenebeam.storage import Store, open_store

DAY = 86_400


class Crash(BaseException):
    """The instance is gone."""


class Jobs:
    """All jobs run."""

    def state(self, job: str) -> str:
        return RUNNING

    def counters(self, job: str) -> dict[str, int]:
        return {}


@pytest.fixture
def settings(tmp_path: Path) -> CloudSettings:
    return CloudSettings(
        state=str(tmp_path / "state"), outputs=("gs://products", str(tmp_path)), claim_seconds=60
    )


@pytest.fixture
def store(settings: CloudSettings) -> Store:
    return open_store(settings.state)


@pytest.fixture
def launch(settings: CloudSettings, store: Store) -> LaunchHandler:
    return LaunchHandler(settings, Runs(store), Desk(), lambda *words: None)


def desk(launch: LaunchHandler) -> Desk:
    """The launcher of the fixture's handler."""
    assert isinstance(launch.launcher, Desk)
    return launch.launcher


def claimed_by(launch: LaunchHandler, monkeypatch: pytest.MonkeyPatch, ahead: float) -> Path:
    """The claim that an instance has left whose clock is so many seconds ahead, and that then crashed."""
    desk(launch).faults = [Crash()]
    with monkeypatch.context() as gone:
        present = time.time
        gone.setattr(time, "time", lambda: present() + ahead)
        gone.setattr(LaunchHandler, "_update_claim", lambda *words, **update: None)
        with pytest.raises(Crash):
            launch.handle(message())
    [claim] = Path(launch.settings.state).glob("runs/*/claim.json")
    assert abs(Claim.model_validate_json(claim.read_bytes()).since - present() - ahead) < 60
    return claim


@pytest.mark.parametrize("ahead", [-DAY, 0, DAY, 400 * DAY])
def test_a_claim_is_as_old_as_its_object_whatever_its_makers_clock_says(
    launch: LaunchHandler, monkeypatch: pytest.MonkeyPatch, ahead: float
) -> None:
    claim = claimed_by(launch, monkeypatch, ahead)
    with pytest.raises(RetryableError, match="was claimed 0 s ago and is being launched"):
        launch.handle(message())
    os.utime(claim, (time.time() - 61,) * 2)
    assert launch.handle(message()).state == "queued"


@pytest.mark.parametrize("ahead", [-DAY, DAY])
def test_a_claim_is_as_old_as_its_object_whatever_its_readers_clock_says(
    launch: LaunchHandler, monkeypatch: pytest.MonkeyPatch, ahead: float
) -> None:
    claim = claimed_by(launch, monkeypatch, 0)
    present = time.time
    with monkeypatch.context() as wrong:
        wrong.setattr(time, "time", lambda: present() + ahead)
        with pytest.raises(RetryableError, match="is being launched"):
            launch.handle(message())
        os.utime(claim, (present() - 61,) * 2)
        assert launch.handle(message()).state == "queued"


def test_a_claim_of_the_version_before_is_read(launch: LaunchHandler, store: Store) -> None:
    run = launch.handle(message("0")).id
    path = Path(launch.settings.state) / f"runs/{run}/claim.json"
    path.write_text(
        '{"message": "9", "since": %f, "job": "", "answered": []}' % (time.time() + DAY)
    )
    with pytest.raises(RetryableError):
        launch.handle(message())
    os.utime(path, (time.time() - 61,) * 2)
    assert launch.handle(message()).state == "queued"


def test_of_two_that_take_over_a_claim_one_does(
    launch: LaunchHandler, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim = claimed_by(launch, monkeypatch, DAY)
    os.utime(claim, (time.time() - 61,) * 2)
    found = launch.runs.claim(claim.parent.name)
    assert found is not None
    ours, theirs = (found[0].model_copy(update={"since": since}) for since in (1.0, 2.0))
    assert [launch.runs.try_claim(claim.parent.name, one, found[1]) for one in (ours, theirs)] == [
        True,
        False,
    ]


# ---------------------------------------------------------------------------------------------
# Sweeps


@pytest.fixture
def counted(store: Store, monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """What the store is asked for: the method and the kind of the file."""
    counts: Counter[str] = Counter()

    def count(name: str, kind: type[Store]) -> None:
        asked: Callable[..., Any] = getattr(kind, name)

        def counting(self: Store, *words: Any) -> Any:
            key = f"{words[0]}" if words else ""
            counts[f"{name} {re.sub('^runs/[^/]*/', '', key)}"] += 1
            return asked(self, *words)

        monkeypatch.setattr(kind, name, counting)

    for name in ("read", "list", "read_version"):
        count(name, type(store))
    return counts


def status(run: str, state: str, folder: Path) -> RunStatus:
    now = datetime.now(UTC)
    return RunStatus(
        run="x",
        id=run,
        state=state,
        job=f"j-{run}",
        output=str(folder / run),
        fingerprint="f",
        started=now,
        updated=now,
    )


def report(settings: CloudSettings) -> StatusUpdater:
    return StatusUpdater(settings, Runs(open_store(settings.state)), Jobs(), lambda *words: None)


def test_a_sweep_reads_open_runs_alone(
    settings: CloudSettings, counted: Counter[str], tmp_path: Path
) -> None:
    runs = Runs(open_store(settings.state))

    def running(name: str, _: RunStatus | None) -> RunStatus:
        return status(name, "running", tmp_path)

    for number in range(200):
        name = f"run-{number:03}"
        runs.update(name, partial(running, name))
        if number not in (7, 8):
            runs.update(name, with_state("succeeded"))
    report(settings).sweep()
    counted.clear()
    assert report(settings).sweep() == []
    assert counted["read status.json"] == 6, (
        "of each open run its status, twice, and what it says in its output"
    )
    assert counted["list runs/"] == 0
    assert counted["list open/"] == 1
    assert runs.open_ids() == ["run-007", "run-008"]


def test_a_state_without_markers_is_read_once(
    settings: CloudSettings, counted: Counter[str], tmp_path: Path
) -> None:
    store = open_store(settings.state)
    for number in range(50):
        state = "queued" if number in (3, 40) else "failed"
        store.write(
            f"runs/run-{number:02}/status.json",
            status(f"run-{number:02}", state, tmp_path).to_bytes(),
        )
    assert sorted(one.id for one in report(settings).sweep()) == [
        "run-03",
        "run-40",
    ], "their jobs run"
    assert counted["read status.json"] >= 50
    counted.clear()
    report(settings).sweep()
    assert counted["read status.json"] == 6
    assert counted["list runs/"] == 0


def test_marking_goes_on_where_it_was_stopped(
    settings: CloudSettings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("scenebeam.cloud.runs._BATCH", 10)
    store, runs = open_store(settings.state), Runs(open_store(settings.state))
    for number in range(50):
        store.write(
            f"runs/run-{number:02}/status.json",
            status(f"run-{number:02}", "queued", tmp_path).to_bytes(),
        )
    read, asked = [], Runs.status

    def note(self: Runs, run: str) -> RunStatus | None:
        read.append(run)
        if len(read) == 25:
            raise Crash
        return asked(self, run)

    monkeypatch.setattr(Runs, "status", note)
    with pytest.raises(Crash):
        runs.open_ids()
    read[:] = ["x"] * 30
    assert len(runs.open_ids()) == 50
    assert sorted(read[30:]) == [f"run-{number}" for number in range(20, 50)]


def test_a_run_is_open_from_its_launch_to_its_end(
    launch: LaunchHandler, store: Store, settings: CloudSettings
) -> None:
    run = launch.handle(message("1")).id
    assert launch.runs.open_ids() == [run]
    launch.runs.update(run, with_state("failed"))
    assert launch.runs.open_ids() == []
    desk(launch).active.clear()
    launch.handle(message("2"))
    assert launch.runs.open_ids() == [run]
    assert store.list("open/") == {"open/indexed", f"open/{run}+job-of-scenebeam-{run}-1"}


def test_a_crash_leaves_no_open_run_unmarked(
    launch: LaunchHandler, settings: CloudSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, run = Runs.close, launch.handle(message("1")).id
    monkeypatch.setattr(Runs, "close", lambda *words: (_ for _ in ()).throw(Crash()))
    with pytest.raises(Crash):
        launch.runs.update(run, with_state("failed"))
    monkeypatch.setattr(Runs, "close", asked)
    assert launch.runs.open_ids() == [run], "it has ended, and its marker stands"
    assert report(settings).sweep() == []
    assert launch.runs.open_ids() == []


def test_a_marker_that_is_removed_late_is_not_that_of_the_next_launch(
    launch: LaunchHandler,
) -> None:
    run = launch.handle(message("1")).id
    before = launch.runs.status(run)
    assert before is not None
    launch.runs.update(run, with_state("failed"))
    desk(launch).active.clear()
    launch.handle(message("2"))
    launch.runs.close(run, before.job)
    assert launch.runs.open_ids() == [run]


def test_what_a_run_says_of_itself_may_be_nonsense(
    settings: CloudSettings, store: Store, tmp_path: Path
) -> None:
    Runs(store).update("out", lambda _: status("out", "queued", tmp_path))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "status.json").write_bytes(b"\xff{")
    changed = report(settings).refresh("out")
    assert changed is not None
    assert changed.state == "running"


# ---------------------------------------------------------------------------------------------
# Messages and pages


def test_a_fault_that_nobody_foresaw_rejects_the_message(
    launch: LaunchHandler, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*words: Any) -> RunRequest:
        raise RecursionError("too deep")

    monkeypatch.setattr("scenebeam.cloud.launch.authorize", fail)
    told = launch.handle(message())
    assert (told.state, told.message[:35]) == ("rejected", "unexpected RecursionError: too deep")
    assert run_id(RunRequest.model_validate_json(message().content)) not in launch.runs.ids()


@pytest.mark.parametrize(
    "limit",
    [
        "²",
        "٣",
        "",
        "0",
        "201",
        "-1",
        "+5",
        "1e2",
        "5.0",
        " 5",
        "5 ",
        "9" * 5000,
        "\ud800",
        "5\n",
        "None",
    ],
)
def test_an_odd_limit_is_answered_in_words(
    settings: CloudSettings, store: Store, limit: str
) -> None:
    page = handle(HttpRequest("GET", "/runs", {"limit": limit}), Runs(store), settings)
    assert (page.status, page.body) == (
        400,
        b'{"error": "limit must be an integer from 1 to 200"}\n',
    )


@pytest.mark.parametrize("after", ["²", "../x", "X", "a b", "\ud800", "a" * 64, "demo\n", "<b>"])
def test_an_odd_id_is_answered_in_words(settings: CloudSettings, store: Store, after: str) -> None:
    page = handle(HttpRequest("GET", "/runs", {"after": after}), Runs(store), settings)
    assert (page.status, b"after must be the id of a run" in page.body) == (400, True)
    assert handle(HttpRequest("GET", f"/runs/{after}", {}), Runs(store), settings).status == 404


@pytest.mark.parametrize("number", ["²", "٣", "1000", "-1", "1\n"])
def test_an_odd_picture_is_not_there(settings: CloudSettings, store: Store, number: str) -> None:
    assert (
        handle(HttpRequest("GET", f"/runs/x/pictures/{number}", {}), Runs(store), settings).status
        == 404
    )


def test_good_limits_are_still_good(settings: CloudSettings, store: Store) -> None:
    for query in (
        {},
        {"limit": "1"},
        {"limit": "200"},
        {"limit": "050"},
        {"after": "demo-1"},
        {"after": ""},
    ):
        assert handle(HttpRequest("GET", "/runs", query), Runs(store), settings).status == 200
