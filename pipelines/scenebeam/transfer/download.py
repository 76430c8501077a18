"""Download: a whole file, resumed by Range, and never mixed with the bytes of another."""

from __future__ import annotations

import threading
import time
from functools import cache
from typing import Protocol

import urllib3

from scenebeam.errors import ReadError
from scenebeam.transfer.http import (
    CHUNK,
    Pace,
    TransientError,
    content_length,
    content_range,
    open_url,
    plain,
)
from scenebeam.transfer.ranges import Budget, retrying, shutdown
from scenebeam.transfer.signing import redact_url, sign, split_url

_LARGEST_UNSIZED = 16 * 2**30
"""Bytes of a file whose server does not say how many it has; one that has more has no end."""
_STALLS = 6
"""Times that an answer may break off without any news."""


class Target(Protocol):
    """Where the bytes go."""

    offset: int
    """Bytes that are there."""
    total: int | None
    """Bytes of the whole file, where that is known."""
    validator: str
    """ETag or date of the file that they are of; empty where it has none, and cannot be resumed."""

    def restart(self, validator: str, total: int | None) -> None:
        """Forget what is there: another file comes."""

    def check_free_space(self) -> None:
        """Make sure that there is room for the rest. Raises StorageError."""

    def write(self, data: bytes) -> None:
        """The next bytes."""


def download(href: str, target: Target, budget: Budget, signing: str = "none") -> None:
    """Fetch a whole file, going on where `target` left off if the file is still the same.

    Raises ReadError: permanent for what will never work (401, 403, 404, an empty file), otherwise after all
    retries; what has come by then stays in the target.
    """
    furthest, stalls = target.offset, 0
    # Its host first: who waits for a busy host must not keep the others waiting.
    with _slot(split_url(href).netloc, budget.per_host), _slot("", budget.download_workers):
        until = time.monotonic() + budget.file_seconds
        while not retrying(lambda: _fetch(href, target, budget, signing, until), href, budget):
            if time.monotonic() > until:
                raise ReadError(
                    f"{redact_url(href)} has come as far as byte {target.offset:,} in limits.file_seconds = "
                    f"{budget.file_seconds:g}; what has come is kept: run again, or raise the limit",
                    permanent=False,
                )
            if target.offset > furthest:
                furthest, stalls = target.offset, 0
            else:
                stalls += 1
            if stalls == _STALLS:
                raise ReadError(
                    f"{redact_url(href)} breaks off at byte {furthest:,} again and again; run again later",
                    permanent=False,
                )
            shutdown.wait(budget.first_wait)
    if target.offset == 0:
        raise ReadError(f"{redact_url(href)} is an empty file")


@cache
def _slot(host: str, at_once: int) -> threading.BoundedSemaphore:
    """What a process lets in at once: to one host, or with "" to all together."""
    return threading.BoundedSemaphore(at_once)


def _fetch(href: str, target: Target, budget: Budget, signing: str, until: float) -> bool:
    """Ask once, until the time `until`. Returns whether all is there now.

    Raises TransientError where not even an answer came.
    """
    where = sign(href, signing)
    if where is None:
        return _copy(href, target, budget)
    if target.total is not None and target.offset == target.total:
        return True
    resumed = {"Range": f"bytes={target.offset}-", "If-Range": target.validator}
    headers = resumed if target.offset and target.validator else {}
    answer = open_url(href, where, headers, private=budget.private)
    received = 0
    try:
        if answer.status == 416:
            target.restart("", None)
            raise TransientError("what has come is longer than the file is now")
        if answer.status == 206:
            start, stop, total = content_range(answer.headers.get("Content-Range"))
            if not headers and (start, stop) == (0, total):
                target.restart(_validator(answer.headers), total)
            elif not headers or start != target.offset or total not in (None, target.total):
                target.restart("", None)
                raise TransientError(
                    f"the answer has bytes {start:,} to {stop:,}, and others were asked for"
                )
        else:
            target.restart(_validator(answer.headers), content_length(answer))
        target.check_free_space()
        pace = Pace()
        try:
            # What is there, not whole chunks: on a slow line too little is lost, and an interrupt is heard at once.
            while data := answer.read1(CHUNK, decode_content=False):
                if shutdown.is_set():
                    raise ReadError(f"{redact_url(href)}: interrupted", permanent=False)
                received += len(data)
                if target.total is not None and target.offset + len(data) > target.total:
                    target.restart("", None)
                    raise TransientError("the answer has more bytes than the file")
                if target.total is None and target.offset + len(data) > _LARGEST_UNSIZED:
                    target.restart("", None)
                    raise ReadError(
                        f"{redact_url(href)} has no end: its server does not say how long it is, and more "
                        f"than {_LARGEST_UNSIZED:,} bytes have come",
                        permanent=False,
                    )
                target.write(data)
                if time.monotonic() > until:
                    return False
                pace.count(len(data))
        except (urllib3.exceptions.HTTPError, OSError, TransientError) as error:
            if not received or target.offset == 0:
                raise TransientError(f"the answer broke off: {plain(error)}") from None
            return False
        if target.total is not None and target.offset < target.total:
            return False
        answer.release_conn()
    finally:
        budget.count(received)
        if answer.connection is not None:
            answer.close()
    return True


def _copy(path: str, target: Target, budget: Budget) -> bool:
    """A file of this machine."""
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
    """What If-Range may carry: a strong ETag or a date (RFC 9110 section 13.1.5)."""
    tag = headers.get("ETag", "")
    return tag if tag and not tag.startswith("W/") else headers.get("Last-Modified", "")
