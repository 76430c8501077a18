"""Google Cloud Dataflow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from scenebeam.errors import RequestError
from scenebeam.execution.beam_options import DATAFLOW_OPTIONS, as_arguments
from scenebeam.execution.beam_pipeline import plain_labels, run_pipeline
from scenebeam.planning.cost import MACHINE_TYPE, Machine
from scenebeam.planning.plan import Plan
from scenebeam.request import RunRequest
from scenebeam.status import RunStatus
from scenebeam.storage import Store

IN_PROCESS = False
"""Whether tasks run in this process, so that none are left when it ends."""

_TASK_MEMORY = 0.8
"""Share of a worker's memory for tasks: the rest is for the system and Beam."""
_MAX_THREADS = 12
_IMAGE_GB = 25
"""Disk space of the system and the unpacked image."""


def check_request(request: RunRequest) -> None:
    """Check that a request can run on Dataflow.

    Raises:
        RequestError: An option that Dataflow needs is missing, or the output is a local folder.
    """
    missing = [name for name in DATAFLOW_OPTIONS if name not in request.runner.options]
    if missing:
        raise RequestError(f"runner.options: Dataflow needs {', '.join(missing)}")
    if not request.output.startswith("gs://"):
        raise RequestError(
            "output: Dataflow's workers share no disk with this machine; give a gs:// output"
        )


def arguments_for(plan: Plan) -> list[str]:
    """Beam pipeline options for a plan.

    Raises:
        RequestError: See `check_request`.
    """
    check_request(plan.request)
    runner = plan.request.runner
    run_name = plan.request.run.lower().replace("_", "-")
    options: dict[str, Any] = {
        "runner": "DataflowRunner",
        "job_name": f"scenebeam-{run_name}-{plan.request.fingerprint()[:8]}",
    }
    if runner.workers:
        options["max_num_workers"] = runner.workers
    return as_arguments({**options, **runner.options})


def run_tasks(kind: str, plan: Plan, store: Store, status: RunStatus) -> RunStatus:
    """See `scenebeam.execution.runners.run_tasks`."""
    return run_pipeline(kind, arguments_for(plan), plan, store, status)


def submit_pipeline(
    options: Sequence[str],
    plan: Plan,
    store: Store,
    status: RunStatus,
    on_progress: Callable[[], None] | None = None,
) -> None:
    """Submit the pipeline of a plan to the runner that Beam's options name, without waiting.

    Args:
        options: Command-line options of Beam.
        plan: The plan that is frozen in the store.
        store: The output.
        status: The status of the run so far.
        on_progress: Called by workers now and then; it is pickled with the graph.
    """
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions

    from scenebeam.execution.engine import build

    given = given_options(options)
    machine = given.get("worker_machine_type") or given.get("machine_type") or MACHINE_TYPE
    added = []
    for option in [*worker_options(machine, plan), "--no_save_main_session"]:
        if option.removeprefix("--").partition("=")[0] not in given:
            added.append(option)
    pipeline = beam.Pipeline(options=PipelineOptions([*options, *added]))
    with plain_labels():
        build(pipeline, plan, store, status, on_progress)
    pipeline.run()


def given_options(options: Sequence[str]) -> dict[str, str]:
    """Name → value of the options that are written as `--name=value`."""
    values = {}
    for option in options:
        name, equals, value = option.removeprefix("--").partition("=")
        if equals:
            values[name] = value
    return values


def worker_options(machine_type: str, plan: Plan) -> list[str]:
    """Beam's options for workers of a machine type, by the largest task of a plan.

    The SDK starts one process per core; each runs as many tasks at once as fit into its share of
    the memory. Workers have no public address, and a disk for the image and temporary files.
    """
    gb_per_core = Machine.of(machine_type).gb_per_core
    threads = int(gb_per_core * 2**30 * _TASK_MEMORY // max(plan.estimate.memory, 1))
    disk = _IMAGE_GB + -(-plan.estimate.write_bytes // max(len(plan.tasks), 1) * 4 // 10**9)
    return [
        f"--worker_machine_type={machine_type}",
        f"--number_of_worker_harness_threads={min(max(threads, 1), _MAX_THREADS)}",
        f"--disk_size_gb={min(max(disk, 30), 200)}",
        "--no_use_public_ips",
        "--experiments=use_runner_v2",
        f"--labels=scenebeam-run={plan.request.run.lower()}",
    ]
