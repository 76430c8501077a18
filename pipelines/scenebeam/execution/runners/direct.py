"""Beam's direct runner: several tasks at once, in the threads of this process."""

from __future__ import annotations

import os

from scenebeam.execution.beam_options import as_arguments
from scenebeam.execution.beam_pipeline import run_pipeline
from scenebeam.planning.plan import Plan
from scenebeam.products import product_of
from scenebeam.status import RunStatus
from scenebeam.storage import Store

IN_PROCESS = True
"""Whether tasks run in this process, so that none are left when it ends."""


def arguments_for(plan: Plan) -> list[str]:
    """Beam pipeline options for a plan."""
    runner, limits = plan.request.runner, plan.request.limits
    # One more than cores: while a task waits for its first blocks, another computes.
    workers = (os.cpu_count() or 1) + 1
    if product_of(plan.request.product.kind).io_bound:
        workers = limits.max_download_workers
    options = {
        "direct_num_workers": runner.workers or workers,
        "direct_running_mode": "multi_threading",
        **runner.options,
    }
    return as_arguments(options)


def run_tasks(kind: str, plan: Plan, store: Store, status: RunStatus) -> RunStatus:
    """See `scenebeam.execution.runners.run_tasks`."""
    # Named explicitly: `DirectRunner` would first try to download a binary of Prism.
    from apache_beam.runners.portability.fn_api_runner import FnApiRunner

    return run_pipeline(kind, arguments_for(plan), plan, store, status, FnApiRunner())
