"""Real tasks for `scale.py`, made one by one in this process from the full-size tiles."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from common import range_server

from scenebeam.sandbox.scenes import COLLECTION, SandboxScene

LATENCY = 0.1
"""Seconds to the first byte from the source."""
Document = dict[str, Any]


def request_of(folder: Path, items: Sequence[Document], product: Document, **more: Any) -> Any:
    """Return a validated request for some items, with its output in a folder."""
    from scenebeam.requestfile import validate_request

    catalog = folder / "items.json"
    catalog.write_text(json.dumps({"type": "FeatureCollection", "features": list(items)}))
    return validate_request(
        {
            "catalog": str(catalog),
            "collections": [COLLECTION],
            "product": product,
            "output": str(folder / "out"),
            "runner": "serial",
            **more,
        }
    )


def fastest(rounds: Sequence[Document]) -> Document:
    """Return one of several measurements of the same tasks, with the fastest of each task.

    Other processes slow some of them down; what a worker does to its tasks is part of the model.
    """
    found = min(rounds, key=lambda one: one["assembly"]["seconds"])
    tasks = [min(same) for same in zip(*(one["tasks"] for one in rounds), strict=True)]
    return {**found, "tasks": tasks, "report": min(one["report"] for one in rounds)}


def measure_tasks(
    folder: Path,
    product: Document,
    scenes: Sequence[SandboxScene],
    memory: int = 0,
    rate: float = 0.0,
    clock: Callable[[], float] = time.process_time,
) -> Document:
    """Make the tasks of a product one by one, and then its report.

    Args:
        folder: Where the output is.
        product: The product.
        scenes: The full-size tiles that are read.
        memory: `limits.memory` in bytes; 0 for the default.
        rate: Bytes per second of one connection to the range server; 0 means unlimited.
        clock: Returns the CPU seconds so far; by default those of this process.

    Returns:
        Seconds, CPU seconds, bytes read, requests and bytes written of each task per million
        pixels, those of the assembly, and the seconds of the report. The task that assembles, and
        tasks of less than half the average size, at the edges, are left out.
    """
    from scenebeam.planning.plan import freeze
    from scenebeam.planning.search import make_plan
    from scenebeam.planning.start import new_status
    from scenebeam.report.finish import finish
    from scenebeam.storage import open_store

    with range_server(LATENCY, rate) as url, _timed_assembly() as assembly:
        limits = {"memory": memory} if memory else {}
        items = [scene.item(url) for scene in scenes]
        request = request_of(folder, items, product, limits=limits)
        store = open_store(request.output)
        plan = make_plan(request)
        freeze(plan, store)
        windows = [task.model_dump()["window"] for task in plan.tasks]
        average = sum(map(_pixels, plan.tasks)) / len(plan.tasks)
        tasks, outcomes = [], []
        for task in plan.tasks:
            outcome, values = _measure_task(task, request, store, clock)
            outcomes.append(outcome)
            if not assembly["seconds"] and _pixels(task) > average / 2:
                tasks.append([round(value / _pixels(task) * 1e6, 6) for value in values])
        start = time.perf_counter()
        by_task = {outcome.task: outcome for outcome in outcomes}
        status = finish(plan, by_task, store, new_status(plan, store, "serial"))
        assert status.state == "succeeded", status
    return {
        "tasks": tasks,
        "window": list(windows[0]),
        "assembly": assembly,
        "report": time.perf_counter() - start,
        "outcome": outcomes[0].model_dump_json(),
    }


def machine_cpu() -> float:
    """Return the CPU seconds of all processes of this machine, such as the range server's."""
    times = psutil.cpu_times()
    return float(times.user + times.system + times.softirq)


def _measure_task(
    task: Any, request: Any, store: Any, clock: Callable[[], float]
) -> tuple[Any, tuple[float, ...]]:
    """Make a task; return its outcome, and its seconds, CPU, bytes, requests and written bytes."""
    from scenebeam.execution.make import make_task
    from scenebeam.transfer.signing import effective_limits

    cpu = clock()
    outcome = make_task(
        request.product.kind, task, store, effective_limits(request), "stalled.json"
    )
    assert outcome.state == "done", outcome
    cpu = clock() - cpu
    written = 0
    for key in store.list(task.parts_prefix):
        if key.endswith(f".{task.shard:05d}.part"):
            written += store.size(key)
    return outcome, (outcome.seconds, cpu, outcome.read_bytes, outcome.requests, written)


def _pixels(task: Any) -> int:
    top, bottom, left, right = task.window
    return int((bottom - top) * (right - left))


@contextmanager
def _timed_assembly() -> Iterator[Document]:
    """Measure the assembly of the images that are made in the block."""
    from scenebeam.imaging import assemble, gridded

    found = {"parts": 0, "bytes": 0, "coarse_pixels": 0, "seconds": 0.0, "coarse_seconds": 0.0}
    assemble_if_complete, encode = gridded.assemble_if_complete, assemble.encode_coarse_levels

    def timed_assembly(task: Any, recipe: Any, store: Any) -> None:
        keys = store.list(task.parts_prefix)
        size = sum(store.size(key) for key in keys)
        start = time.perf_counter()
        assemble_if_complete(task, recipe, store)
        if not store.list(task.parts_prefix):
            found["parts"], found["bytes"] = len(keys), size
            found["seconds"] = time.perf_counter() - start

    def timed_encode(parts: Any, *args: Any, **options: Any) -> Any:
        start = time.perf_counter()
        pyramid = encode(parts, *args, **options)
        found["coarse_seconds"] += time.perf_counter() - start
        for part in parts:
            rows, columns = part.coarse_shape
            found["coarse_pixels"] += rows * columns
        return pyramid

    gridded.assemble_if_complete = timed_assembly
    assemble.encode_coarse_levels = timed_encode
    try:
        yield found
    finally:
        gridded.assemble_if_complete = assemble_if_complete
        assemble.encode_coarse_levels = encode
