"""Any Beam runner by its name, such as `PortableRunner`; and what `flink` and `spark` share."""

from __future__ import annotations

import json
import re
import socket
from typing import Any

from scenebeam.errors import RequestError, RunnerError
from scenebeam.execution.beam_options import as_arguments
from scenebeam.execution.beam_pipeline import run_pipeline
from scenebeam.planning.plan import Plan
from scenebeam.request import RunRequest
from scenebeam.status import RunStatus
from scenebeam.storage import Store
from scenebeam.suggestions import suggest

IN_PROCESS = False
"""Whether tasks run in this process, so that none are left when it ends."""


_SUGGESTED = ("auto", "serial", "direct", "dask", "dataflow", "flink", "spark", "PrismRunner")
"""Runners that a message suggests; Beam knows others."""
_ADDRESS = re.compile(r"(\[[0-9a-fA-F:.]+\]|[^\s:/@\[\]]+):(\d{1,5})")
_ENVIRONMENTS = {
    "EXTERNAL": "the address of a worker pool, such as localhost:50000",
    "DOCKER": "the worker image, such as registry.example.org/scenebeam/worker:1.0.0",
    "PROCESS": 'JSON with the command of a worker, such as {"command": "/opt/apache/beam/boot"}',
    "LOOPBACK": "",
}
"""Beam's types of workers, and what `environment_config` is for each."""
_CONNECT_SECONDS = 10.0


def check_request(request: RunRequest) -> None:
    """Check that Beam knows the runner, before anything is searched.

    Raises:
        RequestError: It does not.
    """
    from apache_beam.options.pipeline_options import StandardOptions  # slow to import

    kind = request.runner.kind
    known = {name.lower() for name in StandardOptions.KNOWN_RUNNER_NAMES}
    # Other classes are named with their module.
    if "." not in kind and kind.lower() not in known and f"{kind.lower()}runner" not in known:
        raise RequestError(f"runner {kind!r} is not known to Beam; {suggest(kind, _SUGGESTED)}")


def run_tasks(kind: str, plan: Plan, store: Store, status: RunStatus) -> RunStatus:
    """See `scenebeam.execution.runners.run_tasks`."""
    arguments = as_arguments({"runner": kind, **plan.request.runner.options})
    return run_pipeline(kind, arguments, plan, store, status)


def check_job_server(request: RunRequest) -> None:
    """Check the options of a runner that takes pipelines through a job server.

    Raises:
        RequestError: An option is missing, wrong or unknown; the message says what to change.
    """
    kind, options = request.runner.kind, request.runner.options
    _check_names(kind, options)
    endpoint = options.get("job_endpoint")
    if endpoint is None:
        raise RequestError(
            f"runner.options: {kind!r} needs job_endpoint, the address of a Beam job server, such "
            "as localhost:8099; scenebeam does not start one"
        )
    _check_address("job_endpoint", endpoint)
    environment = str(options.get("environment_type", ""))
    if environment not in _ENVIRONMENTS:
        said = f"{environment!r} is not a type" if environment else f"{kind!r} needs the type"
        hint = suggest(environment, _ENVIRONMENTS)
        raise RequestError(f"runner.options.environment_type: {said} of workers; {hint}")
    _check_environment(environment, options.get("environment_config"))


def _check_names(kind: str, options: dict[str, Any]) -> None:
    from apache_beam.options.pipeline_options import PipelineOptions  # slow to import

    known = PipelineOptions([]).get_all_options()
    for name in options:
        if name not in known:
            raise RequestError(
                f"runner.options: {name!r} is not an option of Beam (with the runner "
                f"{kind.capitalize()}Runner, it is passed on as it is); {suggest(name, known)}"
            )


def _check_address(name: str, value: Any) -> None:
    found = _ADDRESS.fullmatch(str(value))
    if found is None or not 0 < int(found[2]) < 2**16:
        raise RequestError(
            f"runner.options.{name}: {value!r} is not an address; give host:port, without a scheme"
        )


def _check_environment(environment: str, config: Any) -> None:
    wanted = _ENVIRONMENTS[environment]
    if not wanted and config is not None:
        raise RequestError(
            f"runner.options.environment_config: {environment} takes none; remove it"
        )
    if wanted and not config:
        raise RequestError(
            f"runner.options: environment_type {environment} needs environment_config: {wanted}"
        )
    if environment == "EXTERNAL":
        _check_address("environment_config", config)
    if environment == "PROCESS" and not _has_command(str(config)):
        raise RequestError(f"runner.options.environment_config: {config!r} is not {wanted}")


def _has_command(text: str) -> bool:
    try:
        process = json.loads(text)
    except ValueError:
        return False
    return isinstance(process, dict) and bool(process.get("command"))


def run_on_job_server(
    arguments: list[str], plan: Plan, store: Store, status: RunStatus
) -> RunStatus:
    """Submit the pipeline of a plan to the job server that its request names, and wait.

    Args:
        arguments: Beam pipeline options.
        plan: The plan that is frozen in the store.
        store: The output.
        status: The status of the run so far.

    Returns:
        The final status.

    Raises:
        RunnerError: No job server answers, or the runner has ended before all tasks were made.
    """
    runner = plan.request.runner
    _connect(runner.kind, str(runner.options["job_endpoint"]))
    return run_pipeline(runner.kind, arguments, plan, store, status)


def _connect(kind: str, endpoint: str) -> None:
    # Beam would wait for minutes, and then raise an error without a message.
    host, _, port = endpoint.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), _CONNECT_SECONDS).close()
    except OSError as error:
        raise RunnerError(
            f"runner {kind!r}: no job server answers at {endpoint} ({error}); start it, or correct "
            "runner.options.job_endpoint, then run it again to resume"
        ) from error
