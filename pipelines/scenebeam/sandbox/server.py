"""A range server on loopback that can be told to be slow, to refuse, and to break off: real HTTP for tests."""

from __future__ import annotations

import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


@dataclass
class Fault:
    """What befalls requests whose path matches `pattern`, the next `times` of them."""

    pattern: str
    times: int = 10**9
    status: int | None = None
    """Answer this status instead of the file."""
    retry_after: str | None = None
    location: str | None = None
    """Where a 3xx status sends the client."""
    cut: int | None = None
    """Send this many bytes of the body, then close the connection."""
    ignore_range: bool = False
    """Answer 200 with the whole file."""
    corrupt: bool = False
    """Send zeros instead of the bytes asked for, where they lie behind the header."""
    sleep: float = 0.0


@dataclass
class Behaviour:
    """What a server does and what it has seen."""

    folder: Path
    latency: float = 0.0
    """Seconds before the first byte of each answer."""
    rate: float = 0.0
    """Most bytes per second of one connection; 0 is as fast as it goes."""
    guard: Callable[[str, Mapping[str, str]], int | None] | None = None
    """Given the path with its query and the headers, the status that refuses a request; None lets it pass."""
    faults: list[Fault] = field(default_factory=list)
    requests: Counter[str] = field(default_factory=Counter)
    statuses: Counter[int] = field(default_factory=Counter)
    bytes_sent: int = 0
    active: int = 0
    most_at_once: int = 0
    """The largest number of requests that were answered together."""
    ranges: list[tuple[str, int, int]] = field(default_factory=list)
    url: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def fault_for(self, path: str) -> Fault | None:
        """The first fault that still applies to a path; it is used up by one."""
        with self.lock:
            for fault in self.faults:
                if fault.times > 0 and re.search(fault.pattern, path):
                    fault.times -= 1
                    return fault
        return None

    def forget(self) -> None:
        """Start counting anew."""
        with self.lock:
            self.requests.clear()
            self.statuses.clear()
            self.ranges.clear()
            self.bytes_sent = self.most_at_once = 0


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    behaviour: Behaviour

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def log_message(self, format: str, *args: object) -> None:
        return

    def _answer(self, *, body: bool) -> None:
        behaviour = self.behaviour
        with behaviour.lock:
            behaviour.active += 1
            behaviour.most_at_once = max(behaviour.most_at_once, behaviour.active)
        try:
            self._give(body=body)
        finally:
            with behaviour.lock:
                behaviour.active -= 1

    def _give(self, *, body: bool) -> None:
        behaviour = self.behaviour
        path = self.path.split("?")[0]
        with behaviour.lock:
            behaviour.requests[path] += 1
        fault = behaviour.fault_for(path) or Fault("")
        time.sleep(behaviour.latency + fault.sleep)
        file = (behaviour.folder / path.lstrip("/")).resolve()
        refused = (
            behaviour.guard(self.path, dict(self.headers.items()))
            if behaviour.guard is not None
            else None
        )
        if refused is not None:
            self._refuse(refused)
            return
        if fault.status is not None:
            self._refuse(
                fault.status, {"Retry-After": fault.retry_after, "Location": fault.location}
            )
            return
        if not file.is_relative_to(behaviour.folder.resolve()) or not file.is_file():
            self._refuse(404)
            return
        size, tag = file.stat().st_size, f'"{file.stat().st_mtime_ns:x}"'
        start, stop, partial = 0, size, False
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if match and not fault.ignore_range and self.headers.get("If-Range", tag) == tag:
            start, partial = int(match[1]), True
            stop = min(int(match[2]) + 1 if match[2] else size, size)
            if start >= size:
                self._refuse(416)
                return
        with file.open("rb") as content:
            content.seek(start)
            data = content.read(stop - start) if body else b""
        if fault.corrupt and start > 0:
            data = bytes(len(data))
        self._count(206 if partial else 200)
        self.send_response(206 if partial else 200)
        self.send_header("Content-Length", str(stop - start))
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("ETag", tag)
        self.send_header(
            "Content-Type",
            "application/json" if file.suffix == ".json" else "application/octet-stream",
        )
        if partial:
            self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{size}")
        self.end_headers()
        if fault.cut is not None:
            data = data[: fault.cut]
            self.close_connection = True
        with behaviour.lock:
            behaviour.bytes_sent += len(data)
            behaviour.ranges.append((path, start, stop))
        self._send(data)

    def _send(self, data: bytes) -> None:
        if not self.behaviour.rate:
            self.wfile.write(data)
            return
        started, piece = time.monotonic(), 64 * 1024
        for sent in range(0, len(data), piece):
            self.wfile.write(data[sent : sent + piece])
            time.sleep(max(0.0, started + (sent + piece) / self.behaviour.rate - time.monotonic()))

    def _count(self, status: int) -> None:
        with self.behaviour.lock:
            self.behaviour.statuses[status] += 1

    def _refuse(self, status: int, headers: dict[str, str | None] | None = None) -> None:
        self._count(status)
        self.send_response(status)
        for name, value in (headers or {}).items():
            if value is not None:
                self.send_header(name, value)
        self.send_header("Content-Length", "0")
        self.end_headers()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: object, client_address: object) -> None:
        return  # clients may hang up


@contextmanager
def serve(folder: Path, *, latency: float = 0.0, port: int = 0) -> Iterator[Behaviour]:
    """Serve a folder on loopback for as long as the block lasts; `url` says where."""
    behaviour = Behaviour(folder, latency)
    handler = type("Handler", (_Handler,), {"behaviour": behaviour})
    server = _Server(("127.0.0.1", port), handler)
    behaviour.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield behaviour
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
