"""A STAC API whose items a test adds, changes and removes while it is asked."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

CONFORMS = [
    "https://api.stacspec.org/v1.0.0/core",
    "https://api.stacspec.org/v1.0.0/item-search",
]
_PAGE = 10


class GrowingApi:
    """The items by id, and where they are served."""

    def __init__(self) -> None:
        self.url = ""
        self.items: dict[str, dict[str, Any]] = {}

    def landing(self) -> dict[str, Any]:
        search = {"rel": "search", "href": f"{self.url}/search", "type": "application/geo+json", "method": "POST"}  # fmt: skip
        return {
            "type": "Catalog", "stac_version": "1.0.0", "id": "growing", "description": "Grows",
            "conformsTo": CONFORMS, "links": [{"rel": "self", "href": self.url}, search],
        }  # fmt: skip

    def search(self, body: dict[str, Any]) -> dict[str, Any]:
        start, end = str(body.get("datetime") or "0/9").split("/")
        found = []
        for key in sorted(self.items):
            item = self.items[key]
            if start <= item["properties"]["datetime"] <= end:
                found.append(item)
        place = int(body.get("token", 0))
        links = []
        if place + _PAGE < len(found):
            following = {"merge": True, "body": {"token": place + _PAGE}}
            links = [{"rel": "next", "href": f"{self.url}/search", "method": "POST", **following}]
        return {
            "type": "FeatureCollection",
            "features": found[place : place + _PAGE],
            "links": links,
        }


@contextmanager
def growing_api() -> Iterator[GrowingApi]:
    """Serve an API on loopback."""
    api = GrowingApi()

    class Handler(BaseHTTPRequestHandler):
        def answer(self, document: Any) -> None:
            body = json.dumps(document).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self) -> None:
            self.answer(api.landing())

        def do_POST(self) -> None:
            self.answer(
                api.search(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            )

        def log_message(self, *words: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    api.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield api
    finally:
        server.shutdown()
