"""Runs: what a deployment knows of each run, kept so that of many writers none is lost."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from hashlib import sha256

import tenacity
from pydantic import BaseModel, ConfigDict

from scenebeam.errors import StorageError
from scenebeam.request import RunRequest
from scenebeam.run.status import RunStatus
from scenebeam.storage import Store

RUNS = "runs/"
RUN_LABEL = "scenebeam-run"
"""Of a job: the run that it makes."""


class Claim(BaseModel):
    """Who launches a run."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    message: str
    """Id of the message that it answers."""
    since: float
    """Seconds since 1970."""
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
    """The runs below a store: `runs/<id>/request.json`, `claim.json` and `status.json`."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def name(self, run: str, file: str) -> str:
        """Name of one of a run's files."""
        return f"{RUNS}{run}/{file}.json"

    def ids(self) -> list[str]:
        """All runs that have a status, in order of their ids."""
        names = self.store.list(RUNS)
        return sorted(name.split("/")[1] for name in names if name.count("/") == 2 and name.endswith("/status.json"))

    def status(self, run: str) -> RunStatus | None:
        """What is known of a run."""
        content = self.store.read(self.name(run, "status"))
        return None if content is None else RunStatus.model_validate_json(content)

    def statuses(self) -> Iterator[RunStatus]:
        """All of them."""
        yield from (status for run in self.ids() if (status := self.status(run)) is not None)

    def update(self, run: str, change: Callable[[RunStatus | None], RunStatus]) -> RunStatus:
        """Bring a run's status up to date, by a change that bears being made again on what another writer has left.

        Raises StorageError where others are always faster.
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
            changed = change(None if found is None else RunStatus.model_validate_json(found[0]))
            if found is not None and changed.dump() == found[0]:
                return changed
            done = (
                self.store.create(name, changed.dump())
                if found is None
                else self.store.replace(name, changed.dump(), found[1])
            )
            if not done:
                raise _OvertakenError(f"{self.store.path(name)} is written to by too many at once: try again later")
            return changed

        return write()

    def claim(self, run: str) -> tuple[Claim, str] | None:
        """Who has claimed a run, and the version of that."""
        found = self.store.read_version(self.name(run, "claim"))
        return None if found is None else (Claim.model_validate_json(found[0]), found[1])

    def take(self, run: str, claim: Claim, version: str | None) -> bool:
        """Claim a run that nobody has claimed, or in place of that version of its claim; whether it was claimed."""
        name, content = self.name(run, "claim"), (claim.model_dump_json() + "\n").encode()
        return self.store.create(name, content) if version is None else self.store.replace(name, content, version)


class _OvertakenError(StorageError):
    """Somebody else wrote first."""
