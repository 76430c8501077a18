"""Byte ranges over a real HTTP server that misbehaves in the ways that real ones do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from scenebeam.errors import ReadError
from scenebeam.sandbox.server import Fault, SandboxServer, serve
from scenebeam.transfer.ranges import read_range, read_range_and_size
from scenebeam.transfer.retry import Budget

CONTENT = bytes(range(256)) * 400


@pytest.fixture
def host(tmp_path: Path) -> Iterator[SandboxServer]:
    (tmp_path / "file.bin").write_bytes(CONTENT)
    with serve(tmp_path) as served:
        yield served


@pytest.fixture
def budget() -> Budget:
    return Budget(private=True, first_wait=0.01)


def test_http_and_local_files_give_the_same_bytes(host: SandboxServer, budget: Budget) -> None:
    for place in (
        f"{host.url}/file.bin",
        str(host.folder / "file.bin"),
        f"file://{host.folder}/file.bin",
    ):
        assert read_range_and_size(place, 100, 300, budget) == (CONTENT[100:300], len(CONTENT))
        assert read_range(place, len(CONTENT) - 5, len(CONTENT) + 50, budget) == CONTENT[-5:], (
            "the file ends there"
        )
    assert budget.requests == 6
    assert budget.bytes == 3 * 205


@pytest.mark.parametrize(
    "fault",
    [
        Fault("file", times=2, status=503),
        Fault("file", times=2, status=429, retry_after="0"),
        Fault("file", times=2, cut=20),
        Fault("file", times=2, cut=0),
    ],
    ids=["503", "429", "cut", "hung-up"],
)
def test_passing_faults_are_retried(host: SandboxServer, budget: Budget, fault: Fault) -> None:
    host.faults.append(fault)
    assert read_range(f"{host.url}/file.bin", 100, 300, budget) == CONTENT[100:300]
    assert host.requests["/file.bin"] == 3
    assert budget.retries == 2


def test_retry_after_is_honoured_and_paid_from_the_budget(host: SandboxServer) -> None:
    host.faults.append(Fault("file", times=1, status=429, retry_after="1"))
    budget = Budget(private=True, seconds=10, first_wait=0.01)
    read_range(f"{host.url}/file.bin", 0, 10, budget)
    assert 8.0 < budget.seconds <= 9.0


def test_one_budget_bounds_all_waiting(host: SandboxServer) -> None:
    host.faults.append(Fault("file", status=503, retry_after="3600"))
    with pytest.raises(ReadError, match="returned 503") as fault:
        read_range(f"{host.url}/file.bin", 0, 10, Budget(private=True, seconds=0, first_wait=0.01))
    assert not fault.value.permanent


@pytest.mark.parametrize(
    ("status", "told"), [(404, "404"), (403, "403"), (410, "410"), (401, "401")]
)
def test_permanent_faults_are_not_retried(
    host: SandboxServer, budget: Budget, status: int, told: str
) -> None:
    host.faults.append(Fault("file", status=status))
    with pytest.raises(ReadError, match=told) as fault:
        read_range(f"{host.url}/file.bin", 0, 10, budget)
    assert fault.value.permanent
    assert host.requests["/file.bin"] == 1


def test_a_range_behind_the_end_is_a_truncated_file(host: SandboxServer, budget: Budget) -> None:
    with pytest.raises(ReadError, match="truncated"):
        read_range(f"{host.url}/file.bin", len(CONTENT) + 10, len(CONTENT) + 20, budget)


def test_redirects_are_followed(host: SandboxServer, budget: Budget) -> None:
    host.faults.append(Fault("moved", status=302, location=f"{host.url}/file.bin"))
    assert read_range(f"{host.url}/moved.bin", 100, 300, budget) == CONTENT[100:300]


def test_a_server_that_ignores_ranges_still_gives_small_files(
    host: SandboxServer, budget: Budget
) -> None:
    host.faults.append(Fault("file", ignore_range=True))
    assert read_range(f"{host.url}/file.bin", 100, 300, budget) == CONTENT[100:300]


@pytest.mark.parametrize("href", ["/nowhere/x.tif", "http://127.0.0.1:1/x.tif", "ftp://host/x.tif"])
def test_what_is_not_there_is_named(href: str) -> None:
    with pytest.raises(ReadError, match=href):
        read_range(href, 0, 10, Budget(private=True, seconds=0, first_wait=0.01))
