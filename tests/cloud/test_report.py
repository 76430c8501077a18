"""A run's status by what is heard of it, in whatever order it is heard."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scenebeam.cloud.report import RUNNING, UNKNOWN, next_status, run_id_from_event
from scenebeam.status import RunStatus, State

BEGAN = datetime(2026, 6, 1, tzinfo=UTC)
QUEUED = RunStatus(
    run="demo", id="demo-1", state="queued", job="j", fingerprint="f", started=BEGAN, updated=BEGAN
)


def said(state: State, done: int = 0, **facts: object) -> RunStatus:
    return RunStatus(
        run="demo", state=state, fingerprint="f", tasks=8, done=done, started=BEGAN
    ).model_copy(update=facts)


def test_it_goes_from_queued_to_its_end() -> None:
    going = next_status(QUEUED, None, RUNNING)
    assert going.state == "running"
    going = next_status(
        going, said("running"), RUNNING, {"tasks_done": 3, "tasks_failed": 1, "read_bytes": 10}
    )
    assert (going.tasks, going.done, going.failed, going.read_bytes) == (8, 3, 1, 10)
    ended = next_status(
        going, said("succeeded", 8, finished=BEGAN + timedelta(hours=1)), "JOB_STATE_DONE"
    )
    assert (ended.state, ended.done, ended.id, ended.job) == ("succeeded", 8, "demo-1", "j")
    assert ended.finished == BEGAN + timedelta(hours=1)


@pytest.mark.parametrize(
    ("job", "state", "words"),
    [
        ("JOB_STATE_FAILED", "failed", "the job ended as JOB_STATE_FAILED"),
        ("JOB_STATE_DONE", "failed", "the job ended as JOB_STATE_DONE"),
        ("JOB_STATE_CANCELLED", "cancelled", "publish the request again to resume"),
        ("JOB_STATE_DRAINED", "cancelled", "publish the request again to resume"),
        (UNKNOWN, "failed", "job j is unknown"),
    ],
)
def test_a_job_that_ends_before_its_run_says_so(job: str, state: str, words: str) -> None:
    found = next_status(QUEUED, said("running"), job)
    assert (found.state, found.tasks) == (state, 8)
    assert words in found.message


def test_a_job_that_nobody_knows_yet_is_waited_for() -> None:
    fresh = QUEUED.model_copy(update={"updated": datetime.now(UTC)})
    assert next_status(fresh, None, UNKNOWN) == fresh


def test_counters_never_go_back() -> None:
    counts = {"tasks_done": 3, "tasks_failed": 1, "read_bytes": 10}
    going = next_status(QUEUED, said("running"), RUNNING, counts)
    assert next_status(going, said("running"), RUNNING, {}) == going
    ended = next_status(going, said("running"), "JOB_STATE_FAILED")
    assert (ended.state, ended.done, ended.failed, ended.read_bytes) == ("failed", 3, 1, 10)
    ended = next_status(going, said("partial", 2, read_bytes=9), "JOB_STATE_DONE")
    assert (ended.done, ended.failed, ended.read_bytes) == (2, 0, 9), "the run counts exactly"


heard = st.tuples(
    st.sampled_from(
        [None, said("running"), said("succeeded", 8), said("partial", 7), said("failed", 2)]
    ),
    st.sampled_from(
        [
            RUNNING,
            UNKNOWN,
            "JOB_STATE_DONE",
            "JOB_STATE_FAILED",
            "JOB_STATE_CANCELLED",
            "JOB_STATE_QUEUED",
        ]
    ),
    st.dictionaries(
        st.sampled_from(["tasks_done", "tasks_failed", "read_bytes"]), st.integers(0, 100)
    ),
)


@given(st.lists(heard, max_size=8))
def test_whatever_is_heard_in_whatever_order_an_end_is_one(words: list[tuple]) -> None:
    status = QUEUED
    for own, job, counts in words:
        before, status = status, next_status(status, own, job, counts)
        assert not before.ended or status == before
        assert 0 <= status.done <= max(status.tasks, 0)
        assert (status.id, status.job, status.fingerprint, status.started) == (
            "demo-1",
            "j",
            "f",
            BEGAN,
        )


@pytest.mark.parametrize(
    ("event", "run"),
    [
        ({"payload": {"labels": {"scenebeam-run": "demo-1"}}}, "demo-1"),
        ({"message": {"attributes": {"run": "demo-1"}}}, "demo-1"),
        ({"message": {"attributes": {"run": "../../x"}}}, ""),
        ({"message": {"attributes": {"run": ["demo-1"]}}}, ""),
        ({"payload": {"labels": None}, "message": "x"}, ""),
        ({"message": {"attributes": {"sweep": "true"}}}, ""),
        (None, ""),
        ("demo-1", ""),
    ],
)
def test_which_run_an_event_tells_of(event: object, run: str) -> None:
    assert run_id_from_event(event) == run
