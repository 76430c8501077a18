"""Runs: the state of each run in a deployment, safe against concurrent writers.

The state bucket contains:

- `runs/<id>/request.json`, `claim.json` and `status.json` for each run;
- `rejected/<message>.json`, the status of each message that could not start a run;
- `open/<id>+<job>`, an empty marker for each run that has not ended, so that open runs are found
  with one listing and no reads.

All updates use generation preconditions, so concurrent writers never overwrite each other.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256

from pydantic import BaseModel, ConfigDict

from scenebeam.cloud.swap import update_object
from scenebeam.request import RunRequest
from scenebeam.status import RunStatus
from scenebeam.storage import Store

RUNS = "runs/"
REJECTED = "rejected/"
OPEN = "open/"
_INDEXED_KEY = f"{OPEN}indexed"
"""Exists once all open runs have markers. Earlier versions wrote no markers."""
_PROGRESS_KEY = f"{OPEN}indexed-to"
"""While the markers are being created: the id of the last run that was examined."""
_READ_THREADS = 16
_BATCH = 500
"""Runs that are examined between two updates of the progress."""
RUN_LABEL = "scenebeam-run"
"""Label of a Dataflow job with the id of its run."""


class Claim(BaseModel):
    """A delivery's exclusive right to launch a run."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    message: str
    """Id of the message that is being handled."""
    since: float
    """Time of the claim by the clock of its writer, as information only: see `Runs.claim_age`."""
    released: bool = False
    """Whether the launch failed and the next delivery may take over at once."""
    job: str = ""
    """Id of the job that was launched; empty until then."""
    answered: tuple[str, ...] = ()
    """Ids of the last messages that launched the run before."""
    launches: int = 0
    """How often it was launched before; 0 in claims of earlier versions."""
    began: float = 0.0
    """Time of the first claim for this launch, by the clock of its writer; 0 in claims of earlier
    versions. A job reports a later time, whenever its launch is recorded.
    """

    @property
    def launch_count(self) -> int:
        """How often the run was launched before."""
        return max(self.launches, len(self.answered))


def run_id(request: RunRequest) -> str:
    """Derive the id of a run: its name, and a hash of the request's fingerprint and its output.

    Args:
        request: The authorized request. Requests that make the same have the same id.

    Returns:
        At most 63 characters, the limit for label values of Google Cloud.
    """
    digest = sha256(f"{request.fingerprint()} {request.output.rstrip('/')}".encode()).hexdigest()
    return f"{request.run.lower().replace('_', '-')[:50]}-{digest[:12]}"


class Runs:
    """The runs in a state bucket or folder."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def key(self, run: str, file: str) -> str:
        """Return the key of one of a run's files: `request`, `claim` or `status`."""
        return f"{RUNS}{run}/{file}.json"

    def ids(self) -> list[str]:
        """List the ids of all runs that have a status, sorted."""
        ids = []
        for key in self.store.list(RUNS):
            if key.count("/") == 2 and key.endswith("/status.json"):
                ids.append(key.split("/")[1])
        return sorted(ids)

    def status(self, run: str) -> RunStatus | None:
        """Read the status of a run; None if there is none."""
        content = self.store.read(self.key(run, "status"))
        return None if content is None else RunStatus.model_validate_json(content)

    def newest_keys(self) -> list[str]:
        """List the keys of the statuses of all runs and rejected messages, last written first."""
        times = self.store.list_modified(RUNS) | self.store.list_modified(REJECTED)
        keys = []
        for key in times:
            is_run = key.startswith(RUNS) and key.count("/") == 2 and key.endswith("/status.json")
            if is_run or (key.startswith(REJECTED) and key.endswith(".json")):
                keys.append(key)
        return sorted(keys, key=lambda key: (-times[key], key))

    def read_statuses(self, keys: Sequence[str]) -> list[RunStatus | None]:
        """Read statuses by key; None for those that are gone."""
        with ThreadPoolExecutor(_READ_THREADS) as threads:
            contents = threads.map(self.store.read, keys)
            return [
                None if content is None else RunStatus.model_validate_json(content)
                for content in contents
            ]

    def statuses(self) -> Iterator[RunStatus]:
        """Read the statuses of all runs, in order of their ids."""
        for run in self.ids():
            status = self.status(run)
            if status is not None:
                yield status

    def open_ids(self) -> list[str]:
        """List the ids of runs that have not ended, sorted, without reading their statuses.

        If an earlier version wrote the state without markers, the first call reads all statuses
        and creates the markers. A listed run may just have ended: see `close`.
        """
        keys = self.store.list(OPEN)
        if _INDEXED_KEY not in keys:
            self._mark_open_runs()
            keys = self.store.list(OPEN)
        return sorted({key.removeprefix(OPEN).partition("+")[0] for key in keys if "+" in key})

    def close(self, run: str, job: str) -> None:
        """Remove the marker of a run whose job has ended."""
        self.store.delete([_marker_key(run, job)])

    def close_ended(self, run: str) -> None:
        """Remove the markers that crashes have left of a run that has ended."""
        markers = self.store.list(f"{OPEN}{run}+")
        # Read after the markers: a launch names its job in the claim before it creates a marker,
        # so any other marker is of an earlier launch.
        claim, status = self.claim(run), self.status(run)
        if status is None or not status.ended:
            return
        if claim is not None and claim[0].job != status.job:
            markers.discard(_marker_key(run, claim[0].job))
        self.store.delete(sorted(markers))

    def _mark_open_runs(self) -> None:
        """Create markers for the open runs of an earlier version. Resumes after an interruption."""
        reached = (self.store.read(_PROGRESS_KEY) or b"").decode()
        remaining = [run for run in self.ids() if run > reached]
        with ThreadPoolExecutor(8) as threads:
            for start in range(0, len(remaining), _BATCH):
                batch = remaining[start : start + _BATCH]
                for run, status in zip(batch, threads.map(self.status, batch), strict=True):
                    if status is not None and not status.ended:
                        self.store.create(_marker_key(run, status.job), b"")
                self.store.write(_PROGRESS_KEY, batch[-1].encode())
        self.store.create(_INDEXED_KEY, b"")
        self.store.delete([_PROGRESS_KEY])

    def update(self, run: str, change: Callable[[RunStatus | None], RunStatus]) -> RunStatus:
        """Update a run's status, and its marker, by compare-and-swap.

        Args:
            run: Id of the run.
            change: Computes the new status from the stored one, or from None if there is none.
                Called again if another writer was faster.

        Returns:
            The stored status.

        Raises:
            StorageError: Other writers were faster at every attempt, or storage failed.
        """
        stored: list[RunStatus | None] = []

        def change_content(content: bytes | None) -> bytes:
            before = None if content is None else RunStatus.model_validate_json(content)
            changed = change(before)
            stored[:] = [before, changed]
            # The marker is created before the status and removed after it, so that a crash in
            # between never leaves an open run without a marker.
            is_new = before is None or before.ended or before.job != changed.job
            if not changed.ended and is_new:
                self.store.create(_marker_key(run, changed.job), b"")
            return changed.to_bytes()

        update_object(self.store, self.key(run, "status"), change_content)
        before, changed = stored
        assert changed is not None, "a change returns a status"
        # Markers contain the job, so a late removal never deletes the marker of the next launch.
        if before is not None and (changed.ended or before.job != changed.job):
            self.close(run, before.job)
        return changed

    def claim(self, run: str) -> tuple[Claim, str] | None:
        """Read the claim of a run. Returns the claim and its version; None if there is none."""
        stored = self.store.read_version(self.key(run, "claim"))
        return None if stored is None else (Claim.model_validate_json(stored[0]), stored[1])

    def claim_age(self, run: str) -> float:
        """Measure the age of a run's claim, in seconds, without relying on any local clock.

        An object is written to learn the present time of the store. The age is the difference of
        two timestamps of the store, so no function's clock matters.
        """
        clock_key = self.key(run, "clock")
        self.store.write(clock_key, b"")
        claimed = self.store.modified(self.key(run, "claim"))
        present = self.store.modified(clock_key)
        return 0.0 if claimed is None or present is None else present - claimed

    def try_claim(self, run: str, claim: Claim, version: str | None) -> bool:
        """Write the claim of a run, unless another writer was faster.

        Args:
            run: Id of the run.
            claim: The new claim.
            version: Version of the claim that it replaces; None if there is none.

        Returns:
            Whether it was written.
        """
        key, content = self.key(run, "claim"), (claim.model_dump_json() + "\n").encode()
        if version is None:
            return self.store.create(key, content)
        return self.store.replace(key, content, version)


def _marker_key(run: str, job: str) -> str:
    return f"{OPEN}{run}+{re.sub('[^A-Za-z0-9_-]', '_', job)[:200]}"
