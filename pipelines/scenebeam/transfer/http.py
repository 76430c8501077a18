"""HTTP requests whose responses are checked: status, length, encoding and transfer rate.

Each process has one client, which keeps its connections. Transient failures raise TransientError,
which `scenebeam.transfer.retry` retries; permanent ones raise ReadError.
"""

from __future__ import annotations

import email.utils
import logging
import re
import time
from functools import cache

import urllib3

from scenebeam.errors import ReadError
from scenebeam.transfer.addresses import pool_classes
from scenebeam.transfer.signing import SignedRequest, redact_url

MAX_CONCURRENT_REQUESTS = 24
"""Requests in flight, whatever the number of cores: they wait for round trips, not for the CPU."""
CHUNK = 2**20
TRANSIENT = {408, 425, 429}
"""Status codes that are retried, besides every 5xx and every status that no GET should return."""
_BUSY = {429, 503}
"""Status codes of a host that is asked too much of."""
_HINTS = {
    401: ": check the credentials in the environment",
    403: ": the file requires credentials, or this account may not read it",
    404: ": the catalog lists a file that does not exist; exclude the scene, or ask the provider",
}
_TIMEOUT = urllib3.Timeout(connect=10, read=30)
_BYPASS_CACHES = {"Cache-Control": "no-cache", "Pragma": "no-cache"}
_SLOWEST = 1000
"""Bytes per second that a response must deliver over any `_WINDOW`. The read timeout starts anew
with each byte, so a server that sends single bytes would hold its request forever.
"""
_WINDOW = 20.0
"""Seconds."""


class TransientError(Exception):
    """A failure that may not occur again; `after` is the server's Retry-After in seconds."""

    def __init__(self, message: str, after: float = 0.0) -> None:
        super().__init__(message)
        self.after = after


class BusyError(TransientError):
    """The host is overloaded: it says so (429, 503), or does not answer in time."""


@cache
def _pool(private: bool) -> urllib3.PoolManager:
    """Return the process's client, which keeps its connections."""
    return _new_pool(private)


def _new_pool(private: bool) -> urllib3.PoolManager:
    # At DEBUG, urllib3 logs URLs with their signatures.
    logging.getLogger("urllib3.connectionpool").setLevel(logging.INFO)
    # urllib3 follows redirects, but all retries are the caller's: they come from a task's budget.
    redirects_only = urllib3.Retry(
        redirect=5, connect=0, read=0, status=0, other=0, respect_retry_after_header=False
    )
    pool = urllib3.PoolManager(
        num_pools=64, maxsize=MAX_CONCURRENT_REQUESTS, retries=redirects_only, timeout=_TIMEOUT
    )
    pool.pool_classes_by_scheme = pool_classes(private)
    return pool


def open_url(
    href: str,
    signed: SignedRequest,
    headers: dict[str, str],
    *,
    private: bool = False,
    fresh: bool = False,
) -> urllib3.BaseHTTPResponse:
    """Send a GET request and check the status and encoding of the response.

    Args:
        href: The unsigned address, for messages.
        signed: The signed URL and its headers.
        headers: Further request headers.
        private: Whether loopback and private addresses may be read; see `check_address`.
        fresh: Bypass all caches, and use a new connection.

    Returns:
        A response of status 200, 206 or 416, whose body has not been read yet.

    Raises:
        TransientError: No response, 5xx, 408, 425, 429, or an invalid response.
        ReadError: Any other 4xx, or an address that must not be read.
    """
    sent_headers = {"Accept-Encoding": "identity", **signed.headers, **headers}
    if fresh:
        sent_headers |= _BYPASS_CACHES
    private = private or signed.trusted
    pool = _new_pool(private) if fresh else _pool(private)
    try:
        response = pool.request("GET", signed.url, headers=sent_headers, preload_content=False)
    except (urllib3.exceptions.LocationValueError, UnicodeError) as error:
        raise ReadError(f"{redact_url(href)} is not a valid URL") from error
    except urllib3.exceptions.TimeoutError as error:
        raise BusyError(describe_error(error)) from None
    except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
        raise TransientError(describe_error(error)) from None
    if response.status in (200, 206, 416):
        encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
        if encoding in ("", "identity"):
            return response
        # Byte offsets would refer to the encoded content.
        response.close()
        raise TransientError(f"the response is encoded as {encoding}, which was not requested")
    response.close()
    raise _status_error(href, response)


def _status_error(href: str, response: urllib3.BaseHTTPResponse) -> TransientError | ReadError:
    status = response.status
    if status in TRANSIENT or status >= 500 or status < 400:
        kind = BusyError if status in _BUSY else TransientError
        return kind(
            f"the server returned {status}", retry_after(response.headers.get("Retry-After"))
        )
    return ReadError(
        f"{redact_url(href)} cannot be read: the server returned "
        f"{status} {response.reason or ''}".rstrip()
        + _HINTS.get(status, "")
    )


class RateMonitor:
    """Raises TransientError when a response arrives too slowly."""

    def __init__(self, deadline: float | None = None) -> None:
        """Start to measure now.

        Args:
            deadline: When the response must be complete, in terms of `time.monotonic`.
        """
        self._deadline = deadline
        self._window_start, self._window_bytes = time.monotonic(), 0

    def count(self, size: int) -> None:
        """Count `size` bytes that have arrived.

        Raises:
            TransientError: The deadline has passed, or the bytes arrive too slowly.
        """
        self._window_bytes += size
        now = time.monotonic()
        if self._deadline is not None and now > self._deadline:
            raise TransientError("the response takes too long")
        if now - self._window_start < _WINDOW:
            return
        if self._window_bytes < _SLOWEST * (now - self._window_start):
            raise TransientError(f"the response arrives at less than {_SLOWEST:,} bytes per second")
        self._window_start, self._window_bytes = now, 0


def read_body(response: urllib3.BaseHTTPResponse, max_bytes: int, seconds: float) -> bytes:
    """Read the first bytes of a response's body.

    Args:
        response: The response, as it was opened.
        max_bytes: Bytes to read at most; the server may send more.
        seconds: Maximum duration.

    Returns:
        The bytes; fewer than `max_bytes` if the body ends before.

    Raises:
        TransientError: The response was cut off, arrives too slowly, or takes too long.
    """
    body = bytearray()
    monitor = RateMonitor(time.monotonic() + seconds)
    try:
        while len(body) < max_bytes:
            data = response.read1(min(CHUNK, max_bytes - len(body)), decode_content=False)
            if not data:
                break
            body += data
            monitor.count(len(data))
    except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
        raise TransientError(f"the response was cut off: {describe_error(error)}") from None
    return bytes(body)


def content_length(response: urllib3.BaseHTTPResponse) -> int | None:
    """Return the declared length of the body in bytes; None if it is not declared.

    Raises:
        TransientError: The header is invalid.
    """
    value = response.headers.get("Content-Length")
    if value is None:
        return None
    if not re.fullmatch(r"[0-9]{1,18}", value.strip()):
        raise TransientError("the response has an invalid Content-Length")
    return int(value)


def has_known_end(response: urllib3.BaseHTTPResponse) -> bool:
    """Return whether a body that was cut off is distinguishable from a complete one."""
    return (
        content_length(response) is not None
        or "chunked" in response.headers.get("Transfer-Encoding", "").lower()
    )


def content_range(value: str | None) -> tuple[int, int, int | None]:
    """Parse a Content-Range header: `bytes 0-99/1234` → (0, 100, 1234).

    Returns:
        First byte, byte after the last, and the size of the file; None if it is not declared.

    Raises:
        TransientError: The header is missing or invalid (RFC 9110 section 14.4).
    """
    match = re.fullmatch(
        r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18}|\*)", (value or "").strip()
    )
    if match is None:
        raise TransientError("the response does not declare which bytes it has")
    return int(match[1]), int(match[2]) + 1, None if match[3] == "*" else int(match[3])


def retry_after(value: str | None) -> float:
    """Parse a Retry-After header: seconds or an HTTP date (RFC 9110 section 10.2.3).

    Returns:
        Seconds from now; 0 if the header is missing or invalid.
    """
    if not value:
        return 0.0
    if re.fullmatch(r"[0-9]{1,9}", value.strip()):
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, OverflowError):
        return 0.0


def describe_error(error: BaseException) -> str:
    """Describe a network error by its cause.

    The text of urllib3's own exceptions holds the URL, and thus the signature.
    """
    cause = getattr(error, "reason", None) or error
    return f"{type(cause).__name__}: {cause}"
