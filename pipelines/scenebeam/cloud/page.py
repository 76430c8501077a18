"""Page: serve the status of runs over HTTP, as JSON for programs and as HTML for people."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, get_args
from urllib.parse import quote, urlencode

import jinja2

from scenebeam.cloud.guard import is_below
from scenebeam.cloud.http import SECURITY_HEADERS, HttpRequest, HttpResponse, respond
from scenebeam.cloud.output_files import serve_output_file
from scenebeam.cloud.runs import REJECTED, Runs
from scenebeam.cloud.series_page import describe_series, list_series
from scenebeam.cloud.settings import CloudSettings
from scenebeam.status import FAILURES_FILE, PAGE_FILE, RunStatus, State

_ID = r"[a-z0-9][a-z0-9-]{0,62}"
_RUN_PATH = re.compile(rf"/runs/({_ID})(?:/(pictures|output)/([A-Za-z0-9._+/-]{{1,500}}))?")
_SERIES_PATH = re.compile(rf"/series(?:/({_ID}))?")
_POSITION = re.compile(rf"{_ID}|rejected/[A-Za-z0-9_-]{{1,80}}")
_SEARCH = re.compile(r"[A-Za-z0-9_-]{1,80}")
_CONSOLE = "https://console.cloud.google.com"
_MAX_LIMIT = 200
_DEFAULT_LIMIT = 50
_MAX_READ = 1000
"""Most statuses that are read for one page, when they are filtered by state."""
_STATES = get_args(State)


def handle(request: HttpRequest, runs: Runs, settings: CloudSettings) -> HttpResponse:
    """Answer an HTTP request.

    - `GET /runs` lists runs and rejected messages, last changed first: at most `?limit=`, `?after=`
      the last one of the previous page, of a `?state=`, with `?q=` in their ids.
    - `GET /runs/<id>` returns one run.
    - `GET /runs/<id>/output/report/index.html` returns its report, which refers to pictures, tables
      and items below `/runs/<id>/output/`. No other file of the output is served.
    - `GET /series` lists the series, and `GET /series/<id>` returns one with its products.
    - `GET /runs/<id>/pictures/<number>` returns one of the pictures that the run's status names.

    Args:
        request: The HTTP request.
        runs: The runs of the deployment.
        settings: Settings of the deployment.

    Returns:
        The response: JSON, or HTML if the request accepts it.
    """
    path = request.path.rstrip("/") or "/runs"
    match, series = _RUN_PATH.fullmatch(path), _SERIES_PATH.fullmatch(path)
    if path != "/runs" and match is None and series is None:
        return _error(404, "page not found: try /runs", request)
    if request.method not in ("GET", "HEAD"):
        response = _error(405, "method not allowed: use GET or HEAD", request)
        headers = {**response.headers, "Allow": "GET, HEAD"}
        return HttpResponse(response.status, response.body, headers)
    if series is not None:
        return _serve_series(series[1], request, runs, settings)
    if match is None:
        return _list_runs(request, runs, settings)
    run, section, name = match.groups()
    status = runs.status(run)
    if status is None:
        return _error(404, f"run {run} not found", request)
    if section is None:
        return _serve(_describe(status, settings), "run.html", request)
    key = name
    if section == "pictures":
        number = int(name) if re.fullmatch("[0-9]{1,3}", name) else len(status.pictures)
        key = status.pictures[number] if number < len(status.pictures) else ""
    served = serve_output_file(status, key, request, settings)
    return served or _error(404, f"run {run} has no such file", request)


def _serve_series(
    name: str | None, request: HttpRequest, runs: Runs, settings: CloudSettings
) -> HttpResponse:
    if name is None:
        return _serve(list_series(runs, settings), "all_series.html", request)
    document = describe_series(name, runs, settings)
    if document is None:
        return _error(404, f"series {name} not found", request)
    return _serve(document, "series.html", request)


def _list_runs(request: HttpRequest, runs: Runs, settings: CloudSettings) -> HttpResponse:
    text = request.query.get("limit", str(_DEFAULT_LIMIT))
    if not re.fullmatch("[0-9]{1,3}", text) or not 1 <= int(text) <= _MAX_LIMIT:
        return _error(400, f"limit must be an integer from 1 to {_MAX_LIMIT}", request)
    after = request.query.get("after", "")
    if after and not _POSITION.fullmatch(after):
        return _error(400, "after must be the id of a run: use `next` of the last page", request)
    state = request.query.get("state", "")
    if state and state not in _STATES:
        return _error(400, f"state must be one of {', '.join(_STATES)}", request)
    search = request.query.get("q", "")
    if search and not _SEARCH.fullmatch(search):
        return _error(400, "q must be a part of an id: letters, digits, - and _", request)
    positions = {_position(key): key for key in runs.newest_keys()}
    if search:
        positions = {p: key for p, key in positions.items() if search.lower() in p.lower()}
    remaining = list(positions)
    if after in positions:
        remaining = remaining[remaining.index(after) + 1 :]
    shown, last = _read_page(runs, remaining, positions, state, int(text))
    following = None
    if last is not None and last != remaining[-1]:
        query = {"limit": text, "after": last, "state": state, "q": search}
        following = "/runs?" + urlencode({name: value for name, value in query.items() if value})
    document = {
        "runs": [_describe(status, settings) for status in shown],
        "next": following,
        "filter": {"state": state, "q": search},
    }
    return _serve(document, "runs.html", request, states=_STATES)


def _position(key: str) -> str:
    """Return how a page refers to a status: the id of a run, or `rejected/` and a message."""
    if key.startswith(REJECTED):
        return key.removesuffix(".json")
    return key.split("/")[1]


def _read_page(
    runs: Runs, positions: Sequence[str], keys: Mapping[str, str], state: str, limit: int
) -> tuple[list[RunStatus], str | None]:
    """Read statuses in order until enough have a state.

    Returns:
        The statuses, and the last position that was examined; None if there was none.
    """
    shown: list[RunStatus] = []
    last = None
    for start in range(0, min(len(positions), _MAX_READ), limit):
        batch = positions[start : start + limit]
        statuses = runs.read_statuses([keys[position] for position in batch])
        for position, status in zip(batch, statuses, strict=True):
            last = position
            if status is not None and state in ("", status.state):
                shown.append(status)
                if len(shown) == limit:
                    return shown, last
    return shown, last


def _describe(status: RunStatus, settings: CloudSettings) -> dict[str, Any]:
    """Return a run as a JSON document, with links."""
    document = status.model_dump(mode="json") | {"ended": status.ended}
    document["seconds"] = None
    if status.started is not None and (status.finished or status.updated):
        end = status.finished or status.updated
        assert end is not None
        document["seconds"] = max(0, int((end - status.started).total_seconds()))
    is_run = status.state != "rejected"
    document["links"] = {
        "self": f"/runs/{status.id}" if is_run else None,
        **_links(status, settings),
    }
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
    if status.output and is_below(status.output, settings.outputs):
        if status.ended and status.tasks:
            links["report"] = f"/runs/{status.id}/output/{PAGE_FILE}"
        links["pictures"] = [
            f"/runs/{status.id}/pictures/{number}" for number in range(len(status.pictures))
        ]
    if status.output.startswith("gs://"):
        output = quote(status.output[5:])
        links["output"] = f"{_CONSOLE}/storage/browser/{output}"
        if status.failed:
            links["failures"] = f"{_CONSOLE}/storage/browser/_details/{output}/{FAILURES_FILE}"
    if settings.launcher == "dataflow" and status.job not in ("", "none"):
        job, project = quote(status.job), f"project={quote(settings.project)}"
        links["job"] = f"{_CONSOLE}/dataflow/jobs/{quote(settings.region)}/{job}?{project}"
        query = f'resource.type="dataflow_step"\nresource.labels.job_id="{status.job}"'
        links["logs"] = f"{_CONSOLE}/logs/query;query={quote(query, safe='')}?{project}"
    return links


def _serve(
    document: dict[str, Any], template: str, request: HttpRequest, **more: Any
) -> HttpResponse:
    """Serve a document, rendered by a template if the client is a browser."""
    if request.wants_html:
        body = _templates().get_template(template).render(document, **more).encode()
        return respond(body, "text/html; charset=utf-8", "no-cache", request)
    body = (json.dumps(document, indent=2) + "\n").encode()
    return respond(body, "application/json", "no-cache", request)


def _error(status: int, message: str, request: HttpRequest) -> HttpResponse:
    if request.wants_html:
        template = _templates().get_template("error.html")
        body = template.render(status=status, message=message).encode()
        content_type = "text/html; charset=utf-8"
    else:
        body = (json.dumps({"error": message}) + "\n").encode()
        content_type = "application/json"
    return HttpResponse(status, body, {"Content-Type": content_type, **SECURITY_HEADERS})


@cache
def _templates() -> jinja2.Environment:
    loader = jinja2.PackageLoader("scenebeam.cloud", "pages")
    templates = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)
    templates.filters["time"] = _format_time
    templates.filters["duration"] = _format_duration
    return templates


def _format_time(text: str | None) -> str:
    """Shorten a time such as `2026-01-31T10:20:30Z`."""
    return "" if text is None else text[:16].replace("T", " ")


def _format_duration(seconds: int | None) -> str:
    if seconds is None:
        return ""
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
