"""Runners: where tasks run. One module each, named as `runner.kind`.

A module defines `IN_PROCESS` and `run_tasks`. Any other kind is the name of a Beam runner, and goes
through `portable`.
"""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType

from scenebeam.execution.beam_options import DATAFLOW_OPTIONS
from scenebeam.planning.plan import Plan
from scenebeam.products import product_of
from scenebeam.request import RunRequest
from scenebeam.status import RunStatus
from scenebeam.storage import Store


def runs_in_process(kind: str) -> bool:
    """Return whether a runner makes tasks in the process that started it."""
    return bool(_module_of(kind).IN_PROCESS)


def choose_runner(plan: Plan) -> str:
    """Choose the kind of runner for a plan.

    `auto` runs serially for few blocks and for products that wait for the network, on Dataflow
    beyond `local_blocks` if the request names a project and a bucket, and with Beam's direct
    runner otherwise.
    """
    runner = plan.request.runner
    if runner.kind != "auto":
        return runner.kind
    blocks = plan.estimate.blocks
    if blocks < runner.serial_blocks or product_of(plan.request.product.kind).io_bound:
        return "serial"
    has_cluster = all(name in runner.options for name in DATAFLOW_OPTIONS)
    if has_cluster and plan.request.output.startswith("gs://") and blocks >= runner.local_blocks:
        return "dataflow"
    return "direct"


def check_runner(request: RunRequest) -> None:
    """Check the runner of a request, before anything is searched or written.

    Raises:
        RequestError: The runner does not exist, or lacks an option.
    """
    if request.runner.kind != "auto":
        check = getattr(_module_of(request.runner.kind), "check_request", None)
        if check is not None:
            check(request)


def run_tasks(kind: str, plan: Plan, store: Store, status: RunStatus) -> RunStatus:
    """Run all tasks that are not done, and write the report.

    Args:
        kind: The kind of the runner.
        plan: The plan that is frozen in the store.
        store: The output.
        status: The status of the run so far.

    Returns:
        The final status.

    Raises:
        RequestError: The runner does not exist, or lacks an option.
        RunnerError: The runner has ended before all tasks were made.
    """
    final: RunStatus = _module_of(kind).run_tasks(kind, plan, store, status)
    return final


def _module_of(kind: str) -> ModuleType:
    names = {module.name for module in pkgutil.iter_modules(__path__)}
    return importlib.import_module(f"{__name__}.{kind if kind in names else 'portable'}")
