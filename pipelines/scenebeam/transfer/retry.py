"""Retries of transient failures, within the budget of the task that reads.

A TransientError is retried with exponential backoff and jitter, honoring Retry-After. All requests
of a task share one `Budget` of waiting time, so that a failing server delays a task by minutes, not
by minutes per request. Permanent errors are never retried.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

import tenacity

from scenebeam.errors import ReadError
from scenebeam.request import Limits
from scenebeam.transfer.http import TransientError
from scenebeam.transfer.signing import redact_url

T = TypeVar("T")

shutdown = threading.Event()
"""Set when the run is interrupted: waits between retries end at once, and downloads stop at their
next chunk.
"""


@dataclass
class Budget:
    """The waiting time that one task may spend on retries, and counters of what it has read.

    Shared by all threads of the task.
    """

    seconds: float = 300.0
    """Waiting time that is left."""
    first_wait: float = 0.25
    """Seconds before the first retry of a request; the wait doubles with each further one."""
    attempts: int = 6
    """Maximum number of attempts per request, the first included."""
    download_workers: int = 8
    """Whole files that this process downloads at the same time."""
    per_host: int = 4
    """Whole files that this process downloads from one host at the same time."""
    private: bool = False
    """Whether loopback and private addresses may be read."""
    file_seconds: float = 300.0
    """Maximum duration of the download of one whole file."""
    task_seconds: float = math.inf
    """Maximum duration of the task."""
    deadline: float = math.inf
    """When the task must have ended, in terms of `time.monotonic`; see `start`."""
    requests: int = 0
    """Responses read so far."""
    bytes: int = 0
    """Bytes read so far."""
    retries: int = 0
    """Retries made so far."""
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @classmethod
    def of(cls, limits: Limits) -> Budget:
        """Create the budget that a request's limits grant to one task."""
        return cls(
            seconds=limits.retry_seconds,
            first_wait=limits.retry_wait,
            attempts=limits.max_attempts,
            download_workers=limits.max_download_workers,
            per_host=limits.max_per_host,
            private=limits.private_addresses,
            file_seconds=limits.file_seconds,
            task_seconds=limits.task_seconds,
        )

    def start(self) -> None:
        """Start the time of the task."""
        self.deadline = time.monotonic() + self.task_seconds

    def check_deadline(self) -> None:
        """Check that the task has time left.

        Raises:
            ReadError: It has taken too long; a retry may be faster.
        """
        if time.monotonic() > self.deadline:
            raise ReadError(
                f"the task has taken longer than limits.task_seconds = {self.task_seconds:g}; run "
                "again to retry it, or raise the limit",
                permanent=False,
            )

    def count(self, size: int) -> None:
        """Count one response of `size` bytes."""
        with self._lock:
            self.requests += 1
            self.bytes += size

    def wait(self, state: tenacity.RetryCallState) -> float:
        """Return the seconds to wait before the next attempt, and deduct them from the budget.

        The wait grows exponentially, with jitter, and is never shorter than the server's
        Retry-After. This is a `wait` strategy of tenacity.
        """
        error = state.outcome.exception() if state.outcome else None
        backoff = tenacity.wait_exponential_jitter(
            multiplier=self.first_wait, max=30, jitter=self.first_wait
        )(state)
        seconds = max(backoff, error.after if isinstance(error, TransientError) else 0.0)
        with self._lock:
            self.retries += 1
            self.seconds -= seconds
        return seconds

    @property
    def seconds_per_request(self) -> float:
        """Seconds that one request may take, including all of its retries."""
        return max(self.seconds, 1.0)

    @property
    def spent(self) -> bool:
        """Whether no waiting time is left."""
        return self.seconds <= 0


def retrying(call: Callable[[], T], href: str, budget: Budget) -> T:
    """Call a function, and call it again each time it raises TransientError.

    Args:
        call: The function, without arguments.
        href: What it reads, for the error message.
        budget: Limits the number of attempts and the total waiting time.

    Returns:
        The function's result.

    Raises:
        ReadError: All attempts have failed (not permanent), or the function itself raised it.
    """
    max_seconds = budget.seconds_per_request
    retry = tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(TransientError),
        # The budget counts only the waits. A server that delivers a few bytes per second would
        # hold a request for all of its attempts, so the elapsed time is limited as well.
        stop=lambda state: (
            state.attempt_number >= budget.attempts
            or budget.spent
            or (state.seconds_since_start or 0) > max_seconds
            or time.monotonic() > budget.deadline
        ),
        wait=budget.wait,
        sleep=tenacity.sleep_using_event(shutdown),
        reraise=True,
    )
    budget.check_deadline()
    try:
        return retry(call)
    except TransientError as error:
        budget.check_deadline()
        tries = retry.statistics.get("attempt_number", 1)
        raise ReadError(
            f"{redact_url(href)} could not be read: {error} (after {tries} tries); "
            "the server is failing or unreachable, run again later",
            permanent=False,
        ) from None
