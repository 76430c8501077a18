"""How long a run waits for a slow server: dependent round trips, and memory while blocks are held back."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from scenebeam.execution.driver import run
from scenebeam.request import RunRequest
from scenebeam.sandbox.server import SandboxServer

Make = Callable[..., RunRequest]
LATENCY = 0.4
"""Seconds of each response: more than all computation between two of them takes."""


@pytest.fixture
def arrivals(server: SandboxServer) -> list[tuple[float, str, str]]:
    """When each request arrives: (time, path, range)."""
    log: list[tuple[float, str, str]] = []

    def note(path: str, headers: Mapping[str, str]) -> None:
        log.append((time.monotonic(), path, headers.get("Range", "")))

    server.guard = note
    server.latency = LATENCY
    return log


def rounds(arrivals: list[tuple[float, str, str]]) -> list[list[str]]:
    """Requests that may depend on one another: each round begins after an answer to the one before."""
    found: list[list[str]] = []
    end = 0.0
    for when, path, part in sorted(arrivals):
        if when >= end:
            found.append([])
            end = when + LATENCY
        found[-1].append(f"{path} {part}")
    return found


@pytest.mark.parametrize("bands", [["red"], ["red", "nir", "scl"]])
def test_a_mosaic_takes_three_round_trips(
    make_request: Make,
    served_items: Path,
    arrivals: list[tuple[float, str, str]],
    bands: list[str],
) -> None:
    """One for the headers, one for the pixels, and one for holes that another tile has to fill."""
    request = make_request(
        catalog=str(served_items),
        dates="2021-06-10",
        product={"kind": "mosaic", "bands": bands},
        **{"grid.crs": "EPSG:32634"},
    )
    assert run(request).state == "succeeded"
    assert len(arrivals) > 2 * len(bands)
    found = rounds(arrivals)
    assert len(found) <= 3, "\n".join(f"{number}: {names}" for number, names in enumerate(found))
