"""The one Beam graph: read the plan, reshuffle, make each task, collect the outcomes, report.

The transforms contain as little logic as possible: each calls a plain function that works without
Beam. Elements are task ids and outcomes as JSON, never arrays. A bundle may be replayed at any
time, because making a task is idempotent.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
from apache_beam.metrics import Metrics

from scenebeam.execution.make import limit_malloc_arenas, make_task
from scenebeam.planning.plan import Plan, output_removed, read_plan
from scenebeam.report.finish import finish
from scenebeam.request import Limits, RunRequest
from scenebeam.status import RunStatus
from scenebeam.storage import open_store
from scenebeam.tasks import Outcome, Task
from scenebeam.transfer.signing import effective_limits
from scenebeam.transfer.signing.accounts import use_accounts

ProgressCallback = Callable[[], None]
"""Announces that a run has progressed. It is pickled with the graph, and must not raise."""
_REPORT_INTERVAL = 60.0
"""Seconds between two calls of it by one worker thread."""


def build(
    pipeline: Any,
    output: str,
    status: RunStatus,
    request: RunRequest,
    on_progress: ProgressCallback | None = None,
) -> Any:
    """Apply the graph to a pipeline.

    Args:
        pipeline: A Beam pipeline.
        output: Where the plan is frozen.
        status: The status of the run so far.
        request: The request, whose limits and accounts may differ from those of the frozen plan.
        on_progress: Called by workers now and then, and at the end.

    Returns:
        A PCollection with the final status as JSON.
    """
    return (
        pipeline
        | "Output" >> beam.Create([output])
        | "Make" >> MakeAll(Access.of(request), on_progress)
        | "Report" >> beam.Map(report, status.model_dump_json(), on_progress)
    )


@dataclass(frozen=True)
class Access:
    """How workers read files: what a request may change without another plan."""

    limits: Limits
    accounts: Mapping[str, str]
    """Name of a credential → reference to its secret, never the secret itself."""

    @classmethod
    def of(cls, request: RunRequest) -> Access:
        """Return what a request says."""
        return cls(effective_limits(request), request.accounts)


class MakeAll(beam.PTransform):  # type: ignore[misc]
    """URIs of outputs with a frozen plan → (URI, all outcomes of its tasks as JSON)."""

    def __init__(
        self, access: Access | None = None, on_progress: ProgressCallback | None = None
    ) -> None:
        """Describe the transform.

        Args:
            access: How files are read; None: as each frozen request says.
            on_progress: Called by workers now and then.
        """
        super().__init__()
        self._access, self._on_progress = access, on_progress

    def expand(self, outputs: Any) -> Any:
        """Apply the transform."""
        return (
            outputs
            | "ReadPlan" >> beam.FlatMap(undone_tasks)
            | "Reshuffle" >> beam.Reshuffle()
            | "MakeTask" >> beam.ParDo(MakeTask(self._access, self._on_progress))
            | "AllOutcomes" >> beam.CombinePerKey(beam.combiners.ToListCombineFn())
        )


def undone_tasks(output: str) -> Iterator[tuple[str, str]]:
    """Yield (output, id of a task) for tasks that are not done yet, and one without an id.

    The latter carries an output whose tasks are all done to its report.
    """
    plan, store = _read_frozen(output)
    yield output, ""
    for task in plan.undone(store.list()):
        yield output, task.id


class MakeTask(beam.DoFn):  # type: ignore[misc]
    """(output, task id) → (output, Outcome as JSON)."""

    def __init__(
        self, access: Access | None = None, on_progress: ProgressCallback | None = None
    ) -> None:
        self._access, self._on_progress = access, on_progress

    def setup(self) -> None:
        """Prepare a worker; each plan is read once."""
        limit_malloc_arenas()
        self._plans: dict[str, _FrozenTasks] = {}
        self._last_report = time.monotonic()

    def process(self, element: tuple[str, str]) -> Iterator[tuple[str, str]]:
        """Make one task."""
        output, task_id = element
        if not task_id:
            yield output, ""
            return
        if output not in self._plans:
            self._plans[output] = _FrozenTasks(output, self._access)
        plan = self._plans[output]
        outcome = make_task(plan.kind, plan.tasks[task_id], plan.store, plan.limits)
        Metrics.counter("scenebeam", f"tasks_{outcome.state}").inc()
        Metrics.counter("scenebeam", "read_bytes").inc(outcome.read_bytes)
        is_due = time.monotonic() - self._last_report > _REPORT_INTERVAL
        if self._on_progress is not None and is_due:
            self._last_report = time.monotonic()
            self._on_progress()
        yield output, outcome.model_dump_json()


class _FrozenTasks:
    """What a worker needs of a frozen plan."""

    def __init__(self, output: str, access: Access | None) -> None:
        plan, self.store = _read_frozen(output)
        access = access or Access.of(plan.request)
        use_accounts(access.accounts)
        self.kind = plan.request.product.kind
        self.tasks: dict[str, Task] = {task.id: task for task in plan.tasks}
        self.limits = access.limits


def report(
    made: tuple[str, Iterable[str]], status: str, on_progress: ProgressCallback | None = None
) -> str:
    """Write the tables and the final status of a run.

    Args:
        made: Where the plan is frozen, and outcomes as JSON; empty texts are left out.
        status: The status of the run so far, as JSON.
        on_progress: Called at the end.

    Returns:
        The final status as JSON.
    """
    output, texts = made
    plan, store = _read_frozen(output)
    outcomes = [Outcome.model_validate_json(text) for text in texts if text]
    final = finish(plan, outcomes, store, RunStatus.model_validate_json(status))
    if on_progress is not None:
        on_progress()
    return final.model_dump_json()


def _read_frozen(output: str) -> tuple[Plan, Any]:
    store = open_store(output)
    plan = read_plan(store)
    if plan is None:
        raise output_removed(store)
    return plan, store
