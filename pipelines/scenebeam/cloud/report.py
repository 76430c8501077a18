"""Report: bring what is known of runs up to date, by what their outputs and their jobs say."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Protocol

from pydantic import ValidationError

from scenebeam.cloud.launch import Publish
from scenebeam.cloud.runs import RUN_LABEL, Runs
from scenebeam.cloud.settings import CloudSettings
from scenebeam.status import STATUS_FILE, RunStatus, State, now
from scenebeam.storage import open_store

_SAID = (
    "state", "tasks", "done", "skipped", "failed", "incomplete", "requests", "read_bytes", "runner", "message",
    "pictures",
)  # fmt: skip
"""What a run's own status says better than anybody else."""
_SILENT = timedelta(minutes=30)
"""After so long without a word a run whose job nobody knows has failed."""
_ENDS: dict[str, State] = {
    "JOB_STATE_FAILED": "failed",
    "JOB_STATE_CANCELLED": "cancelled",
    "JOB_STATE_DRAINED": "cancelled",
    "JOB_STATE_DONE": "failed",
}
"""What becomes of a run whose job ended so and whose own status does not say that it ended."""
UNKNOWN, RUNNING = "JOB_STATE_UNKNOWN", "JOB_STATE_RUNNING"


class Jobs(Protocol):
    """Who knows jobs."""

    def state(self, job: str) -> str:
        """`JOB_STATE_…` of a job; UNKNOWN where there is none of the id."""
        ...

    def counts(self, job: str) -> dict[str, int]:
        """The pipeline's own counters (`tasks_done`, `read_bytes`), as far as they are known."""
        ...


@dataclass
class Report:
    """What reporting needs."""

    settings: CloudSettings
    runs: Runs
    jobs: Jobs
    publish: Publish

    def sweep(self) -> list[RunStatus]:
        """Look after all runs that have not ended. Returns the statuses that have changed."""
        changed = []
        for run in self.runs.open_ids():
            known = self.runs.status(run)
            if known is None:
                continue  # it is being launched
            if known.ended:
                self.runs.close(run, known.job)
                continue
            after = self._refresh(run, known)
            if after is not None:
                changed.append(after)
        return changed

    def refresh(self, run: str) -> RunStatus | None:
        """Bring a run up to date and publish what has changed; None where nothing has, or there is no such run."""
        known = self.runs.status(run)
        return None if known is None else self._refresh(run, known)

    def _refresh(self, run: str, known: RunStatus) -> RunStatus | None:
        said, state = self._said(known), self.jobs.state(known.job)
        counts = self.jobs.counts(known.job) if state == RUNNING else {}
        before: list[RunStatus] = []

        def change(current: RunStatus | None) -> RunStatus:
            assert current is not None, "a run's status is never removed"
            before[:] = [current]
            return brought_up_to_date(current, said, state, counts)

        after = self.runs.update(run, change)
        if after == before[0]:
            return None
        if self.settings.status_topic:
            self.publish(
                self.settings.status_topic, after.to_bytes(), {"run": run, "state": after.state}
            )
        return after

    def _said(self, known: RunStatus) -> RunStatus | None:
        """What the run itself says in its output; None where it is silent, or something else is there."""
        content = open_store(known.output).read(STATUS_FILE)
        try:
            said = None if content is None else RunStatus.model_validate_json(content)
        except ValidationError:
            return None
        if said is None or said.fingerprint != known.fingerprint:
            return None
        earlier = (
            known.started is not None and said.started is not None and said.started < known.started
        )
        return None if earlier and said.ended else said


def brought_up_to_date(
    current: RunStatus, said: RunStatus | None, job: str, counts: Mapping[str, int] | None = None
) -> RunStatus:
    """A run's status by what it says itself, and by the state and the counters of its job. One that has ended stays.

    The run itself says how many tasks it has when it begins, and what came of them when it ends; between the two the
    counters of its workers tell how it goes. They count what was made, and a bundle that is replayed twice.
    """
    if current.ended:
        return current
    found = current
    if said is not None:
        found = current.model_copy(
            update={name: getattr(said, name) for name in _SAID} | {"finished": said.finished}
        )
    if not found.ended and counts:
        left = max(found.tasks - said.done, 0) if said is not None else 0
        done = (said.done if said is not None else 0) + min(counts.get("tasks_done", 0), left)
        read = max(found.read_bytes, counts.get("read_bytes", 0))
        found = found.model_copy(
            update={"done": done, "failed": counts.get("tasks_failed", 0), "read_bytes": read}
        )
    if not found.ended and job in _ENDS:
        told = (
            f"its job ended as {job} and it does not say that it is done: look into the job's log"
        )
        if _ENDS[job] == "cancelled":
            told = "its job was cancelled: send the request again to go on"
        found = found.model_copy(
            update={"state": _ENDS[job], "finished": now(), "message": found.message or told}
        )
    elif not found.ended and job == UNKNOWN and _silent(current):
        told = f"nobody knows a job {current.job}, and nothing has been heard of the run: send the request again"
        found = found.model_copy(update={"state": "failed", "finished": now(), "message": told})
    elif said is None and job == RUNNING:
        found = found.model_copy(update={"state": "running"})
    return current if found == current else found.model_copy(update={"updated": now()})


def _silent(status: RunStatus) -> bool:
    heard = status.updated or status.started
    return heard is None or now() - heard > _SILENT


def run_of(data: Any) -> str:
    """The run that an event tells of: of a job by its label, of a message by its attribute; empty where of none.

    What has become of it is looked up, not believed.
    """
    if not isinstance(data, Mapping):
        return ""
    labels = _inside(data, "payload", "labels")
    attributes = _inside(data, "message", "attributes")
    found = labels.get(RUN_LABEL) or attributes.get("run") or ""
    return (
        found if isinstance(found, str) and re.fullmatch(r"[a-z0-9][a-z0-9-]{0,62}", found) else ""
    )


def _inside(data: Mapping[str, Any], *names: str) -> Mapping[str, Any]:
    found: Any = data
    for name in names:
        found = found.get(name) if isinstance(found, Mapping) else None
    return found if isinstance(found, Mapping) else {}
