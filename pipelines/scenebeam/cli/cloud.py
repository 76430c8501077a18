"""The command that starts a run in the cloud."""

from __future__ import annotations

import sys
import uuid
from typing import Any

import click

from scenebeam.cli.common import (
    json_option,
    main,
    output_option,
    overrides_of,
    set_option,
    show_status,
)


@main.command()
@click.argument("request_file", type=click.Path(dir_okay=False))
@output_option
@set_option
@json_option
def launch(request_file: str, as_json: bool, **given: Any) -> None:
    """Start a request on Dataflow, as a message to the topic of a deployment would.

    The deployment is configured by the environment variables of its functions: SCENEBEAM_STATE,
    SCENEBEAM_OUTPUTS, SCENEBEAM_PROJECT, SCENEBEAM_REGION, SCENEBEAM_TEMPLATE and
    SCENEBEAM_TEMP_LOCATION.
    """
    from scenebeam.cloud.launch import LaunchHandler
    from scenebeam.cloud.launchers import new_launcher
    from scenebeam.cloud.messages import Message
    from scenebeam.cloud.runs import Runs
    from scenebeam.cloud.settings import CloudSettings
    from scenebeam.cloud.topics import publish
    from scenebeam.errors import RequestError
    from scenebeam.requestfile import load_request
    from scenebeam.storage import open_store

    request, _ = load_request(request_file, overrides=overrides_of(**given))
    settings = CloudSettings.from_environment()
    handler = LaunchHandler(
        settings, Runs(open_store(settings.state)), new_launcher(settings), publish
    )
    # Each call is a new message: a run that has failed is launched again.
    status = handler.handle(
        Message(f"terminal-{uuid.uuid4().hex}", request.model_dump_json().encode())
    )
    if status.state == "rejected":
        raise RequestError(status.message)
    show_status(status, as_json)
    sys.exit(status.exit_code)
