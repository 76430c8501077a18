"""Series: time-series tables as a run reads them, and what stays of a plan when one changes."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from scenebeam.catalog.acquisition import Acquisition
from scenebeam.catalog.timeseries import SeriesRow, parse_series, series_digest
from scenebeam.errors import RequestError, StorageError
from scenebeam.planning.plan import Plan
from scenebeam.request import RunRequest, TimeSeries
from scenebeam.storage import Store, open_store
from scenebeam.tasks import Task

log = logging.getLogger(__name__)


def read_series(source: TimeSeries) -> list[SeriesRow]:
    """Read a table from this machine or from a bucket.

    Raises:
        RequestError: It is not there, or is not a time series.
    """
    name = source.time_series
    try:
        if name.startswith("gs://"):
            folder, _, file = name.rpartition("/")
            content = open_store(folder).read(file)
        else:
            content = Path(name).read_bytes()
    except (OSError, StorageError) as error:
        raise RequestError(f"cannot read the table {name}: {error}") from None
    if content is None:
        raise RequestError(f"cannot read the table {name}: there is no such file")
    return parse_series(content, name)


def empty_rows(rows: Iterable[SeriesRow]) -> list[Acquisition]:
    """Rows that name no scene, as acquisitions."""
    return [Acquisition(row.acquired, (), None, row.anchor) for row in rows if not row.scenes]


def is_outdated(plan: Plan, request: RunRequest, store: Store) -> bool:
    """Whether a frozen plan is to be made again: its table has changed, or files may have come.

    A table that cannot be read any more changes nothing.
    """
    if not isinstance(request.catalog, TimeSeries):
        return False
    try:
        digest = series_digest(read_series(request.catalog))
    except RequestError as error:
        log.warning("the plan stays as it is: %s", error)
        return False
    return digest != plan.series or bool(plan.undone(store.list()))


def carry_over(frozen: Plan, plan: Plan, done: set[str]) -> Plan:
    """Keep finished products in a plan that was made again.

    One stays unless its row names other scenes now, or in another order, or the grid of the series
    is another. It stays even then where files that it was made of are gone, and where the table has
    no such row any more.

    Args:
        frozen: The plan before.
        plan: The plan now.
        done: Ids of tasks of the plan before that are done.

    Returns:
        The plan now, with the tasks of the plan before in place of its own where they stay.
    """
    before = {task.id: task for task in frozen.tasks}
    finished = {name: task for name, task in before.items() if name in done}
    tasks: list[Task] = []
    for task in plan.tasks:
        made = finished.pop(task.id, None)
        if made is not None and _stays(made, task):
            tasks.append(made)
        elif task.id in before and is_same(before[task.id], task):
            tasks.append(before[task.id])
        else:
            tasks.append(task)
    left = [task for task in finished.values() if not _is_superseded(task, plan)]
    if left:
        names = ", ".join(sorted(task.id for task in left))
        log.warning("not in the table any more, and left as they are: %s", names)
    return replace(plan, tasks=(*tasks, *left))


def _is_superseded(made: Task, plan: Plan) -> bool:
    """Whether others of its name, or of all its rows, are planned: months in place of a quarter."""
    if any(task.item_path == made.item_path for task in plan.tasks):
        return True
    rows = {row for task in plan.tasks for row in task.rows}
    own = made.rows
    return bool(own) and rows.issuperset(own)


def is_same(before: Task, after: Task) -> bool:
    """Whether two tasks make the same; what they are expected to take may differ."""
    return before.model_copy(update={"estimate": after.estimate}) == after


def _stays(made: Task, planned: Task) -> bool:
    """Whether a finished product stays in place of the one that is planned now."""
    same_rows = made.sources == planned.sources and made.rows == planned.rows
    if same_rows and made.pixel_layout == planned.pixel_layout:
        return True
    gone = made.source_files - planned.source_files
    if any(scene in planned.sources for _, scene in gone):
        log.warning("%s stays as it is: files that it was made of are gone", made.id)
        return True
    return False
