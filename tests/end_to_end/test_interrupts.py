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
from functools import partial
from pathlib import Path

import pytest

from conftest import tree
from lives import Lives
from scenebeam.execution.driver import run
from scenebeam.request import RunRequest
from scenebeam.requestfile import validate_request
from scenebeam.sandbox.scenes import COLLECTION
from scenebeam.sandbox.server import SandboxServer

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
    times = []
    for output in ("calm", "again"):  # the first also fills the machine's caches
        calm = calm.model_copy(update={"output": str(tmp_path / output)})
        began = time.monotonic()
        assert start(written(calm, tmp_path / f"{output}.json")).wait() == 0
        times.append(time.monotonic() - began)
    delays = [min(times) * random.Random(7).uniform(0.4, 0.8) for _ in range(4)]
    killed = make_request(output=str(tmp_path / "killed"), **{"limits.memory": "100MB"})
    assert run_killing(killed, tmp_path, delays) >= 1
    assert files(tmp_path / "killed") == files(tmp_path / "calm")


def test_killed_while_it_tidies_up_a_run_tidies_up_later(
    make_request: Make, tmp_path: Path
) -> None:
    request = make_request(**{"limits.memory": "100MB", "product.bands": ["scl"]})
    run(request)
    before = tree(tmp_path / "out")
    left = tmp_path / "out" / "parts" / "20210610T092031Z" / "scl.00003.part"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"of a shard that was put together")
    run(request)
    assert tree(tmp_path / "out") == before


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
        killed = make_request(
            output=str(tmp_path / f"killed{attempt}"), runner=runner, **{"limits.memory": "100MB"}
        )
        run_killing(killed, tmp_path, delays)
        assert files(tmp_path / f"killed{attempt}") == files(tmp_path / "calm"), f"seed {seed}"


def test_ctrl_c_ends_with_130_and_a_run_that_resumes(
    make_request: Make, served_items: Path, server: SandboxServer, tmp_path: Path
) -> None:
    server.latency = 0.3
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
    server.latency = 0.0
    assert start(file).wait() == 0
    assert json.loads(status.read_text())["state"] == "succeeded"


def raw(folder: Path) -> dict[str, bytes]:
    """Downloaded files and their items."""
    return {name: data for name, data in tree(folder).items() if name.startswith("raw/")}


def pixels_of(server: SandboxServer) -> list[tuple[str, int, int]]:
    """Ranges that were asked for, but for those that ask for the size of a file."""
    return [(path, begin, end) for path, begin, end in server.ranges if end - begin > 1]


def has_more_pixels(server: SandboxServer, before: int) -> bool:
    return len(pixels_of(server)) > before


def wait_for(reached: Callable[[], bool]) -> None:
    for _ in range(1200):
        if reached():
            return
        time.sleep(0.05)
    raise AssertionError("nothing happened for a minute")


def downloads(served_items: Path, output: Path, runner: str) -> RunRequest:
    document = {
        "catalog": str(served_items),
        "collections": [COLLECTION],
        "product": {"kind": "assets"},
    }
    return validate_request({**document, "output": str(output), "runner": runner})


@pytest.mark.parametrize("runner", ["serial", "direct"])
def test_ctrl_c_stops_downloads_where_they_are(
    served_items: Path, server: SandboxServer, tmp_path: Path, runner: str
) -> None:
    server.rate = 100e3
    request = downloads(served_items, tmp_path / "out", runner)
    file = written(request, tmp_path / "request.json")
    process = start(file)
    wait_for(lambda: bool(pixels_of(server)))
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 130
    assert json.loads((tmp_path / "out" / "status.json").read_text())["state"] == "cancelled"
    assert [path for path in (tmp_path / "out").rglob(".*.arriving") if path.stat().st_size]
    server.rate = 0
    server.reset_counts()
    assert start(file).wait() == 0
    assert any(begin > 0 for _, begin, _ in server.ranges), "it went on where it had been stopped"
    calm = downloads(served_items, tmp_path / "calm", "serial")
    run(calm)
    assert raw(tmp_path / "out") == raw(tmp_path / "calm")


@pytest.mark.parametrize("runner", ["serial", pytest.param("direct", marks=pytest.mark.slow)])
def test_killed_downloads_resume_to_the_same_bytes(
    served_items: Path, server: SandboxServer, tmp_path: Path, runner: str
) -> None:
    calm = downloads(served_items, tmp_path / "calm", "serial")
    run(calm)
    server.reset_counts()
    server.rate = 0.5e6
    pick = random.Random(11)
    killed = downloads(served_items, tmp_path / "killed", runner)
    file = written(killed, tmp_path / "killed.json")
    for _ in range(3):
        before = len(pixels_of(server))
        process = start(file)
        wait_for(partial(has_more_pixels, server, before))
        time.sleep(pick.uniform(0.3, 1.2))
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    server.rate = 0
    assert start(file).wait() == 0
    assert raw(tmp_path / "killed") == raw(tmp_path / "calm")
    assert not list((tmp_path / "killed").rglob(".*.arriving*"))
    assert any(begin > 0 for _, begin, _ in server.ranges), "what had come was not fetched again"


@pytest.mark.parametrize("images", [pytest.param("download", marks=pytest.mark.slow), "select"])
def test_field_chips_killed_at_any_publication_resume_to_the_same_bytes(
    fields_request: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, images: str
) -> None:
    """Every seventh file, from the first to the last, is the last to be published; then it is run again."""
    calm = fields_request(**{"output": str(tmp_path / "calm"), "product.images": images})
    assert run(calm).state == "succeeded"
    names = len(files(tmp_path / "calm"))
    lives, times = Lives(monkeypatch), 0
    for number, allowed in enumerate(range(12, names, 67)):
        output = tmp_path / f"killed{number}"
        request = fields_request(**{"output": str(output), "product.images": images})
        times += lives.die_twice(request, allowed, 3)
        assert run(request).state == "succeeded"
        assert files(output) == files(tmp_path / "calm"), f"killed after {allowed} files"
    assert times > 3


@pytest.mark.slow
def test_field_chips_killed_at_random_moments(fields_request: Make, tmp_path: Path) -> None:
    calm = fields_request(output=str(tmp_path / "calm"))
    run(calm)
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    pick = random.Random(seed)
    for attempt, runner in enumerate(["serial", "direct", "serial", "direct"]):
        killed = fields_request(output=str(tmp_path / f"killed{attempt}"), runner=runner)
        run_killing(killed, tmp_path, [pick.uniform(0.8, 5.0) for _ in range(4)])
        assert files(tmp_path / f"killed{attempt}") == files(tmp_path / "calm"), f"seed {seed}"
