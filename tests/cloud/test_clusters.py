"""A job server and two worker pools, as Flink and Spark have them; one pool may die."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from conftest import OF_ITS_TIME, tree, write_served_items
from local_cloud import free_port
from scenebeam.errors import RunnerError
from scenebeam.execution.driver import run
from scenebeam.planning.plan import read_plan
from scenebeam.request import RunRequest
from scenebeam.sandbox.server import serve
from scenebeam.status import RunStatus
from scenebeam.storage import open_store

pytestmark = pytest.mark.cloud

JOB_SERVER = Path(__file__).parents[1] / "job_server.py"
Make = Callable[..., RunRequest]
WORKER_PYTHON = os.environ.get("SCENEBEAM_WORKER_PYTHON", sys.executable)
UMASKS = (0o022, 0o027)
"""The pools differ by it, so that the mode of a file tells which of them has made it."""


TIMES = (*OF_ITS_TIME, "stacks_status.csv")
"""Files with the seconds that tasks took."""
STACK = {"kind": "stack", "bands": ["red", "scl"], "format": "geotiff"}


class Service:
    """One address for several ports: each connection goes to the next port that is open."""

    def __init__(self, ports: list[int]) -> None:
        self._ports, self._next = ports, 0
        self._server = socket.create_server(("127.0.0.1", 0))
        self.address = f"localhost:{self._server.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._server.close()

    def _accept(self) -> None:
        with suppress(OSError):  # it is closed
            while True:
                client, _ = self._server.accept()
                server = self._connect()
                for ends in ((client, server), (server, client)):
                    threading.Thread(target=_copy, args=ends, daemon=True).start()

    def _connect(self) -> socket.socket:
        for _ in self._ports:
            port = self._ports[self._next % len(self._ports)]
            self._next += 1
            with suppress(ConnectionRefusedError):
                return socket.create_connection(("127.0.0.1", port))
        raise ConnectionRefusedError("all pools are gone")


def _copy(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(2**16):
            target.sendall(data)
    for end in (source, target):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


class Cluster:
    """Processes: a job server, and two worker pools behind one address."""

    def __init__(self, folder: Path) -> None:
        self.job_port, ports = free_port(), [free_port(), free_port()]
        self.processes = [
            _start([sys.executable, str(JOB_SERVER), str(self.job_port)], dict(os.environ), -1)
        ]
        # Pools start their workers as `python`. PYTHONPATH is that of a run from a work tree.
        environ = {"PATH": f"{Path(WORKER_PYTHON).parent}:/usr/bin:/bin", "HOME": str(folder)}
        if sys.executable == WORKER_PYTHON:
            environ["PYTHONPATH"] = os.environ.get("PYTHONPATH", "")
        for port, umask in zip(ports, UMASKS, strict=True):
            pool = ["-m", "apache_beam.runners.worker.worker_pool_main", f"--service_port={port}"]
            self.processes.append(_start([WORKER_PYTHON, *pool], environ, umask))
        for port in (self.job_port, *ports):
            _wait_for(port)
        self.service = Service(ports)

    def options(self) -> dict[str, Any]:
        return {
            "job_endpoint": f"localhost:{self.job_port}",
            "environment_type": "EXTERNAL",
            "environment_config": self.service.address,
        }

    def kill(self, index: int) -> None:
        """Kill the job server (0), or a pool with its workers, as when their machine is lost."""
        os.killpg(self.processes[index].pid, signal.SIGKILL)

    def close(self) -> None:
        self.service.close()
        for process in self.processes:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _start(command: list[str], environ: dict[str, str], umask: int) -> subprocess.Popen[bytes]:
    quiet = subprocess.DEVNULL
    return subprocess.Popen(
        command, env=environ, stdout=quiet, stderr=quiet, umask=umask, start_new_session=True
    )


def _wait_for(port: int) -> None:
    for _ in range(600):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise AssertionError(f"nothing listens on port {port}")


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path)
    yield cluster
    cluster.close()


def finished(folder: Path) -> dict[str, int]:
    """Path → inode of the files of tasks that are done; a file that is made again is a new one."""
    store = open_store(str(folder))
    plan = read_plan(store)
    if plan is None:
        return {}
    names = store.list()
    undone = {task.id for task in plan.undone(names)}
    outputs = [name for task in plan.tasks if task.id not in undone for name in task.outputs]
    return {name: (folder / name).stat().st_ino for name in outputs}


def run_in_thread(request: RunRequest) -> RunStatus:
    """Run a request; a run that hangs fails the test, and ends with the cluster."""
    return ThreadPoolExecutor(1).submit(run, request).result(timeout=120)


@pytest.mark.parametrize("kind", ["flink", "spark"])
def test_two_pools_make_the_bytes_of_serial(
    make_request: Make, cluster: Cluster, tmp_path: Path, kind: str
) -> None:
    run(make_request(output=str(tmp_path / "serial")))
    runner = {"kind": kind, "options": cluster.options()}
    status = run_in_thread(make_request(output=str(tmp_path / "pools"), runner=runner))
    assert (status.state, status.runner) == ("succeeded", kind)
    assert tree(tmp_path / "pools") == tree(tmp_path / "serial")
    modes = {path.stat().st_mode & 0o777 for path in (tmp_path / "pools").rglob("*.tif")}
    assert modes == {0o666 & ~umask for umask in UMASKS}, "both pools have made some"


def test_a_run_that_loses_a_pool_ends_and_resumes(
    make_request: Make, sandbox: Path, cluster: Cluster, tmp_path: Path
) -> None:
    output = tmp_path / "pools"
    with serve(sandbox, latency=0.5) as server:
        catalog = write_served_items(sandbox, server.url, tmp_path / "served.json")
        stack = {"catalog": str(catalog), "product": STACK}  # six tasks, three for each pool
        run(make_request(**stack, output=str(tmp_path / "serial")))
        runner = {"kind": "flink", "options": cluster.options()}
        request = make_request(**stack, output=str(output), runner=runner)

        def kill_a_pool() -> None:
            while not finished(output):
                time.sleep(0.01)
            cluster.kill(1)

        threading.Thread(target=kill_a_pool, daemon=True).start()
        with pytest.raises(RunnerError, match="ended before all tasks .* run it again to resume"):
            run_in_thread(request)
        kept = finished(output)
        assert 0 < len(kept) < len(finished(tmp_path / "serial"))
        assert run_in_thread(request).state == "succeeded"
    assert tree(output, TIMES) == tree(tmp_path / "serial", TIMES)
    assert kept.items() <= finished(output).items(), "what was finished is not made again"


def test_a_run_that_loses_its_job_server_ends(make_request: Make, cluster: Cluster) -> None:
    request = make_request(runner={"kind": "spark", "options": cluster.options()})

    def kill_the_job_server() -> None:
        while not list(Path(request.output).rglob("*.tif")):
            time.sleep(0.01)
        cluster.kill(0)

    threading.Thread(target=kill_the_job_server, daemon=True).start()
    with pytest.raises(RunnerError, match="'spark' ended before all tasks .* run it again to resu"):
        run_in_thread(request)


def test_a_pool_that_is_not_there_ends_the_run(make_request: Make, cluster: Cluster) -> None:
    options = {**cluster.options(), "environment_config": f"localhost:{free_port()}"}
    request = make_request(runner={"kind": "flink", "options": options})
    with pytest.raises(RunnerError, match="failed to connect to all addresses"):
        run_in_thread(request)
