"""Page: serve the status of runs over HTTP, as JSON for programs and as HTML for people."""

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
_RUN_PATH = re.compile(rf"/runs/({_ID})(?:/pictures/([0-9]{{1,3}}))?")
_CONSOLE = "https://console.cloud.google.com"
_OBJECTS = "https://storage.cloud.google.com"
"""Serves objects to browsers, with the permissions of the signed-in user."""
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_MAX_LIMIT = 200
_DEFAULT_LIMIT = 50
_SECURITY_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; img-src 'self'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


@dataclass(frozen=True)
class HttpResponse:
    """An HTTP response."""

    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class HttpRequest:
    """The parts of an HTTP request that matter here."""

    method: str
    path: str
    query: Mapping[str, str]
    accept: str = ""
    """Header `Accept`."""
    etag: str = ""
    """Header `If-None-Match`."""

    @property
    def wants_html(self) -> bool:
        """Whether the client is a browser."""
        return "text/html" in self.accept


def handle(request: HttpRequest, runs: Runs, settings: CloudSettings) -> HttpResponse:
    """Answer an HTTP request.

    - `GET /runs` lists runs in order of their ids: at most `?limit=` runs, `?after=` an id.
    - `GET /runs/<id>` returns one run.
    - `GET /runs/<id>/pictures/<number>` returns one of the pictures that the run's status names.
      No other file of the output is served.

    Args:
        request: The HTTP request.
        runs: The runs of the deployment.
        settings: Settings of the deployment.

    Returns:
        The response: JSON, or HTML if the request accepts it.
    """
    path = request.path.rstrip("/") or "/runs"
    match = _RUN_PATH.fullmatch(path)
    if path != "/runs" and match is None:
        return _error(404, "page not found: try /runs", request)
    if request.method not in ("GET", "HEAD"):
        response = _error(405, "method not allowed: use GET or HEAD", request)
        headers = {**response.headers, "Allow": "GET, HEAD"}
        return HttpResponse(response.status, response.body, headers)
    if match is None:
        return _list_runs(request, runs, settings)
    run, number = match.groups()
    status = runs.status(run)
    if status is None:
        return _error(404, f"run {run} not found", request)
    if number is not None:
        return _serve_picture(status, int(number), request, settings)
    return _serve(_describe(status, settings), "run.html", request)


def _list_runs(request: HttpRequest, runs: Runs, settings: CloudSettings) -> HttpResponse:
    text = request.query.get("limit", str(_DEFAULT_LIMIT))
    if not re.fullmatch("[0-9]{1,3}", text) or not 1 <= int(text) <= _MAX_LIMIT:
        return _error(400, f"limit must be an integer from 1 to {_MAX_LIMIT}", request)
    limit = int(text)
    after = request.query.get("after", "")
    if after and not re.fullmatch(_ID, after):
        return _error(400, "after must be the id of a run: use `next` of the last page", request)
    ids = [run for run in runs.ids() if run > after]
    statuses = []
    for run in ids[:limit]:
        status = runs.status(run)
        if status is not None:
            statuses.append(status)
    following = None
    if statuses and len(ids) > limit:
        following = f"/runs?limit={limit}&after={quote(statuses[-1].id)}"
    document = {"runs": [_describe(status, settings) for status in statuses], "next": following}
    return _serve(document, "runs.html", request)


def _describe(status: RunStatus, settings: CloudSettings) -> dict[str, Any]:
    """Return a run as a JSON document, with links."""
    document = status.model_dump(mode="json") | {"ended": status.ended}
    document["links"] = {"self": f"/runs/{status.id}", **_links(status, settings)}
    return document


def _links(status: RunStatus, settings: CloudSettings) -> dict[str, Any]:
    """Return links to a run's output, report, failures, job, logs and pictures."""
    links: dict[str, Any] = {
        "output": None,
        "report": None,
        "failures": None,
        "job": None,
        "logs": None,
        "pictures": [],
    }
    if is_below(status.output, settings.outputs):
        links["pictures"] = [
            f"/runs/{status.id}/pictures/{number}" for number in range(len(status.pictures))
        ]
    if status.output.startswith("gs://"):
        output = quote(status.output[5:])
        links["output"] = f"{_CONSOLE}/storage/browser/{output}"
        if status.ended and status.tasks:
            links["report"] = f"{_OBJECTS}/{output}/{PAGE_FILE}"
        if status.failed:
            links["failures"] = f"{_CONSOLE}/storage/browser/_details/{output}/{FAILURES_FILE}"
    if settings.launcher == "dataflow" and status.job not in ("", "none"):
        job, project = quote(status.job), f"project={quote(settings.project)}"
        links["job"] = f"{_CONSOLE}/dataflow/jobs/{quote(settings.region)}/{job}?{project}"
        query = f'resource.type="dataflow_step"\nresource.labels.job_id="{status.job}"'
        links["logs"] = f"{_CONSOLE}/logs/query;query={quote(query, safe='')}?{project}"
    return links


def _serve_picture(
    status: RunStatus, number: int, request: HttpRequest, settings: CloudSettings
) -> HttpResponse:
    """Serve a picture that a status names.

    Runs write their statuses themselves, so neither the output nor the name can be trusted: the
    output must be allowed, the name must stay inside it, and the content must be a PNG.
    """
    output = status.output
    name = status.pictures[number] if number < len(status.pictures) else ""
    is_allowed = is_below(output, settings.outputs) and is_below(f"{output}/{name}", (output,))
    content = open_store(output).read(name) if is_allowed else None
    if content is not None and content.startswith(_PNG_SIGNATURE):
        return _with_etag(content, "image/png", "private, max-age=3600", request)
    return _error(404, f"run {status.id} has no picture {number}", request)


def _serve(document: dict[str, Any], template: str, request: HttpRequest) -> HttpResponse:
    """Serve a document, rendered by a template if the client is a browser."""
    if request.wants_html:
        body = _templates().get_template(template).render(document).encode()
        return _with_etag(body, "text/html; charset=utf-8", "no-cache", request)
    body = (json.dumps(document, indent=2) + "\n").encode()
    return _with_etag(body, "application/json", "no-cache", request)


def _with_etag(
    body: bytes, content_type: str, cache_control: str, request: HttpRequest
) -> HttpResponse:
    """Serve a body, or 304 if the client already has it."""
    etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    headers = {
        "Content-Type": content_type,
        "ETag": etag,
        "Cache-Control": cache_control,
        "Vary": "Accept",
        **_SECURITY_HEADERS,
    }
    # If-None-Match compares weakly (RFC 9110 section 13.1.2), so the prefix W/ is ignored.
    known = [tag.strip().removeprefix("W/") for tag in request.etag.split(",")]
    if etag in known:
        return HttpResponse(304, b"", headers)
    return HttpResponse(200, body, headers)


def _error(status: int, message: str, request: HttpRequest) -> HttpResponse:
    if request.wants_html:
        template = _templates().get_template("error.html")
        body = template.render(status=status, message=message).encode()
        content_type = "text/html; charset=utf-8"
    else:
        body = (json.dumps({"error": message}) + "\n").encode()
        content_type = "application/json"
    return HttpResponse(status, body, {"Content-Type": content_type, **_SECURITY_HEADERS})


@cache
def _templates() -> jinja2.Environment:
    loader = jinja2.PackageLoader("scenebeam.cloud", "pages")
    return jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)
