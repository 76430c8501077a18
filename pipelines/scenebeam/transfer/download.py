"""Downloads of whole files, which resume with HTTP Range.

A download resumes only if the server confirms, by ETag or date, that the file is still the same:
bytes of two versions are never mixed.
"""

from __future__ import annotations

import threading
import time
from functools import cache
from typing import Protocol

import urllib3

from scenebeam.errors import ReadError
from scenebeam.transfer.http import (
    CHUNK,
    RateMonitor,
    TransientError,
    content_length,
    content_range,
    describe_error,
    open_url,
)
from scenebeam.transfer.retry import Budget, retrying, shutdown
from scenebeam.transfer.signing import redact_url, sign, split_url

_LARGEST_UNSIZED = 16 * 2**30
"""Bytes that are accepted at most of a file whose server declares no size: it may never end."""
_MAX_STALLS = 6
"""Times in a row that a response may be cut off without any new bytes."""


class Target(Protocol):
    """Where the bytes of a download go."""

    offset: int
    """Bytes received so far."""
    total: int | None
    """Size of the whole file in bytes, if it is known."""
    validator: str
    """ETag or date of the file that the bytes belong to; empty if the server sends none, so that
    the download cannot be resumed.
    """

    def restart(self, validator: str, total: int | None) -> None:
        """Discard what has been received, as another file or version follows."""

    def check_free_space(self) -> None:
        """Raise StorageError if there is no space for the rest of the file."""

    def write(self, data: bytes) -> None:
        """Append the next bytes."""


def download(href: str, target: Target, budget: Budget, signing: str = "none") -> None:
    """Download a whole file, resuming where `target` ends if the file is still the same.

    What has been received stays in `target` when an error is raised.

    Args:
        href: Unsigned address of the file, or a local path.
        target: Receives the bytes; may hold the beginning of the file already.
        budget: The task's budget for retries, and the limits on concurrent downloads.
        signing: The signing method of the file's collection record.

    Raises:
        ReadError: Permanent for 4xx responses and empty files; otherwise raised after all retries.
        StorageError: `target` cannot store the file.
    """
    furthest, stalls = target.offset, 0
    # The slot of the host comes first, so that downloads that wait for a busy host do not take
    # the general slots of those from other hosts.
    with _slots(split_url(href).netloc, budget.per_host), _slots("", budget.download_workers):
        deadline = time.monotonic() + budget.file_seconds
        while not retrying(lambda: _receive(href, target, budget, signing, deadline), href, budget):
            if time.monotonic() > deadline:
                raise ReadError(
                    f"{redact_url(href)} reached byte {target.offset:,} within "
                    f"limits.file_seconds = {budget.file_seconds:g}; the partial file is kept: "
                    "run again, or raise the limit",
                    permanent=False,
                )
            # Any progress resets the count: large files on bad lines arrive in many steps.
            if target.offset > furthest:
                furthest, stalls = target.offset, 0
            else:
                stalls += 1
            if stalls == _MAX_STALLS:
                raise ReadError(
                    f"{redact_url(href)} is repeatedly cut off at byte {furthest:,}; "
                    "run again later",
                    permanent=False,
                )
            shutdown.wait(budget.first_wait)
    if target.offset == 0:
        raise ReadError(f"{redact_url(href)} is an empty file")


@cache
def _slots(host: str, limit: int) -> threading.BoundedSemaphore:
    """Return the process's limit on downloads from one host, or with "" on all downloads."""
    return threading.BoundedSemaphore(limit)


def _receive(href: str, target: Target, budget: Budget, signing: str, deadline: float) -> bool:
    """Make one request, and append its body to the target.

    Returns:
        Whether the file is complete. False if the response ended early, with some new bytes.

    Raises:
        TransientError: The request delivered no new bytes.
    """
    signed = sign(href, signing)
    if signed is None:
        return _copy_local(href, target, budget)
    if target.total is not None and target.offset == target.total:
        return True
    headers = {}
    if target.offset and target.validator:
        # If the file has changed, If-Range makes the server send all of it instead (RFC 9110
        # section 13.1.5).
        headers = {"Range": f"bytes={target.offset}-", "If-Range": target.validator}
    response = open_url(href, signed, headers, private=budget.private)
    received = 0
    try:
        _align(target, response, resuming=bool(headers))
        target.check_free_space()
        monitor = RateMonitor()
        try:
            # read1 returns what has arrived instead of waiting for a whole chunk: on a slow line
            # less is lost when the connection breaks, and an interrupt takes effect at once.
            while data := response.read1(CHUNK, decode_content=False):
                if shutdown.is_set():
                    raise ReadError(f"{redact_url(href)}: interrupted", permanent=False)
                received += len(data)
                _check_overrun(href, target, len(data))
                target.write(data)
                budget.check_deadline()
                if time.monotonic() > deadline:
                    return False
                monitor.count(len(data))
        except (urllib3.exceptions.HTTPError, OSError, TransientError) as error:
            if not received or target.offset == 0:
                raise TransientError(f"the response was cut off: {describe_error(error)}") from None
            return False
        if target.total is not None and target.offset < target.total:
            return False
        response.release_conn()
    finally:
        budget.count(received)
        # A connection with unread bytes cannot be reused.
        if response.connection is not None:
            response.close()
    return True


def _align(target: Target, response: urllib3.BaseHTTPResponse, *, resuming: bool) -> None:
    """Make the target's end the first byte of the response, restarting it where necessary.

    Raises:
        TransientError: The response does not continue the target.
    """
    if response.status == 416:
        target.restart("", None)
        raise TransientError("the partial file is longer than the remote file")
    if response.status != 206:
        target.restart(_validator(response.headers), content_length(response))
        return
    start, stop, total = content_range(response.headers.get("Content-Range"))
    if not resuming and (start, stop) == (0, total):
        # Some servers answer with a range that covers the whole file, although none was requested.
        target.restart(_validator(response.headers), total)
    elif not resuming or start != target.offset or total not in (None, target.total):
        target.restart("", None)
        raise TransientError(
            f"the response has bytes {start:,} to {stop:,}, which were not requested"
        )


def _check_overrun(href: str, target: Target, size: int) -> None:
    """Raise an error if `size` more bytes exceed the file's size, or the limit if it has none."""
    if target.total is not None and target.offset + size > target.total:
        target.restart("", None)
        raise TransientError("the response has more bytes than the file")
    if target.total is None and target.offset + size > _LARGEST_UNSIZED:
        target.restart("", None)
        raise ReadError(
            f"{redact_url(href)} is too large: its server does not declare a size, and has sent "
            f"more than {_LARGEST_UNSIZED:,} bytes",
            permanent=False,
        )


def _copy_local(path: str, target: Target, budget: Budget) -> bool:
    try:
        with open(path.removeprefix("file://"), "rb") as file:
            target.restart("", None)
            while data := file.read(CHUNK):
                target.write(data)
                budget.count(len(data))
    except OSError as error:
        raise ReadError(f"{path} cannot be read: {error.strerror or error}") from error
    return True


def _validator(headers: urllib3.HTTPHeaderDict) -> str:
    """Return a strong ETag, else the date: what If-Range may hold (RFC 9110 section 13.1.5)."""
    tag = headers.get("ETag", "")
    return tag if tag and not tag.startswith("W/") else headers.get("Last-Modified", "")
