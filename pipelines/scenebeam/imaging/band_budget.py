"""Spending: what one band of a task takes, counted and logged while its file comes or is read."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import tenacity

from scenebeam.transfer.download import Target
from scenebeam.transfer.retry import Budget

log = logging.getLogger("scenebeam.progress")

_LARGE = 4 * 2**20
"""Bytes of a file from which its progress is logged."""
_STEP = 10
"""Percent of a file between two lines of its progress."""
_READ_STEP = 16 * 2**20
"""Bytes of a band read by range between two lines of its progress."""
_PATIENCE = 10.0
"""Seconds after which there is another line, however little has come."""


class BandBudget(Budget):
    """A task's budget as one band of it spends it: counts what the band takes, logs its retries."""

    def __init__(self, task: Budget, label: str) -> None:
        """Share the waiting time of `task`; `label` names the band in the log."""
        vars(self).update(vars(task))
        self.requests = self.bytes = self.retries = 0
        self.label = label
        self._task, self._taken, self._told = task, 0.0, 0
        self._began = self._last = time.monotonic()

    def count(self, size: int) -> None:
        """Count one more answer of `size` bytes; a band that is read by range is logged now and then."""
        self._task.count(size)
        with self._lock:
            self.requests += 1
            self.bytes += size
            self._last = time.monotonic()
            told = self.bytes - self._told >= _READ_STEP
            if told:
                self._told = self.bytes
        if told and size < _READ_STEP:
            log.info("%s: %s read", self.label, _size(self.bytes))

    def wait(self, state: tenacity.RetryCallState) -> float:
        """Return the seconds until the next try, and log why there is one."""
        seconds = self._task.wait(state)
        fault = state.outcome.exception() if state.outcome else None
        if state.attempt_number < self.attempts and not self.spent:  # else it was the last try
            self.log_retry(f"{fault}; try {state.attempt_number + 1} in {seconds:.1f} s")
        return seconds

    def log_retry(self, why: str) -> None:
        """Count a retry of this band, and log it."""
        with self._lock:
            self.retries += 1
        log.info("%s: retry %d: %s", self.label, self.retries, why)

    @property
    def spent(self) -> bool:
        """Whether nothing is left to wait with."""
        return self._task.spent

    @property
    def spending(self) -> dict[str, Any]:
        """What the band has taken so far: `seconds`, `bytes` and `retries`.

        Where its time is not counted as it is spent, as of bands that are read together, the seconds are those until
        the last of its bytes had come.
        """
        seconds = self._taken or self._last - self._began
        return {"seconds": round(seconds, 3), "bytes": self.bytes, "retries": self.retries}

    def log_end(self) -> None:
        """Log what the band has taken."""
        spent = self.spending
        logging.getLogger(__name__).info(
            "%s: %s read in %d requests and %.1f s, %d retries",
            self.label, _size(self.bytes), self.requests, spent["seconds"], self.retries,
        )  # fmt: skip

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Count the time of the block as the band's."""
        begin = time.monotonic()
        try:
            yield
        finally:
            with self._lock:
                self._taken += time.monotonic() - begin


class LoggedTarget(Target):
    """A download's target that logs how far the file has come."""

    def __init__(self, target: Target, budget: BandBudget) -> None:
        """Pass everything on to `target`; `budget` counts the retries and names the band."""
        self._target, self._budget = target, budget
        self._answers, self._retries = 0, 0
        self._told, self._last = 0, time.monotonic()
        self._note()

    def _note(self) -> None:
        target = self._target
        self.offset, self.total, self.validator = target.offset, target.total, target.validator

    def restart(self, validator: str, total: int | None) -> None:
        """Forget what is there: another file comes."""
        self._target.restart(validator, total)
        self._note()
        self._told = 0

    def check_free_space(self) -> None:
        """Note that another answer begins: the first, or one that resumes."""
        self._target.check_free_space()
        self._note()
        self._answers += 1
        if self._answers == 1:
            resumed = f", resuming at byte {self.offset:,}" if self.offset else ""
            log.info("%s: downloading %s%s", self._budget.label, _size(self.total), resumed)
        elif self._retries == self._budget.retries:  # a retry after a wait is counted already
            self._budget.log_retry(f"the answer broke off, resuming at byte {self.offset:,}")
        self._retries, self._told = self._budget.retries, self.offset

    def write(self, data: bytes) -> None:
        """Take the next bytes, and log every tenth of a large file, and any file that is slow."""
        self._target.write(data)
        self._note()
        now = time.monotonic()
        large = self.total is None or self.total >= _LARGE
        step = max((self.total or 0) * _STEP // 100, _LARGE * _STEP // 100)
        further = large and self.offset - self._told >= step
        if self.offset != self.total and (further or now - self._last >= _PATIENCE):
            self._told, self._last = self.offset, now
            percent = f" ({100 * self.offset // self.total} %)" if self.total else ""
            come = f"{_size(self.offset)} of {_size(self.total)}{percent}"
            log.info("%s: %s", self._budget.label, come)


def _size(count: int | None) -> str:
    if count is None:
        return "a file of unknown size"
    return f"{count / 1e6:,.1f} MB" if count >= 1e6 else f"{count / 1e3:,.1f} kB"
