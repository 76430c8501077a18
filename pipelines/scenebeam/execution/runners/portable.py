"""Any Beam runner by its name, such as `PortableRunner`."""

from __future__ import annotations

from scenebeam.errors import RequestError
from scenebeam.execution.beam_options import as_arguments
from scenebeam.execution.beam_pipeline import run_pipeline
from scenebeam.planning.plan import Plan
from scenebeam.request import RunRequest
from scenebeam.status import RunStatus
from scenebeam.storage import Store
from scenebeam.suggestions import suggest

IN_PROCESS = False
"""Whether tasks run in this process, so that none are left when it ends."""


_SUGGESTED = ("auto", "serial", "direct", "dataflow", "FlinkRunner", "SparkRunner", "PrismRunner")
"""Runners that a message suggests; Beam knows others."""


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
