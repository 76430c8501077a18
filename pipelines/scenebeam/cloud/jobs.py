"""Jobs: the state of a job that was launched, asked of Dataflow or of this machine."""

from __future__ import annotations

import os
from contextlib import suppress
from functools import cached_property
from typing import Any

from google.api_core import exceptions

from scenebeam.cloud.launchers import PASSING, RETRY, SECONDS, connection
from scenebeam.cloud.report import RUNNING, UNKNOWN, Jobs
from scenebeam.cloud.settings import CloudSettings

NAMESPACE = "scenebeam"
"""Of the pipeline's counters."""


def known_jobs(settings: CloudSettings) -> Jobs:
    """Who knows the jobs that the deployment launches."""
    return LocalJobs() if settings.launcher == "local" else DataflowJobs(settings)


class LocalJobs:
    """Processes of this machine."""

    def state(self, job: str) -> str:
        """Whether the process is there; how it ended its output says."""
        number = job.removeprefix("process-")
        if number == job or not number.isdigit():
            return UNKNOWN
        with suppress(OSError):
            os.waitpid(
                int(number), os.WNOHANG
            )  # a child that has ended is there until somebody asks
        return RUNNING if os.path.exists(f"/proc/{number}") else "JOB_STATE_DONE"

    def counts(self, job: str) -> dict[str, int]:
        """A process keeps its own."""
        return {}


class DataflowJobs:
    """Jobs of Dataflow."""

    def __init__(self, settings: CloudSettings) -> None:
        self._settings = settings

    def state(self, job: str) -> str:
        """The job's state by name; what may pass is raised."""
        from google.cloud import dataflow_v1beta3 as dataflow

        call = dataflow.GetJobRequest(
            project_id=self._settings.project,
            location=self._settings.region,
            job_id=job,
            view=dataflow.JobView.JOB_VIEW_SUMMARY,
        )
        try:
            found = self._client.get_job(call, retry=RETRY, timeout=SECONDS)
        except PASSING:
            raise
        except (exceptions.NotFound, exceptions.BadRequest):
            return UNKNOWN
        # Over REST enums arrive as integers where the client knows no name for them.
        return str(dataflow.JobState(found.current_state).name)

    def counts(self, job: str) -> dict[str, int]:
        """The counters that Dataflow has of the job; none where it does not tell."""
        from google.cloud import dataflow_v1beta3 as dataflow

        call = dataflow.GetJobMetricsRequest(
            project_id=self._settings.project, location=self._settings.region, job_id=job
        )
        try:
            found = self._metrics.get_job_metrics(call, retry=RETRY, timeout=SECONDS)
        except exceptions.GoogleAPICallError:
            return {}
        counts: dict[str, int] = {}
        for one in found.metrics:
            context = one.name.context
            if (
                context.get("namespace") == NAMESPACE
                and "tentative" not in context
                and one.scalar is not None
            ):
                counts[one.name.name] = int(one.scalar)
        return counts

    @cached_property
    def _metrics(self) -> Any:
        from google.cloud import dataflow_v1beta3 as dataflow

        return dataflow.MetricsV1Beta3Client(**connection(self._settings))

    @cached_property
    def _client(self) -> Any:
        from google.cloud import dataflow_v1beta3 as dataflow

        return dataflow.JobsV1Beta3Client(**connection(self._settings))
