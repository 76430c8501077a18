"""HTTP answers, each held against the question: status, length, encoding, and the pace at which it
comes.

One client a process. What may pass is a TransientError, and whoever asked tries again; what will not is
a ReadError.
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

AT_ONCE = 24
"""Requests in flight, whatever the number of cores: round trips cost, not the client."""
CHUNK = 2**20
TRANSIENT = {408, 425, 429}
"""Beside every 5xx, and every status that no answer to a GET should have."""
_HINTS = {
    401: ": is the account named in the environment, and is it the right one?",
    403: ": the file needs an account, or this account may not read it",
    404: ": the catalogue names a file that is not there; leave the scene out, or ask the provider",
}
_TIMEOUT = urllib3.Timeout(connect=10, read=30)
_FRESH = {"Cache-Control": "no-cache", "Pragma": "no-cache"}
_SLOWEST = 1000
"""Bytes per second that an answer must bring over any `_WINDOW`; one that drips holds its request
for ever.
"""
_WINDOW = 20.0
"""Seconds."""


class TransientError(Exception):
    """A fault that may pass; `after` is the server's Retry-After in seconds."""

    def __init__(self, message: str, after: float = 0.0) -> None:
        super().__init__(message)
        self.after = after


@cache
def _pool(private: bool) -> urllib3.PoolManager:
    """The process's client, which keeps its connections."""
    return _new_pool(private)


def _new_pool(private: bool) -> urllib3.PoolManager:
    logging.getLogger("urllib3.connectionpool").setLevel(
        logging.INFO
    )  # at DEBUG it shows URLs with their signatures
    # Redirects are followed here; every other second try is the caller's, who pays for it from the task's budget.
    once = urllib3.Retry(
        redirect=5, connect=0, read=0, status=0, other=0, respect_retry_after_header=False
    )
    pool = urllib3.PoolManager(num_pools=64, maxsize=AT_ONCE, retries=once, timeout=_TIMEOUT)
    pool.pool_classes_by_scheme = pool_classes(private)
    return pool


def open_url(
    href: str,
    where: SignedRequest,
    headers: dict[str, str],
    *,
    private: bool = False,
    fresh: bool = False,
) -> urllib3.BaseHTTPResponse:
    """Ask for a file, and give the answer with its body still to come, if it is one of 200, 206 and
    416.

    Args:
        href: The unsigned address, for messages.
        where: How to ask for it now.
        headers: Further request headers.
        private: Whether loopback and private addresses may be read; see `check_address`.
        fresh: Whether caches on the way are told to ask the server itself, over a new connection.

    Raises:
        TransientError: What may pass: no answer, 5xx, 408, 425, 429, an answer that makes no sense.
        ReadError: What will not: other 4xx, an address that must not be read.
    """
    asked = {"Accept-Encoding": "identity", **where.headers, **headers, **(_FRESH if fresh else {})}
    private = private or where.trusted
    pool = _new_pool(private) if fresh else _pool(private)
    try:
        answer = pool.request("GET", where.url, headers=asked, preload_content=False)
    except (urllib3.exceptions.LocationValueError, UnicodeError) as error:
        raise ReadError(f"{redact_url(href)} is not a URL") from error
    except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
        raise TransientError(plain(error)) from None
    if answer.status in (200, 206, 416):
        encoding = answer.headers.get("Content-Encoding", "identity").strip().lower()
        if encoding in ("", "identity"):
            return answer
        answer.close()
        raise TransientError(f"the answer is encoded as {encoding}, which was not asked for")
    answer.close()
    if answer.status in TRANSIENT or answer.status >= 500 or answer.status < 400:
        raise TransientError(
            f"the server answers {answer.status}", retry_after(answer.headers.get("Retry-After"))
        )
    raise ReadError(
        f"{redact_url(href)} cannot be read: the server answers {answer.status} {answer.reason or ''}".rstrip()
        + _HINTS.get(answer.status, "")
    )


class Pace:
    """Watches how fast the bytes of one answer come."""

    def __init__(self, deadline: float | None = None) -> None:
        """Begin now; `deadline` is when the answer must have come, by `time.monotonic`."""
        self._deadline = deadline
        self._since, self._came = time.monotonic(), 0

    def count(self, size: int) -> None:
        """Note that `size` more bytes have come. Raises TransientError where they come too slowly."""
        self._came += size
        now = time.monotonic()
        if self._deadline is not None and now > self._deadline:
            raise TransientError("the answer takes too long")
        if now - self._since < _WINDOW:
            return
        if self._came < _SLOWEST * (now - self._since):
            raise TransientError(f"the answer comes at less than {_SLOWEST:,} bytes a second")
        self._since, self._came = now, 0


def read_body(answer: urllib3.BaseHTTPResponse, most: int, seconds: float) -> bytes:
    """The first `most` bytes of an answer's body, fewer where it ends before; no more is read,
    whatever comes.

    Raises TransientError where the answer breaks off, comes too slowly, or is not there after `seconds`.
    """
    body = bytearray()
    pace = Pace(time.monotonic() + seconds)
    try:
        while len(body) < most:
            data = answer.read1(min(CHUNK, most - len(body)), decode_content=False)
            if not data:
                break
            body += data
            pace.count(len(data))
    except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
        raise TransientError(f"the answer broke off: {plain(error)}") from None
    return bytes(body)


def content_length(answer: urllib3.BaseHTTPResponse) -> int | None:
    """Bytes of the body, as the answer says; None where it does not. Raises TransientError for a header
    that is garbled.
    """
    value = answer.headers.get("Content-Length")
    if value is None:
        return None
    if not re.fullmatch(r"[0-9]{1,18}", value.strip()):
        raise TransientError("the answer has a garbled Content-Length")
    return int(value)


def has_known_end(answer: urllib3.BaseHTTPResponse) -> bool:
    """Whether an answer that breaks off can be told from one that has ended."""
    return (
        content_length(answer) is not None
        or "chunked" in answer.headers.get("Transfer-Encoding", "").lower()
    )


def content_range(value: str | None) -> tuple[int, int, int | None]:
    """`bytes 0-99/1234` → (0, 100, 1234), the end not included; None where the size is not said.

    Raises TransientError for anything else (RFC 9110 section 14.4).
    """
    match = re.fullmatch(
        r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18}|\*)", (value or "").strip()
    )
    if match is None:
        raise TransientError("the answer does not say which bytes it has")
    return int(match[1]), int(match[2]) + 1, None if match[3] == "*" else int(match[3])


def retry_after(value: str | None) -> float:
    """Return the seconds of a Retry-After header; 0 where it is garbled.

    It holds seconds or an HTTP date (RFC 9110 section 10.2.3).
    """
    if not value:
        return 0.0
    if re.fullmatch(r"[0-9]{1,9}", value.strip()):
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, OverflowError):
        return 0.0


def plain(error: BaseException) -> str:
    """A network fault in words; its cause, as urllib3's summary would show the URL and its
    signature.
    """
    cause = getattr(error, "reason", None) or error
    return f"{type(cause).__name__}: {cause}"
