"""Byte ranges of files, wherever they lie: HTTP(S), Google Cloud Storage or this machine.

One client a process. Transient faults are retried with exponential backoff and jitter, honouring
Retry-After, within the budget of the task that reads; permanent ones are raised at once.
"""

from __future__ import annotations

import email.utils
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from urllib.parse import quote, urlsplit

import tenacity
import urllib3

from scenebeam.errors import ReadError

IO_THREADS = 24
"""Requests in flight, whatever the number of cores: round trips cost, not the client."""
_ATTEMPTS = 6
_TRANSIENT = {408, 425, 429, 500, 502, 503, 504}
_LARGEST_WHOLE_BODY = 64 * 2**20
_TIMEOUT = urllib3.Timeout(connect=10, read=30)


class _Transient(Exception):  # noqa: N818 - it is no error until the tries are used up
    """A fault that may pass; `after` is the server's Retry-After in seconds."""

    def __init__(self, message: str, after: float = 0.0) -> None:
        super().__init__(message)
        self.after = after


@dataclass
class Budget:
    """What one task may spend on waiting for retries, and what it has read: shared by all its threads."""

    seconds: float = 300.0
    first_wait: float = 0.25
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
        seconds = max(backoff, fault.after if isinstance(fault, _Transient) else 0.0)
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
    # Redirects are followed here; every other second try is `_retrying`'s, which pays for it from the budget.
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


def has_ranges(href: str) -> bool:
    """Whether this module reads such an href; the others (`s3://`) are for GDAL."""
    return urlsplit(href).scheme in ("", "file", "http", "https", "gs")


def read_range(href: str, start: int, stop: int, budget: Budget) -> bytes:
    """Bytes [start, stop) of a file; fewer only where the file ends before `stop`.

    Raises ReadError: permanent for 401, 403, 404, 410, 416 and local faults; otherwise after all retries.
    """
    return read_range_and_size(href, start, stop, budget)[0]


def read_range_and_size(href: str, start: int, stop: int, budget: Budget) -> tuple[bytes, int]:
    """As `read_range`, with the size of the whole file in bytes."""
    url = _url(href)
    if url is None:
        return _read_local(href, start, stop, budget)
    return _retrying(lambda: _read_http(url, start, stop, budget), href, budget)


def _retrying(call: Callable[[], tuple[bytes, int]], href: str, budget: Budget) -> tuple[bytes, int]:
    retry = tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(_Transient),
        stop=lambda state: state.attempt_number >= _ATTEMPTS or budget.spent,
        wait=budget.wait,
        reraise=True,
    )
    try:
        return retry(call)
    except _Transient as fault:
        raise ReadError(
            f"{href} could not be read: {fault} (after {retry.statistics.get('attempt_number', 1)} tries); "
            "the server is unwell or unreachable, run again later",
            permanent=False,
        ) from fault


def _url(href: str) -> str | None:
    """The HTTP URL of an href; None for a file of this machine."""
    parts = urlsplit(href)
    if parts.scheme in ("http", "https"):
        return href
    if parts.scheme == "gs":
        host = os.environ.get("STORAGE_EMULATOR_HOST", "https://storage.googleapis.com").rstrip("/")
        return f"{host}/{parts.netloc}{quote(parts.path)}"
    if parts.scheme in ("", "file"):
        return None
    raise ReadError(f"{href}: scenebeam reads http(s), gs and local files by ranges, not {parts.scheme}")


def _read_local(path: str, start: int, stop: int, budget: Budget) -> tuple[bytes, int]:
    try:
        with open(path.removeprefix("file://"), "rb") as file:
            size = os.fstat(file.fileno()).st_size
            body = os.pread(file.fileno(), stop - start, start)
    except OSError as error:
        raise ReadError(f"{path} cannot be read: {error.strerror or error}") from error
    budget.count(len(body))
    return body, size


def _read_http(url: str, start: int, stop: int, budget: Budget) -> tuple[bytes, int]:
    try:
        answer = _pool().request("GET", url, headers={"Range": f"bytes={start}-{stop - 1}"}, preload_content=False)
    except urllib3.exceptions.LocationParseError as error:
        raise ReadError(f"{url} is not a URL: {error}") from error
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise _Transient(_plain(error)) from error
    try:
        if answer.status in _TRANSIENT:
            raise _Transient(f"the server answers {answer.status}", _retry_after(answer.headers.get("Retry-After")))
        if answer.status == 416:
            raise ReadError(f"{url} ends before byte {start}: the file is truncated")
        if answer.status not in (200, 206):
            raise ReadError(f"{url} cannot be read: the server answers {answer.status} {answer.reason or ''}".rstrip())
        length = int(answer.headers.get("Content-Length") or 0)
        if answer.status == 200 and length > _LARGEST_WHOLE_BODY:
            raise ReadError(f"{url}: the server ignores Range and would send all of {length:,} bytes")
        body: bytes = answer.read(decode_content=False)
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise _Transient(f"the answer broke off: {_plain(error)}") from error
    finally:
        answer.close() if answer.status not in (200, 206) else answer.release_conn()
    budget.count(len(body))
    if answer.status == 200:
        return body[start:stop], len(body)
    size = _total(answer.headers.get("Content-Range"), start + len(body))
    if len(body) < min(stop, size) - start:
        raise _Transient(f"the answer has {len(body):,} of {stop - start:,} bytes")
    return body, size


def _total(content_range: str | None, otherwise: int) -> int:
    """`bytes 0-99/1234` → 1234."""
    total = (content_range or "").rpartition("/")[2]
    return int(total) if total.isdigit() else otherwise


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


def _plain(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
