"""The one Beam graph: read the plan from storage, reshuffle, make one task, collect outcomes, report.

As little logic as possible: each transform calls a plain function that can be called without Beam.
Elements are task ids and outcomes in JSON, never arrays; a bundle may be replayed at any time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import apache_beam as beam
from apache_beam.metrics import Metrics

from scenebeam.execution.make import limit_malloc_arenas, make_task
from scenebeam.planning.plan import Plan, read_plan, vanished
from scenebeam.report.finish import finish
from scenebeam.request import Limits
from scenebeam.status import RunStatus
from scenebeam.storage import open_store
from scenebeam.tasks import Outcome, Task

ProgressCallback = Callable[[], None]
"""Says to whom it may concern that a run has got further. Pickled with the graph; raises nothing."""
_REPORT_INTERVAL = 60.0
"""Seconds between two words of a worker's thread."""


def build(
    pipeline: Any,
    output: str,
    status: RunStatus,
    limits: Limits,
    on_progress: ProgressCallback | None = None,
) -> Any:
    """Lay the graph for the plan that is frozen in `output` onto a pipeline.

    `tell` is called now and then while it goes, and at its end.
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
    """Ids of the tasks that are not done yet."""
    plan, store = _frozen(output)
    for task in plan.undone(store.list()):
        yield task.id


class MakeTask(beam.DoFn):  # type: ignore[misc]
    """Task id → Outcome as JSON."""

    def __init__(
        self, output: str, limits: str, on_progress: ProgressCallback | None = None
    ) -> None:
        self._output, self._limits, self._tell = (
            output,
            Limits.model_validate_json(limits),
            on_progress,
        )

    def setup(self) -> None:
        """Read the plan once a worker."""
        limit_malloc_arenas()
        plan, self._store = _frozen(self._output)
        self._kind = plan.request.product.kind
        self._tasks: dict[str, Task] = {task.id: task for task in plan.tasks}
        self._told = time.monotonic()

    def process(self, task_id: str) -> Iterator[str]:
        """Make one task."""
        outcome = make_task(self._kind, self._tasks[task_id], self._store, self._limits)
        Metrics.counter("scenebeam", f"tasks_{outcome.state}").inc()
        Metrics.counter("scenebeam", "read_bytes").inc(outcome.read_bytes)
        if self._tell is not None and time.monotonic() - self._told > _REPORT_INTERVAL:
            self._told = time.monotonic()
            self._tell()
        yield outcome.model_dump_json()


def report(
    outcomes: Iterable[str], output: str, status: str, on_progress: ProgressCallback | None = None
) -> str:
    """All outcomes → the run's tables and final status (as JSON)."""
    plan, store = _frozen(output)
    made = [Outcome.model_validate_json(text) for text in outcomes]
    ended = finish(plan, made, store, RunStatus.model_validate_json(status))
    if on_progress is not None:
        on_progress()
    return ended.model_dump_json()


def _frozen(output: str) -> tuple[Plan, Any]:
    store = open_store(output)
    plan = read_plan(store)
    if plan is None:
        raise vanished(store)
    return plan, store
