"""The three functions of a deployment: each hands what came in over to `scenebeam.cloud`, and says how it went.

`functions-framework --target launch|report|status`. What a CloudEvent function returns is of no account: it raises to
have the message again, and returns to have it no more.
"""

from __future__ import annotations

import logging
from functools import cache

import flask
import functions_framework
from cloudevents.http import CloudEvent

from scenebeam.cloud.launch import Launch
from scenebeam.cloud.messages import Message, read_message
from scenebeam.cloud.page import Ask, answer
from scenebeam.cloud.report import Report, run_of
from scenebeam.cloud.runs import Runs
from scenebeam.cloud.settings import CloudSettings
from scenebeam.errors import RequestError
from scenebeam.status import RunStatus
from scenebeam.storage import open_store

# A line for each change of a run: infra/alerts.tf counts those that begin with "failed".
logging.basicConfig(level=logging.INFO, format="%(message)s")
log = logging.getLogger("scenebeam.functions")


@cache
def _settings() -> CloudSettings:
    return CloudSettings.from_environment()


@cache
def _runs() -> Runs:
    return Runs(open_store(_settings().state))


@cache
def _launch() -> Launch:
    from scenebeam.cloud.launchers import new_launcher
    from scenebeam.cloud.topics import publish

    return Launch(_settings(), _runs(), new_launcher(_settings()), publish)


@cache
def _report() -> Report:
    from scenebeam.cloud.jobs import known_jobs
    from scenebeam.cloud.topics import publish

    return Report(_settings(), _runs(), known_jobs(_settings()), publish)


@functions_framework.cloud_event
def launch(event: CloudEvent) -> None:
    """Start the run that a message or a new request file asks for, once."""
    try:
        message = read_message(event["type"], event["id"], event.data)
    except RequestError as error:
        status = _launch().reject(Message(event["id"]), str(error))
    else:
        status = _launch().answer(message)
    _log(status)


@functions_framework.cloud_event
def report(event: CloudEvent) -> None:
    """Bring the run that an event tells of up to date; all of them, where it tells of none."""
    run = run_of(event.data)
    changed = [_report().refresh(run)] if run else _report().sweep()
    for status in filter(None, changed):
        _log(status)


def _log(status: RunStatus) -> None:
    log.info("%s %s: %s", status.state, status.id, " ".join(status.message.split()))


@functions_framework.http
def status(request: flask.Request) -> flask.Response:
    """Show runs."""
    ask = Ask(
        request.method,
        request.path,
        request.args,
        request.headers.get("Accept", ""),
        request.headers.get("If-None-Match", ""),
    )
    page = answer(ask, _runs(), _settings())
    return flask.Response(page.body, page.status, page.headers)
