"""Runners: where tasks run. One module each, named as `runner.kind`, with `run_tasks`.

Any other kind is the name of a Beam runner, and goes through `portable`.
"""

from __future__ import annotations

import importlib
import pkgutil

from scenebeam.execution.runners.options import DATAFLOW_OPTIONS
from scenebeam.planning.plan import Plan
from scenebeam.products import product_of
from scenebeam.status import RunStatus
from scenebeam.storage import Store

_HELPERS = {"beam", "options"}
"""Modules of this package that are not runners."""


def known_runners() -> list[str]:
    """The kinds of runners that have a module."""
    names = [module.name for module in pkgutil.iter_modules(__path__)]
    return sorted(set(names) - _HELPERS)


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
    module = kind if kind in known_runners() else "portable"
    runner = importlib.import_module(f"{__name__}.{module}")
    final: RunStatus = runner.run_tasks(kind, plan, store, status)
    return final
