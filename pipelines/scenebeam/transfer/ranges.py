"""Byte ranges of files, wherever they lie: HTTP(S), Google Cloud Storage, S3 or this machine.

One client a process. Transient faults are retried with exponential backoff and jitter, honouring
Retry-After, within the budget of the task that reads; permanent ones are raised at once.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path, PurePosixPath
from tempfile import NamedTemporaryFile
from typing import TypeVar

import tenacity
import urllib3

from scenebeam.errors import ReadError
from scenebeam.request import Limits
from scenebeam.transfer.http import (
    AT_ONCE,
    TransientError,
    content_length,
    content_range,
    has_known_end,
    open_url,
    read_body,
)
from scenebeam.transfer.signing import SignedRequest, redact_url, sign, split_url

T = TypeVar("T")

shutdown = threading.Event()
"""Set when the run is interrupted: nobody waits for another try, and downloads stop at their next
chunk.
"""
UNKNOWN_SIZE = sys.maxsize
"""Bytes of a file whose server does not say how many."""
_LARGEST_WHOLE_BODY = 64 * 2**20
_PIECE = 16 * 2**20
"""Bytes of a whole file that are asked for at once."""
_SECONDS, _RATE = 60, 10_000
"""An answer must have come after so many seconds, and one more for each so many bytes."""


@dataclass
class Budget:
    """What one task may spend on waiting for retries, and what it has read: shared by all its
    threads.
    """

    seconds: float = 300.0
    first_wait: float = 0.25
    attempts: int = 6
    """Tries of one request."""
    download_workers: int = 8
    """Whole files fetched at once in this process."""
    per_host: int = 4
    """Whole files fetched at once from one host."""
    private: bool = False
    """Whether files may lie at loopback and private addresses."""
    file_seconds: float = 300.0
    """Seconds that one whole file may take to come."""
    requests: int = 0
    bytes: int = 0
    retries: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def count(self, size: int) -> None:
        """One more answer of `size` bytes."""
        with self._lock:
            self.requests += 1
            self.bytes += size

    def wait(self, state: tenacity.RetryCallState) -> float:
        """Seconds until the next try: exponential with jitter, and no sooner than the server
        says.
        """
        fault = state.outcome.exception() if state.outcome else None
        backoff = tenacity.wait_exponential_jitter(
            multiplier=self.first_wait, max=30, jitter=self.first_wait
        )(state)
        seconds = max(backoff, fault.after if isinstance(fault, TransientError) else 0.0)
        with self._lock:
            self.retries += 1
            self.seconds -= seconds
        return seconds

    @classmethod
    def of(cls, limits: Limits) -> Budget:
        """What a request's limits let one task spend."""
        return cls(
            seconds=limits.retry_seconds,
            first_wait=limits.retry_wait,
            attempts=limits.max_attempts,
            download_workers=limits.max_download_workers,
            per_host=limits.max_per_host,
            private=limits.private_addresses,
            file_seconds=limits.file_seconds,
        )

    @property
    def patience(self) -> float:
        """Seconds that one request may take with all its tries."""
        return max(self.seconds, 1.0)

    @property
    def spent(self) -> bool:
        """Whether nothing is left to wait with."""
        return self.seconds <= 0


@cache
def io_threads() -> ThreadPoolExecutor:
    """The process's pool for waiting on the network."""
    return ThreadPoolExecutor(AT_ONCE, thread_name_prefix="read")


@cache
def cpu_threads() -> ThreadPoolExecutor:
    """The process's pool for decoding and encoding; the codecs release the GIL."""
    return ThreadPoolExecutor(max(2, os.cpu_count() or 2), thread_name_prefix="codec")


def read_range(
    href: str, start: int, stop: int, budget: Budget, signing: str = "none", *, fresh: bool = False
) -> bytes:
    """Read bytes [start, stop) of a file; fewer only where the file ends before `stop`.

    Args:
        href: The file's unsigned address, or a path on this machine.
        start: First byte.
        stop: The byte after the last.
        budget: What the task may spend on tries.
        signing: How its record says that it is signed.
        fresh: Read it independently of earlier reads: over a new connection, and past all caches.

    Raises:
        ReadError: Permanent for 401, 403, 404, 410, 416 and local faults; otherwise after all
        retries.
    """
    return read_range_and_size(href, start, stop, budget, signing, fresh=fresh)[0]


def read_range_and_size(
    href: str, start: int, stop: int, budget: Budget, signing: str = "none", *, fresh: bool = False
) -> tuple[bytes, int]:
    """As `read_range`, with the size of the whole file in bytes; UNKNOWN_SIZE where its server does
    not say.
    """

    def ask() -> tuple[bytes, int]:
        where = sign(href, signing)
        if where is None:
            return _read_local(href, start, stop, budget)
        return _read_http(href, where, start, stop, budget, fresh=fresh)

    return retrying(ask, href, budget)


@contextmanager
def local_copy(href: str, budget: Budget, most: int, signing: str = "none") -> Iterator[Path]:
    """A whole remote file of at most `most` bytes on a local disk, for as long as the block lasts.
    Raises ReadError.
    """
    with NamedTemporaryFile(suffix=PurePosixPath(split_url(href).path).suffix) as file:
        size = start = 0
        while start == 0 or start < size:
            body, size = read_range_and_size(href, start, start + _PIECE, budget, signing)
            if size > most:
                raise ReadError(
                    f"{redact_url(href)} has {size:,} bytes, more than the {most:,} that are read"
                )
            file.write(body)
            start += _PIECE
        file.flush()
        yield Path(file.name)


def retrying(call: Callable[[], T], href: str, budget: Budget) -> T:
    """What `call` gives, with another try for each TransientError that it raises; ReadError when they
    are used up.
    """
    most = budget.patience
    retry = tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(TransientError),
        # Slow tries count too: a server that drips must not hold a request for all of its tries.
        stop=lambda state: (
            state.attempt_number >= budget.attempts
            or budget.spent
            or (state.seconds_since_start or 0) > most
        ),
        wait=budget.wait,
        sleep=tenacity.sleep_using_event(shutdown),
        reraise=True,
    )
    try:
        return retry(call)
    except TransientError as fault:
        raise ReadError(
            f"{redact_url(href)} could not be read: {fault} (after {retry.statistics.get('attempt_number', 1)} tries); "
            "the server is unwell or unreachable, run again later",
            permanent=False,
        ) from None


def _read_local(path: str, start: int, stop: int, budget: Budget) -> tuple[bytes, int]:
    try:
        with open(path.removeprefix("file://"), "rb") as file:
            size = os.fstat(file.fileno()).st_size
            body = os.pread(file.fileno(), max(min(stop, size) - start, 0), start)
    except OSError as error:
        raise ReadError(f"{path} cannot be read: {error.strerror or error}") from error
    budget.count(len(body))
    return body, size


def _read_http(
    href: str, where: SignedRequest, start: int, stop: int, budget: Budget, *, fresh: bool
) -> tuple[bytes, int]:
    """One request. What comes is held against what was asked for: no other bytes, no fewer, and no
    more are read.
    """
    answer = open_url(
        href, where, {"Range": f"bytes={start}-{stop - 1}"}, private=budget.private, fresh=fresh
    )
    body, size = b"", 0
    try:
        if answer.status == 416:
            told = (
                f"ends before byte {start}: the file is truncated" if start else "is an empty file"
            )
            raise ReadError(f"{redact_url(href)} {told}")
        first, last, total = _extent(answer, start, stop)
        body = read_body(answer, last - first, _SECONDS + (last - first) / _RATE)
        if answer.status == 200:
            if total is None and not has_known_end(answer) and len(body) < stop:
                raise TransientError("the answer has no length, and may have broken off")
            size = total if total is not None else len(body) if len(body) < stop else UNKNOWN_SIZE
            wanted = body[start:stop]
        else:
            size, wanted = UNKNOWN_SIZE if total is None else total, body
        if len(body) < last - first and (total is not None or answer.status == 206):
            raise TransientError(f"the answer has {len(body):,} of {last - first:,} bytes")
        if answer.status == 206 and _is_page(answer, wanted):
            raise TransientError("the answer is an HTML page")
        if _ended(answer):
            answer.release_conn()
    finally:
        budget.count(len(body))
        if answer.connection is not None:  # not read to its end
            answer.close()
    return wanted, size


def _is_page(answer: urllib3.BaseHTTPResponse, body: bytes) -> bool:
    """Whether an answer calls itself HTML and looks like it: a proxy's or a login page, whatever
    range it says that it is.
    """
    kind = answer.headers.get("Content-Type", "").lower()
    return kind.startswith("text/html") and body[:100].lstrip().startswith(b"<")


def _ended(answer: urllib3.BaseHTTPResponse) -> bool:
    """Whether nothing of the answer is left, so that its connection can be used again."""
    return getattr(answer, "length_remaining", None) == 0


def _extent(answer: urllib3.BaseHTTPResponse, start: int, stop: int) -> tuple[int, int, int | None]:
    """First and last byte that the answer's body should bring, and bytes of the whole file where it
    says.

    Raises TransientError where they are not what was asked for: RFC 9110 sections 14.4 and 15.3.7 let a
    server send another range, and some do.
    """
    length = content_length(answer)
    if answer.status == 200:
        if min(stop, length if length is not None else stop) > _LARGEST_WHOLE_BODY:
            raise TransientError(
                f"the server ignores Range, and byte {start:,} lies too deep to read all before it"
            )
        return 0, stop if length is None else min(stop, length), length
    first, last, total = content_range(answer.headers.get("Content-Range"))
    wanted = stop if total is None else min(stop, total)
    if (first, last) != (start, wanted) or length not in (None, last - first):
        raise TransientError(
            f"the answer has bytes {first:,} to {last:,}, and {start:,} to {wanted:,} were asked for"
        )
    return first, last, total
