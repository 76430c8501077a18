"""Download: a whole file, resumed by Range, and never mixed with the bytes of another."""

from __future__ import annotations

import threading
from functools import cache
from typing import Protocol
from urllib.parse import urlsplit

import urllib3

from scenebeam.errors import ReadError
from scenebeam.transfer.access import access, shown
from scenebeam.transfer.ranges import Budget, Transient, content_range, halted, open_url, plain, retrying

CHUNK = 2**20
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

    def expect(self) -> None:
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
    with _slot(urlsplit(href).netloc, budget.per_host), _slot("", budget.download_workers):
        while not retrying(lambda: _fetch(href, target, budget, signing), href, budget):
            if target.offset > furthest:
                furthest, stalls = target.offset, 0
            else:
                stalls += 1
            if stalls == _STALLS:
                raise ReadError(
                    f"{shown(href)} breaks off at byte {furthest:,} again and again; run again later", permanent=False
                )
            halted.wait(budget.first_wait)
    if target.offset == 0:
        raise ReadError(f"{shown(href)} is an empty file")


@cache
def _slot(host: str, at_once: int) -> threading.BoundedSemaphore:
    """What a process lets in at once: to one host, or with "" to all together."""
    return threading.BoundedSemaphore(at_once)


def _fetch(href: str, target: Target, budget: Budget, signing: str) -> bool:
    """One request; whether all is there now. Raises Transient where not even an answer came."""
    where = access(href, signing)
    if where is None:
        return _copy(href, target, budget)
    if target.total is not None and target.offset == target.total:
        return True
    resumed = {"Range": f"bytes={target.offset}-", "If-Range": target.validator}
    answer = open_url(href, where, resumed if target.offset and target.validator else {})
    received = 0
    try:
        if answer.status == 416:
            target.restart("", None)
            raise Transient("what has come is longer than the file is now")
        if answer.status == 206:
            start, total = content_range(answer.headers.get("Content-Range"))
            if start != target.offset or (target.total is not None and total != target.total):
                target.restart("", None)
                raise Transient(f"the answer starts at byte {start}, and another was asked for")
        else:
            length = answer.headers.get("Content-Length")
            target.restart(_validator(answer.headers), int(length) if length else None)
        target.expect()
        try:
            # What is there, not whole chunks: on a slow line too little is lost, and an interrupt is heard at once.
            while data := answer.read1(CHUNK, decode_content=False):
                if halted.is_set():
                    raise ReadError(f"{shown(href)}: interrupted", permanent=False)
                target.write(data)
                received += len(data)
        except (urllib3.exceptions.HTTPError, OSError) as error:
            if not received:
                raise Transient(f"the answer broke off: {plain(error)}") from None
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
