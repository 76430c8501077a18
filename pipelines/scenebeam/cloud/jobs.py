"""Query launched jobs: their state and their counters, on Dataflow or on this machine."""

from __future__ import annotations

import os
from contextlib import suppress
from functools import cached_property
from typing import Any

from google.api_core import exceptions

from scenebeam.cloud.launchers import RETRY, TIMEOUT, TRANSIENT_ERRORS, client_arguments
from scenebeam.cloud.report import RUNNING, UNKNOWN, JobMonitor
from scenebeam.cloud.settings import CloudSettings

_COUNTER_NAMESPACE = "scenebeam"
"""Namespace of the pipeline's Beam counters."""


def new_job_monitor(settings: CloudSettings) -> JobMonitor:
    """Create the monitor for the jobs of the deployment's launcher."""
    return LocalJobs() if settings.launcher == "local" else DataflowJobs(settings)


class LocalJobs:
    """Jobs that are processes of this machine, with ids such as `process-1234`."""

    def state(self, job: str) -> str:
        """Return `JOB_STATE_RUNNING` as long as the process exists, then `JOB_STATE_DONE`.

        Whether the run succeeded is in the status that it wrote into its output.
        """
        pid = job.removeprefix("process-")
        if pid == job or not pid.isdigit():
            return UNKNOWN
        # A child that has exited remains in /proc as a zombie until its parent waits for it.
        with suppress(OSError):
            os.waitpid(int(pid), os.WNOHANG)
        return RUNNING if os.path.exists(f"/proc/{pid}") else "JOB_STATE_DONE"

    def counters(self, job: str) -> dict[str, int]:
        """Return nothing: the counters of a local process are not published."""
        return {}


class DataflowJobs:
    """Jobs on Dataflow."""

    def __init__(self, settings: CloudSettings) -> None:
        self._settings = settings

    def state(self, job: str) -> str:
        """Return the name of the job's state, `JOB_STATE_UNKNOWN` if there is no such job.

        Raises:
            google.api_core.exceptions.GoogleAPICallError: Dataflow cannot be reached, or refuses
                the call for another reason than an unknown job id.
        """
        from google.cloud import dataflow_v1beta3 as dataflow

        request = dataflow.GetJobRequest(
            project_id=self._settings.project,
            location=self._settings.region,
            job_id=job,
            view=dataflow.JobView.JOB_VIEW_SUMMARY,
        )
        try:
            response = self._jobs.get_job(request, retry=RETRY, timeout=TIMEOUT)
        except TRANSIENT_ERRORS:
            raise
        except (exceptions.NotFound, exceptions.BadRequest):
            return UNKNOWN
        # Over REST, enum values that the client does not know arrive as plain integers.
        return str(dataflow.JobState(response.current_state).name)

    def counters(self, job: str) -> dict[str, int]:
        """Return the job's committed counters by name, empty if Dataflow does not return them."""
        from google.cloud import dataflow_v1beta3 as dataflow

        request = dataflow.GetJobMetricsRequest(
            project_id=self._settings.project, location=self._settings.region, job_id=job
        )
        try:
            response = self._metrics.get_job_metrics(request, retry=RETRY, timeout=TIMEOUT)
        except exceptions.GoogleAPICallError:
            return {}
        counters: dict[str, int] = {}
        for metric in response.metrics:
            context = metric.name.context
            # Each counter comes twice: committed, and with the tentative values of bundles that
            # are still being processed.
            if (
                context.get("namespace") == _COUNTER_NAMESPACE
                and "tentative" not in context
                and metric.scalar is not None
            ):
                counters[metric.name.name] = int(metric.scalar)
        return counters

    @cached_property
    def _metrics(self) -> Any:
        from google.cloud import dataflow_v1beta3 as dataflow

        return dataflow.MetricsV1Beta3Client(**client_arguments(self._settings))

    @cached_property
    def _jobs(self) -> Any:
        from google.cloud import dataflow_v1beta3 as dataflow

        return dataflow.JobsV1Beta3Client(**client_arguments(self._settings))
