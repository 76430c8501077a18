"""Launchers: start runs as Dataflow jobs from a Flex Template, or as local processes."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from functools import cached_property
from pathlib import Path
from typing import Any

from google.api_core import exceptions
from google.api_core.retry import Retry

from scenebeam.cloud.launch import Launcher, LaunchError, RetryableError
from scenebeam.cloud.runs import RUN_LABEL
from scenebeam.cloud.settings import CloudSettings
from scenebeam.request import RunRequest

TRANSIENT_ERRORS = (
    exceptions.TooManyRequests,
    exceptions.ServiceUnavailable,
    exceptions.DeadlineExceeded,
    exceptions.InternalServerError,
    exceptions.BadGateway,
    exceptions.GatewayTimeout,
    exceptions.RetryError,
)
"""Errors of Google's clients that a later call may not have."""
TIMEOUT = 30.0
"""Seconds for one call to Dataflow, and for all its retries together."""
RETRY: Any = Retry(
    lambda error: isinstance(error, TRANSIENT_ERRORS), initial=0.5, maximum=8, timeout=TIMEOUT
)
_REQUIRED_SETTINGS = ("project", "region", "template", "temp_location")


def new_launcher(settings: CloudSettings) -> Launcher:
    """Create the launcher that the deployment is configured for.

    Raises:
        LaunchError: A setting that Dataflow needs is missing; the message names its variable.
    """
    return LocalLauncher() if settings.launcher == "local" else DataflowLauncher(settings)


class LocalLauncher:
    """Launches `scenebeam run` as a process of this machine, for a local deployment."""

    def launch(self, run: str, job_name: str, request_uri: str, request: RunRequest) -> str:
        """Start the process. Returns a job id that contains its process id."""
        with tempfile.NamedTemporaryFile(
            "w", prefix=f"{run}-", suffix=".json", delete=False
        ) as file:
            file.write(request.model_dump_json())
        command = [str(Path(sys.executable).parent / "scenebeam"), "run", file.name]
        # SCENEBEAM_* variables override fields of the request, and the functions' own settings
        # begin with the same prefix.
        environ = {
            name: value for name, value in os.environ.items() if not name.startswith("SCENEBEAM_")
        }
        process = subprocess.Popen(
            command,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=environ,
            start_new_session=True,
        )
        return f"process-{process.pid}"


class DataflowLauncher:
    """Launches a Dataflow job from the deployment's Flex Template."""

    def __init__(self, settings: CloudSettings) -> None:
        missing = []
        for name in _REQUIRED_SETTINGS:
            if not getattr(settings, name):
                missing.append(f"SCENEBEAM_{name.upper()}")
        if missing:
            raise LaunchError(f"the deployment is not configured: set {', '.join(missing)}")
        self._settings = settings

    def launch(self, run: str, job_name: str, request_uri: str, request: RunRequest) -> str:
        """Launch the template. If a job of the name is active, its id is returned instead.

        Raises:
            RetryableError: Dataflow has a transient error.
            LaunchError: Dataflow refuses the job.
        """
        from google.cloud import dataflow_v1beta3 as dataflow

        settings = self._settings
        workers = request.runner.workers or settings.max_workers
        environment = dataflow.FlexTemplateRuntimeEnvironment(
            max_workers=min(workers, settings.max_workers),
            machine_type=settings.machine_type,
            temp_location=settings.temp_location,
            staging_location=settings.temp_location,
            service_account_email=settings.worker_service_account,
            subnetwork=settings.subnetwork,
            ip_configuration=dataflow.WorkerIPAddressConfiguration.WORKER_IP_PRIVATE,
            sdk_container_image=settings.image,
            additional_user_labels={RUN_LABEL: run},
        )
        parameters = {"request": request_uri, "run": run}
        if settings.progress_topic:
            parameters["progress_topic"] = settings.progress_topic
        call = dataflow.LaunchFlexTemplateRequest(
            project_id=settings.project,
            location=settings.region,
            launch_parameter=dataflow.LaunchFlexTemplateParameter(
                job_name=job_name,
                container_spec_gcs_path=settings.template,
                parameters=parameters,
                environment=environment,
            ),
        )
        try:
            response = self._templates.launch_flex_template(call, retry=RETRY, timeout=TIMEOUT)
            return str(response.job.id)
        except (exceptions.Conflict, exceptions.AlreadyExists):
            # Dataflow allows one active job per name, and the name is derived from the run: an
            # earlier call started this job, and its response was lost.
            return self._active_job_id(job_name)
        except TRANSIENT_ERRORS as error:
            raise RetryableError(f"Dataflow cannot accept the job now: {error}") from error
        except exceptions.GoogleAPICallError as error:
            raise LaunchError(f"Dataflow refused the job: {error.message}") from error

    def _active_job_id(self, job_name: str) -> str:
        from google.cloud import dataflow_v1beta3 as dataflow

        call = dataflow.ListJobsRequest(
            project_id=self._settings.project,
            location=self._settings.region,
            filter=dataflow.ListJobsRequest.Filter.ACTIVE,
            name=job_name,
        )
        try:
            jobs = list(self._jobs.list_jobs(call, retry=RETRY, timeout=TIMEOUT))
        except exceptions.GoogleAPICallError as error:
            raise RetryableError(
                f"cannot look up the id of the active Dataflow job {job_name}: {error.message}"
            ) from error
        for job in jobs:
            if job.name == job_name:
                return str(job.id)
        raise RetryableError(f"Dataflow reported an active job {job_name}, but it has ended since")

    @cached_property
    def _templates(self) -> Any:
        from google.cloud import dataflow_v1beta3 as dataflow

        return dataflow.FlexTemplatesServiceClient(**client_arguments(self._settings))

    @cached_property
    def _jobs(self) -> Any:
        from google.cloud import dataflow_v1beta3 as dataflow

        return dataflow.JobsV1Beta3Client(**client_arguments(self._settings))


def client_arguments(settings: CloudSettings) -> dict[str, Any]:
    """Build the keyword arguments of Dataflow clients: REST, at the configured endpoint."""
    if settings.dataflow_endpoint is None:
        return {"transport": "rest"}
    from google.api_core.client_options import ClientOptions
    from google.auth.credentials import AnonymousCredentials

    options = ClientOptions(api_endpoint=settings.dataflow_endpoint)
    return {"transport": "rest", "credentials": AnonymousCredentials(), "client_options": options}
