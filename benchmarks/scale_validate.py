"""Validation of the simulated runs of `scale.py` by real ones, on this machine.

One request runs on 1 and 2 workers: threads of Beam's direct runner, and processes of Beam's worker
pool. The tasks of another scene are measured beside it, one by one, and are simulated on 1 and 2
workers of one machine, with the design of this code.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from common import (
    CORES,
    full_size_tiles,
    in_fresh_process,
    machine,
    print_header,
    print_row,
    range_server,
)
from composite import SCENES
from scale_inputs import NEW, Costs, Environment, Sample, Workload
from scale_measure import BANDS, INDEX
from scale_model import Run
from scale_tasks import LATENCY, machine_cpu, measure_tasks, request_of

from scenebeam.imaging.shards import cut_windows, shared_levels

VALIDATED = SCENES[:2]
"""One image each; other dates than the one whose tasks are measured for it."""


def real(config: dict[str, Any]) -> dict[str, Any]:
    """Run once in this process, and then again, when nothing is left to make."""
    import apache_beam  # noqa: F401

    from scenebeam.execution.driver import run

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        items = [scene.item(config["url"]) for scene in VALIDATED]
        request = request_of(folder, items, INDEX, runner=config["runner"])
        times = []
        for _ in range(2):
            start = time.perf_counter()
            status = run(request)
            assert status.state == "succeeded", status
            times.append(time.perf_counter() - start)
    return {"tasks": status.tasks, "wall": times[0], "nothing to make": times[1]}


@contextmanager
def worker_pool() -> Iterator[str]:
    """Start Beam's worker pool, whose processes are of this environment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "apache_beam.runners.worker.worker_pool_main"]
    # The pool starts its processes as `python`.
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    process = subprocess.Popen(
        [*command, f"--service_port={port}"],
        env={**os.environ, "PATH": path},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        for _ in range(300):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        yield f"localhost:{port}"
    finally:
        process.terminate()
        process.wait()


def validate(script: str, costs: Costs, rounds: int, rate: float) -> None:
    """Run one request on 1 and 2 workers, and print its durations beside simulated ones.

    Args:
        script: The benchmark, which calls `real` with `--one`.
        costs: What was measured.
        rounds: How often.
        rate: Bytes per second of one connection to the range server; 0 means unlimited.
    """
    full_size_tiles(BANDS, VALIDATED)
    print(machine())
    print_header("runner", "workers", "tasks", "load", "real s", "simulated s", "error")
    with tempfile.TemporaryDirectory() as name, worker_pool() as pool:
        pool_options = {
            "job_endpoint": "embed",
            "environment_type": "EXTERNAL",
            "environment_config": pool,
        }
        for number in range(rounds):
            # Measured again beside the real runs, because other processes share the machine.
            folder = Path(name, str(number))
            folder.mkdir()
            tasks = measure_tasks(folder, INDEX, SCENES[2:3], rate=rate, clock=machine_cpu)
            for kind in ("direct", "PortableRunner"):
                for workers in (1, 2):
                    runner: dict[str, Any] = {"kind": kind, "workers": workers}
                    if kind == "PortableRunner":
                        options = {**pool_options, "direct_num_workers": workers}
                        runner = {"kind": kind, "options": options}
                    load = os.getloadavg()[0]
                    with range_server(LATENCY, rate) as url:
                        config = {"way": kind, "url": url, "runner": runner}
                        ran = in_fresh_process(script, config)
                    simulated = simulate_here(tasks, costs, workers, ran)
                    error = simulated / ran["wall"] - 1
                    label = "worker pool" if kind == "PortableRunner" else kind
                    seconds = (f"{ran['wall']:.1f}", f"{simulated:.1f}", f"{100 * error:+.0f} %")
                    print_row(label, workers, ran["tasks"], f"{load:.1f}", *seconds)


def simulate_here(
    found: Mapping[str, Any], costs: Costs, workers: int, ran: Mapping[str, Any]
) -> float:
    """Return the simulated seconds of a real run on this machine.

    Args:
        found: The measured tasks.
        costs: What the other steps cost.
        workers: Tasks at once.
        ran: The real run. A run with nothing to make starts the runner, and reports.
    """
    side = SCENES[0].size
    windows, cell = cut_windows((side, side), found["window"][3] - found["window"][2])
    shards = len(windows)
    assert shards * len(VALIDATED) == ran["tasks"], "the planner cuts other windows"
    workload = Workload(
        images=len(VALIDATED),
        shards=shards,
        pixels=side * side / shards / 1e6,
        outputs=1,
        found=0,
        scenes=len(VALIDATED),
        sources=len(BANDS),
        shared_levels=shared_levels((side, side), cell),
        pieces=0,
        item_bytes=4,
        samples=[Sample(*values) for values in found["tasks"]],
    )
    around = Environment(cores=CORES, slots=workers, launch=ran["nothing to make"])
    # The report is a part of the run with nothing to make.
    assembly = found["assembly"]
    costs = replace(
        costs,
        report_fixed=0.0,
        report_outcome=0.0,
        assemble_byte=(assembly["seconds"] - assembly["coarse_seconds"]) / assembly["bytes"],
        coarse_pixel=assembly["coarse_seconds"] / assembly["coarse_pixels"],
    )
    return Run(workload, costs, around, 1, replace(NEW, compose=False)).simulate().seconds
