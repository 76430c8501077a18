"""What a plan costs in time and money, here and on Dataflow."""

from __future__ import annotations

import os

from scenebeam.tasks import Estimate

_SECONDS_PER_MEGAPIXEL = 0.1
"""CPU seconds per million pixels of output: `benchmarks/README.md`, 4.6 s for 48 million, rounded
up."""
_BYTES_PER_SECOND = 30e6
"""Rough download rate of one machine from a public bucket over the internet."""
_LONG = 3600.0
"""Seconds from which Dataflow is suggested."""
_WORKERS = 20
_STARTUP_MINUTES = 4
# Dataflow batch in us-central1, list prices in USD: https://cloud.google.com/dataflow/pricing
_USD_PER_CPU_HOUR, _USD_PER_GB_HOUR, _GB_PER_CPU = 0.056, 0.003557, 3.75


def local_seconds(estimate: Estimate) -> float:
    """Rough wall time on this machine: the slower of computing and downloading."""
    cpu = estimate.pixels / 1e6 * _SECONDS_PER_MEGAPIXEL / (os.cpu_count() or 1)
    return max(cpu, estimate.read_bytes / _BYTES_PER_SECOND)


def dataflow_cost(estimate: Estimate) -> tuple[float, float]:
    """(minutes, USD) on Dataflow with up to 20 workers of one CPU, including their startup."""
    computing = estimate.pixels / 1e6 * _SECONDS_PER_MEGAPIXEL
    downloading = estimate.read_bytes / (2 * _BYTES_PER_SECOND)
    cpu_hours = max(computing, downloading) / 3600
    minutes = _STARTUP_MINUTES + 60 * cpu_hours / _WORKERS
    billed_hours = cpu_hours + _WORKERS * _STARTUP_MINUTES / 60
    return minutes, billed_hours * (_USD_PER_CPU_HOUR + _GB_PER_CPU * _USD_PER_GB_HOUR)


def advice(estimate: Estimate) -> str:
    """Suggest Dataflow, with its cost, for a plan that takes hours here; otherwise empty."""
    seconds = local_seconds(estimate)
    if seconds < _LONG:
        return ""
    minutes, usd = dataflow_cost(estimate)
    return (
        f"about {seconds / 3600:.1f} h on this machine; on Dataflow about {minutes:.0f} min with "
        f"{_WORKERS} workers, some {usd:.2f} USD: set runner: dataflow with project, region and "
        "temp_location, and a gs:// output"
    )
