"""The one Beam graph: ranges of the plan, reshuffle, make each task, merge the outcomes, report.

    Create ─▶ SplitRanges ─▶ Reshuffle ─▶ MakeRange ─▶ MergeOutcomes ─▶ Report

The transforms contain as little logic as possible: each calls a plain function that works without
Beam. Elements are references: the URI of an output with rows of its plan, and the keys of files
with outcomes; never tasks or arrays. So neither the graph nor an element grows with the number of
tasks. A bundle may be replayed at any time, because making a task is idempotent.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import apache_beam as beam
from apache_beam.metrics import Metrics

from scenebeam.execution.make import limit_malloc_arenas, make_range
from scenebeam.execution.row_ranges import (
    RowRange,
    RowRanges,
    merged_group,
    split_ranges,
    undone_ranges,
)
from scenebeam.planning.plan import Plan, output_removed, read_plan
from scenebeam.report.finish import finish
from scenebeam.report.outcomes import Outcomes, merge_parts, outcomes_folder, part_key
from scenebeam.request import Limits, RunRequest
from scenebeam.status import RunStatus
from scenebeam.storage import Store, open_store
from scenebeam.tasks import Outcome
from scenebeam.transfer.signing import effective_limits
from scenebeam.transfer.signing.accounts import use_accounts

ProgressCallback = Callable[[], None]
"""Announces that a run has progressed. It is pickled with the graph, and must not raise."""
_REPORT_INTERVAL = 60.0
"""Seconds between two calls of it by one worker thread."""


def build(
    pipeline: Any,
    plan: Plan,
    store: Store,
    status: RunStatus,
    on_progress: ProgressCallback | None = None,
) -> Any:
    """Apply the graph to a pipeline.

    Args:
        pipeline: A Beam pipeline.
        plan: The frozen plan. Limits and accounts are those of its request, which may differ from
            those that are frozen.
        store: The output.
        status: The status of the run so far.
        on_progress: Called by workers now and then, and at the end.

    Returns:
        A PCollection with the final status as JSON.
    """
    options = MakeOptions(outcomes_folder(status), Access.of(plan.request), on_progress)
    return (
        pipeline
        | "Ranges" >> beam.Create([undone_ranges(plan, store)])
        | "Make" >> MakeAll(options)
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


@dataclass(frozen=True)
class MakeOptions:
    """How tasks are made."""

    outcomes: str
    """Prefix of the outcomes of the run."""
    access: Access | None = None
    """How files are read; None: as each frozen request says."""
    on_progress: ProgressCallback | None = None
    """Called by workers now and then."""


class MakeAll(beam.PTransform):  # type: ignore[misc]
    """`RowRanges` of outputs with a frozen plan → (URI, keys of the files of its outcomes)."""

    def __init__(self, options: MakeOptions) -> None:
        """Describe the transform."""
        super().__init__()
        self._options = options

    def expand(self, ranges: Any) -> Any:
        """Apply the transform."""
        return (
            ranges
            | "SplitRanges" >> beam.FlatMap(split_ranges)
            | "Reshuffle" >> beam.Reshuffle()
            | "MakeRange" >> beam.ParDo(MakeRange(self._options))
            | "GroupParts" >> beam.GroupByKey()
            | "MergeOutcomes" >> beam.Map(merge_outcomes)
            | "AllOutcomes" >> beam.GroupByKey()
        )


class MakeRange(beam.DoFn):  # type: ignore[misc]
    """`RowRange` → ((URI, number of a group), key of the outcomes; empty if there are none)."""

    def __init__(self, options: MakeOptions) -> None:
        self._options = options

    def setup(self) -> None:
        """Prepare a worker."""
        limit_malloc_arenas()
        self._last_report = time.monotonic()

    def process(self, element: RowRange) -> Iterator[tuple[tuple[str, int], str]]:
        """Make the tasks of some rows."""
        output, first, last = element
        key = part_key(self._options.outcomes, first)
        if first == last:
            yield (output, 0), ""
            return
        plan, store = _plan_of_run(output, self._options.outcomes)
        access = self._options.access or Access.of(plan.request)
        use_accounts(access.accounts)
        kind, tasks = plan.request.product.kind, plan.tasks[first:last]
        for outcome in make_range(kind, tasks, store, access.limits, key):
            self._count(outcome)
        yield (output, merged_group(element)), key

    def _count(self, outcome: Outcome) -> None:
        Metrics.counter("scenebeam", f"tasks_{outcome.state}").inc()
        Metrics.counter("scenebeam", "read_bytes").inc(outcome.read_bytes)
        is_due = time.monotonic() - self._last_report > _REPORT_INTERVAL
        if self._options.on_progress is not None and is_due:
            self._last_report = time.monotonic()
            self._options.on_progress()


@lru_cache(maxsize=4)
def _plan_of_run(output: str, run: str) -> tuple[Plan, Store]:
    """Open the plan of an output, once per process and run: all threads of a worker share it."""
    return _read_frozen(output)


def merge_outcomes(group: tuple[tuple[str, int], Iterable[str]]) -> tuple[str, str]:
    """Merge the outcomes of a group of ranges.

    Args:
        group: ((URI, number of the group), keys of the parts); empty ones are left out.

    Returns:
        (URI, key of the merged file; empty if there are no parts).
    """
    (output, _), keys = group
    parts = [key for key in keys if key]
    return output, merge_parts(parts, open_store(output)) if parts else ""


def report(
    made: tuple[str, Iterable[str]], status: str, on_progress: ProgressCallback | None = None
) -> str:
    """Write the tables and the final status of a run.

    Args:
        made: Where the plan is frozen, and keys of outcomes; empty ones are left out.
        status: The status of the run so far, as JSON.
        on_progress: Called at the end.

    Returns:
        The final status as JSON.
    """
    output, keys = made
    plan, store = _read_frozen(output)
    outcomes = Outcomes(filter(None, keys), store)
    final = finish(plan, outcomes, store, RunStatus.model_validate_json(status))
    if on_progress is not None:
        on_progress()
    return final.model_dump_json()


def all_ranges(output: str) -> RowRanges:
    """Return the ranges of an output that have something left to make."""
    return undone_ranges(*_read_frozen(output))


def _read_frozen(output: str) -> tuple[Plan, Store]:
    store = open_store(output)
    plan = read_plan(store)
    if plan is None:
        raise output_removed(store)
    return plan, store
