"""Byte ranges of files over HTTP(S), Google Cloud Storage, S3 or from the local disk.

Every response is checked against the request: the bytes returned are exactly those asked for.
Transient errors are retried within the task's budget, see `scenebeam.transfer.retry`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from tempfile import NamedTemporaryFile
from typing import NamedTuple

import urllib3

from scenebeam.errors import ReadError
from scenebeam.transfer.http import (
    TransientError,
    content_length,
    content_range,
    has_known_end,
    open_url,
    read_body,
)
from scenebeam.transfer.retry import Budget, retrying
from scenebeam.transfer.signing import SignedRequest, redact_url, sign, split_url
from scenebeam.transfer.throttle import throttle_of

UNKNOWN_SIZE = sys.maxsize
"""In place of the size of a file whose server does not declare one."""
_LARGEST_WHOLE_BODY = 64 * 2**20
"""Bytes to read at most from a server that ignores Range and sends the file from its start."""
_COPY_CHUNK = 16 * 2**20
"""Bytes per request when a whole file is copied."""
_BASE_SECONDS, _SLOWEST = 60, 10_000
"""A response must be complete after a fixed time, plus one second per so many bytes."""


class RangeResponse(NamedTuple):
    """Bytes of a file, and what the server says about the file."""

    body: bytes
    size: int
    """Bytes of the whole file; UNKNOWN_SIZE if the server does not declare it."""
    validator: str
    """ETag, or else date of the last change; empty if the server sends none, and on disk."""


def read_range(
    href: str, start: int, stop: int, budget: Budget, signing: str = "none", *, fresh: bool = False
) -> bytes:
    """Read bytes [start, stop) of a file.

    Args:
        href: Unsigned address of the file, or a local path.
        start: First byte.
        stop: Byte after the last.
        budget: The task's budget for retries; counts the bytes read.
        signing: The signing method of the file's collection record.
        fresh: Read independently of earlier reads: over a new connection, and bypassing all
            caches.

    Returns:
        The bytes; fewer than `stop - start` only if the file ends before `stop`.

    Raises:
        ReadError: Permanent for 4xx responses and local errors; otherwise raised after all
            retries.
    """
    return request_range(href, start, stop, budget, signing, fresh=fresh).body


def read_range_and_size(
    href: str, start: int, stop: int, budget: Budget, signing: str = "none", *, fresh: bool = False
) -> tuple[bytes, int]:
    """Read bytes [start, stop) of a file, and the size of the file.

    Args and Raises are those of `read_range`.

    Returns:
        The bytes, and the size of the whole file in bytes; UNKNOWN_SIZE if the server does not
        declare it.
    """
    response = request_range(href, start, stop, budget, signing, fresh=fresh)
    return response.body, response.size


def request_range(
    href: str, start: int, stop: int, budget: Budget, signing: str = "none", *, fresh: bool = False
) -> RangeResponse:
    """Read bytes [start, stop) of a file, and what the server says about it.

    Args and Raises are those of `read_range`.
    """

    def read_once() -> RangeResponse:
        # Signed anew for each attempt, as tokens expire.
        signed = sign(href, signing)
        if signed is None:
            return _read_local(href, start, stop, budget)
        with throttle_of(split_url(signed.url).netloc).slot():
            return _read_http(href, signed, start, stop, budget, fresh=fresh)

    return retrying(read_once, href, budget)


@contextmanager
def local_copy(href: str, budget: Budget, max_bytes: int, signing: str = "none") -> Iterator[Path]:
    """Copy a whole remote file to a temporary file, which is removed when the block ends.

    Args:
        href: Unsigned address of the file.
        budget: The task's budget for retries.
        max_bytes: Largest size that is copied.
        signing: The signing method of the file's collection record.

    Yields:
        The path of the copy, with the suffix of the original.

    Raises:
        ReadError: The file cannot be read, or is larger than `max_bytes`.
    """
    with NamedTemporaryFile(suffix=PurePosixPath(split_url(href).path).suffix) as file:
        size = start = 0
        while start == 0 or start < size:
            body, size = read_range_and_size(href, start, start + _COPY_CHUNK, budget, signing)
            if size > max_bytes:
                raise ReadError(
                    f"{redact_url(href)} has {size:,} bytes, more than the maximum of {max_bytes:,}"
                )
            file.write(body)
            start += _COPY_CHUNK
        file.flush()
        yield Path(file.name)


def _read_local(path: str, start: int, stop: int, budget: Budget) -> RangeResponse:
    try:
        with open(path.removeprefix("file://"), "rb") as file:
            size = os.fstat(file.fileno()).st_size
            body = os.pread(file.fileno(), max(min(stop, size) - start, 0), start)
    except OSError as error:
        raise ReadError(f"{path} cannot be read: {error.strerror or error}") from error
    budget.count(len(body))
    return RangeResponse(body, size, "")


def _read_http(
    href: str, signed: SignedRequest, start: int, stop: int, budget: Budget, *, fresh: bool
) -> RangeResponse:
    """Make one request."""
    headers = {"Range": f"bytes={start}-{stop - 1}"}
    response = open_url(href, signed, headers, private=budget.private, fresh=fresh)
    body, size = b"", 0
    try:
        if response.status == 416:
            problem = (
                f"ends before byte {start}: the file is truncated" if start else "is an empty file"
            )
            raise ReadError(f"{redact_url(href)} {problem}")
        first, last, total = _expected_extent(response, start, stop)
        body = read_body(response, last - first, _BASE_SECONDS + (last - first) / _SLOWEST)
        if response.status == 200:
            # The whole file from its start. Without a declared length, a body that ends early
            # may be a short file as well as a lost connection; only chunked encoding can tell.
            if total is None and not has_known_end(response) and len(body) < stop:
                raise TransientError("the response has no length and may have been cut off")
            size = total if total is not None else len(body) if len(body) < stop else UNKNOWN_SIZE
            requested = body[start:stop]
        else:
            size, requested = UNKNOWN_SIZE if total is None else total, body
        if len(body) < last - first and (total is not None or response.status == 206):
            raise TransientError(f"the response has {len(body):,} of {last - first:,} bytes")
        if response.status == 206 and _is_html(response, requested):
            raise TransientError("the response is an HTML page")
        if _is_fully_read(response):
            response.release_conn()
    finally:
        budget.count(len(body))
        # A connection with unread bytes cannot be reused.
        if response.connection is not None:
            response.close()
    validator = response.headers.get("ETag") or response.headers.get("Last-Modified", "")
    return RangeResponse(requested, size, validator)


def _is_html(response: urllib3.BaseHTTPResponse, body: bytes) -> bool:
    """Detect the page of a proxy or a login that is sent in place of the requested range."""
    media_type = response.headers.get("Content-Type", "").lower()
    return media_type.startswith("text/html") and body[:100].lstrip().startswith(b"<")


def _is_fully_read(response: urllib3.BaseHTTPResponse) -> bool:
    return getattr(response, "length_remaining", None) == 0


def _expected_extent(
    response: urllib3.BaseHTTPResponse, start: int, stop: int
) -> tuple[int, int, int | None]:
    """Determine from the headers which bytes of the file the response's body holds.

    Returns:
        First byte, byte after the last, and the size of the file if it is declared.

    Raises:
        TransientError: They are not the requested bytes. RFC 9110 sections 14.4 and 15.3.7 permit
            servers to send another range, and some do.
    """
    length = content_length(response)
    if response.status == 200:
        if min(stop, length if length is not None else stop) > _LARGEST_WHOLE_BODY:
            raise TransientError(
                f"the server ignores Range, and byte {start:,} is too far into the file to read "
                "everything before it"
            )
        return 0, stop if length is None else min(stop, length), length
    first, last, total = content_range(response.headers.get("Content-Range"))
    expected_last = stop if total is None else min(stop, total)
    if (first, last) != (start, expected_last) or length not in (None, last - first):
        raise TransientError(
            f"the response has bytes {first:,} to {last:,} instead of the requested "
            f"{start:,} to {expected_last:,}"
        )
    return first, last, total
