"""A STAC API on loopback that behaves badly in one way: what real ones have been seen to do."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from time import time
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import shapely

CONFORMANCE = [
    "https://api.stacspec.org/v1.0.0/core",
    "https://api.stacspec.org/v1.0.0/item-search",
]


@dataclass
class BadApi:
    """What it does, and what it has been asked."""

    mode: str
    items: Sequence[dict[str, Any]]
    page: int = 10
    url: str = ""
    asked: list[tuple[str, str, dict[str, Any]]] = field(default_factory=list)
    spoiled: int = 0

    def once(self, times: int = 1) -> bool:
        """Whether the next answer is to be spoiled, for the first `times`."""
        self.spoiled += 1
        return self.spoiled <= times


def _matches(item: dict[str, Any], question: dict[str, Any]) -> bool:
    if question.get("ids"):
        return item["id"] in question["ids"]
    box = question.get("bbox")
    if box and item.get("geometry"):
        sides = [float(side) for side in (box.split(",") if isinstance(box, str) else box)]
        return bool(shapely.geometry.shape(item["geometry"]).intersects(shapely.box(*sides)))
    return True


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    api: BadApi

    def log_message(self, format: str, *args: object) -> None:
        return

    def do_GET(self) -> None:
        self._answer("GET", {})

    def do_POST(self) -> None:
        self._answer(
            "POST",
            json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"{}"),
        )

    def _send(
        self, document: Any, status: int = 200, kind: str = "application/geo+json", **headers: str
    ) -> None:
        body = document if isinstance(document, bytes) else json.dumps(document).encode()
        self.send_response(status)
        for name, value in {
            "Content-Type": kind,
            "Content-Length": str(len(body)),
            **headers,
        }.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def _answer(self, method: str, body: dict[str, Any]) -> None:
        parts = urlsplit(self.path)
        question = {**{key: values[0] for key, values in parse_qs(parts.query).items()}, **body}
        self.api.asked.append((method, parts.path, question))
        if parts.path != "/search":
            self._landing()
        elif not self._refuse(method, int(question.get("token") or 0)):
            self._page(method, body, question)

    def _landing(self) -> None:
        api, mode = self.api, self.api.mode
        search = f"{api.url}/search"
        links = [
            {"rel": "search", "href": search, "method": "GET"},
            {"rel": "search", "href": search, "method": "POST"},
        ]
        if mode == "landing-html":
            self._send(b"<html>Please sign in</html>", kind="text/html")
            return
        document = {
            "type": "Catalog", "id": "bad", "description": "d", "stac_version": "1.0.0",
            "conformsTo": [] if mode == "noconf" else CONFORMANCE, "links": links[:1] if mode == "getonly-told" else links,
        }  # fmt: skip
        self._send(document)

    def _refuse(self, method: str, start: int) -> bool:
        """Answer with something else than a page, where the mode says so."""
        api, mode, second = self.api, self.api.mode, start == self.api.page
        if mode in ("getonly", "getonly-told") and method == "POST":
            self._send({"detail": "Method Not Allowed"}, 405)
        elif (mode == "502" and second and api.once(2)) or (mode == "502always" and second):
            self._send(b"<html>Bad Gateway</html>", 502, "text/html")
        elif mode == "html":
            self._send(b"<html>Service moved</html>", kind="text/html")
        elif mode == "403":
            self._send(b"<html>Forbidden</html>", 403, "text/html")
        elif mode == "429date" and api.once():
            self._send({}, 429, Retry_After=formatdate(time() + 1, usegmt=True))
        elif mode == "429far":
            self._send({}, 429, Retry_After="3600")
        elif mode == "429garbage" and api.once():
            self._send({}, 429, Retry_After="soon")
        elif mode == "trunc" and second and api.once():
            self.send_response(200)
            self.send_header("Content-Length", "5000")
            self.end_headers()
            self.wfile.write(b'{"type": "FeatureCollection", "features": []}')
            self.close_connection = True
        elif mode == "reset" and second and api.once():
            self.close_connection = True
        elif mode == "badjson" and second and api.once():
            self._send(b'{"type":"FeatureCollection","features":[')
        elif mode == "error200" or (mode == "error200p2" and second):
            self._send({"message": "database is down"})
        elif mode == "error200once" and second and api.once():
            self._send({"message": "Endpoint request timed out"})
        elif mode == "nofeatures":
            self._send({"type": "FeatureCollection", "links": []})
        elif mode == "list":
            self._send([])
        else:
            return False
        return True

    def _page(self, method: str, body: dict[str, Any], question: dict[str, Any]) -> None:
        api, mode = self.api, self.api.mode
        start, found = (
            int(question.get("token") or 0),
            [item for item in api.items if _matches(item, question)],
        )
        page: list[Any]
        page, more, following = (
            found[start : start + api.page],
            start + api.page < len(found),
            start + api.page,
        )
        if mode == "loop":
            more, following = True, start
        if mode == "emptyloop":
            more, page = True, page if start == 0 else []
        if mode == "emptymid":
            page, found = (
                [] if start == api.page else page,
                found[: api.page] + found[2 * api.page :],
            )
        if mode == "dup" and start:
            page = found[start - 3 : start + api.page]
        if mode == "nulls" and start == 0:
            page = [*page[:2], None, "text", *page[2:]]
        link: dict[str, Any] = {"rel": "next", "href": f"{api.url}/search", "method": method}
        if method == "POST":
            link["body"] = (
                {"token": str(following)} if mode == "merge" else {**body, "token": str(following)}
            )
            link |= {"merge": True} if mode == "merge" else {}
        if method == "GET" or mode == "getnext":
            asked = {
                k: ",".join(map(str, v)) if isinstance(v, list) else v
                for k, v in question.items()
                if k != "token"
            }
            link = {
                "rel": "next",
                "href": f"{api.url}/search?{urlencode({**asked, 'token': following})}",
            }
        if mode == "relnext":
            link["href"] = (
                "/search" if method == "POST" else f"/search?{urlsplit(link['href']).query}"
            )
        document: dict[str, Any] = {
            "type": "FeatureCollection",
            "features": page,
            "links": [link] if more else [],
        }
        document["numberMatched"] = 3 if mode == "wrongmatched" else len(found)
        if mode == "context":
            document["context"] = {"matched": document.pop("numberMatched")}
        if mode == "nolinks":
            del document["links"]
        self._send(document)


@contextmanager
def serve_bad_api(mode: str, items: Sequence[dict[str, Any]], page: int = 10) -> Iterator[BadApi]:
    api = BadApi(mode, items, page)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"api": api}))
    server.daemon_threads = True
    api.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield api
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
