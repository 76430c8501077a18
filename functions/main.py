"""The three functions of a deployment: each hands what came in over to `scenebeam.cloud`, and says how it went.

`functions-framework --target launch|report|status`. What a CloudEvent function returns is of no account: it raises to
have the message again, and returns to have it no more.
"""

from __future__ import annotations

import logging
from functools import cache

import functions_framework
from cloudevents.http import CloudEvent

from scenebeam.cloud.launch import Launch
from scenebeam.cloud.launchers import new_launcher
from scenebeam.cloud.messages import Message, read_message
from scenebeam.cloud.runs import Runs
from scenebeam.cloud.settings import CloudSettings
from scenebeam.errors import RequestError
from scenebeam.storage import open_store

log = logging.getLogger("scenebeam.functions")


@cache
def _launch() -> Launch:
    from scenebeam.cloud.topics import publish

    settings = CloudSettings.from_environment()
    return Launch(settings, Runs(open_store(settings.state)), new_launcher(settings), publish)


@functions_framework.cloud_event
def launch(event: CloudEvent) -> None:
    """Start the run that a message or a new request file asks for, once."""
    try:
        message = read_message(event["type"], event["id"], event.data)
    except RequestError as error:
        status = _launch().reject(Message(event["id"]), str(error))
    else:
        status = _launch().answer(message)
    log.info("%s %s: %s", status.state, status.id, status.message)
