"""Report: what a run came to, as tables, a STAC collection and the final status."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from scenebeam.csvtable import Table
from scenebeam.products import PRODUCTS, stac
from scenebeam.products.shards import PARTS
from scenebeam.products.task import Outcome
from scenebeam.run.items import dump_items
from scenebeam.run.plan import Plan
from scenebeam.run.status import STATUS_FILE, RunStatus, now
from scenebeam.storage import Store

FAILURES_FILE = "failures.csv"
_FAILURE_COLUMNS = ("task", "kind", "reason", "retry")


def finish(plan: Plan, outcomes: Iterable[Outcome], store: Store, status: RunStatus) -> RunStatus:
    """Write the tables, items.parquet, collection.json and status.json; return the final status.

    Tables follow from the plan, from what stands in the store and from this run's failures: whether a run
    went through at once or was stopped and resumed does not show in them.
    """
    by_task = {outcome.task: outcome for outcome in outcomes}
    existing = store.list()
    undone = {task.id for task in plan.undone(existing)}
    if not undone:
        # Killed while it tidied up, a task that is done is not made again: nobody else would.
        store.delete(sorted(name for name in existing if name.startswith(PARTS)))
    items = read_items(plan, undone, store)
    left = [outcome for task in plan.tasks if task.id in undone and (outcome := by_task.get(task.id)) is not None]
    faults = [outcome for outcome in left if outcome.state == "failed"]
    tables = dict(PRODUCTS[plan.request.product.kind].tables(plan.tasks, by_task, items))
    retry = f"scenebeam run {shlex.quote(store.path('run.json'))}"
    failures = [{"task": o.task, "kind": o.kind, "reason": o.reason, "retry": retry} for o in faults]
    tables[FAILURES_FILE] = Table(_FAILURE_COLUMNS, failures)
    ordered = [items[name] for name in sorted(items)]
    description = f"{plan.request.product.kind} products of the run {plan.request.run}"
    collection = stac.make_collection(plan.request.run, description, ordered, sorted(items))
    store.write_all(
        {
            **{name: table.dump() for name, table in tables.items()},
            **({"items.parquet": dump_items(ordered)} if ordered else {}),
            "collection.json": stac.dump(collection),
        }
    )
    skipped = sum(outcome.state == "skipped" for outcome in left)
    final = status.model_copy(
        update={
            "state": _state(plan, len(undone) - skipped),
            "tasks": len(plan.tasks),
            "done": len(plan.tasks) - len(undone),
            "skipped": skipped,
            "failed": len(undone) - skipped,
            "incomplete": sum(not item["properties"].get("scenebeam:complete", True) for item in ordered),
            "requests": sum(outcome.requests for outcome in by_task.values()),
            "read_bytes": sum(outcome.read_bytes for outcome in by_task.values()),
            "updated": now(),
            "finished": now(),
            "message": faults[0].reason if faults else "",
        }
    )
    store.write(STATUS_FILE, final.dump())
    return final


def _state(plan: Plan, failed: int) -> str:
    if failed == 0:
        return "succeeded"
    return "partial" if failed <= plan.request.limits.max_failed * len(plan.tasks) else "failed"


def read_items(plan: Plan, undone: set[str], store: Store) -> dict[str, dict[str, Any]]:
    """The STAC items of all tasks that are done, by name."""
    names = sorted({task.item_path for task in plan.tasks if task.id not in undone})
    with ThreadPoolExecutor(16) as threads:
        contents = threads.map(store.read, names)
        return {name: json.loads(content) for name, content in zip(names, contents, strict=True) if content}
