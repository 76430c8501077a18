"""Any Beam runner by its name, such as `PortableRunner`."""

from __future__ import annotations

from scenebeam.execution.beam_options import as_arguments
from scenebeam.execution.beam_pipeline import run_pipeline
from scenebeam.planning.plan import Plan
from scenebeam.status import RunStatus
from scenebeam.storage import Store

IN_PROCESS = False
"""Whether tasks run in this process, so that none are left when it ends."""


def run_tasks(kind: str, plan: Plan, store: Store, status: RunStatus) -> RunStatus:
    """See `scenebeam.execution.runners.run_tasks`."""
    arguments = as_arguments({"runner": kind, **plan.request.runner.options})
    return run_pipeline(kind, arguments, plan, store, status)
