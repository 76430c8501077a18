"""`--retry-failed`: what lacks a tile is made again, and what is complete is left alone."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conftest import tree
from scenebeam.execution.driver import run
from scenebeam.request import RunRequest
from scenebeam.sandbox.server import Fault, SandboxServer

Make = Callable[..., RunRequest]
LACKING, COMPLETE = "20210610T092031Z", "20220615T092029Z"
GONE = Fault("S2A_34TGL_20210610_1_L2A/red", status=404)


@pytest.fixture
def ask(make_request: Make, served_items: Path) -> Make:
    def make(**changes: Any) -> RunRequest:
        return make_request(catalog=str(served_items), **{"grid.crs": "EPSG:32634", **changes})

    return make


def written(folder: Path) -> dict[str, int]:
    """When each product below a folder was written, in ns."""
    return {str(path): os.stat(path).st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def is_complete(request: RunRequest, stamp: str) -> bool:
    item = Path(request.output) / "mosaics" / stamp / f"{stamp}.json"
    complete: bool = json.loads(item.read_text())["properties"]["scenebeam:complete"]
    return complete


@pytest.fixture
def calm(ask: Make, tmp_path: Path) -> dict[str, bytes]:
    """The products where nothing is missing."""
    request = ask(output=str(tmp_path / "calm"))
    assert run(request).incomplete == 0
    return tree(Path(request.output) / "mosaics")


def test_a_tile_that_has_come_by_now_is_in_the_product(
    ask: Make,
    server: SandboxServer,
    calm: dict[str, bytes],
) -> None:
    server.faults.append(GONE)
    request = ask()
    assert run(request).incomplete == 1
    folder = Path(request.output) / "mosaics"
    first, times = tree(folder), written(folder)
    assert not is_complete(request, LACKING)
    server.faults.clear()
    server.reset_counts()
    again = run(request)
    assert (again.state, again.incomplete) == ("succeeded", 1)
    assert written(folder) == times, "a plain second run makes nothing again"
    assert server.requests.total() == 0
    retried = run(request, retry_failed=True)
    assert (retried.state, retried.incomplete) == ("succeeded", 0)
    assert is_complete(request, LACKING)
    assert tree(folder) == calm
    after = written(folder)
    untouched = {path for path in times if COMPLETE in path}
    assert untouched
    assert {path: after[path] for path in untouched} == {path: times[path] for path in untouched}
    assert {name: first[name] for name in first if COMPLETE in name} == {
        name: calm[name] for name in calm if COMPLETE in name
    }
    assert not any("20220615" in path for path in server.requests), "nor is anything read for it"


def test_a_tile_that_is_still_missing_leaves_the_product_as_it_is(
    ask: Make,
    server: SandboxServer,
) -> None:
    server.faults.append(GONE)
    request = ask()
    run(request)
    folder = Path(request.output) / "mosaics"
    before = tree(folder)
    retried = run(request, retry_failed=True)
    assert (retried.state, retried.incomplete) == ("succeeded", 1)
    assert tree(folder) == before


def test_a_failed_product_is_made_too(
    ask: Make, server: SandboxServer, calm: dict[str, bytes]
) -> None:
    server.faults.append(Fault("S2A_34TGL_20210610_1_L2A/red", status=503))
    request = ask(**{"limits.max_attempts": 2})
    assert run(request).state == "failed"
    server.faults.clear()
    assert run(request, retry_failed=True).state == "succeeded"
    assert tree(Path(request.output) / "mosaics") == calm


def test_when_all_is_complete_nothing_is_made(ask: Make) -> None:
    request = ask()
    run(request)
    times = written(Path(request.output) / "mosaics")
    assert run(request, retry_failed=True).incomplete == 0
    assert written(Path(request.output) / "mosaics") == times
