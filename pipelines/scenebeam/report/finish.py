"""Report: what a run came to, as tables, a STAC collection and the final status."""

from __future__ import annotations

import logging
import shlex
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from scenebeam.catalog.area import area_geometry
from scenebeam.csvtable import Table
from scenebeam.errors import StorageError
from scenebeam.imaging.shards import PARTS
from scenebeam.planning.plan import RUN_FILE, Plan, vanished
from scenebeam.products import product_of
from scenebeam.report import gather, render
from scenebeam.status import FAILURES_FILE, PAGE_FILE, SPENDING_FILE, STATUS_FILE, RunStatus, now
from scenebeam.storage import Store
from scenebeam.tasks import Outcome

log = logging.getLogger(__name__)

_ABSENT = "the catalog has no such scene"
_PICTURES = 12
"""That a status names."""
_SPENDING_COLUMNS = ("task", "band", "state", "seconds", "bytes", "requests", "retries")
_FAILURE_COLUMNS = ("task", "kind", "reason", "retry", "state")


def finish(plan: Plan, outcomes: Iterable[Outcome], store: Store, status: RunStatus) -> RunStatus:
    """Write the tables, items.parquet, collection.json and status.json; return the final status.

    Tables follow from the plan, from what stands in the store and from this run's failures: whether a run
    went through at once or was stopped and resumed does not show in them.
    """
    if store.size(RUN_FILE) is None:
        raise vanished(store)
    by_task = {outcome.task: outcome for outcome in outcomes}
    existing = store.list()
    undone = {task.id for task in plan.undone(existing)}
    left_over: set[str] = set()
    if not undone:
        # Killed while it tidied up, a task that is done is not made again: nobody else would.
        store.delete(sorted(name for name in existing if name.startswith(PARTS)))
        left_over = store.release_superseded()
    left = [
        outcome
        for task in plan.tasks
        if task.id in undone and (outcome := by_task.get(task.id)) is not None
    ]
    faults = [outcome for outcome in left if outcome.state == "failed"]
    done = {task.id for task in plan.tasks} - undone
    told = product_of(plan.request.product.kind).report(
        plan.request, plan.tasks, done, by_task, store
    )
    retry = f"scenebeam run {shlex.quote(store.path('run.json'))}"
    failures = [
        {
            "task": one.task,
            "kind": one.kind,
            "reason": one.reason,
            "retry": retry if one.state == "failed" else "",
            "state": one.state,
        }
        for one in sorted(left, key=lambda one: one.state)  # failed ones first
        if one.state != "done"
    ]
    failures += [
        {"task": name, "kind": "absent_scene", "reason": _ABSENT, "state": "failed"}
        for name in plan.absent
    ]
    spent = Table(_SPENDING_COLUMNS, [row for one in by_task.values() for row in _spending(one)])
    store.write_all(
        {**told.files, FAILURES_FILE: Table(_FAILURE_COLUMNS, failures), SPENDING_FILE: spent}
    )
    skipped = sum(outcome.state == "skipped" for outcome in left)
    state = _state(plan, len(undone) - skipped)
    if plan.absent and state == "succeeded":
        state = "partial"
    nothing = told.nothing or (_reasons(left) if skipped and not done else "")
    final = status.model_copy(
        update={
            "state": "failed" if nothing else state,
            "tasks": len(plan.tasks),
            "done": len(plan.tasks) - len(undone),
            "skipped": skipped,
            "failed": len(undone) - skipped + len(plan.absent),
            "retriable": sum(not outcome.permanent for outcome in faults),
            "incomplete": told.incomplete,
            "requests": sum(outcome.requests for outcome in by_task.values()),
            "read_bytes": sum(outcome.read_bytes for outcome in by_task.values()),
            "updated": now(),
            "finished": now(),
            "message": _message(nothing, faults, plan.absent),
            "pictures": _some(sorted(name for name in existing if name.endswith(".png"))),
        }
    )
    _draw_page(plan, final, told.items, existing, store)
    store.delete(sorted(left_over))
    store.write(STATUS_FILE, final.to_bytes())
    return final


def _spending(outcome: Outcome) -> Iterator[dict[str, Any]]:
    """What a task of this run has taken, whole and band by band."""
    whole = {"seconds": outcome.seconds, "bytes": outcome.read_bytes, "retries": outcome.retries}
    yield {
        "task": outcome.task,
        "band": "",
        "state": outcome.state,
        "requests": outcome.requests,
        **whole,
    }
    for band, facts in {**outcome.detail, **outcome.detail.get("bands", {})}.items():
        if isinstance(facts, dict) and facts.get("seconds") is not None:
            taken = {name: facts.get(name) for name in whole}
            yield {"task": outcome.task, "band": band, "state": "", "requests": None, **taken}


def _message(nothing: str, faults: Sequence[Outcome], absent: Sequence[str]) -> str:
    if nothing:
        return f"nothing was made: {nothing}"
    if faults:
        return faults[0].reason
    return f"{absent[0]}: {_ABSENT}" if absent else ""


def _reasons(outcomes: Iterable[Outcome]) -> str:
    """The reason that most tasks give, and how many others there are."""
    (reason, _), *others = Counter(outcome.reason for outcome in outcomes).most_common()
    return f"{reason}; and {len(others)} other reasons, see {FAILURES_FILE}" if others else reason


def _draw_page(plan: Plan, status: RunStatus, items: str, existing: set[str], store: Store) -> None:
    """The page is for people to look at: that it cannot be drawn is no reason for a run to fail."""
    try:
        area = area_geometry(plan.request.area) if plan.request.area is not None else None
        page = product_of(plan.request.product.kind).page
        facts = gather(status, items, page, existing, store)
        store.write(PAGE_FILE, render(facts, area, store.uri))
    except StorageError:
        raise
    except Exception:
        log.exception("cannot draw %s", store.path(PAGE_FILE))


def _some(names: Sequence[str]) -> tuple[str, ...]:
    """A few of many, spread evenly."""
    count = min(len(names), _PICTURES)
    return tuple(names[number * len(names) // count] for number in range(count))


def _state(plan: Plan, failed: int) -> str:
    if failed == 0:
        return "succeeded"
    return "partial" if failed <= plan.request.limits.max_failed * len(plan.tasks) else "failed"
