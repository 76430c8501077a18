"""Byte ranges of files, wherever they lie: HTTP(S), Google Cloud Storage, S3 or this machine.

One client a process. Transient faults are retried with exponential backoff and jitter, honouring
Retry-After, within the budget of the task that reads; permanent ones are raised at once.
"""

from __future__ import annotations

import email.utils
import logging
import os
import re
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from typing import TypeVar

import tenacity
import urllib3

from scenebeam.errors import ReadError
from scenebeam.transfer.access import Access, access, shown

T = TypeVar("T")

IO_THREADS = 24
"""Requests in flight, whatever the number of cores: round trips cost, not the client."""
halted = threading.Event()
"""Set when the run is interrupted: nobody waits for another try, and downloads stop at their next chunk."""
_TRANSIENT = {408, 425, 429, 500, 502, 503, 504}
_HINTS = {
    401: ": is the account named in the environment, and is it the right one?",
    403: ": the file needs an account, or this account may not read it",
    404: ": the catalogue names a file that is not there; leave the scene out, or ask the provider",
}
_LARGEST_WHOLE_BODY = 64 * 2**20
_TIMEOUT = urllib3.Timeout(connect=10, read=30)


class Transient(Exception):  # noqa: N818 - it is no error until the tries are used up
    """A fault that may pass; `after` is the server's Retry-After in seconds."""

    def __init__(self, message: str, after: float = 0.0) -> None:
        super().__init__(message)
        self.after = after


@dataclass
class Budget:
    """What one task may spend on waiting for retries, and what it has read: shared by all its threads."""

    seconds: float = 300.0
    first_wait: float = 0.25
    attempts: int = 6
    """Tries of one request."""
    download_workers: int = 8
    """Whole files fetched at once in this process."""
    per_host: int = 4
    """Whole files fetched at once from one host."""
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
        """Seconds until the next try: exponential with jitter, and no sooner than the server says."""
        fault = state.outcome.exception() if state.outcome else None
        backoff = tenacity.wait_exponential_jitter(multiplier=self.first_wait, max=30, jitter=self.first_wait)(state)
        seconds = max(backoff, fault.after if isinstance(fault, Transient) else 0.0)
        with self._lock:
            self.retries += 1
            self.seconds -= seconds
        return seconds

    @property
    def spent(self) -> bool:
        """Whether nothing is left to wait with."""
        return self.seconds <= 0


@cache
def _pool() -> urllib3.PoolManager:
    logging.getLogger("urllib3.connectionpool").setLevel(logging.INFO)  # at DEBUG it shows URLs with their signatures
    # Redirects are followed here; every other second try is `retrying`'s, which pays for it from the budget.
    once = urllib3.Retry(redirect=5, connect=0, read=0, status=0, other=0, respect_retry_after_header=False)
    return urllib3.PoolManager(num_pools=64, maxsize=IO_THREADS, retries=once, timeout=_TIMEOUT)


@cache
def io_threads() -> ThreadPoolExecutor:
    """The process's pool for waiting on the network."""
    return ThreadPoolExecutor(IO_THREADS, thread_name_prefix="read")


@cache
def cpu_threads() -> ThreadPoolExecutor:
    """The process's pool for decoding and encoding; the codecs release the GIL."""
    return ThreadPoolExecutor(max(2, os.cpu_count() or 2), thread_name_prefix="codec")


def read_range(href: str, start: int, stop: int, budget: Budget, signing: str = "none") -> bytes:
    """Bytes [start, stop) of a file; fewer only where the file ends before `stop`.

    Raises ReadError: permanent for 401, 403, 404, 410, 416 and local faults; otherwise after all retries.
    """
    return read_range_and_size(href, start, stop, budget, signing)[0]


def read_range_and_size(href: str, start: int, stop: int, budget: Budget, signing: str = "none") -> tuple[bytes, int]:
    """As `read_range`, with the size of the whole file in bytes."""

    def ask() -> tuple[bytes, int]:
        where = access(href, signing)
        if where is None:
            return _read_local(href, start, stop, budget)
        return _read_http(href, where, start, stop, budget)

    return retrying(ask, href, budget)


def retrying(call: Callable[[], T], href: str, budget: Budget) -> T:
    """What `call` gives, with another try for each Transient that it raises; ReadError when they are used up."""
    retry = tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(Transient),
        stop=lambda state: state.attempt_number >= budget.attempts or budget.spent,
        wait=budget.wait,
        sleep=tenacity.sleep_using_event(halted),
        reraise=True,
    )
    try:
        return retry(call)
    except Transient as fault:
        raise ReadError(
            f"{shown(href)} could not be read: {fault} (after {retry.statistics.get('attempt_number', 1)} tries); "
            "the server is unwell or unreachable, run again later",
            permanent=False,
        ) from None


def _read_local(path: str, start: int, stop: int, budget: Budget) -> tuple[bytes, int]:
    try:
        with open(path.removeprefix("file://"), "rb") as file:
            size = os.fstat(file.fileno()).st_size
            body = os.pread(file.fileno(), stop - start, start)
    except OSError as error:
        raise ReadError(f"{path} cannot be read: {error.strerror or error}") from error
    budget.count(len(body))
    return body, size


def open_url(href: str, where: Access, headers: dict[str, str]) -> urllib3.BaseHTTPResponse:
    """Ask for a file, and give the answer with its body still to come, if it is one of 200, 206 and 416.

    Raises Transient for what may pass, ReadError for what will not.
    """
    asked = {"Accept-Encoding": "identity", **where.headers, **headers}
    try:
        answer = _pool().request("GET", where.url, headers=asked, preload_content=False)
    except urllib3.exceptions.LocationParseError as error:
        raise ReadError(f"{shown(href)} is not a URL") from error
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise Transient(plain(error)) from None
    if answer.status in (200, 206, 416):
        return answer
    answer.close()
    if answer.status in _TRANSIENT:
        raise Transient(f"the server answers {answer.status}", _retry_after(answer.headers.get("Retry-After")))
    raise ReadError(
        f"{shown(href)} cannot be read: the server answers {answer.status} {answer.reason or ''}".rstrip()
        + _HINTS.get(answer.status, "")
    )


def _read_http(href: str, where: Access, start: int, stop: int, budget: Budget) -> tuple[bytes, int]:
    answer = open_url(href, where, {"Range": f"bytes={start}-{stop - 1}"})
    try:
        if answer.status == 416:
            told = f"ends before byte {start}: the file is truncated" if start else "is an empty file"
            raise ReadError(f"{shown(href)} {told}")
        length = int(answer.headers.get("Content-Length") or 0)
        if answer.status == 200 and length > _LARGEST_WHOLE_BODY:
            raise ReadError(f"{shown(href)}: the server ignores Range and would send all of {length:,} bytes")
        body: bytes = answer.read(decode_content=False)
        answer.release_conn()
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise Transient(f"the answer broke off: {plain(error)}") from None
    finally:
        if answer.connection is not None:  # not read to its end
            answer.close()
    budget.count(len(body))
    if answer.status == 200:
        return body[start:stop], len(body)
    size = content_range(answer.headers.get("Content-Range"))[1] or start + len(body)
    if len(body) < min(stop, size) - start:
        raise Transient(f"the answer has {len(body):,} of {stop - start:,} bytes")
    return body, size


def content_range(value: str | None) -> tuple[int, int | None]:
    """`bytes 0-99/1234` → (0, 1234); -1 where there is no start, None where there is no size."""
    match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", (value or "").strip())
    if match is None:
        return -1, None
    return int(match[1]), int(match[2]) if match[2].isdigit() else None


def _retry_after(value: str | None) -> float:
    """Seconds of a Retry-After header, which holds seconds or an HTTP date (RFC 9110 section 10.2.3)."""
    if not value:
        return 0.0
    if value.strip().isdigit():
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return 0.0


def plain(error: BaseException) -> str:
    """A network fault in words; its cause, as urllib3's summary would show the URL and its signature."""
    cause = getattr(error, "reason", None) or error
    return f"{type(cause).__name__}: {cause}"
