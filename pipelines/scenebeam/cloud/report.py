"""Report: keep the status of runs current, from their outputs, their jobs and job counters."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Protocol

from pydantic import ValidationError

from scenebeam.cloud.launch import Publish
from scenebeam.cloud.ledger import Ledger
from scenebeam.cloud.runs import RUN_LABEL, Runs
from scenebeam.cloud.settings import CloudSettings
from scenebeam.status import STATUS_FILE, RunStatus, State, now
from scenebeam.storage import open_store

_REPORTED_FIELDS = (
    "state",
    "tasks",
    "done",
    "kept",
    "skipped",
    "failed",
    "incomplete",
    "waiting",
    "requests",
    "read_bytes",
    "runner",
    "cost",
    "message",
    "pictures",
)
"""Fields that are copied from the status that the run writes into its output."""
_LOST_AFTER = timedelta(minutes=30)
"""A run whose job is unknown has failed if its status has not changed for this time."""
_FINAL_STATES: dict[str, State] = {
    "JOB_STATE_FAILED": "failed",
    "JOB_STATE_CANCELLED": "cancelled",
    "JOB_STATE_DRAINED": "cancelled",
    "JOB_STATE_DONE": "failed",
}
"""State of the job → state of a run that has not reported its own end.

A run reports its end before its job is done, so a job that is done without a report has failed.
"""
UNKNOWN, RUNNING = "JOB_STATE_UNKNOWN", "JOB_STATE_RUNNING"
_RUN_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")


class JobMonitor(Protocol):
    """Knows the state of jobs."""

    def state(self, job: str) -> str:
        """Return the `JOB_STATE_…` of a job, `UNKNOWN` if there is no job of that id."""
        ...

    def counters(self, job: str) -> dict[str, int]:
        """Return the pipeline's counters (`tasks_done`, `read_bytes`, …), as far as available."""
        ...


@dataclass
class StatusUpdater:
    """Updates and publishes the status of runs."""

    settings: CloudSettings
    runs: Runs
    jobs: JobMonitor
    publish: Publish

    def sweep(self) -> list[RunStatus]:
        """Update all open runs. Returns the statuses that changed."""
        changed = []
        for run in self.runs.open_ids():
            status = self.runs.status(run)
            if status is None:
                continue  # its launch has not written a status yet
            if status.ended:
                # A crash between the status and the marker left the marker behind.
                self.runs.close_ended(run)
                continue
            updated = self._refresh(run, status)
            if updated is not None:
                changed.append(updated)
        return changed

    def refresh(self, run: str) -> RunStatus | None:
        """Update one run, and publish its status if it changed.

        Args:
            run: Id of the run.

        Returns:
            The new status; None if nothing changed or there is no such run.
        """
        status = self.runs.status(run)
        return None if status is None else self._refresh(run, status)

    def _refresh(self, run: str, status: RunStatus) -> RunStatus | None:
        # In this order: a run reports its end before its job is done, so a report that is read
        # after the state of the job is never missed.
        job_state = self.jobs.state(status.job)
        reported = self._read_reported(status)
        counters = self.jobs.counters(status.job) if job_state == RUNNING else {}
        replaced: list[RunStatus] = []

        def change(current: RunStatus | None) -> RunStatus:
            assert current is not None, "statuses are never deleted"
            # Called once per attempt: the last status is the one that was replaced.
            replaced.append(current)
            if current.job != status.job:
                return current  # launched again; what is known is about the earlier job
            return next_status(current, reported, job_state, counters)

        updated = self.runs.update(run, change)
        if updated == replaced[-1]:
            return None
        if updated.cost:
            # As soon as it is known: the budget must count runs that have not ended.
            Ledger(self.runs.store).enter(updated)
        if self.settings.status_topic:
            self.publish(
                self.settings.status_topic, updated.to_bytes(), {"run": run, "state": updated.state}
            )
        return updated

    def _read_reported(self, status: RunStatus) -> RunStatus | None:
        """Read the status that the run wrote into its output.

        None if there is none, if it cannot be parsed, or if it belongs to another request or to
        an earlier launch of this run that has ended.
        """
        content = open_store(status.output).read(STATUS_FILE)
        if content is None:
            return None
        try:
            reported = RunStatus.model_validate_json(content)
        except ValidationError:
            return None
        if reported.fingerprint != status.fingerprint:
            return None
        if status.started is None or reported.started is None:
            return reported
        is_earlier_launch = reported.started < status.started
        return None if is_earlier_launch and reported.ended else reported


def next_status(
    current: RunStatus,
    reported: RunStatus | None,
    job_state: str,
    counters: Mapping[str, int] | None = None,
) -> RunStatus:
    """Compute a run's status from what is known about it. A status that has ended never changes.

    The run reports the number of tasks when it begins, and their outcomes when it ends. In
    between, progress comes from the counters of its workers. Counters may exceed the number of
    tasks, because bundles that are retried are counted again.

    Args:
        current: The stored status.
        reported: The status in the run's output, if any.
        job_state: `JOB_STATE_…` of its job.
        counters: The job's counters.

    Returns:
        The new status, or `current` itself if nothing has changed.
    """
    if current.ended:
        return current
    status = current
    if reported is not None:
        update = {name: getattr(reported, name) for name in _REPORTED_FIELDS}
        status = current.model_copy(update={**update, "finished": reported.finished})
    if not status.ended and counters:
        status = _add_counters(status, reported, counters)
    if not status.ended:
        status = _keep_counters(status, current)
    if not status.ended and job_state in _FINAL_STATES:
        status = _end_with_job(status, job_state)
    elif not status.ended and job_state == UNKNOWN and _is_lost(current):
        minutes = _LOST_AFTER // timedelta(minutes=1)
        message = (
            f"job {current.job} is unknown and the run has not reported for {minutes} minutes: "
            "publish the request again to resume"
        )
        status = status.model_copy(
            update={"state": "failed", "finished": now(), "message": message}
        )
    elif reported is None and job_state == RUNNING:
        status = status.model_copy(update={"state": "running"})
    return current if status == current else status.model_copy(update={"updated": now()})


def _add_counters(
    status: RunStatus, reported: RunStatus | None, counters: Mapping[str, int]
) -> RunStatus:
    """Return the status of a running run with the progress that its workers counted."""
    # When it begins, a resumed run reports the tasks that earlier launches have finished.
    done_before = reported.done if reported is not None else 0
    remaining = max(status.tasks - done_before, 0) if reported is not None else 0
    update = {
        "done": done_before + min(counters.get("tasks_done", 0), remaining),
        "failed": counters.get("tasks_failed", 0),
        "read_bytes": max(status.read_bytes, counters.get("read_bytes", 0)),
    }
    return status.model_copy(update=update)


def _keep_counters(status: RunStatus, current: RunStatus) -> RunStatus:
    """Return the status of a running run, whose counters are those stored at least.

    Not every call to Dataflow returns counters, and retried bundles take theirs back.
    """
    update = {
        "done": max(status.done, min(current.done, status.tasks)),
        "failed": max(status.failed, current.failed),
        "read_bytes": max(status.read_bytes, current.read_bytes),
    }
    return status.model_copy(update=update)


def _end_with_job(status: RunStatus, job_state: str) -> RunStatus:
    """Return the status of a run whose job ended before the run reported its end."""
    state = _FINAL_STATES[job_state]
    if state == "cancelled":
        message = "the job was cancelled: publish the request again to resume"
    else:
        message = (
            f"the job ended as {job_state} before the run reported its end: see the log of the job"
        )
    # A message that the run itself has reported says more.
    message = status.message or message
    return status.model_copy(update={"state": state, "finished": now(), "message": message})


def _is_lost(status: RunStatus) -> bool:
    changed = status.updated or status.started
    return changed is None or now() - changed > _LOST_AFTER


def run_id_from_event(data: Any) -> str:
    """Read the id of the run that an event is about.

    Job events carry it as a label, messages as an attribute. Only the id is used: the status is
    always looked up, never taken from an event.

    Args:
        data: Data of the CloudEvent.

    Returns:
        The id; empty if the event names no run.
    """
    if not isinstance(data, Mapping):
        return ""
    labels = _nested(data, "payload", "labels")
    attributes = _nested(data, "message", "attributes")
    run = labels.get(RUN_LABEL) or attributes.get("run") or ""
    return run if isinstance(run, str) and _RUN_ID.fullmatch(run) else ""


def _nested(data: Mapping[str, Any], *names: str) -> Mapping[str, Any]:
    """Return a nested mapping; empty if there is none."""
    value: Any = data
    for name in names:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value if isinstance(value, Mapping) else {}
