"""Apache Spark, through the job server of Beam."""

from __future__ import annotations

from scenebeam.execution.beam_options import as_arguments
from scenebeam.execution.runners.portable import check_job_server, run_on_job_server
from scenebeam.planning.plan import Plan
from scenebeam.status import RunStatus
from scenebeam.storage import Store

IN_PROCESS = False
"""Whether tasks run in this process, so that none are left when it ends."""


check_request = check_job_server


def arguments_for(plan: Plan) -> list[str]:
    """Beam pipeline options for a plan."""
    return as_arguments({**plan.request.runner.options, "runner": "SparkRunner"})


def run_tasks(kind: str, plan: Plan, store: Store, status: RunStatus) -> RunStatus:
    """See `scenebeam.execution.runners.run_tasks`."""
    return run_on_job_server(arguments_for(plan), plan, store, status)
