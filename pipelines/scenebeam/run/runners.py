"""Which runner makes the tasks, with which options: serial, direct, Dataflow, or any other that Beam has."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from scenebeam.errors import RequestError, RunnerError, SceneBeamError
from scenebeam.planning.plan import Plan
from scenebeam.products import product_of
from scenebeam.request import Runner
from scenebeam.status import RunStatus
from scenebeam.storage import Store
from scenebeam.tasks import Estimate
from scenebeam.transfer.retry import shutdown
from scenebeam.transfer.signing import effective_limits

log = logging.getLogger(__name__)

_DATAFLOW_NEEDS = ("project", "region", "temp_location")
_SECONDS_PER_MEGAPIXEL = 0.1
"""CPU seconds per million pixels of output: `benchmarks/README.md`, 4.6 s for 48 million, rounded up."""
_BYTES_PER_SECOND = 30e6
"""What a machine gets out of a public bucket over the internet, roughly."""
_MACHINE = "n2-standard-2"
_GB_PER_CORE = {"standard": 4.0, "highmem": 8.0, "highcpu": 1.0}
_FOR_TASKS = 0.8
"""Part of a worker's memory that tasks may hold: the rest is the system's and Beam's."""
_MOST_THREADS = 12
_IMAGE_GB = 25
"""Disk for the system and the image, unpacked."""
_LONG = 3600.0
_WORKERS = 20
# Dataflow batch in us-central1, list prices in USD: https://cloud.google.com/dataflow/pricing
_USD_PER_CPU_HOUR, _USD_PER_GB_HOUR, _GB_PER_CPU = 0.056, 0.003557, 3.75


def choose_runner(plan: Plan) -> str:
    """The runner's kind: `auto` becomes serial for few blocks or a product that just waits, direct for more, and
    Dataflow beyond `local_blocks`, where the request says where that is.
    """
    asked = plan.request.runner
    if asked.kind != "auto":
        return asked.kind
    if plan.estimate.blocks < asked.serial_blocks or product_of(plan.request.product.kind).io_bound:
        return "serial"
    cluster = all(
        name in asked.options for name in _DATAFLOW_NEEDS
    ) and plan.request.output.startswith("gs://")
    return "dataflow" if plan.estimate.blocks >= asked.local_blocks and cluster else "direct"


def seconds_here(estimate: Estimate) -> float:
    """Wall time on this machine, roughly: the slower of computing and downloading."""
    cpu = estimate.pixels / 1e6 * _SECONDS_PER_MEGAPIXEL / (os.cpu_count() or 1)
    return max(cpu, estimate.read_bytes / _BYTES_PER_SECOND)


def dataflow_cost(estimate: Estimate) -> tuple[float, float]:
    """(minutes, USD) on Dataflow with up to 20 workers of one CPU, start-up of 4 minutes included."""
    cpu_hours = (
        max(
            estimate.pixels / 1e6 * _SECONDS_PER_MEGAPIXEL,
            estimate.read_bytes / (2 * _BYTES_PER_SECOND),
        )
        / 3600
    )
    minutes = 4 + 60 * cpu_hours / _WORKERS
    busy = cpu_hours + _WORKERS * 4 / 60
    return minutes, busy * (_USD_PER_CPU_HOUR + _GB_PER_CPU * _USD_PER_GB_HOUR)


def advice(estimate: Estimate) -> str:
    """When Dataflow would be the better choice, and what it would take; empty where this machine will do."""
    here = seconds_here(estimate)
    if here < _LONG:
        return ""
    minutes, usd = dataflow_cost(estimate)
    return (
        f"about {here / 3600:.1f} h on this machine; on Dataflow about {minutes:.0f} min with {_WORKERS} workers, "
        f"some {usd:.2f} USD: set runner: dataflow with project, region and temp_location, and a gs:// output"
    )


def pipeline_arguments(kind: str, asked: Runner, plan: Plan) -> list[str]:
    """Beam's command-line options for a runner. RequestError where one that it needs is missing."""
    options: dict[str, Any] = dict(asked.options)
    if kind == "direct":
        product, limits = product_of(plan.request.product.kind), plan.request.limits
        # One more than cores: while a task waits for its first blocks, another computes.
        workers = asked.workers or (
            limits.max_download_workers if product.io_bound else (os.cpu_count() or 1) + 1
        )
        options = {
            "direct_num_workers": workers,
            "direct_running_mode": "multi_threading",
            **options,
        }
    elif kind == "dataflow":
        missing = [name for name in _DATAFLOW_NEEDS if name not in options]
        if missing:
            raise RequestError(f"runner.options: Dataflow needs {', '.join(missing)}")
        if not plan.request.output.startswith("gs://"):
            raise RequestError(
                "output: Dataflow's workers share no disk with this machine; give a gs:// output"
            )
        options = {
            "runner": "DataflowRunner",
            "job_name": f"scenebeam-{plan.request.run.lower().replace('_', '-')}-{plan.request.fingerprint()[:8]}",
            **({"max_num_workers": asked.workers} if asked.workers else {}),
            **options,
        }
    else:
        options = {"runner": kind, **options}
    arguments = ["--no_save_main_session"]
    for name, value in options.items():
        for one in value if isinstance(value, list) else [value]:
            if one is False:
                continue
            arguments.append(f"--{name}" if one is True else f"--{name}={one}")
    return arguments


def run_tasks(kind: str, plan: Plan, store: Store, status: RunStatus) -> RunStatus:
    """Make all tasks that are not done, and report."""
    if kind == "serial":
        return _run_serial(plan, store, status)
    return _run_beam(kind, plan, store, status)


def submit_tasks(
    options: Sequence[str],
    plan: Plan,
    store: Store,
    status: RunStatus,
    on_progress: Callable[[], None] | None = None,
) -> None:
    """Hand the pipeline to the runner that `options` name, with what its workers need; does not wait for it."""
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions

    from scenebeam.run.engine import build

    given = dict(
        option.removeprefix("--").partition("=")[::2] for option in options if "=" in option
    )
    machine = given.get("worker_machine_type") or given.get("machine_type") or _MACHINE
    wanted = [*worker_options(machine, plan), "--no_save_main_session"]
    added = [
        option for option in wanted if option.removeprefix("--").partition("=")[0] not in given
    ]
    pipeline = beam.Pipeline(options=PipelineOptions([*options, *added]))
    build(pipeline, store.uri, status, plan.request.limits, on_progress)
    pipeline.run()


def worker_options(machine_type: str, plan: Plan) -> list[str]:
    """Beam's options for Dataflow workers of a machine type, by what the largest task of a plan holds.

    One process a core, as the SDK has it; as many tasks at once in each as fit into its share of the memory. Workers
    are not reached from outside, and their disk holds the image and what a task keeps on it for a while.
    """
    match = re.fullmatch(r"[a-z0-9]+-(standard|highmem|highcpu)-(\d+)", machine_type)
    per_core = _GB_PER_CORE[match[1]] if match else 1.0
    threads = int(per_core * 2**30 * _FOR_TASKS // max(plan.estimate.memory, 1))
    disk = _IMAGE_GB + -(-plan.estimate.write_bytes // max(len(plan.tasks), 1) * 4 // 10**9)
    return [
        f"--worker_machine_type={machine_type}",
        f"--number_of_worker_harness_threads={min(max(threads, 1), _MOST_THREADS)}",
        f"--disk_size_gb={min(max(disk, 30), 200)}",
        "--no_use_public_ips",
        "--experiments=use_runner_v2",
        f"--labels=scenebeam-run={plan.request.run.lower()}",
    ]


def _run_serial(plan: Plan, store: Store, status: RunStatus) -> RunStatus:
    """In this process, one after another; tasks that wait for the network wait together."""
    from scenebeam.report.finish import finish
    from scenebeam.run.make import make_task

    kind, limits = plan.request.product.kind, effective_limits(plan.request)
    undone = plan.undone(store.list())
    if not product_of(kind).io_bound:
        return finish(
            plan, [make_task(kind, task, store, limits) for task in undone], store, status
        )
    threads = ThreadPoolExecutor(limits.max_download_workers)
    try:
        outcomes = list(threads.map(lambda task: make_task(kind, task, store, limits), undone))
    except BaseException:
        shutdown.set()
        raise
    finally:
        threads.shutdown(cancel_futures=True)
    return finish(plan, outcomes, store, status)


def _cause(error: Exception) -> str:
    """What a runner's error comes to: Beam hands on a worker's exception as the text of its traceback."""
    text = str(error)
    lines = re.findall(
        r"^(?:[a-z_]\w*\.)*[A-Z]\w*: (.+?)(?: \[while running .*)?$", text, re.MULTILINE
    )
    return str(lines[-1]) if lines else f"{type(error).__name__}: {text}"


def _run_beam(kind: str, plan: Plan, store: Store, status: RunStatus) -> RunStatus:
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions

    from scenebeam.run.engine import build
    from scenebeam.status import STATUS_FILE

    options = PipelineOptions(pipeline_arguments(kind, plan.request.runner, plan))
    runner: Any = None
    if kind == "direct":
        # Chosen by hand: `DirectRunner` would try to download a binary of Prism first.
        from apache_beam.runners.portability.fn_api_runner import FnApiRunner

        runner = FnApiRunner()
    try:
        pipeline = beam.Pipeline(runner=runner, options=options)
    except (ValueError, ImportError) as error:
        raise RequestError(
            f"runner {kind!r}: {error}; is the extra installed (pip install 'scenebeam[dataflow]')?"
        ) from error
    build(pipeline, store.uri, status, effective_limits(plan.request))
    try:
        result = pipeline.run()
        result.wait_until_finish()
    except SceneBeamError:
        raise
    except Exception as error:
        log.debug("runner %s", kind, exc_info=True)
        raise RunnerError(
            f"runner {kind!r} ended before all tasks were made: {_cause(error)}"
        ) from error
    content = store.read(STATUS_FILE)
    assert content is not None, "the pipeline's last step writes it"
    return RunStatus.model_validate_json(content)
