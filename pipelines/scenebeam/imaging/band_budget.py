"""Count and log what one band of a task takes, while its file is downloaded or read by range."""

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

_LARGE_FILE = 4 * 2**20
"""Size in bytes from which the progress of a download is logged."""
_LOG_PERCENT = 10
"""Percent of a file between two log lines about its download."""
_LOG_READ_BYTES = 16 * 2**20
"""Bytes between two log lines about a band that is read by range."""
_LOG_SECONDS = 10.0
"""Seconds after which a download logs its progress, however small."""


class BandBudget(Budget):
    """The budget of a task, as one band of it uses it.

    Waiting time is shared with the other bands. Requests, bytes, retries and seconds of the band
    are counted on their own, in addition to those of the task.
    """

    def __init__(self, task: Budget, label: str) -> None:
        """Create the budget of a band.

        Args:
            task: Budget of the task.
            label: Name of the band in the log.
        """
        # All settings are those of the task; the counters start anew.
        vars(self).update(vars(task))
        self.requests = self.bytes = self.retries = 0
        self.label = label
        self._task = task
        self._timed_seconds = 0.0
        self._logged_bytes = 0
        self._started = self._last_response = time.monotonic()

    def count(self, size: int) -> None:
        """Count one response of `size` bytes, and log the progress at intervals."""
        self._task.count(size)
        with self._lock:
            self.requests += 1
            self.bytes += size
            self._last_response = time.monotonic()
            is_due = self.bytes - self._logged_bytes >= _LOG_READ_BYTES
            if is_due:
                self._logged_bytes = self.bytes
        # A large response is a whole file, whose download is logged by LoggedTarget.
        if is_due and size < _LOG_READ_BYTES:
            log.info("%s: %s read", self.label, _format_size(self.bytes))

    def wait(self, state: tenacity.RetryCallState) -> float:
        """Return the seconds until the next attempt, and log the reason for it."""
        seconds = self._task.wait(state)
        error = state.outcome.exception() if state.outcome else None
        # After the last attempt, tenacity asks for the wait too, but there is no retry.
        if state.attempt_number < self.attempts and not self.spent:
            self.log_retry(f"{error}; try {state.attempt_number + 1} in {seconds:.1f} s")
        return seconds

    def log_retry(self, reason: str) -> None:
        """Count a retry of this band, and log it."""
        with self._lock:
            self.retries += 1
        log.info("%s: retry %d: %s", self.label, self.retries, reason)

    @property
    def spent(self) -> bool:
        return self._task.spent

    @property
    def spending(self) -> dict[str, Any]:
        """What the band has taken so far: `seconds`, `bytes` and `retries`.

        If the time of the band is not measured by `timed`, as for bands that are read together, the
        seconds are those until its last response.
        """
        seconds = self._timed_seconds or self._last_response - self._started
        return {"seconds": round(seconds, 3), "bytes": self.bytes, "retries": self.retries}

    def log_end(self) -> None:
        """Log what the band has taken."""
        logging.getLogger(__name__).info(
            "%s: %s read in %d requests and %.1f s, %d retries",
            self.label,
            _format_size(self.bytes),
            self.requests,
            self.spending["seconds"],
            self.retries,
        )

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Count the time of the block as that of the band."""
        begin = time.monotonic()
        try:
            yield
        finally:
            with self._lock:
                self._timed_seconds += time.monotonic() - begin


class LoggedTarget(Target):
    """The target of a download that logs its progress, and passes everything on to another one."""

    def __init__(self, target: Target, budget: BandBudget) -> None:
        """Wrap a target.

        Args:
            target: Receives the bytes.
            budget: Counts the retries, and names the band in the log.
        """
        self._target, self._budget = target, budget
        self._responses = self._retries = 0
        self._logged_offset, self._logged_at = 0, time.monotonic()
        self._copy_state()

    def _copy_state(self) -> None:
        target = self._target
        self.offset, self.total, self.validator = target.offset, target.total, target.validator

    def restart(self, validator: str, total: int | None) -> None:
        self._target.restart(validator, total)
        self._copy_state()
        self._logged_offset = 0

    def check_free_space(self) -> None:
        # A download calls this once per response: at its start, and whenever it resumes.
        self._target.check_free_space()
        self._copy_state()
        self._responses += 1
        if self._responses == 1:
            resumed = f", resuming at byte {self.offset:,}" if self.offset else ""
            log.info("%s: downloading %s%s", self._budget.label, _format_size(self.total), resumed)
        elif self._retries == self._budget.retries:
            # The response before this one ended early, and was resumed without a wait. A retry
            # after a wait is counted by the budget already.
            self._budget.log_retry(f"the response was cut off, resuming at byte {self.offset:,}")
        self._retries, self._logged_offset = self._budget.retries, self.offset

    def write(self, data: bytes) -> None:
        self._target.write(data)
        self._copy_state()
        # Log every tenth of a large file, and any file that is slow, but not its end.
        now = time.monotonic()
        is_large = self.total is None or self.total >= _LARGE_FILE
        step = max(self.total or 0, _LARGE_FILE) * _LOG_PERCENT // 100
        has_moved = is_large and self.offset - self._logged_offset >= step
        is_slow = now - self._logged_at >= _LOG_SECONDS
        if self.offset != self.total and (has_moved or is_slow):
            self._logged_offset, self._logged_at = self.offset, now
            percent = f" ({100 * self.offset // self.total} %)" if self.total else ""
            received = f"{_format_size(self.offset)} of {_format_size(self.total)}{percent}"
            log.info("%s: %s", self._budget.label, received)


def _format_size(size: int | None) -> str:
    if size is None:
        return "a file of unknown size"
    return f"{size / 1e6:,.1f} MB" if size >= 1e6 else f"{size / 1e3:,.1f} kB"
