"""Killed at any moment, a run resumes and ends with the same bytes as an undisturbed one."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import tree
from scenebeam.request import RunRequest
from scenebeam.run.driver import run

Make = Callable[..., RunRequest]


def written(request: RunRequest, path: Path) -> Path:
    path.write_text(request.model_dump_json())
    return path


def start(request: Path) -> subprocess.Popen[bytes]:
    command = [str(Path(sys.executable).parent / "scenebeam"), "run", str(request)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def files(folder: Path) -> dict[str, bytes]:
    """What a run leaves, but for what names its folder or tells the time."""
    return {name: data for name, data in tree(folder).items() if name != "failures.csv"}


def run_killing(request: RunRequest, tmp_path: Path, delays: list[float]) -> int:
    """Run a request over and over, killing it after each delay, then let it end. Gives how often it was hit."""
    file = written(request, tmp_path / f"{Path(request.output).name}.json")
    hits = 0
    for delay in delays:
        process = start(file)
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        hits += process.wait() == -signal.SIGKILL
    assert start(file).wait() == 0
    return hits


def test_a_killed_run_resumes_to_the_same_bytes(make_request: Make, tmp_path: Path) -> None:
    calm = make_request(output=str(tmp_path / "calm"), **{"limits.memory": "100MB"})
    run(calm)
    delays = [random.Random(7).uniform(0.8, 2.5) for _ in range(4)]
    killed = make_request(output=str(tmp_path / "killed"), **{"limits.memory": "100MB"})
    assert run_killing(killed, tmp_path, delays) >= 2
    assert files(tmp_path / "killed") == files(tmp_path / "calm")


@pytest.mark.slow
@pytest.mark.parametrize("runner", ["serial", "direct"])
def test_killed_at_twenty_random_moments(make_request: Make, tmp_path: Path, runner: str) -> None:
    calm = make_request(output=str(tmp_path / "calm"), **{"limits.memory": "100MB"})
    run(calm)
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    pick = random.Random(seed)
    for attempt in range(5):
        delays = [pick.uniform(0.5, 6.0 if runner == "direct" else 3.0) for _ in range(4)]
        killed = make_request(output=str(tmp_path / f"killed{attempt}"), runner=runner, **{"limits.memory": "100MB"})
        run_killing(killed, tmp_path, delays)
        assert files(tmp_path / f"killed{attempt}") == files(tmp_path / "calm"), f"seed {seed}"


def test_ctrl_c_ends_with_130_and_a_run_that_resumes(
    make_request: Make, served_items: Path, server: object, tmp_path: Path
) -> None:
    server.latency = 0.3  # type: ignore[attr-defined]
    request = make_request(catalog=str(served_items))
    file = written(request, tmp_path / "request.json")
    process = start(file)
    status = Path(request.output) / "status.json"
    for _ in range(200):
        if status.exists():
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    assert process.wait() == 130
    assert json.loads(status.read_text())["state"] == "cancelled"
    assert not [name for name in os.listdir(request.output) if name.endswith(".partial")]
    server.latency = 0.0  # type: ignore[attr-defined]
    assert start(file).wait() == 0
    assert json.loads(status.read_text())["state"] == "succeeded"
