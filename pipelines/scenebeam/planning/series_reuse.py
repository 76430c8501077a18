"""What stays of a plan when the table of its time series has changed."""

from __future__ import annotations

import logging
from dataclasses import replace

from scenebeam.catalog.timeseries import series_digest
from scenebeam.errors import RequestError
from scenebeam.planning.plan import Plan
from scenebeam.planning.series_table import read_series
from scenebeam.request import RunRequest, TimeSeries
from scenebeam.tasks import Task, is_same_product

log = logging.getLogger(__name__)


def is_outdated(plan: Plan, request: RunRequest, existing: set[str]) -> bool:
    """Whether the table of a frozen plan has changed, or some of its files may have arrived.

    A table that can no longer be read changes nothing.

    Args:
        plan: The frozen plan.
        request: The request; other catalogs than time series are never outdated.
        existing: Keys in the output.
    """
    if not isinstance(request.catalog, TimeSeries):
        return False
    try:
        digest = series_digest(read_series(request.catalog))
    except RequestError as error:
        log.warning("the plan is kept: %s", error)
        return False
    return digest != plan.series or bool(plan.undone(existing))


def carry_over(frozen: Plan, plan: Plan, done: set[str]) -> Plan:
    """Keep finished products in a new plan of a time series.

    A product is kept unless its row now lists other scenes, or lists them in another order, or the
    grid of the series has changed. It is kept even if its source files are gone, or the table no
    longer has its row.

    Args:
        frozen: The former plan.
        plan: The new plan.
        done: Ids of finished tasks of the former plan.

    Returns:
        The new plan, with tasks of the former one in place of its own where they are kept.
    """
    before = {task.id: task for task in frozen.tasks}
    finished = {name: task for name, task in before.items() if name in done}
    tasks: list[Task] = []
    for task in plan.tasks:
        made = finished.pop(task.id, None)
        if made is not None and _is_kept(made, task):
            tasks.append(made)
        elif task.id in before and is_same_product(before[task.id], task):
            tasks.append(before[task.id])
        else:
            tasks.append(task)
    # What is left has no row any more. It is kept unless something else is planned in its place.
    left = [task for task in finished.values() if not _is_replaced(task, plan)]
    if left:
        names = ", ".join(sorted(task.id for task in left))
        log.warning("no longer in the table, but kept: %s", names)
    return replace(plan, tasks=(*tasks, *left))


def _is_replaced(made: Task, plan: Plan) -> bool:
    """Whether its item, or all of its rows, are planned again: months in place of a quarter."""
    if any(task.item_path == made.item_path for task in plan.tasks):
        return True
    rows: set[str] = set()
    for task in plan.tasks:
        rows.update(task.rows)
    return bool(made.rows) and rows.issuperset(made.rows)


def _is_kept(made: Task, planned: Task) -> bool:
    """Whether a finished product is kept in place of the one that is planned now."""
    same_rows = made.sources == planned.sources and made.rows == planned.rows
    if same_rows and made.pixel_layout == planned.pixel_layout:
        return True
    gone = made.source_files - planned.source_files
    if any(scene in planned.sources for _, scene in gone):
        log.warning("%s is kept: some of its source files are gone", made.id)
        return True
    return False
