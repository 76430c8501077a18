"""Dask: a cluster that runs already, or processes of this machine.

The driver is a client of the cluster. Dask moves the tasks of a worker that dies to others, and
releases all tasks when the client ends.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from typing import Any
from uuid import uuid4

from scenebeam.errors import RequestError, RunnerError, SceneBeamError
from scenebeam.execution.beam_pipeline import run_pipeline
from scenebeam.execution.row_ranges import MOST_RANGES
from scenebeam.extras import import_extra
from scenebeam.planning.plan import Plan
from scenebeam.request import Runner, RunRequest
from scenebeam.status import RunStatus
from scenebeam.storage import Store, open_store
from scenebeam.suggestions import suggest

IN_PROCESS = True
"""Tasks end with this process, which is the client that Dask makes them for."""

_OPTIONS = ("scheduler",)
# Not `inproc`: Beam's runner keeps results in objects that threads of one process would share.
_ADDRESS = re.compile(r"(?!inproc)[a-z]+://.+")
_WAIT_SECONDS = 60
"""How long the first worker of a cluster, and answers of workers, are waited for."""
_WORKER_CONFIG = {"distributed.worker.profile.enabled": False}
"""The profiler of Dask's workers calls `sys._current_frames`, which in Python 3.11
may stop a process for ever (https://github.com/python/cpython/issues/106883)."""
_PROBES = "probes/"
"""Folder of the files by which workers show that they see the output."""


def check_request(request: RunRequest) -> None:
    """Check that a request can run on Dask, before anything is searched.

    Raises:
        RequestError: Dask is not installed, or an option is wrong.
    """
    import_extra("distributed", "dask", "runner 'dask'")
    options = request.runner.options
    for name in options:
        if name not in _OPTIONS:
            raise RequestError(f"runner.options: Dask has no {name!r}; {suggest(name, _OPTIONS)}")
    scheduler = options.get("scheduler")
    if scheduler is not None and not _ADDRESS.fullmatch(str(scheduler)):
        raise RequestError(
            f"runner.options.scheduler {scheduler!r}: give the address of a Dask scheduler, such "
            "as tcp://10.0.0.7:8786"
        )


def run_tasks(kind: str, plan: Plan, store: Store, status: RunStatus) -> RunStatus:
    """See `scenebeam.execution.runners.run_tasks`."""
    from scenebeam.execution.bags import BagRunner

    check_request(plan.request)
    # Ranges are no more than that; a partition may be empty.
    partitions = max(1, min(status.tasks - status.kept, MOST_RANGES))
    with ExitStack() as closing:
        client = closing.enter_context(_connect(plan.request.runner))
        check_workers(client, store)
        return run_pipeline(kind, [], plan, store, status, BagRunner(client, partitions))


@contextmanager
def _connect(runner: Runner) -> Iterator[Any]:
    """Connect to the scheduler that the options name, or start workers on this machine.

    Raises:
        RunnerError: The scheduler does not answer, or has no workers.
    """
    import dask
    from distributed import Client, LocalCluster

    address = runner.options.get("scheduler")
    with ExitStack() as closing:
        if address is None:
            # One task at a time in each: all of them share the memory of the machine.
            workers = runner.workers or os.cpu_count() or 1
            closing.enter_context(dask.config.set(_WORKER_CONFIG))
            cluster = LocalCluster(
                n_workers=workers, threads_per_worker=1, memory_limit=None, dashboard_address=None
            )
            address = closing.enter_context(cluster).scheduler_address
        try:
            client = closing.enter_context(Client(address, timeout=_WAIT_SECONDS))
            client.wait_for_workers(1, timeout=_WAIT_SECONDS)
        except (OSError, TimeoutError) as error:
            raise RunnerError(
                f"runner 'dask': no scheduler with workers at {address}: {error}; start the "
                "cluster, then run again"
            ) from error
        yield client


def check_workers(client: Any, store: Store) -> None:
    """Check that each worker of a cluster has this scenebeam, and sees the output.

    The driver writes a file into the output, which every worker must find there, and each worker
    writes one, which the driver must find.

    Args:
        client: The client of the cluster.
        store: The output.

    Raises:
        RequestError: A worker does not see the output, or has another version of scenebeam.
        RunnerError: A worker does not answer.
    """
    probe = f"{_PROBES}{uuid4().hex}"
    store.write(f"{probe}/driver", probe.encode())
    try:
        answers = client.run(answer_probe, store.uri, probe, version("scenebeam"))
    except ModuleNotFoundError as error:
        raise RequestError(
            f"runner 'dask': a worker cannot import {error.name}: install scenebeam "
            f"{version('scenebeam')} where the workers run"
        ) from error
    except OSError as error:
        raise RunnerError(f"runner 'dask': a worker has not answered: {error}") from error
    finally:
        written = store.list(f"{probe}/")
        store.delete(sorted(written))
    for worker, (key, fault) in answers.items():
        if not fault and key not in written:
            fault = f"it has written {key} into a folder of its own"
        if fault:
            raise RequestError(
                f"runner 'dask': the worker {worker} cannot use the output {store.uri}: {fault}; "
                "give an output that this machine and all workers share: gs://, or a shared folder"
            )


def answer_probe(uri: str, probe: str, wanted: str) -> tuple[str, str]:
    """On a worker: look for the probe in the output, and write one more.

    Args:
        uri: URI of the output.
        probe: Folder of the probes.
        wanted: The version of scenebeam.

    Returns:
        (key of what was written, why the worker cannot be used; empty if it can).
    """
    if version("scenebeam") != wanted:
        return "", f"it has scenebeam {version('scenebeam')}, and this machine {wanted}"
    key = f"{probe}/{uuid4().hex}"
    try:
        store = open_store(uri)
        if store.read(f"{probe}/driver") is None:
            return "", "it does not see what this machine writes there"
        store.write(key, b"")
    except SceneBeamError as error:
        return "", str(error)
    return key, ""
