"""Launchers: a run as a Dataflow job by Flex Template, or as a process of this machine."""

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

PASSING = (
    exceptions.TooManyRequests,
    exceptions.ServiceUnavailable,
    exceptions.DeadlineExceeded,
    exceptions.InternalServerError,
    exceptions.BadGateway,
    exceptions.GatewayTimeout,
    exceptions.RetryError,
)
SECONDS = 30.0
RETRY: Any = Retry(
    lambda error: isinstance(error, PASSING), initial=0.5, maximum=8, timeout=SECONDS
)


def new_launcher(settings: CloudSettings) -> Launcher:
    """What the deployment launches by."""
    return LocalLauncher() if settings.launcher == "local" else DataflowLauncher(settings)


class LocalLauncher:
    """`scenebeam run` in a process of its own: for a cloud on one machine."""

    def launch(self, run: str, job_name: str, request_uri: str, request: RunRequest) -> str:
        """Start the process; its number is the job's id."""
        with tempfile.NamedTemporaryFile(
            "w", prefix=f"{run}-", suffix=".json", delete=False
        ) as file:
            file.write(request.model_dump_json())
        command = [str(Path(sys.executable).parent / "scenebeam"), "run", file.name]
        # The functions' own settings are nothing that a run should see.
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
    """A Flex Template of Dataflow."""

    def __init__(self, settings: CloudSettings) -> None:
        missing = [
            name
            for name in ("project", "region", "template", "temp_location")
            if not getattr(settings, name)
        ]
        if missing:
            raise LaunchError(
                f"the deployment is not set up: {', '.join(f'SCENEBEAM_{n.upper()}' for n in missing)}"
            )
        self._settings = settings

    def launch(self, run: str, job_name: str, request_uri: str, request: RunRequest) -> str:
        """Launch the template; a job of the name that goes already is taken for ours."""
        from google.cloud import dataflow_v1beta3 as dataflow

        asked, settings = request.runner, self._settings
        environment = dataflow.FlexTemplateRuntimeEnvironment(
            max_workers=min(asked.workers or settings.max_workers, settings.max_workers),
            machine_type=settings.machine_type,
            temp_location=settings.temp_location,
            staging_location=settings.temp_location,
            service_account_email=settings.worker_service_account,
            subnetwork=settings.subnetwork,
            ip_configuration=dataflow.WorkerIPAddressConfiguration.WORKER_IP_PRIVATE,
            sdk_container_image=settings.image,
            additional_user_labels={RUN_LABEL: run},
        )
        parameter = dataflow.LaunchFlexTemplateParameter(
            job_name=job_name,
            container_spec_gcs_path=settings.template,
            parameters={
                "request": request_uri,
                "run": run,
                **({"progress_topic": settings.progress_topic} if settings.progress_topic else {}),
            },
            environment=environment,
        )
        call = dataflow.LaunchFlexTemplateRequest(
            project_id=settings.project, location=settings.region, launch_parameter=parameter
        )
        try:
            answer = self._templates.launch_flex_template(call, retry=RETRY, timeout=SECONDS)
            return str(answer.job.id)
        except (exceptions.Conflict, exceptions.AlreadyExists):
            return self._active(job_name)
        except PASSING as error:
            raise RetryableError(f"Dataflow does not take the job now: {error}") from error
        except exceptions.GoogleAPICallError as error:
            raise LaunchError(f"Dataflow refuses the job: {error.message}") from error

    def _active(self, job_name: str) -> str:
        """The id of the active job of a name."""
        from google.cloud import dataflow_v1beta3 as dataflow

        call = dataflow.ListJobsRequest(
            project_id=self._settings.project,
            location=self._settings.region,
            filter=dataflow.ListJobsRequest.Filter.ACTIVE,
            name=job_name,
        )
        try:
            jobs = list(self._jobs.list_jobs(call, retry=RETRY, timeout=SECONDS))
        except exceptions.GoogleAPICallError as error:
            raise RetryableError(
                f"Dataflow has a job {job_name}, and does not tell its id: {error.message}"
            ) from error
        found = next((str(job.id) for job in jobs if job.name == job_name), None)
        if found is None:
            raise RetryableError(f"Dataflow had a job {job_name}, and has none any more")
        return found

    @cached_property
    def _templates(self) -> Any:
        from google.cloud import dataflow_v1beta3 as dataflow

        return dataflow.FlexTemplatesServiceClient(**connection(self._settings))

    @cached_property
    def _jobs(self) -> Any:
        from google.cloud import dataflow_v1beta3 as dataflow

        return dataflow.JobsV1Beta3Client(**connection(self._settings))


def connection(settings: CloudSettings) -> dict[str, Any]:
    """How Dataflow's clients reach it."""
    if settings.dataflow_endpoint is None:
        return {"transport": "rest"}
    from google.api_core.client_options import ClientOptions
    from google.auth.credentials import AnonymousCredentials

    options = ClientOptions(api_endpoint=settings.dataflow_endpoint)
    return {"transport": "rest", "credentials": AnonymousCredentials(), "client_options": options}
