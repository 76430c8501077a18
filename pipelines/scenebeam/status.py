"""RunStatus: the document that reports on a run, stored as `status.json` in its output.

This module imports nothing heavy, because Cloud Functions read and write statuses.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, computed_field

STATUS_FILE, FAILURES_FILE, PAGE_FILE = "status.json", "failures.csv", "report/index.html"
SERIES_FILE = "series.json"
"""What a series has made of which acquisition, and when."""
SPENDING_FILE = "spending.csv"
"""Time, bytes and retries of the last run, by task and band."""

State = Literal[
    "queued", "planned", "running", "succeeded", "partial", "failed", "cancelled", "rejected"
]
_EXIT_CODES = {"succeeded": 0, "planned": 0, "running": 0, "queued": 0, "cancelled": 130}


def now() -> datetime:
    """Return the current time in UTC, to the second."""
    return datetime.now(UTC).replace(microsecond=0)


class RunStatus(BaseModel):
    """The state of a run and its counters.

    Releases add fields, and keep the states and the meaning of fields. A reader of another release
    ignores fields that it does not know, and takes the defaults of those that are missing: all but
    `run` and `state` have one.
    """

    model_config = ConfigDict(extra="ignore")

    run: str
    """Name of the run."""
    state: State
    id: str = ""
    """Of a run in the cloud: its name and the beginning of its fingerprint."""
    job: str = ""
    """Id of the Dataflow job or of the process that makes the run."""
    fingerprint: str = ""
    """Hash of the request."""
    output: str = ""
    runner: str = ""
    tasks: int = 0
    products: int = 0
    """Products that the tasks make: several tasks may make the shards of one."""
    done: int = 0
    kept: int = 0
    """Tasks that were done before this run."""
    waiting: int = 0
    """Products of a series that are left to the next pass."""
    replaced: int = 0
    """Tasks whose products replace those of an earlier plan."""
    skipped: int = 0
    failed: int = 0
    retriable: int = 0
    """Failed tasks that may succeed when they are retried."""
    incomplete: int = 0
    """Products that lack some of their tiles."""
    stalled: tuple[str, ...] = ()
    """Tasks of a run in progress that have read nothing for ten minutes, and where they run."""
    requests: int = 0
    read_bytes: int = 0
    cost: float | None = None
    """Estimated cost on Dataflow in USD, at list prices; None on other runners."""
    started: datetime | None = None
    updated: datetime | None = None
    finished: datetime | None = None
    message: str = ""
    pictures: tuple[str, ...] = ()
    """Keys of some small pictures in the output, for a status page."""

    @property
    def ended(self) -> bool:
        """Whether the state is final."""
        return self.state in ("succeeded", "partial", "failed", "cancelled", "rejected")

    @computed_field  # type: ignore[prop-decorator]
    @property
    def tasks_per_minute(self) -> float | None:
        """Tasks that this run has made per minute so far; None before the first update."""
        if self.started is None or self.updated is None or self.updated <= self.started:
            return None
        minutes = (self.updated - self.started).total_seconds() / 60
        return round((self.done - self.kept) / minutes, 1)

    @property
    def exit_code(self) -> int:
        """Exit code of the process: 0 succeeded, 1 failed or partial, 130 interrupted."""
        return _EXIT_CODES.get(self.state, 1)

    def __repr__(self) -> str:
        """Return one line."""
        failed = f", {self.failed} failed" if self.failed else ""
        return f"<RunStatus {self.run}: {self.state}, {self.done} of {self.tasks} tasks{failed}>"

    def _repr_html_(self) -> str:
        """Show in a notebook how the run ended, and where its report is."""
        from scenebeam.figures.notebook import render_card  # slow to import

        counts = {name: getattr(self, name) for name in ("kept", "replaced", "skipped", "failed")}
        facts = {
            "tasks done": f"{self.done} of {self.tasks}",
            **{name: count or "" for name, count in counts.items()},
            "incomplete": self.incomplete or "",
            "read": f"{self.read_bytes / 1e6:,.1f} MB in {self.requests:,} requests",
            "message": self.message,
            "output": self.output,
            "report": f"{self.output.rstrip('/')}/{PAGE_FILE}" if self.ended else "",
        }
        return render_card(f"{self.run}: {self.state}", facts)

    def to_bytes(self) -> bytes:
        """Serialize to indented JSON."""
        return (self.model_dump_json(indent=2) + "\n").encode()
