"""The Cloud Run functions of a deployment: `launch`, `report` and `status`.

Start one with `functions-framework --target launch|report|status`. Each function calls
`scenebeam.cloud` and logs status changes. Return values of CloudEvent functions are ignored: a
function returns to acknowledge the message, and raises to have it delivered again.
"""

from __future__ import annotations

import logging
from functools import cache

import flask
import functions_framework
from cloudevents.http import CloudEvent

from scenebeam.cloud.http import HttpRequest
from scenebeam.cloud.launch import LaunchHandler
from scenebeam.cloud.messages import Message, read_message
from scenebeam.cloud.page import handle
from scenebeam.cloud.report import StatusUpdater, run_id_from_event
from scenebeam.cloud.runs import Runs
from scenebeam.cloud.series import SeriesHandler
from scenebeam.cloud.settings import CloudSettings
from scenebeam.cloud.standing import StandingRequests
from scenebeam.errors import RequestError
from scenebeam.status import RunStatus
from scenebeam.storage import open_store

# One line per status change. The alert in infra/alerts.tf counts lines that begin with "failed".
logging.basicConfig(level=logging.INFO, format="%(message)s")
log = logging.getLogger("scenebeam.functions")


@cache
def _settings() -> CloudSettings:
    return CloudSettings.from_environment()


@cache
def _runs() -> Runs:
    return Runs(open_store(_settings().state))


@cache
def _launch() -> SeriesHandler:
    from scenebeam.cloud.launchers import new_launcher
    from scenebeam.cloud.topics import publish

    launcher = LaunchHandler(_settings(), _runs(), new_launcher(_settings()), publish)
    return SeriesHandler(launcher, StandingRequests(_runs().store))


@cache
def _report() -> StatusUpdater:
    from scenebeam.cloud.jobs import new_job_monitor
    from scenebeam.cloud.topics import publish

    return StatusUpdater(_settings(), _runs(), new_job_monitor(_settings()), publish)


@functions_framework.cloud_event
def launch(event: CloudEvent) -> None:
    """Start the runs that a message, a new request file or new items ask for. Idempotent."""
    try:
        message = read_message(event["type"], event["id"], event.data)
    except RequestError as error:
        statuses = [_launch().launcher.reject(Message(event["id"]), str(error))]
    else:
        statuses = _launch().handle(message)
    for status in statuses:
        _log(status)


@functions_framework.cloud_event
def report(event: CloudEvent) -> None:
    """Update the status of the run that an event names, or of all open runs if it names none."""
    run = run_id_from_event(event.data)
    changed = [_report().refresh(run)] if run else _report().sweep()
    for status in filter(None, changed):
        _log(status)


def _log(status: RunStatus) -> None:
    log.info("%s %s: %s", status.state, status.id, " ".join(status.message.split()))


@functions_framework.http
def status(request: flask.Request) -> flask.Response:
    """Serve the status of runs, as JSON or as pages."""
    response = handle(
        HttpRequest(
            request.method,
            request.path,
            request.args,
            request.headers.get("Accept", ""),
            request.headers.get("If-None-Match", ""),
        ),
        _runs(),
        _settings(),
    )
    return flask.Response(response.body, response.status, response.headers)
