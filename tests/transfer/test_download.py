"""Whole files over a real HTTP server: resumed where that is right, started anew where it is not."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from scenebeam.errors import ReadError
from scenebeam.sandbox.server import Fault, SandboxServer, serve
from scenebeam.storage import Store, open_store
from scenebeam.transfer.download import download
from scenebeam.transfer.http import CHUNK
from scenebeam.transfer.retry import Budget, shutdown

SIZE = 5 * CHUNK + 123
HALF = 3 * CHUNK


@pytest.fixture
def host(tmp_path: Path) -> Iterator[SandboxServer]:
    folder = tmp_path / "served"
    folder.mkdir()
    (folder / "band.tif").write_bytes(os.urandom(SIZE))
    (folder / "empty.tif").write_bytes(b"")
    with serve(folder) as served:
        yield served


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "out"))


def fetch(
    host: SandboxServer, store: Store, budget: Budget | None = None, name: str = "band.tif"
) -> str:
    url = f"{host.url}/{name}"
    with store.open_download("a/band.tif", url) as arrival:
        download(url, arrival, budget or Budget(private=True, first_wait=0.01))
        arrival.publish()
        return arrival.checksum


def whole(host: SandboxServer) -> bytes:
    return (host.folder / "band.tif").read_bytes()


def test_a_file_comes_whole_in_one_request(host: SandboxServer, store: Store) -> None:
    checksum = fetch(host, store)
    assert store.read("a/band.tif") == whole(host)
    assert store.checksum("a/band.tif") == (SIZE, checksum)
    assert host.requests.total() == 1


def test_an_answer_that_breaks_off_is_gone_on_with(host: SandboxServer, store: Store) -> None:
    host.faults.append(Fault("band", cut=HALF, times=1))
    fetch(host, store)
    assert store.read("a/band.tif") == whole(host)
    assert host.bytes_sent == SIZE, "nothing was sent twice"
    assert host.ranges[1][1:] == (HALF, SIZE)


def test_another_process_goes_on_where_one_was_stopped(
    host: SandboxServer, store: Store, tmp_path: Path
) -> None:
    host.faults.append(Fault("band", cut=HALF, times=1))
    host.faults.append(Fault("band", status=503))
    with pytest.raises(ReadError) as fault:
        fetch(host, store, Budget(private=True, first_wait=0.001))
    assert not fault.value.permanent
    assert store.list() == set(), "not published before it is whole"
    host.faults.clear()
    host.reset_counts()
    store.remove_partial_files()
    fetch(host, open_store(str(tmp_path / "out")))
    assert store.read("a/band.tif") == whole(host)
    assert host.bytes_sent == SIZE - HALF
    assert [path.name for path in (tmp_path / "out" / "a").iterdir()] == ["band.tif"], (
        "no leftovers"
    )


def test_what_came_whole_and_was_not_published_is_not_asked_for_again(
    host: SandboxServer, store: Store
) -> None:
    url = f"{host.url}/band.tif"
    with store.open_download("a/band.tif", url) as arrival:
        download(url, arrival, Budget(private=True))
    fetch(host, store)
    assert store.read("a/band.tif") == whole(host)
    assert host.requests.total() == 1


def test_a_file_that_changed_in_between_starts_anew(host: SandboxServer, store: Store) -> None:
    host.faults += [Fault("band", cut=HALF, times=1), Fault("band", status=404, times=1)]
    with pytest.raises(ReadError):
        fetch(host, store)
    (host.folder / "band.tif").write_bytes(os.urandom(SIZE))
    host.faults.clear()
    host.reset_counts()
    fetch(host, store)
    assert store.read("a/band.tif") == whole(host)
    assert host.bytes_sent == SIZE


def test_the_beginning_of_another_source_is_not_gone_on_with(
    host: SandboxServer, store: Store
) -> None:
    (host.folder / "other.tif").write_bytes(os.urandom(SIZE))
    host.faults += [Fault("other", cut=HALF, times=1), Fault("other", status=404, times=1)]
    with pytest.raises(ReadError):
        fetch(host, store, name="other.tif")
    fetch(host, store)
    assert store.read("a/band.tif") == whole(host)


def test_200_where_206_was_asked_starts_anew(host: SandboxServer, store: Store) -> None:
    host.faults += [Fault("band", cut=HALF, times=1), Fault("band", ignore_range=True, times=1)]
    fetch(host, store)
    assert store.read("a/band.tif") == whole(host)


def test_a_file_that_became_shorter_starts_anew(host: SandboxServer, store: Store) -> None:
    host.faults += [Fault("band", cut=HALF, times=1), Fault("band", status=404, times=1)]
    with pytest.raises(ReadError):
        fetch(host, store)
    stamp = (host.folder / "band.tif").stat()
    (host.folder / "band.tif").write_bytes(b"short")
    os.utime(
        host.folder / "band.tif", ns=(stamp.st_atime_ns, stamp.st_mtime_ns)
    )  # the same tag: a server that lies
    host.faults.clear()
    fetch(host, store)
    assert store.read("a/band.tif") == b"short"


def test_a_server_that_always_breaks_off_is_given_up(host: SandboxServer, store: Store) -> None:
    host.faults.append(Fault("band", cut=HALF, ignore_range=True))
    with pytest.raises(ReadError, match="repeatedly cut off at byte 3,145,728"):
        fetch(host, store)


def test_many_small_steps_reach_the_end(host: SandboxServer, store: Store) -> None:
    host.faults.append(Fault("band", cut=CHUNK // 2))
    fetch(host, store, Budget(private=True, first_wait=0.001))
    assert store.read("a/band.tif") == whole(host)
    assert host.bytes_sent == SIZE


def test_retry_after_is_waited_for(host: SandboxServer, store: Store) -> None:
    host.faults.append(Fault("band", status=429, retry_after="1", times=1))
    budget = Budget(private=True, first_wait=0.001)
    fetch(host, store, budget)
    assert (budget.retries, budget.seconds <= 299) == (1, True)


def test_an_empty_file_is_an_error(host: SandboxServer, store: Store) -> None:
    with pytest.raises(ReadError, match="empty file") as fault:
        fetch(host, store, name="empty.tif")
    assert fault.value.permanent


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_what_will_never_work_is_asked_once(host: SandboxServer, store: Store, status: int) -> None:
    host.faults.append(Fault("band", status=status))
    with pytest.raises(ReadError, match=str(status)) as fault:
        fetch(host, store)
    assert fault.value.permanent
    assert host.requests.total() == 1


def test_an_interrupt_stops_at_the_next_chunk_and_keeps_what_came(
    host: SandboxServer, store: Store
) -> None:
    host.rate = 4 * CHUNK
    timer = threading.Timer(0.5, shutdown.set)
    timer.start()
    try:
        with pytest.raises(ReadError, match="interrupted"):
            fetch(host, store)
    finally:
        timer.join()
        shutdown.clear()
    host.rate = 0
    host.reset_counts()
    fetch(host, store)
    assert store.read("a/band.tif") == whole(host)
    assert host.bytes_sent < SIZE
