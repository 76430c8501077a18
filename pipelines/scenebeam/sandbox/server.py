"""A range server on loopback that can be slow, refuse requests or truncate responses, for tests."""

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
    """A fault of the next `times` responses whose path matches `pattern`."""

    pattern: str
    """Regular expression, searched in the path."""
    times: int = 10**9
    status: int | None = None
    """Respond with this status and no body."""
    retry_after: str | None = None
    """Header `Retry-After` of that response."""
    location: str | None = None
    """Header `Location` of that response, for redirects."""
    cut: int | None = None
    """Send this many bytes of the body, then close the connection."""
    ignore_range: bool = False
    """Respond to range requests with 200 and the whole file."""
    corrupt: bool = False
    """Send zeros instead of the content of ranges that do not begin at the first byte."""
    sleep: float = 0.0
    """Seconds to wait before the response."""


@dataclass
class SandboxServer:
    """Behavior and statistics of a server. Both can be changed while it runs."""

    folder: Path
    """The folder that is served."""
    latency: float = 0.0
    """Seconds before the first byte of each response."""
    rate: float = 0.0
    """Limit of bytes per second and connection; 0 is unlimited."""
    guard: Callable[[str, Mapping[str, str]], int | None] | None = None
    """Maps (path with query, headers) to the status of a refusal, or None to accept."""
    faults: list[Fault] = field(default_factory=list)
    requests: Counter[str] = field(default_factory=Counter)
    """Requests by path."""
    statuses: Counter[int] = field(default_factory=Counter)
    """Responses by status."""
    bytes_sent: int = 0
    active: int = 0
    """Requests that are being answered."""
    max_active: int = 0
    """The largest number of requests that were answered at the same time."""
    ranges: list[tuple[str, int, int]] = field(default_factory=list)
    """(path, start, stop) of each response with a body."""
    url: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def next_fault(self, path: str) -> Fault | None:
        """Return the first fault that applies to a path, and count it as used."""
        with self.lock:
            for fault in self.faults:
                if fault.times > 0 and re.search(fault.pattern, path):
                    fault.times -= 1
                    return fault
        return None

    def reset_counts(self) -> None:
        """Reset the statistics."""
        with self.lock:
            self.requests.clear()
            self.statuses.clear()
            self.ranges.clear()
            self.bytes_sent = self.max_active = 0


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    sandbox: SandboxServer

    def do_GET(self) -> None:
        self._handle(body=True)

    def do_HEAD(self) -> None:
        self._handle(body=False)

    def log_message(self, format: str, *args: object) -> None:
        return

    def _handle(self, *, body: bool) -> None:
        """Respond, and keep track of how many requests are active."""
        sandbox = self.sandbox
        with sandbox.lock:
            sandbox.active += 1
            sandbox.max_active = max(sandbox.max_active, sandbox.active)
        try:
            self._respond(body=body)
        finally:
            with sandbox.lock:
                sandbox.active -= 1

    def _respond(self, *, body: bool) -> None:
        """Respond with a file, a range of it or an error, as faults and the guard demand."""
        sandbox = self.sandbox
        path = self.path.split("?")[0]
        with sandbox.lock:
            sandbox.requests[path] += 1
        fault = sandbox.next_fault(path) or Fault("")
        time.sleep(sandbox.latency + fault.sleep)
        if sandbox.guard is not None:
            refusal = sandbox.guard(self.path, dict(self.headers.items()))
            if refusal is not None:
                self._respond_empty(refusal)
                return
        if fault.status is not None:
            headers = {"Retry-After": fault.retry_after, "Location": fault.location}
            self._respond_empty(fault.status, headers)
            return
        file = (sandbox.folder / path.lstrip("/")).resolve()
        if not file.is_relative_to(sandbox.folder.resolve()) or not file.is_file():
            self._respond_empty(404)
            return
        size, etag = file.stat().st_size, f'"{file.stat().st_mtime_ns:x}"'
        requested = None if fault.ignore_range else self._requested_range(size, etag)
        start, stop = requested or (0, size)
        if requested and start >= size:
            self._respond_empty(416)
            return
        with file.open("rb") as content:
            content.seek(start)
            data = content.read(stop - start) if body else b""
        if fault.corrupt and start > 0:
            data = bytes(len(data))
        self._count_status(206 if requested else 200)
        self.send_response(206 if requested else 200)
        self.send_header("Content-Length", str(stop - start))
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("ETag", etag)
        is_json = file.suffix == ".json"
        content_type = "application/json" if is_json else "application/octet-stream"
        self.send_header("Content-Type", content_type)
        if requested:
            self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{size}")
        self.end_headers()
        if fault.cut is not None:
            data = data[: fault.cut]
            self.close_connection = True
        with sandbox.lock:
            sandbox.bytes_sent += len(data)
            sandbox.ranges.append((path, start, stop))
        self._send(data)

    def _requested_range(self, size: int, etag: str) -> tuple[int, int] | None:
        """Return start and stop of the requested range; None if the whole file is requested."""
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        # If-Range requests the range only of the version that the client knows.
        if match is None or self.headers.get("If-Range", etag) != etag:
            return None
        return int(match[1]), min(int(match[2]) + 1 if match[2] else size, size)

    def _send(self, data: bytes) -> None:
        """Send the body, no faster than the rate."""
        rate = self.sandbox.rate
        if not rate:
            self.wfile.write(data)
            return
        started, step = time.monotonic(), 64 * 1024
        for sent in range(0, len(data), step):
            self.wfile.write(data[sent : sent + step])
            time.sleep(max(0.0, started + (sent + step) / rate - time.monotonic()))

    def _count_status(self, status: int) -> None:
        with self.sandbox.lock:
            self.sandbox.statuses[status] += 1

    def _respond_empty(self, status: int, headers: dict[str, str | None] | None = None) -> None:
        """Respond with a status, and with those headers that have a value."""
        self._count_status(status)
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
        return  # clients may close connections at any time


@contextmanager
def serve(folder: Path, *, latency: float = 0.0, port: int = 0) -> Iterator[SandboxServer]:
    """Serve a folder on loopback within a `with` block.

    Args:
        folder: The folder.
        latency: Seconds before the first byte of each response.
        port: Port to listen on; by default any free one.

    Yields:
        The server; its `url` has no trailing slash.
    """
    sandbox = SandboxServer(folder, latency)
    handler = type("Handler", (_Handler,), {"sandbox": sandbox})
    server = _Server(("127.0.0.1", port), handler)
    sandbox.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield sandbox
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
