"""Startup benchmark: imports, commands, cold starts of functions, a fresh installation.

    python benchmarks/start.py --rounds 5 [--install]

A cold start lasts from the start of the process to the response to its first event, and includes
the creation of all clients: `launch` starts a job, `report` updates its status, `status` lists the
runs. Storage, Pub/Sub and the replacement for Dataflow are on loopback.

A whole `scenebeam run` lasts from the start of the process to its end: a mosaic of 30 x 30 km, two
bands, on the serial runner, from local files. The same run is also timed inside this process, which
is warm by then. The difference is the start-up.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from common import DATA, full_size_tiles, spread
from mosaic_job import mosaic_document, scenebeam_run
from smoke import JOB

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

import cloud_example  # noqa: E402
import local_cloud  # noqa: E402
from local_dataflow import CHANGED, Dataflow, send_event, serve_dataflow  # noqa: E402
from scenebeam.cloud.messages import PUBLISHED  # noqa: E402

BIN = Path(sys.executable).parent


def seconds(command: list[str | Path]) -> float:
    began = time.perf_counter()
    subprocess.run(
        command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=compiled()
    )
    return time.perf_counter() - began


def compiled() -> dict[str, str]:
    """Return an environment in which modules are compiled once, as in an installed package."""
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": str(DATA / "bytecode")}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    return environment


def whole_runs(rounds: int) -> dict[str, list[float]]:
    """Time a whole run as a process, the same run in this warm process, and the difference."""
    full_size_tiles(JOB.bands, JOB.tiles)
    with tempfile.TemporaryDirectory() as folder:
        scenebeam_run(JOB, str(DATA), Path(folder))()  # the first run is not warm
    processes, warm = [], []
    for _ in range(1 + rounds):  # the first compiles the modules
        with tempfile.TemporaryDirectory() as folder:
            request = Path(folder, "request.yaml")
            document = mosaic_document(JOB, str(DATA), Path(folder), runner="serial")
            request.write_text(json.dumps(document))
            processes.append(seconds([BIN / "scenebeam", "run", request]))
        with tempfile.TemporaryDirectory() as folder:
            work = scenebeam_run(JOB, str(DATA), Path(folder))
            began = time.perf_counter()
            work()
            warm.append(time.perf_counter() - began)
    processes, warm = processes[1:], warm[1:]
    differences = [whole - work for whole, work in zip(processes, warm, strict=True)]
    return {
        "scenebeam run, the whole process": processes,
        "the same run in a warm process": warm,
        "start-up of scenebeam run": differences,
    }


@contextmanager
def process(target: str) -> Iterator[str]:
    """Start a function as Cloud Run does, and yield its URL."""
    port = local_cloud.free_port()
    words: list[str] = [
        "--source",
        str(local_cloud.FUNCTIONS),
        "--target",
        target,
        "--port",
        str(port),
    ]
    started = subprocess.Popen(
        [BIN / "functions-framework", *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        started.terminate()
        started.wait()


def cold(target: str, ask: Callable[[str], object]) -> float:
    """Return the seconds from the start of a function to its first response."""
    began = time.perf_counter()
    with process(target) as url:
        while not local_cloud.listens(int(url.rpartition(":")[2])):
            time.sleep(0.005)
        ask(url)
        return time.perf_counter() - began


def cold_starts(rounds: int) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {"launch": [], "report": [], "status": []}
    with ExitStack() as stack:
        emulator, _ = (
            stack.enter_context(local_cloud.pubsub()),
            stack.enter_context(local_cloud.storage()),
        )
        dataflow = stack.enter_context(serve_dataflow(Dataflow()))
        cloud = stack.enter_context(local_cloud.deployment(emulator, "gs://bucket", dataflow))
        for number in range(rounds):
            request = cloud_example.example("earth-search", f"gs://bucket/products/{number}")
            message = {
                "data": base64.b64encode(repr(request).encode()).decode(),
                "messageId": str(number),
            }
            found["launch"].append(
                cold(
                    "launch",
                    partial(send_event, kind=PUBLISHED, data={"message": message}),
                )
            )
            job = dataflow.jobs[f"2026-{number}"]
            found["report"].append(
                cold("report", partial(send_event, kind=CHANGED, data={"payload": job}))
            )
            found["status"].append(
                cold("status", lambda url: urllib.request.urlopen(f"{url}/runs", timeout=60).read())
            )
        assert len(cloud.runs()) == len(dataflow.jobs) == rounds
    return found


def install() -> tuple[float, int]:
    """Install scenebeam into a fresh environment without pip's cache. Returns seconds and MB."""
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        subprocess.run([sys.executable, "-m", "venv", f"{folder}/venv"], check=True)
        words = ["-m", "pip", "install", "--quiet", "--no-cache-dir", str(ROOT)]
        subprocess.run(
            [f"{folder}/venv/bin/python", *words],
            check=True,
            env={**os.environ, "PIP_CONSTRAINT": _constraints(folder)},
        )
        took = time.perf_counter() - began
        size = sum(
            path.stat().st_size for path in Path(folder, "venv").rglob("*") if path.is_file()
        )
    return took, size // 10**6


def _constraints(folder: str) -> str:
    """Write the locked versions, without hashes, as a constraints file. Returns its path."""
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    path = Path(folder, "constraints.txt")
    path.write_text(
        "\n".join(line.rstrip("\\ ") for line in lines if line[:1].isalnum() and "==" in line)
    )
    return str(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--install", action="store_true")
    args = parser.parse_args()
    ways: dict[str, list[str | Path]] = {
        "python": [sys.executable, "-c", "pass"],
        "import scenebeam.request": [sys.executable, "-c", "import scenebeam.request"],
        "import scenebeam.status": [sys.executable, "-c", "import scenebeam.status"],
        "scenebeam --help": [BIN / "scenebeam", "--help"],
    }
    for command in ways.values():
        seconds(command)
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(args.rounds):
        for name, command in ways.items():
            taken[name].append(seconds(command))
    rows = {
        **taken,
        **whole_runs(args.rounds),
        **{f"cold start of {name}": values for name, values in cold_starts(args.rounds).items()},
    }
    print("| | s |\n|---|---|")
    for name, values in rows.items():
        print(f"| {name} | {spread(values)} |")
    if args.install:
        took, size = install()
        print(f"| fresh installation | {took:.0f} s, {size} MB |")


if __name__ == "__main__":
    main()
