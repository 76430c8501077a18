"""Runs: what a deployment knows of each run, kept so that concurrent writers never overwrite each other.

Below the state: `runs/<id>/request.json`, `claim.json` and `status.json`; and `open/<id>+<job>`, an
empty marker for each run that has not ended, so that finding those takes a listing and no reads.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256

import tenacity
from pydantic import BaseModel, ConfigDict

from scenebeam.errors import StorageError
from scenebeam.request import RunRequest
from scenebeam.status import RunStatus
from scenebeam.storage import Store

RUNS = "runs/"
OPEN = "open/"
_INDEXED = f"{OPEN}indexed"
"""Written when all open runs have markers: before, there may be runs from before there were markers."""
_INDEXED_TO = f"{OPEN}indexed-to"
"""The last run that was looked at, while they are being marked."""
_BATCH = 500
RUN_LABEL = "scenebeam-run"
"""Of a job: the run that it makes."""


class Claim(BaseModel):
    """Who launches a run."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    message: str
    """Id of the message that it answers."""
    since: float
    """When it was made, by its maker's clock: for people. Its age is told by `Runs.claim_age`."""
    released: bool = False
    """Whether its maker could not launch the job and has given it up."""
    job: str = ""
    """What was launched; empty until then."""
    answered: tuple[str, ...] = ()
    """Messages for which it was launched before: after each it had failed."""


def run_id(request: RunRequest) -> str:
    """A run's name, and a hash of what it makes and where: the same request is the same run.

    No longer than the 63 characters that a label of Google Cloud may have.
    """
    digest = sha256(f"{request.fingerprint()} {request.output.rstrip('/')}".encode()).hexdigest()
    return f"{request.run.lower().replace('_', '-')[:50]}-{digest[:12]}"


class Runs:
    """The runs below a store."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def name(self, run: str, file: str) -> str:
        """Name of one of a run's files."""
        return f"{RUNS}{run}/{file}.json"

    def ids(self) -> list[str]:
        """All runs that have a status, in order of their ids."""
        names = self.store.list(RUNS)
        return sorted(
            name.split("/")[1]
            for name in names
            if name.count("/") == 2 and name.endswith("/status.json")
        )

    def status(self, run: str) -> RunStatus | None:
        """What is known of a run."""
        content = self.store.read(self.name(run, "status"))
        return None if content is None else RunStatus.model_validate_json(content)

    def statuses(self) -> Iterator[RunStatus]:
        """All of them."""
        yield from (status for run in self.ids() if (status := self.status(run)) is not None)

    def open_ids(self) -> list[str]:
        """List the runs that have not ended, in order of their ids, without reading any of them.

        Only the first time in a state that an earlier version wrote are all statuses read, and
        markers made for the open ones. A run in the list may just have ended: see `close`.
        """
        names = self.store.list(OPEN)
        if _INDEXED not in names:
            self._mark_open_runs()
            names = self.store.list(OPEN)
        return sorted({name.removeprefix(OPEN).partition("+")[0] for name in names if "+" in name})

    def close(self, run: str, job: str) -> None:
        """Remove the marker of a run whose job has ended."""
        self.store.delete([_marker(run, job)])

    def _mark_open_runs(self) -> None:
        """Mark the open runs of an earlier version; goes on where a call that was stopped had come to."""
        reached = (self.store.read(_INDEXED_TO) or b"").decode()
        left = [run for run in self.ids() if run > reached]
        with ThreadPoolExecutor(8) as threads:
            for start in range(0, len(left), _BATCH):
                batch = left[start : start + _BATCH]
                for run, status in zip(batch, threads.map(self.status, batch), strict=True):
                    if status is not None and not status.ended:
                        self.store.create(_marker(run, status.job), b"")
                self.store.write(_INDEXED_TO, batch[-1].encode())
        self.store.create(_INDEXED, b"")
        self.store.delete([_INDEXED_TO])

    def update(self, run: str, change: Callable[[RunStatus | None], RunStatus]) -> RunStatus:
        """Update a run's status, and the marker that it is open.

        Args:
            run: The run's id.
            change: Makes the new status from the present one, None where there is none. It is called
                again on what another writer has left in the meantime.

        Returns:
            The status as it is now.

        Raises:
            StorageError: Other writers are always faster.
        """
        name = self.name(run, "status")

        @tenacity.retry(
            retry=tenacity.retry_if_exception_type(_OvertakenError),
            stop=tenacity.stop_after_attempt(50),
            wait=tenacity.wait_random_exponential(multiplier=0.02, max=1),
            reraise=True,
        )
        def write() -> RunStatus:
            found = self.store.read_version(name)
            before = None if found is None else RunStatus.model_validate_json(found[0])
            changed = change(before)
            if found is not None and changed.to_bytes() == found[0]:
                return changed
            # The marker stands before the status does: a crash between the two leaves no open run unmarked.
            if not changed.ended and (before is None or before.ended or before.job != changed.job):
                self.store.create(_marker(run, changed.job), b"")
            done = (
                self.store.create(name, changed.to_bytes())
                if found is None
                else self.store.replace(name, changed.to_bytes(), found[1])
            )
            if not done:
                raise _OvertakenError(
                    f"{self.store.path(name)} is written to by too many at once: try again later"
                )
            # A marker names its job: one that is removed late cannot be that of the next launch.
            if before is not None and (changed.ended or before.job != changed.job):
                self.close(run, before.job)
            return changed

        return write()

    def claim(self, run: str) -> tuple[Claim, str] | None:
        """Who has claimed a run, and the version of that."""
        found = self.store.read_version(self.name(run, "claim"))
        return None if found is None else (Claim.model_validate_json(found[0]), found[1])

    def claim_age(self, run: str) -> float:
        """Seconds since a run's claim was written.

        An object that is written now tells the present: both times are the store's, so that no
        instance's clock matters.
        """
        clock = self.name(run, "clock")
        self.store.write(clock, b"")
        written, present = self.store.modified(self.name(run, "claim")), self.store.modified(clock)
        return 0.0 if written is None or present is None else present - written

    def try_claim(self, run: str, claim: Claim, version: str | None) -> bool:
        """Claim a run that nobody has claimed, or in place of that version of its claim; whether it was claimed."""
        name, content = self.name(run, "claim"), (claim.model_dump_json() + "\n").encode()
        return (
            self.store.create(name, content)
            if version is None
            else self.store.replace(name, content, version)
        )


def _marker(run: str, job: str) -> str:
    return f"{OPEN}{run}+{re.sub('[^A-Za-z0-9_-]', '_', job)[:200]}"


class _OvertakenError(StorageError):
    """Somebody else wrote first."""
