"""The one Beam graph: read the plan, reshuffle, make each task, collect the outcomes, report.

The transforms contain as little logic as possible: each calls a plain function that works without
Beam. Elements are task ids and outcomes as JSON, never arrays. A bundle may be replayed at any
time, because making a task is idempotent.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import apache_beam as beam
from apache_beam.metrics import Metrics

from scenebeam.execution.make import limit_malloc_arenas, make_task
from scenebeam.planning.plan import Plan, output_removed, read_plan
from scenebeam.report.finish import finish
from scenebeam.request import Limits
from scenebeam.status import RunStatus
from scenebeam.storage import open_store
from scenebeam.tasks import Outcome, Task

ProgressCallback = Callable[[], None]
"""Announces that a run has progressed. It is pickled with the graph, and must not raise."""
_REPORT_INTERVAL = 60.0
"""Seconds between two calls of it by one worker thread."""


def build(
    pipeline: Any,
    output: str,
    status: RunStatus,
    limits: Limits,
    on_progress: ProgressCallback | None = None,
) -> Any:
    """Apply the graph to a pipeline.

    Args:
        pipeline: A Beam pipeline.
        output: Where the plan is frozen.
        status: The status of the run so far.
        limits: Limits of the request.
        on_progress: Called by workers now and then, and at the end.

    Returns:
        A PCollection with the final status as JSON.
    """
    return (
        pipeline
        | "Output" >> beam.Create([output])
        | "ReadPlan" >> beam.FlatMap(undone_tasks)
        | "Reshuffle" >> beam.Reshuffle()
        | "MakeTask" >> beam.ParDo(MakeTask(output, limits.model_dump_json(), on_progress))
        | "AllOutcomes" >> beam.CombineGlobally(beam.combiners.ToListCombineFn())
        | "Report" >> beam.Map(report, output, status.model_dump_json(), on_progress)
    )


def undone_tasks(output: str) -> Iterator[str]:
    """Yield the ids of tasks that are not done yet."""
    plan, store = _read_frozen(output)
    for task in plan.undone(store.list()):
        yield task.id


class MakeTask(beam.DoFn):  # type: ignore[misc]
    """Task id → Outcome as JSON."""

    def __init__(
        self, output: str, limits: str, on_progress: ProgressCallback | None = None
    ) -> None:
        self._output, self._limits = output, Limits.model_validate_json(limits)
        self._on_progress = on_progress

    def setup(self) -> None:
        """Read the plan, once per worker."""
        limit_malloc_arenas()
        plan, self._store = _read_frozen(self._output)
        self._kind = plan.request.product.kind
        self._tasks: dict[str, Task] = {task.id: task for task in plan.tasks}
        self._last_report = time.monotonic()

    def process(self, task_id: str) -> Iterator[str]:
        """Make one task."""
        outcome = make_task(self._kind, self._tasks[task_id], self._store, self._limits)
        Metrics.counter("scenebeam", f"tasks_{outcome.state}").inc()
        Metrics.counter("scenebeam", "read_bytes").inc(outcome.read_bytes)
        is_due = time.monotonic() - self._last_report > _REPORT_INTERVAL
        if self._on_progress is not None and is_due:
            self._last_report = time.monotonic()
            self._on_progress()
        yield outcome.model_dump_json()


def report(
    outcomes: Iterable[str], output: str, status: str, on_progress: ProgressCallback | None = None
) -> str:
    """Write the tables and the final status of a run.

    Args:
        outcomes: Outcomes as JSON.
        output: Where the plan is frozen.
        status: The status of the run so far, as JSON.
        on_progress: Called at the end.

    Returns:
        The final status as JSON.
    """
    plan, store = _read_frozen(output)
    made = [Outcome.model_validate_json(text) for text in outcomes]
    final = finish(plan, made, store, RunStatus.model_validate_json(status))
    if on_progress is not None:
        on_progress()
    return final.model_dump_json()


def _read_frozen(output: str) -> tuple[Plan, Any]:
    store = open_store(output)
    plan = read_plan(store)
    if plan is None:
        raise output_removed(store)
    return plan, store
