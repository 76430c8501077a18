"""Runs on a Dask cluster: which options, that workers share the output, and that they may die."""

from __future__ import annotations

import os
import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import apache_beam as beam
import dask
import pytest
from distributed import Client, LocalCluster

from composites import composite_request
from scenebeam.errors import RequestError, RunnerError
from scenebeam.execution.bags import BagRunner
from scenebeam.execution.driver import run
from scenebeam.execution.runners import dask as runner
from scenebeam.execution.runners.dask import check_workers
from scenebeam.request import RunRequest
from scenebeam.requestfile import validate_request
from scenebeam.storage import Store, open_store

Make = Callable[..., RunRequest]
OF_ITS_TIME = ("status.json", "run.json", "index.html", "spending.csv")


def contents(store: Store) -> dict[str, bytes | None]:
    """What a run has published, but what says when and where."""
    return {key: store.read(key) for key in store.list() if Path(key).name not in OF_ITS_TIME}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"scheduller": "tcp://10.0.0.7:8786"}, "did you mean 'scheduler'"),
        ({"scheduler": "10.0.0.7:8786"}, "such as tcp://"),
        ({"scheduler": "inproc://10.0.0.7/1/1"}, "such as tcp://"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_written(
    make_request: Make, options: dict[str, str], said: str
) -> None:
    request = make_request(runner={"kind": "dask", "options": options})
    with pytest.raises(RequestError, match=said):
        run(request)
    assert not Path(request.output).exists()


def test_a_scheduler_that_is_not_there_is_named(
    make_request: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "_WAIT_SECONDS", 1)
    options = {"scheduler": "tcp://127.0.0.1:9"}
    request = make_request(runner={"kind": "dask", "options": options})
    with pytest.raises(RunnerError, match=r"tcp://127.0.0.1:9.* start the cluster"):
        run(request)


@pytest.fixture
def threads() -> Iterator[Client]:
    """A cluster in this process."""
    with (
        LocalCluster(n_workers=2, processes=False, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        yield client


def test_workers_that_share_the_output_are_accepted(threads: Client, tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    check_workers(threads, store)
    assert not store.list(), "the probes are removed"


def test_workers_with_a_folder_of_their_own_are_refused(
    threads: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def elsewhere(uri: str) -> Store:
        return open_store(f"{tmp_path}/disk-of-the-worker{uri}")

    monkeypatch.setattr(runner, "open_store", elsewhere)
    with pytest.raises(RequestError, match=r"does not see .* gs://, or a shared folder"):
        check_workers(threads, open_store(str(tmp_path / "out")))


def test_workers_that_cannot_write_are_refused(
    threads: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Copy:
        """A worker's disk that got a copy of what the driver wrote."""

        read = open_store(str(tmp_path / "out")).read
        write = open_store(str(tmp_path / "disk")).write

    monkeypatch.setattr(runner, "open_store", lambda uri: Copy())
    with pytest.raises(RequestError, match="into a folder of its own"):
        check_workers(threads, open_store(str(tmp_path / "out")))


def test_workers_of_another_version_are_refused(
    threads: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    versions = iter(["2.0", "1.0", "1.0", "1.0", "1.0"])
    monkeypatch.setattr(runner, "version", lambda name: next(versions))
    with pytest.raises(RequestError, match=r"it has scenebeam 1.0, and this machine 2.0"):
        check_workers(threads, open_store(str(tmp_path)))


@pytest.fixture(scope="module")
def cluster(emulator: str) -> Iterator[LocalCluster]:
    """Three worker processes. One that is killed is started again, as a cluster does."""
    with (
        dask.config.set(runner._WORKER_CONFIG),
        LocalCluster(n_workers=3, threads_per_worker=2, dashboard_address=None) as cluster,
    ):
        yield cluster


def count_to(end: int) -> Iterator[int]:
    yield from range(end)


def note_worker(number: int, folder: str) -> tuple[str, int]:
    time.sleep(0.05)
    Path(folder, f"{number}-{os.getpid()}-{uuid.uuid4()}").touch()
    return "odd" if number % 2 else "even", number


def note_group(group: tuple[str, list[int]], folder: str) -> None:
    key, numbers = group
    Path(folder, f"{key}-{'.'.join(map(str, sorted(numbers)))}").touch()


@pytest.mark.slow
def test_what_one_element_yields_is_spread_over_all_workers(
    cluster: LocalCluster, tmp_path: Path
) -> None:
    (tmp_path / "elements").mkdir()
    (tmp_path / "groups").mkdir()
    with Client(cluster) as client:
        client.wait_for_workers(3)
        pipeline = beam.Pipeline(runner=BagRunner(client, 40))
        _ = (
            pipeline
            | beam.Create([40])
            | beam.FlatMap(count_to)
            | beam.Reshuffle()
            | beam.Map(note_worker, str(tmp_path / "elements"))
            | beam.GroupByKey()
            | beam.Map(note_group, str(tmp_path / "groups"))
        )
        pipeline.run().wait_until_finish()
    seen = [path.name.split("-") for path in (tmp_path / "elements").iterdir()]
    assert sorted(int(number) for number, *_ in seen) == list(range(40)), "each element once"
    assert len({pid for _, pid, *_ in seen}) == 3
    groups = [
        f"{key}-{'.'.join(str(number) for number in range(first, 40, 2))}"
        for first, key in enumerate(("even", "odd"))
    ]
    assert sorted(path.name for path in (tmp_path / "groups").iterdir()) == groups


@pytest.fixture(params=["folder", "gs"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return (
        str(tmp_path / "runs") if request.param == "folder" else request.getfixturevalue("prefix")
    )


def kill_one(client: Client, store: Store, stop: threading.Event, killed: list[int]) -> None:
    """Kill a worker that has made tasks, as soon as one has."""
    while not stop.wait(0.02):
        if store.list("outcomes/"):
            results = client.has_what()
            busy = [worker for worker, keys in results.items() if keys] or list(results)
            pid = client.run(os.getpid, workers=busy[:1])[busy[0]]
            os.kill(pid, signal.SIGKILL)
            killed.append(pid)
            return


@pytest.mark.slow
@pytest.mark.parametrize("product", ["mosaic", "composite", "fields"])
def test_a_worker_dies_and_the_bytes_are_those_of_serial(
    product: str, place: str, cluster: LocalCluster, request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("scenebeam.imaging.shards._LARGEST_SHARD", 2**16)
    monkeypatch.setattr("scenebeam.imaging.shards._CELL_LEVELS", 1)
    if product == "mosaic":
        asked = request.getfixturevalue("make_request")()
    elif product == "composite":
        catalog = request.getfixturevalue("series_sandbox") / "items.json"
        asked = composite_request(catalog, Path("unused"), period="month")
    else:
        asked = request.getfixturevalue("fields_request")()
    document = asked.model_dump(mode="json")
    calm = validate_request({**document, "output": f"{place}/serial", "runner": "serial"})
    assert run(calm).state == "succeeded"
    options = {"scheduler": cluster.scheduler_address}
    on_dask = validate_request(
        {**document, "output": f"{place}/dask", "runner": {"kind": "dask", "options": options}}
    )
    store, stop = open_store(on_dask.output), threading.Event()
    killed: list[int] = []
    with Client(cluster) as client:
        client.wait_for_workers(3)
        killer = threading.Thread(target=kill_one, args=(client, store, stop, killed))
        killer.start()
        status = run(on_dask)
        stop.set()
        killer.join()
    assert killed, "in the middle of the run"
    assert (status.state, status.failed, status.runner) == ("succeeded", 0, "dask")
    assert status.tasks > 1
    assert contents(store) == contents(open_store(calm.output))
