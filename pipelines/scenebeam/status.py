"""RunStatus: the one document that says how a run goes. Light: a Cloud Function reads and writes it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict

STATUS_FILE, FAILURES_FILE, PAGE_FILE = "status.json", "failures.csv", "report/index.html"
SPENDING_FILE = "spending.csv"
"""What the last run has taken, task by task and band by band."""

State = Literal[
    "queued", "planned", "running", "succeeded", "partial", "failed", "cancelled", "rejected"
]


def now() -> datetime:
    """This instant in UTC, to the second."""
    return datetime.now(UTC).replace(microsecond=0)


class RunStatus(BaseModel):
    """What became of a run so far."""

    model_config = ConfigDict(extra="forbid")

    run: str
    state: State
    id: str = ""
    """Of a run in the cloud: its name and the beginning of its fingerprint."""
    job: str = ""
    """What makes it: the id of a Dataflow job, or of a process."""
    fingerprint: str = ""
    output: str = ""
    runner: str = ""
    tasks: int = 0
    done: int = 0
    skipped: int = 0
    failed: int = 0
    retriable: int = 0
    """Failed tasks that may end well when they are made again."""
    incomplete: int = 0
    """Products made without some of their tiles."""
    requests: int = 0
    read_bytes: int = 0
    started: datetime | None = None
    updated: datetime | None = None
    finished: datetime | None = None
    message: str = ""
    pictures: tuple[str, ...] = ()
    """Names of some small pictures in the output, for a page."""

    @property
    def ended(self) -> bool:
        """Whether nothing more will come of it by itself."""
        return self.state in ("succeeded", "partial", "failed", "cancelled", "rejected")

    @property
    def exit_code(self) -> int:
        """0 succeeded, 1 failed or partial, 130 interrupted."""
        return {"succeeded": 0, "planned": 0, "running": 0, "queued": 0, "cancelled": 130}.get(
            self.state, 1
        )

    def to_bytes(self) -> bytes:
        """As it is stored."""
        return (self.model_dump_json(indent=2) + "\n").encode()
