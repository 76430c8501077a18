"""A range server that spoils a share of its answers, as real servers, proxies and caches do."""

from __future__ import annotations

import gzip
import io
import random
import re
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from http import HTTPStatus
from pathlib import Path
from typing import Any

import tifffile

from conftest import tree
from scenebeam.execution.driver import run
from scenebeam.request import RunRequest
from scenebeam.sandbox.server import SandboxServer, _Handler, _Server
from scenebeam.status import RunStatus

HTML = b"<html><body>Please log in to continue</body></html>\n"
ENDLESS = 200 * 2**20
"""Bytes after which the server ends an endless answer by itself."""
LARGEST_ANSWER = 16 * 2**20
"""Bytes of an endless answer that a client may take: those asked for, and those in sockets."""
Calm = dict[str, tuple[dict[str, bytes], int]]
"""By name of a run what it makes on a calm server, and how many of its products lack something."""
LONGEST_ANSWER = 10
"""Seconds that a client may wait for an answer that drips, where it should give up after one."""
_FAR_DATE = "Fri, 31 Dec 9999 23:59:59 GMT"
_PIECE = 64 * 1024


@dataclass
class Spoil:
    """Which answers are spoiled, and how.

    Of every `1 / share` answers whose path matches, one is spoiled; the seed says which.
    """

    mode: str
    """A key of `MODES`, or a status such as `404`."""
    pattern: str = r"\.(tif|jp2)$"
    share: float = 0.1
    seed: int = 0
    times: int = 10**9
    """Most answers that are spoiled."""
    once: bool = False
    """Spoil no more than one answer of each file."""
    since: int = 0
    """Spoil only answers to ranges that begin at this byte or behind it."""
    spoiled: Counter[str] = field(default_factory=Counter)
    """Spoiled answers by path."""
    sent: list[int] = field(default_factory=list)
    """Bytes of the body of each endless answer, as far as the client took them."""
    dripped: list[int] = field(default_factory=list)
    """Bytes of each answer that drips, and so the seconds that the client waited for it."""
    _place: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.random = random.Random(f"{self.mode} {self.seed}")
        self.shifts = iter(self.random.sample(range(1, 5000), 4999))
        self._hit = 0

    def strikes(self, path: str, start: int) -> bool:
        """Whether the next answer is spoiled; it is counted."""
        with self._lock:
            if start < self.since or not re.search(self.pattern, path):
                return False
            if self._place == 0:
                self._hit = self.random.randrange(round(1 / self.share))
            hit = self._place == self._hit
            self._place = (self._place + 1) % round(1 / self.share)
            if not hit or self.spoiled.total() >= self.times or (self.once and self.spoiled[path]):
                return False
            self.spoiled[path] += 1
            return True

    def pick(self, first: int, last: int) -> int:
        """A number from `first` to `last`, both included."""
        with self._lock:
            return self.random.randint(first, max(first, last))


@dataclass
class Hostile(SandboxServer):
    """A sandbox server whose answers are spoiled as long as there is a `spoil`."""

    spoil: Spoil | None = None
    catalog: Path = Path()
    """An ItemCollection that names the server's files."""
    closing: threading.Event = field(default_factory=threading.Event)
    """Set when the server goes, so that answers that drip end."""


@dataclass(frozen=True)
class Question:
    """What a client asked for, and the true answer."""

    path: str
    content: bytes
    """The whole file."""
    start: int
    stop: int
    partial: bool
    """Whether a range was asked for."""

    @property
    def data(self) -> bytes:
        return self.content[self.start : self.stop]


class _HostileHandler(_Handler):
    sandbox: Hostile

    def do_POST(self) -> None:  # noqa: N802 - the name that http.server looks for
        """Answer a search with the file of its path."""
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.do_GET()

    def _respond(self, *, body: bool) -> None:
        sandbox = self.sandbox
        spoil = sandbox.spoil
        path = self.path.split("?")[0]
        file = (sandbox.folder / path.lstrip("/")).resolve()
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        start = int(match[1]) if match else 0
        if spoil is None or not file.is_file() or not spoil.strikes(path, start):
            super()._respond(body=body)
            return
        with sandbox.lock:
            sandbox.requests[path] += 1
        content = file.read_bytes()
        stop = min(int(match[2]) + 1, len(content)) if match and match[2] else len(content)
        asked = Question(path, content, min(start, len(content)), stop, match is not None)
        self.close_connection = True
        with suppress(OSError):  # clients hang up
            if spoil.mode in MODES:
                MODES[spoil.mode](self, spoil, asked)
            else:
                self.begin(int(spoil.mode), {"Content-Length": str(len(HTML))})
                self.wfile.write(HTML)

    def begin(self, status: int, headers: dict[str, str]) -> None:
        """Send the status and the headers."""
        with self.sandbox.lock:
            self.sandbox.statuses[status] += 1
        known = status in {one.value for one in HTTPStatus}
        self.send_response(status, None if known else "Unknown")
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def answer(
        self,
        asked: Question,
        data: bytes,
        start: int | None = None,
        /,
        **headers: str,
    ) -> None:
        """Send `data` as the range that was asked for, or as one that begins at `start`."""
        first = asked.start if start is None else start
        told = {"Content-Length": str(len(data)), "Accept-Ranges": "bytes"}
        if asked.partial or start is not None:
            told["Content-Range"] = f"bytes {first}-{first + len(data) - 1}/{len(asked.content)}"
        told |= {name.replace("_", "-"): value for name, value in headers.items()}
        self.begin(206 if "Content-Range" in told else 200, told)
        self.wfile.write(data)

    def drip(self, spoil: Spoil, data: bytes) -> None:
        """Send a byte a second until the client hangs up."""
        spoil.dripped.append(0)
        answer = len(spoil.dripped) - 1
        for place in range(len(data)):
            spoil.dripped[answer] += 1
            self.wfile.write(data[place : place + 1])
            self.wfile.flush()
            if self.sandbox.closing.wait(1.0):
                return


def _shifted(handler: _HostileHandler, spoil: Spoil, asked: Question) -> None:
    start = _elsewhere(spoil, asked)
    handler.answer(asked, asked.content[start:][: len(asked.data)], start)


def _elsewhere(spoil: Spoil, asked: Question) -> int:
    """A byte near the first that was asked for, never twice the same: else it would be the file.

    No reader can tell that a whole block stands for another, so a block is never moved onto one.
    """
    starts = {offset for image in _images(asked.content) for offset, _ in image}
    size = len(asked.content)
    while True:
        shift = next(spoil.shifts)
        if not any((offset + shift) % size in starts for offset in starts):
            return (asked.start + shift) % size


def _lying(handler: _HostileHandler, spoil: Spoil, asked: Question) -> None:
    start = _elsewhere(spoil, asked)
    around = asked.content[start:] + asked.content[:start]
    handler.answer(asked, around[: len(asked.data)])


def _gzip(handler: _HostileHandler, spoil: Spoil, asked: Question) -> None:
    packed = gzip.compress(asked.data, 1)
    handler.answer(asked, packed, Content_Encoding="gzip")


def _no_content(handler: _HostileHandler, spoil: Spoil, asked: Question) -> None:
    handler.begin(204, {})


def _garbled_retry_after(handler: _HostileHandler, spoil: Spoil, asked: Question) -> None:
    handler.begin(429, {"Retry-After": "\N{SUPERSCRIPT TWO}", "Content-Length": "0"})


def _far_retry_after(handler: _HostileHandler, spoil: Spoil, asked: Question) -> None:
    handler.begin(429, {"Retry-After": _FAR_DATE, "Content-Length": "0"})


def _unended(handler: _HostileHandler, spoil: Spoil, asked: Question) -> None:
    handler.begin(200, {"Connection": "close"})
    handler.wfile.write(asked.content[: spoil.pick(0, len(asked.content) - 1)])


def _short(handler: _HostileHandler, spoil: Spoil, asked: Question) -> None:
    length = {"Content-Length": str(len(asked.data))}
    handler.answer(
        asked,
        asked.data[: spoil.pick(0, len(asked.data) - 1)],
        **_range_of(asked),
        **length,
    )


def _range_of(asked: Question) -> dict[str, str]:
    if not asked.partial:
        return {}
    return {"Content-Range": f"bytes {asked.start}-{asked.stop - 1}/{len(asked.content)}"}


def _html(handler: _HostileHandler, spoil: Spoil, asked: Question) -> None:
    """A page of just the length that was asked for."""
    page = HTML * (len(asked.data) // len(HTML) + 1)
    handler.answer(asked, page[: len(asked.data)], asked.start, Content_Type="text/html")


def _flip(handler: _HostileHandler, spoil: Spoil, asked: Question) -> None:
    """One bit of a compressed block is another.

    A TIFF's header and the gaps between its blocks have no checksum: there no reader can tell.
    """
    data = bytearray(asked.data)
    places = []
    for offset, size in _images(asked.content)[0]:
        first, last = max(offset, asked.start), min(offset + size, asked.stop) - 1
        if first <= last:
            places.append((first, last))
    if places:
        first, last = places[spoil.pick(0, len(places) - 1)]
        data[spoil.pick(first, last) - asked.start] ^= 1 << spoil.pick(0, 7)
    handler.answer(asked, bytes(data))


@cache
def _images(content: bytes) -> list[list[tuple[int, int]]]:
    """Offset and size of each block, of a TIFF's full image and of its overviews; none of another file."""
    if content[:2] not in (b"II", b"MM"):
        return [[]]
    with tifffile.TiffFile(io.BytesIO(content)) as tiff:
        return [
            list(zip(page.dataoffsets, page.databytecounts, strict=True)) for page in tiff.pages
        ]


def _endless_200(handler: _HostileHandler, spoil: Spoil, asked: Question) -> None:
    handler.begin(200, {"Transfer-Encoding": "chunked"})
    _without_end(handler, spoil, asked.content)


def _endless_206(handler: _HostileHandler, spoil: Spoil, asked: Question) -> None:
    whole = f"bytes {asked.start}-{asked.stop - 1}/{len(asked.content)}"
    handler.begin(206, {"Transfer-Encoding": "chunked", "Content-Range": whole})
    _without_end(handler, spoil, asked.data)


def _without_end(handler: _HostileHandler, spoil: Spoil, data: bytes) -> None:
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _PIECE)
    spoil.sent.append(0)
    place = len(spoil.sent) - 1
    endless = data * (_PIECE // len(data) + 2)
    at = 0
    while spoil.sent[place] < ENDLESS and not handler.sandbox.closing.is_set():
        piece = endless[at : at + _PIECE]
        handler.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
        spoil.sent[place] += len(piece)
        at = (at + len(piece)) % len(data)


def _garbled_length(handler: _HostileHandler, spoil: Spoil, asked: Question) -> None:
    handler.answer(asked, asked.data, **_range_of(asked), Content_Length="abc")


def _drip(handler: _HostileHandler, spoil: Spoil, asked: Question) -> None:
    length = {"Content-Length": str(len(asked.data))}
    handler.begin(206 if asked.partial else 200, {**_range_of(asked), **length})
    handler.drip(spoil, asked.data)


def _drip_headers(handler: _HostileHandler, spoil: Spoil, asked: Question) -> None:
    head = f"HTTP/1.1 206 Partial Content\r\nContent-Length: {len(asked.data)}\r\n"
    handler.drip(
        spoil,
        head.encode() + b"".join(b"X-%d: slow\r\n" % number for number in range(1000)),
    )


def _whole(handler: _HostileHandler, spoil: Spoil, asked: Question) -> None:
    handler.begin(200, {"Content-Length": str(len(asked.content))})
    handler.wfile.write(asked.content)


def _no_content_range(handler: _HostileHandler, spoil: Spoil, asked: Question) -> None:
    handler.begin(206, {"Content-Length": str(len(asked.data))})
    handler.wfile.write(asked.data)


MODES: dict[str, Callable[[_HostileHandler, Spoil, Question], None]] = {
    "shifted": _shifted,
    "lying": _lying,
    "gzip": _gzip,
    "204": _no_content,
    "429-garbled": _garbled_retry_after,
    "429-far": _far_retry_after,
    "unended": _unended,
    "short": _short,
    "html206": _html,
    "flip": _flip,
    "endless200": _endless_200,
    "endless206": _endless_206,
    "garbled-length": _garbled_length,
    "drip": _drip,
    "drip-headers": _drip_headers,
    "whole": _whole,
    "no-content-range": _no_content_range,
}
"""Beside these every status is a mode."""
EVERY_MODE = [*MODES, "520", "503", "403", "404"]


def spoil_in(mode: str, **settings: Any) -> Spoil:
    """Spoil a tenth of all answers. Refusals that are final befall every file, each just once."""
    if mode in ("403", "404"):
        settings = {"share": 1.0, "once": True, **settings}
    return Spoil(mode, **settings)


@contextmanager
def serve_hostile(folder: Path, host: str = "127.0.0.1") -> Iterator[Hostile]:
    """Serve a folder as long as the block lasts; the server is calm until it has a `spoil`."""
    sandbox = Hostile(folder)
    handler = type("Handler", (_HostileHandler,), {"sandbox": sandbox})
    server = _Server((host, 0), handler)
    sandbox.url = f"http://{host}:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield sandbox
    finally:
        sandbox.closing.set()
        server.shutdown()
        server.server_close()
        thread.join()


def made(request: RunRequest, folder: str) -> dict[str, bytes]:
    """The products of a run by name: all that is not a status, nor a plan, which tells what headers told of costs."""
    published = tree(Path(request.output))
    return {
        name: published[name]
        for name in published
        if name.startswith(folder) and name != "plan.parquet"
    }


def said(request: RunRequest, status: RunStatus) -> str:
    """All that a run tells of its faults."""
    tables = [path.read_text() for path in sorted(Path(request.output).glob("*.csv"))]
    return "\n".join([status.message, *tables])


def weather(
    host: Hostile,
    request: RunRequest,
    spoil: Spoil,
    folder: str,
    calm: Calm,
    name: str,
) -> RunStatus:
    """Run a request on a server that spoils answers, and hold what it makes against a calm run's.

    Either the run succeeded and every byte is right, or it failed, and the next one makes the
    right bytes.

    Returns:
        The status of the stormy run.
    """
    if name not in calm:
        peaceful = request.model_copy(update={"output": f"{request.output}-calm"})
        status = run(peaceful)
        assert status.state == "succeeded", status.message
        calm[name] = made(peaceful, folder), status.incomplete
        assert calm[name][0]
    right, incomplete = calm[name]
    host.spoil = spoil
    status = run(request)
    host.spoil = None
    assert spoil.spoiled, "at least one answer was spoiled"
    assert all(size < LARGEST_ANSWER for size in spoil.sent), spoil.sent
    assert all(seconds <= LONGEST_ANSWER for seconds in spoil.dripped), spoil.dripped
    assert "unexpected" not in said(request, status)
    if status.state == "succeeded":
        assert status.incomplete == incomplete, said(request, status)
    else:
        again = run(request)
        assert (again.state, again.incomplete) == ("succeeded", incomplete), said(request, again)
    found = made(request, folder)
    assert found.keys() == right.keys()
    differing = [path for path in found if found[path] != right[path]]
    assert not differing, f"{differing} after {status.state}: {said(request, status)}"
    return status
