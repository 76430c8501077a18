"""The storage emulator behind a proxy that answers 429 and 503, and loses answers on their way."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

from local_cloud import environment
from scenebeam.storage import gcs


@dataclass
class Weather:
    """What befalls the next requests that write: `503` and the like, or `lost`: done, and the answer never comes."""

    coming: list[Any] = field(default_factory=list)
    seen: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def next(self, method: str) -> Any:
        with self.lock:
            self.seen.append(method)
            return self.coming.pop(0) if self.coming and method == "POST" else None


@contextmanager
def unwell(emulator: str) -> Iterator[Weather]:
    """The proxy, which Google's clients use as long as the block lasts."""
    upstream, now = urlsplit(emulator).netloc, Weather()

    class Proxy(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = 2**16  # headers and body in one packet: a second one would wait 40 ms

        def log_message(self, format: str, *args: object) -> None:
            return

        def forward(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            fault = now.next(self.command)
            if isinstance(fault, int):
                self.answer(fault, [], b'{"error": {"code": %d, "message": "not now"}}' % fault)
                return
            connection = http.client.HTTPConnection(upstream, timeout=30)
            headers = {
                k: v
                for k, v in self.headers.items()
                if k.lower() not in ("host", "content-length", "connection")
            }
            connection.request(self.command, self.path, body or None, {**headers, "Host": upstream})
            got = connection.getresponse()
            data = got.read()
            if fault == "lost":
                self.close_connection = True
                return
            self.answer(got.status, got.getheaders(), data)

        def answer(self, status: int, headers: list[tuple[str, str]], data: bytes) -> None:
            self.send_response(status)
            for name, value in headers:
                if name.lower() not in (
                    "content-length",
                    "transfer-encoding",
                    "connection",
                    "date",
                    "server",
                ):
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

    for method in ("GET", "POST", "PUT", "DELETE", "HEAD", "PATCH"):
        setattr(Proxy, f"do_{method}", Proxy.forward)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    gcs._client.cache_clear()
    try:
        with environment({"STORAGE_EMULATOR_HOST": f"http://127.0.0.1:{server.server_address[1]}"}):
            yield now
    finally:
        server.shutdown()
        server.server_close()
        gcs._client.cache_clear()
