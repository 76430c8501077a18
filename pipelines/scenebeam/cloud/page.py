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

from scenebeam.cloud.runs import Runs
from scenebeam.cloud.settings import CloudSettings
from scenebeam.run.status import RunStatus

_RUN = re.compile(r"^/runs/([a-z0-9][a-z0-9-]{0,62})$")
_MOST, _USUAL = 200, 50


@dataclass(frozen=True)
class Page:
    """An answer to a request."""

    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Ask:
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


def answer(ask: Ask, runs: Runs, settings: CloudSettings) -> Page:
    """`GET /runs` lists runs by id, `?limit=` of them `?after=` an id; `GET /runs/<id>` is one."""
    path = ask.path.rstrip("/") or "/runs"
    match = _RUN.match(path)
    if path != "/runs" and match is None:
        return _fault(404, "there is no such page: try /runs", ask)
    if ask.method not in ("GET", "HEAD"):
        page = _fault(405, "runs can be looked at, and nothing else", ask)
        return Page(page.status, page.body, {**page.headers, "Allow": "GET, HEAD"})
    if match is not None:
        status = runs.status(match[1])
        if status is None:
            return _fault(404, f"there is no run {match[1]}", ask)
        return _found(_facts(status, settings), "run.html", ask)
    limit = ask.query.get("limit", str(_USUAL))
    if not limit.isdigit() or not 1 <= int(limit) <= _MOST:
        return _fault(400, f"limit: a number from 1 to {_MOST}", ask)
    after = ask.query.get("after", "")
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
    facts = status.model_dump(mode="json")
    facts["links"] = {"self": f"/runs/{status.id}", **_links(status, settings)}
    return facts


def _links(status: RunStatus, settings: CloudSettings) -> dict[str, str | None]:
    """Where its outputs and its logs can be looked at."""
    found: dict[str, str | None] = {"output": None, "job": None}
    if status.output.startswith("gs://"):
        found["output"] = f"https://console.cloud.google.com/storage/browser/{quote(status.output[5:])}"
    if settings.launcher == "dataflow" and status.job not in ("", "none"):
        where = f"{quote(settings.region)}/{quote(status.job)}?project={quote(settings.project)}"
        found["job"] = f"https://console.cloud.google.com/dataflow/jobs/{where}"
    return found


def _found(document: dict[str, Any], template: str, ask: Ask) -> Page:
    if ask.html:
        body, kind = _templates().get_template(template).render(document).encode(), "text/html; charset=utf-8"
    else:
        body, kind = (json.dumps(document, indent=2) + "\n").encode(), "application/json"
    etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    headers = {"Content-Type": kind, "ETag": etag, "Cache-Control": "no-cache", "Vary": "Accept", **_SAFE}
    if etag in [one.strip().removeprefix("W/") for one in ask.etag.split(",")]:
        return Page(304, b"", headers)
    return Page(200, body, headers)


_SAFE = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; img-src https:",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


def _fault(status: int, message: str, ask: Ask) -> Page:
    if ask.html:
        body = _templates().get_template("fault.html").render(status=status, message=message).encode()
        return Page(status, body, {"Content-Type": "text/html; charset=utf-8", **_SAFE})
    return Page(status, (json.dumps({"error": message}) + "\n").encode(), {"Content-Type": "application/json", **_SAFE})


@cache
def _templates() -> jinja2.Environment:
    loader = jinja2.PackageLoader("scenebeam.cloud", "pages")
    return jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)
