"""What a plan costs in time and money, here and on Dataflow."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from scenebeam.request import Runner
from scenebeam.tasks import Estimate

_SECONDS_PER_MEGAPIXEL = 0.1
"""CPU seconds per million pixels of output: `benchmarks/README.md`, 4.6 s for 48 million, rounded
up."""
_BYTES_PER_SECOND = 30e6
"""Rough download rate of one machine from a public bucket over the internet."""
_LONG = 3600.0
"""Seconds from which Dataflow is suggested."""
_WORKERS = 20
"""Workers that a run may have where the request does not say."""
_STARTUP_MINUTES = 4
MACHINE_TYPE = "n2-standard-2"
"""Dataflow workers where the request names none."""
_GB_PER_CORE = {"standard": 4.0, "highmem": 8.0, "highcpu": 1.0}
# Dataflow batch in us-central1, list prices in USD: https://cloud.google.com/dataflow/pricing
_USD_PER_CPU_HOUR, _USD_PER_GB_HOUR = 0.056, 0.003557


@dataclass(frozen=True)
class Machine:
    """A machine type of Compute Engine."""

    cores: int
    gb_per_core: float

    @classmethod
    def of(cls, machine_type: str) -> Machine:
        """Read the cores and the memory of a name such as `n2-standard-2`.

        A name that says neither counts as a machine of one core and 1 GB.
        """
        match = re.fullmatch(r"[a-z0-9]+-(standard|highmem|highcpu)-(\d+)", machine_type)
        return cls(int(match[2]), _GB_PER_CORE[match[1]]) if match else cls(1, 1.0)


def local_seconds(estimate: Estimate) -> float:
    """Rough wall time on this machine: the slower of computing and downloading."""
    cpu = estimate.pixels / 1e6 * _SECONDS_PER_MEGAPIXEL / (os.cpu_count() or 1)
    return max(cpu, estimate.read_bytes / _BYTES_PER_SECOND)


def dataflow_cost(estimate: Estimate, runner: Runner) -> tuple[float, float]:
    """Estimate (minutes, USD) on Dataflow, including the startup of the workers.

    Args:
        estimate: What the tasks take.
        runner: How many workers there may be, and of which machine type.
    """
    machine, workers = Machine.of(_machine_type(runner)), _max_workers(runner)
    computing = estimate.pixels / 1e6 * _SECONDS_PER_MEGAPIXEL / machine.cores
    downloading = estimate.read_bytes / (2 * _BYTES_PER_SECOND)
    # Hours of one worker, which all workers share.
    hours = max(computing, downloading) / 3600
    minutes = _STARTUP_MINUTES + 60 * hours / workers
    billed = (hours + workers * _STARTUP_MINUTES / 60) * machine.cores
    return minutes, billed * (_USD_PER_CPU_HOUR + machine.gb_per_core * _USD_PER_GB_HOUR)


def _machine_type(runner: Runner) -> str:
    options = runner.options
    given = options.get("worker_machine_type") or options.get("machine_type")
    return str(given or MACHINE_TYPE)


def _max_workers(runner: Runner) -> int:
    given = str(runner.options.get("max_num_workers", ""))
    return max(1, int(given)) if given.isdigit() else runner.workers or _WORKERS


def advice(estimate: Estimate, runner: Runner) -> str:
    """Suggest Dataflow, with its cost, for a plan that takes hours here; otherwise empty."""
    seconds = local_seconds(estimate)
    if seconds < _LONG:
        return ""
    minutes, usd = dataflow_cost(estimate, runner)
    return (
        f"about {seconds / 3600:.1f} h on this machine; on Dataflow about {minutes:.0f} min with "
        f"{_max_workers(runner)} workers, some {usd:.2f} USD: set runner: dataflow with project, "
        "region and temp_location, and a gs:// output"
    )
