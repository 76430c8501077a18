"""Decide what is made again: the one place where a frozen plan meets a new request."""

from __future__ import annotations

import json
import logging
from collections.abc import Container, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import Enum

from scenebeam.errors import NoScenesError, RequestError, StorageError
from scenebeam.planning.cubes import (
    check_no_store,
    check_one_grid,
    place_in_cube,
    retract_store,
)
from scenebeam.planning.plan import (
    PLAN_FILE,
    RUN_FILE,
    Plan,
    difference,
    freeze,
    read_plan,
    read_tasks,
)
from scenebeam.planning.search import check_limits, make_plan
from scenebeam.planning.series import (
    changed_grids,
    continue_series,
    keep_versions,
    remove_replaced,
)
from scenebeam.planning.series_reuse import carry_over, is_outdated
from scenebeam.planning.supersede import (
    possible_outputs,
    replaced_outputs,
    supersede_outputs,
)
from scenebeam.planning.verify import find_damaged
from scenebeam.planning.work import count_work
from scenebeam.request import RunRequest, TimeSeries
from scenebeam.storage import Store
from scenebeam.tasks import Task, is_same_product

log = logging.getLogger(__name__)

_ADVICE = "run with --overwrite to replace what is there, or choose another output"
_CONCURRENT_READS = 16


class _Change(Enum):
    """How a request relates to the frozen plan in its output."""

    NONE = "the same request: resume"
    REFRESH = "search again; what is planned as before is kept"
    RETRY = "search again for what is not done, or done without some tiles; the rest is kept"
    ADJUSTED = "other dates or thresholds, or damaged files; what stays valid is kept"


@dataclass(frozen=True)
class Reconciliation:
    """How the plan of a request meets what its output already holds."""

    plan: Plan
    superseded: frozenset[str] = frozenset()
    """Keys of files that exist, but do not count as done any more."""
    frozen: Plan | None = None
    """The plan in the output; None if there is none."""
    is_new: bool = True
    """Whether `plan` is to be frozen; else it is the frozen one."""
    damaged: frozenset[str] = frozenset()
    """Keys of files that are made again although their tasks stay the same."""
    changes: tuple[str, ...] = ()
    """Fields of the request that differ from those of the frozen plan."""


def load_or_create_plan(
    request: RunRequest,
    store: Store,
    *,
    overwrite: bool = False,
    refresh: bool = False,
    retry_failed: bool = False,
    verify: bool = False,
) -> Plan:
    """Load the plan that is frozen in the output, or freeze a new one.

    Existing outputs stay readable until new ones replace them; that products are replaced is
    logged as a warning.

    Args:
        request: The validated request.
        store: The output.
        overwrite: Replace the plan and the products of another request.
        refresh: Search the catalog again.
        retry_failed: Search again, for tasks that are not done or lack a tile.
        verify: Compare existing files with their checksums, and make damaged ones again.

    Raises:
        RequestError: The output belongs to another request, and `overwrite` is not set.
        StorageError: The frozen plan cannot be read, and `overwrite` is not set.
    """
    found = reconcile(
        request,
        store,
        overwrite=overwrite,
        refresh=refresh,
        retry_failed=retry_failed,
        verify=verify,
    )
    is_series = request.series is not None
    if is_series:
        remove_replaced(found.plan, store)
    elif found.superseded:
        _warn_of_replacing(found, store)
    store.supersede(found.damaged)
    if not found.is_new:
        return found.plan
    if found.frozen is not None:
        kept = keep_versions(found.frozen, found.plan, store) if not overwrite else set()
        successor = None if overwrite else found.plan
        supersede_outputs(found.frozen, store, successor=successor, kept=kept)
        if overwrite:
            retract_store(found.frozen, store)
        if not is_series:
            store.delete([RUN_FILE, PLAN_FILE])
    else:
        store.supersede(found.superseded)
    freeze(found.plan, store)
    # Without the items and the tasks, which may take gigabytes.
    tasks = read_tasks(request, store)
    return replace(found.plan, tasks=tasks, tables={}, items=())


def _warn_of_replacing(found: Reconciliation, store: Store) -> None:
    work = count_work(found.plan, store, found.superseded)
    kept = {task.id for task in found.plan.tasks}
    existing = store.list()
    before = found.frozen.tasks if found.frozen is not None else ()
    removed = [task for task in before if task.id not in kept and task.is_done(existing)]
    because = f": {'; '.join(found.changes)}" if found.changes else ""
    for count, what in ((work.replaced, "made again"), (len(removed), "removed")):
        if count:
            finished = "1 finished product is" if count == 1 else f"{count} finished products are"
            log.warning("%s: %s %s%s", store.uri, finished, what, because)


def reconcile(
    request: RunRequest,
    store: Store,
    *,
    overwrite: bool = False,
    refresh: bool = False,
    retry_failed: bool = False,
    verify: bool = False,
    measure: bool = False,
) -> Reconciliation:
    """Plan a request, and compare the plan with what its output holds, without writing anything.

    The plan of a time series is made again if its table has changed, or something is not done.

    Args:
        request: The validated request.
        store: The output.
        overwrite: Replace the plan and the products of another request.
        refresh: Search the catalog again.
        retry_failed: Search again, for tasks that are not done or lack a tile.
        verify: Compare existing files with their checksums, and make damaged ones again.
        measure: Read some headers and file sizes, for a good estimate.

    Raises:
        RequestError: The output belongs to another request, and `overwrite` is not set.
        StorageError: The frozen plan cannot be read, and `overwrite` is not set.
    """
    searched_again = refresh or retry_failed
    try:
        frozen = read_plan(store)
    except StorageError:
        if not overwrite:
            raise
        # Without the former plan, everything under the names of the new one is in its way.
        plan = _plan_anew(request, store, refresh=searched_again, measure=measure)
        return Reconciliation(plan, frozenset(possible_outputs(plan, store)))
    if frozen is None or overwrite:
        if frozen is None and not overwrite:
            check_no_store(request, store)
        plan = _plan_anew(request, store, refresh=searched_again, measure=measure)
        if frozen is None:
            return Reconciliation(plan)
        changes = tuple(difference(frozen.request, request).values())
        replaced = replaced_outputs(frozen, store)
        return Reconciliation(plan, frozenset(replaced), frozen, changes=changes)
    damaged = frozenset(find_damaged(frozen, store) if verify else ())
    changes = tuple(_adjustments(frozen, request, store))
    if request.series is not None:
        existing = store.list() - damaged
        retried = _incomplete_items(frozen, existing, store) if retry_failed else set()
        return _continue(frozen, request, store, damaged, changes, retried, measure=measure)
    return _compare(frozen, request, store, damaged, changes, refresh, retry_failed, measure)


def _plan_anew(request: RunRequest, store: Store, *, refresh: bool, measure: bool) -> Plan:
    """Plan a request without regard to what its output holds."""
    plan = place_in_cube(make_plan(request, store, refresh=refresh, measure=measure))
    if request.series is not None:
        plan = continue_series(None, plan, set(), set(), datetime.now(UTC))
        check_limits(plan)
    return plan


def _compare(
    frozen: Plan,
    request: RunRequest,
    store: Store,
    damaged: frozenset[str],
    changes: tuple[str, ...],
    refresh: bool,
    retry_failed: bool,
    measure: bool,
) -> Reconciliation:
    """Compare the plan in the output with that of a request, and search again if need be."""
    existing = store.list() - damaged
    change = _classify(frozen, request, bool(changes or damaged), refresh, retry_failed)
    resumed = Reconciliation(
        replace(frozen, request=request), damaged, frozen, is_new=False, damaged=damaged
    )
    if change is _Change.NONE and not is_outdated(frozen, request, existing):
        return resumed
    plan = make_plan(request, store, refresh=refresh or retry_failed, measure=measure)
    plan = place_in_cube(plan, frozen)
    if change is _Change.RETRY:
        damaged |= _incomplete_items(frozen, existing, store)
        existing -= damaged
    finished = {task.id: task for task in frozen.tasks if task.is_done(existing)}
    if change in (_Change.NONE, _Change.RETRY):
        plan = _keep_finished(frozen, plan, finished)
    elif change is _Change.ADJUSTED:
        plan = _keep_valid(plan, finished, store)
    else:
        plan = _keep_same(plan, finished)
    check_one_grid(plan)
    unchanged = (plan.tasks, plan.series) == (frozen.tasks, frozen.series)
    if change is _Change.NONE and unchanged:
        return resumed
    replaced = replaced_outputs(frozen, store, plan) | damaged
    return Reconciliation(plan, frozenset(replaced), frozen, damaged=damaged, changes=changes)


def _continue(
    frozen: Plan,
    request: RunRequest,
    store: Store,
    damaged: frozenset[str],
    changes: tuple[str, ...],
    retried: set[str],
    *,
    measure: bool,
) -> Reconciliation:
    """Search again for a series, and plan what it lacks.

    Raises:
        RequestError: The products of the new search would be on another grid.
    """
    try:
        plan = place_in_cube(make_plan(request, store, refresh=True, measure=measure), frozen)
    except NoScenesError as error:
        log.info("%s", error)
        plan = replace(frozen, request=request, tasks=())
    existing = store.list() - damaged
    present = existing | store.superseded() | damaged
    plan = continue_series(frozen, plan, existing, present, datetime.now(UTC), retried)
    if changed_grids(frozen, plan):
        raise RequestError(
            f"{store.uri}: new scenes would change the grid of the series; set grid.crs, "
            "grid.resolution and grid.bounds to those of its products"
        )
    check_one_grid(plan)
    check_limits(replace(plan, tasks=plan.undone(existing)))
    replaced = replaced_outputs(frozen, store, plan) | damaged
    return Reconciliation(plan, frozenset(replaced), frozen, damaged=damaged, changes=changes)


def check_same_request(frozen: Plan, request: RunRequest, store: Store) -> None:
    """Check that an output belongs to a request.

    Args:
        frozen: The plan in the output.
        request: The request.
        store: The output, for the message.

    Raises:
        RequestError: It belongs to another one; the message lists the differences.
    """
    _refuse(difference(frozen.request, request), store)


def _classify(
    frozen: Plan, request: RunRequest, adjusted: bool, refresh: bool, retry_failed: bool
) -> _Change:
    if retry_failed:
        return _Change.RETRY
    if adjusted:
        return _Change.ADJUSTED
    # Fields outside the fingerprint may differ: the same products in another place.
    if refresh or frozen.request.product != request.product:
        return _Change.REFRESH
    return _Change.NONE


def _keep_finished(frozen: Plan, plan: Plan, finished: Mapping[str, Task]) -> Plan:
    """The new plan, with the finished tasks of the former one in place of its own."""
    if isinstance(plan.request.catalog, TimeSeries):
        return carry_over(frozen, plan, set(finished))
    return replace(plan, tasks=tuple(finished.get(task.id, task) for task in plan.tasks))


def _keep_valid(plan: Plan, finished: Mapping[str, Task], store: Store) -> Plan:
    """A plan for other dates or thresholds, with the finished tasks that stay as they are.

    Raises:
        RequestError: A finished product would no longer have a task.
    """
    lost = sorted(finished.keys() - {task.id for task in plan.tasks})
    if lost:
        raise RequestError(
            f"{store.uri}: {len(lost)} finished products (the first: {lost[0]}) do not belong to "
            f"this request\n{_ADVICE}"
        )
    return _keep_same(plan, finished)


def _keep_same(plan: Plan, finished: Mapping[str, Task]) -> Plan:
    """The plan, with the finished tasks that make the same products: estimates may differ."""
    tasks = []
    for task in plan.tasks:
        before = finished.get(task.id)
        keep = before is not None and is_same_product(before, task)
        tasks.append(before if before is not None and keep else task)
    return replace(plan, tasks=tuple(tasks))


def _incomplete_items(plan: Plan, existing: set[str], store: Store) -> set[str]:
    """Return the keys of the items of finished products that lack a tile."""
    finished = [task for task in plan.tasks if task.is_done(existing)]
    items = sorted({key for task in finished for key in task.item_keys})
    incomplete = set()
    with ThreadPoolExecutor(_CONCURRENT_READS) as threads:
        for name, content in zip(items, threads.map(store.read, items), strict=True):
            if content is not None and _is_incomplete(content):
                incomplete.add(name)
    return incomplete


def _is_incomplete(item: bytes) -> bool:
    properties = json.loads(item).get("properties")
    return isinstance(properties, dict) and properties.get("scenebeam:complete") is False


def _adjustments(frozen: Plan, request: RunRequest, store: Store) -> list[str]:
    """Describe the adjustable fields in which a request differs from that of a plan.

    Raises:
        RequestError: It differs in others too.
    """
    changes = difference(frozen.request, request)
    adjustable = request.adjustable
    fixed = {name: text for name, text in changes.items() if not _is_part(name, adjustable)}
    _refuse(fixed, store)
    if changes:
        log.info("%s: %s", store.uri, "; ".join(changes.values()))
    return list(changes.values())


def _refuse(changes: Mapping[str, str], store: Store) -> None:
    if changes:
        listed = "\n  ".join(changes.values())
        raise RequestError(
            f"{store.uri} belongs to another request, which differs in\n  {listed}\n{_ADVICE}"
        )


def _is_part(name: str, sections: Container[str]) -> bool:
    """Whether a dotted name is one of some sections, or inside one."""
    parts = name.split(".")
    return any(".".join(parts[:count]) in sections for count in range(1, len(parts) + 1))
