"""A proxy in front of the storage emulator: it shows what is asked, and answers instead where the emulator is not like GCS."""

from __future__ import annotations

import http.client
import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

from scenebeam.storage import gcs

HOP = ("content-length", "transfer-encoding", "connection", "date", "server", "host")
"""Headers that are not passed on."""
Answer = tuple[int, list[tuple[str, str]], bytes]


@dataclass
class Request:
    method: str
    path: str
    """With its query."""
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass
class Upstream:
    """The emulator."""

    host: str

    def answer(self, request: Request) -> Answer:
        connection = http.client.HTTPConnection(self.host, timeout=30)
        connection.request(
            request.method,
            request.path,
            request.body or None,
            {**request.headers, "Host": self.host},
        )
        response = connection.getresponse()
        return response.status, response.getheaders(), response.read()


@contextmanager
def proxied(emulator: str, answer: Callable[[Request, Upstream], Answer | None]) -> Iterator[None]:
    """Google's clients talk to the emulator through a proxy, which answers what `answer` gives; None: nothing."""
    upstream = Upstream(urlsplit(emulator).netloc)

    class Proxy(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        # Else an answer waits 40 ms for the acknowledgment of its headers.
        disable_nagle_algorithm = True

        def log_message(self, format: str, *args: object) -> None:
            return

        def forward(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            headers = {k: v for k, v in self.headers.items() if k.lower() not in HOP}
            answered = answer(Request(self.command, self.path, headers, body), upstream)
            if answered is None:
                self.close_connection = True
                return
            status, names, data = answered
            self.send_response(status)
            for name, value in names:
                if name.lower() not in HOP:
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

    for method in ("GET", "POST", "PUT", "DELETE", "HEAD", "PATCH"):
        setattr(Proxy, f"do_{method}", Proxy.forward)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    before = os.environ["STORAGE_EMULATOR_HOST"]
    os.environ["STORAGE_EMULATOR_HOST"] = f"http://127.0.0.1:{server.server_address[1]}"
    gcs._client.cache_clear()
    try:
        yield
    finally:
        os.environ["STORAGE_EMULATOR_HOST"] = before
        server.shutdown()
        server.server_close()
        gcs._client.cache_clear()


def refusal(status: int, message: str) -> Answer:
    body = json.dumps({"error": {"code": status, "message": message}}).encode()
    return status, [("Content-Type", "application/json")], body


class ComposingStorage:
    """The emulator as GCS is, where it composes.

    The emulator ignores the preconditions of `compose`, answers 500 for a source that does not exist, keeps the generation
    of an object that is replaced, and gives composed objects an MD5.
    """

    def __init__(self) -> None:
        self.seen: list[str] = []
        """What was asked: method and path."""
        self.sent = 0
        """Bytes of all answers to downloads."""
        self.left: int | None = None
        """Requests that are answered until the worker is as good as dead; None: all."""
        self.before: Callable[[str, str], None] = lambda method, path: None
        """Called before a request is answered."""
        self._composed: set[str] = set()
        self._lock = threading.RLock()

    def answer(self, request: Request, upstream: Upstream) -> Answer:
        parts = urlsplit(request.path)
        self.before(request.method, unquote(parts.path))
        with self._lock:
            self.seen.append(f"{request.method} {unquote(parts.path)}")
            if self.left is not None:
                if self.left == 0:
                    return refusal(403, "the worker is dead")
                self.left -= 1
            if request.method == "POST" and parts.path.endswith("/compose"):
                return self._compose(request, upstream)
            status, headers, data = upstream.answer(request)
        if request.method == "GET" and status in (200, 206):
            if parts.path.startswith("/storage/") and "alt=media" not in parts.query:
                data = self._without_md5(data)
            else:
                self.sent += len(data)
        return status, headers, data

    def _compose(self, request: Request, upstream: Upstream) -> Answer:
        parts = urlsplit(request.path)
        target = parts.path.removesuffix("/compose")
        folder = target.rpartition("/")[0]
        document = json.loads(request.body)
        for source in document["sourceObjects"]:
            path = f"{folder}/{quote(source['name'], safe='')}"
            if self._generation(path, upstream) is None:
                return refusal(404, f"No such object: {source['name']}")
        current = self._generation(target, upstream)
        wanted = parse_qs(parts.query).get("ifGenerationMatch")
        if wanted is not None and wanted[0] != (current or "0"):
            return refusal(412, "At least one of the pre-conditions you specified did not hold.")
        if current is not None:
            upstream.answer(Request("DELETE", target))
        status, headers, data = upstream.answer(request)
        self._composed.add(json.loads(data)["name"])
        return status, headers, self._without_md5(data)

    def _generation(self, path: str, upstream: Upstream) -> str | None:
        status, _, data = upstream.answer(Request("GET", path))
        return str(json.loads(data)["generation"]) if status == 200 else None

    def _without_md5(self, data: bytes) -> bytes:
        document: dict[str, Any] = json.loads(data)
        for described in (document, *document.get("items", ())):
            if described.get("name") in self._composed:
                described.pop("md5Hash", None)
        return json.dumps(document).encode()
