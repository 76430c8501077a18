"""Decide what is made again: the one place where a frozen plan meets a new request."""

from __future__ import annotations

import json
import logging
from collections.abc import Container, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from enum import Enum

from scenebeam.errors import RequestError, StorageError
from scenebeam.planning.plan import Plan, difference, freeze, read_plan
from scenebeam.planning.search import make_plan
from scenebeam.planning.series_reuse import carry_over, is_outdated
from scenebeam.planning.supersede import possible_outputs, supersede_outputs
from scenebeam.planning.verify import find_damaged
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

    Existing outputs stay readable until new ones replace them. The plan of a time series is made
    again if its table has changed, or something is not done.

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
    try:
        frozen = read_plan(store)
    except StorageError:
        if not overwrite:
            raise
        # Without the former plan, everything under the names of the new one is in its way.
        plan = make_plan(request, store, refresh=refresh or retry_failed)
        store.supersede(possible_outputs(plan, store))
        return _freeze(plan, store)
    if frozen is None or overwrite:
        plan = make_plan(request, store, refresh=refresh or retry_failed)
        if frozen is not None:
            supersede_outputs(frozen, store)
        return _freeze(plan, store)
    damaged = find_damaged(frozen, store) if verify else set()
    store.supersede(damaged)
    change = _classify(frozen, request, store, refresh, retry_failed, bool(damaged))
    if change is _Change.NONE and not is_outdated(frozen, request, store):
        return _resumed(frozen, request)
    plan = make_plan(request, store, refresh=refresh or retry_failed)
    if change is _Change.RETRY:
        _reopen_incomplete(frozen, store)
    if change in (_Change.NONE, _Change.RETRY):
        plan = _keep_finished(frozen, plan, store)
    elif change is _Change.ADJUSTED:
        plan = _keep_valid(frozen, plan, store)
    unchanged = (plan.tasks, plan.series) == (frozen.tasks, frozen.series)
    if change is _Change.NONE and unchanged:
        return _resumed(frozen, request)
    supersede_outputs(frozen, store, successor=plan)
    return _freeze(plan, store)


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
    frozen: Plan,
    request: RunRequest,
    store: Store,
    refresh: bool,
    retry_failed: bool,
    damaged: bool,
) -> _Change:
    adjusted = _is_adjusted(frozen, request, store)
    if retry_failed:
        return _Change.RETRY
    if adjusted or damaged:
        return _Change.ADJUSTED
    # Fields outside the fingerprint may differ: the same products in another place.
    if refresh or frozen.request.product != request.product:
        return _Change.REFRESH
    return _Change.NONE


def _freeze(plan: Plan, store: Store) -> Plan:
    freeze(plan, store)
    # Without the items, which may take a gigabyte.
    return replace(plan, tables={}, items=())


def _resumed(frozen: Plan, request: RunRequest) -> Plan:
    return replace(frozen, request=request)


def _finished(frozen: Plan, store: Store) -> dict[str, Task]:
    existing = store.list()
    return {task.id: task for task in frozen.tasks if task.is_done(existing)}


def _keep_finished(frozen: Plan, plan: Plan, store: Store) -> Plan:
    """The new plan, with the finished tasks of the former one in place of its own."""
    finished = _finished(frozen, store)
    if isinstance(plan.request.catalog, TimeSeries):
        return carry_over(frozen, plan, set(finished))
    return replace(plan, tasks=tuple(finished.get(task.id, task) for task in plan.tasks))


def _keep_valid(frozen: Plan, plan: Plan, store: Store) -> Plan:
    """A plan for other dates or thresholds, with the finished tasks that stay as they are.

    Raises:
        RequestError: A finished product would no longer have a task.
    """
    finished = _finished(frozen, store)
    lost = sorted(finished.keys() - {task.id for task in plan.tasks})
    if lost:
        raise RequestError(
            f"{store.uri}: {len(lost)} finished products (the first: {lost[0]}) do not belong to "
            f"this request\n{_ADVICE}"
        )
    tasks = []
    for task in plan.tasks:
        before = finished.get(task.id)
        keep = before is not None and is_same_product(before, task)
        tasks.append(before if before is not None and keep else task)
    return replace(plan, tasks=tuple(tasks))


def _reopen_incomplete(plan: Plan, store: Store) -> None:
    """Supersede the items of products that lack a tile, so that their tasks count as not done."""
    finished = _finished(plan, store).values()
    items = sorted({key for task in finished for key in task.item_keys})
    incomplete = []
    with ThreadPoolExecutor(_CONCURRENT_READS) as threads:
        for name, content in zip(items, threads.map(store.read, items), strict=True):
            if content is not None and _is_incomplete(content):
                incomplete.append(name)
    store.supersede(incomplete)


def _is_incomplete(item: bytes) -> bool:
    properties = json.loads(item).get("properties")
    return isinstance(properties, dict) and properties.get("scenebeam:complete") is False


def _is_adjusted(frozen: Plan, request: RunRequest, store: Store) -> bool:
    """Whether a request differs from that of a plan, in adjustable fields alone.

    Raises:
        RequestError: It differs in others too.
    """
    changes = difference(frozen.request, request)
    adjustable = request.adjustable
    fixed = {name: text for name, text in changes.items() if not _is_part(name, adjustable)}
    _refuse(fixed, store)
    if changes:
        log.info("%s: %s", store.uri, "; ".join(changes.values()))
    return bool(changes)


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
