"""Page: runs as JSON for machines and as a small page for people."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any
from urllib.parse import quote

import jinja2

from scenebeam.cloud.guard import is_below
from scenebeam.cloud.runs import Runs
from scenebeam.cloud.settings import CloudSettings
from scenebeam.status import FAILURES_FILE, PAGE_FILE, RunStatus
from scenebeam.storage import open_store

_ID = r"[a-z0-9][a-z0-9-]{0,62}"
_RUN = re.compile(rf"/runs/({_ID})(?:/pictures/([0-9]{{1,3}}))?")
_CONSOLE = "https://console.cloud.google.com"
_OBJECTS = "https://storage.cloud.google.com"
"""Objects, for browsers of people who may read them."""
_PNG = b"\x89PNG\r\n\x1a\n"
_MOST, _USUAL = 200, 50


@dataclass(frozen=True)
class Page:
    """An answer to a request."""

    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class HttpRequest:
    """What of a request matters."""

    method: str
    path: str
    query: Mapping[str, str]
    accept: str = ""
    etag: str = ""
    """Of If-None-Match."""

    @property
    def html(self) -> bool:
        """Whether a person asks."""
        return "text/html" in self.accept


def handle(ask: HttpRequest, runs: Runs, settings: CloudSettings) -> Page:
    """`GET /runs` lists runs by id, `?limit=` of them `?after=` an id; `GET /runs/<id>` is one.

    `GET /runs/<id>/pictures/<number>` is one of the pictures that its status names, and nothing else of its output.
    """
    path = ask.path.rstrip("/") or "/runs"
    match = _RUN.fullmatch(path)
    if path != "/runs" and match is None:
        return _fault(404, "there is no such page: try /runs", ask)
    if ask.method not in ("GET", "HEAD"):
        page = _fault(405, "runs can be looked at, and nothing else", ask)
        return Page(page.status, page.body, {**page.headers, "Allow": "GET, HEAD"})
    if match is not None:
        status = runs.status(match[1])
        if status is None:
            return _fault(404, f"there is no run {match[1]}", ask)
        if match[2] is not None:
            return _picture(status, int(match[2]), ask, settings)
        return _found(_facts(status, settings), "run.html", ask)
    limit = ask.query.get("limit", str(_USUAL))
    if not re.fullmatch("[0-9]{1,3}", limit) or not 1 <= int(limit) <= _MOST:
        return _fault(400, f"limit: a number from 1 to {_MOST}", ask)
    after = ask.query.get("after", "")
    if after and not re.fullmatch(_ID, after):
        return _fault(400, "after: the id of a run, as `next` of the page before gives it", ask)
    ids = [one for one in runs.ids() if one > after]
    shown = [status for one in ids[: int(limit)] if (status := runs.status(one)) is not None]
    following = shown[-1].id if shown and len(ids) > int(limit) else None
    document = {
        "runs": [_facts(status, settings) for status in shown],
        "next": None if following is None else f"/runs?limit={limit}&after={quote(following)}",
    }
    return _found(document, "runs.html", ask)


def _facts(status: RunStatus, settings: CloudSettings) -> dict[str, Any]:
    """A run as JSON, with links."""
    facts = status.model_dump(mode="json") | {"ended": status.ended}
    facts["links"] = {"self": f"/runs/{status.id}", **_links(status, settings)}
    return facts


def _links(status: RunStatus, settings: CloudSettings) -> dict[str, Any]:
    """Where its outputs, its failures and its logs can be looked at, and its pictures."""
    found: dict[str, Any] = {
        "output": None,
        "report": None,
        "failures": None,
        "job": None,
        "logs": None,
        "pictures": [],
    }
    if is_below(status.output, settings.outputs):
        found["pictures"] = [
            f"/runs/{status.id}/pictures/{number}" for number in range(len(status.pictures))
        ]
    if status.output.startswith("gs://"):
        output = quote(status.output[5:])
        found["output"] = f"{_CONSOLE}/storage/browser/{output}"
        if status.ended and status.tasks:
            found["report"] = f"{_OBJECTS}/{output}/{PAGE_FILE}"
        if status.failed:
            found["failures"] = f"{_CONSOLE}/storage/browser/_details/{output}/{FAILURES_FILE}"
    if settings.launcher == "dataflow" and status.job not in ("", "none"):
        project = f"project={quote(settings.project)}"
        query = quote(
            f'resource.type="dataflow_step"\nresource.labels.job_id="{status.job}"', safe=""
        )
        found["job"] = (
            f"{_CONSOLE}/dataflow/jobs/{quote(settings.region)}/{quote(status.job)}?{project}"
        )
        found["logs"] = f"{_CONSOLE}/logs/query;query={query}?{project}"
    return found


def _picture(status: RunStatus, number: int, ask: HttpRequest, settings: CloudSettings) -> Page:
    name = status.pictures[number] if number < len(status.pictures) else ""
    inside = is_below(status.output, settings.outputs) and is_below(
        f"{status.output}/{name}", (status.output,)
    )
    content = open_store(status.output).read(name) if inside else None
    if content is not None and content.startswith(_PNG):
        return _tagged(content, "image/png", "private, max-age=3600", ask)
    return _fault(404, f"there is no picture {number} of {status.id}", ask)


def _found(document: dict[str, Any], template: str, ask: HttpRequest) -> Page:
    if ask.html:
        body, kind = (
            _templates().get_template(template).render(document).encode(),
            "text/html; charset=utf-8",
        )
    else:
        body, kind = (json.dumps(document, indent=2) + "\n").encode(), "application/json"
    return _tagged(body, kind, "no-cache", ask)


def _tagged(body: bytes, kind: str, cache: str, ask: HttpRequest) -> Page:
    etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    headers = {
        "Content-Type": kind,
        "ETag": etag,
        "Cache-Control": cache,
        "Vary": "Accept",
        **_SAFE,
    }
    if etag in [one.strip().removeprefix("W/") for one in ask.etag.split(",")]:
        return Page(304, b"", headers)
    return Page(200, body, headers)


_SAFE = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; img-src 'self'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


def _fault(status: int, message: str, ask: HttpRequest) -> Page:
    if ask.html:
        body = (
            _templates().get_template("fault.html").render(status=status, message=message).encode()
        )
        return Page(status, body, {"Content-Type": "text/html; charset=utf-8", **_SAFE})
    return Page(
        status,
        (json.dumps({"error": message}) + "\n").encode(),
        {"Content-Type": "application/json", **_SAFE},
    )


@cache
def _templates() -> jinja2.Environment:
    loader = jinja2.PackageLoader("scenebeam.cloud", "pages")
    return jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)
