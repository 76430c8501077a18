"""Growth: what a series has made of which acquisition, and how long after its sensing."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from scenebeam.metadata.item_tables import BytesFile
from scenebeam.planning.plan import Plan
from scenebeam.status import SERIES_FILE
from scenebeam.storage import Store
from scenebeam.tasks import Outcome, Task


def growth_file(
    plan: Plan, undone: set[str], unfinished: Iterable[Outcome], store: Store
) -> dict[str, BytesFile]:
    """Describe a series, product by product; nothing if the output is no series.

    Args:
        plan: The plan of the series.
        undone: Ids of tasks that are not done.
        unfinished: Outcomes of those that were tried.
        store: The output.

    Returns:
        The file by its key.
    """
    if plan.request.series is None:
        return {}
    reasons: dict[str, str] = {}
    failed: set[str] = set()
    for outcome in unfinished:
        reasons[outcome.task] = outcome.reason
        if outcome.state == "failed":
            failed.add(outcome.task)
    made = store.list_modified(f"{_folder(plan.tasks)}/")
    groups: dict[str, list[Task]] = {}
    for task in plan.tasks:
        groups.setdefault(task.item_path, []).append(task)
    rows = []
    for item_path, tasks in groups.items():
        ids = {task.id for task in tasks}
        row = _row(tasks[0], _state(ids, undone, failed, plan), made.get(item_path))
        reason = next((reasons[task] for task in sorted(ids) if reasons.get(task)), "")
        rows.append({**row, "reason": reason} if reason else row)
    rows.sort(key=lambda row: (str(row["datetime"]), str(row["product"])))
    document = {"run": plan.request.run, "kind": plan.request.product.kind, "products": rows}
    return {SERIES_FILE: BytesFile((json.dumps(document, indent=1) + "\n").encode())}


def _folder(tasks: Iterable[Task]) -> str:
    return next((task.item_path.partition("/")[0] for task in tasks), "")


def _state(ids: set[str], undone: set[str], failed: set[str], plan: Plan) -> str:
    if ids & failed:
        return "failed"
    if ids & undone:
        return "waiting"
    if ids & set(plan.gone):
        return "gone"
    return "late" if ids & set(plan.late) else "made"


def _row(task: Task, state: str, modified: float | None) -> Mapping[str, Any]:
    row: dict[str, Any] = {
        "product": task.item_path.rpartition("/")[2].removesuffix(".json"),
        "datetime": None if task.ends is None else f"{task.ends:%Y-%m-%dT%H:%M:%SZ}",
        "state": state,
        "scenes": list(task.sources),
    }
    if modified is not None and state not in ("waiting", "failed"):
        when = datetime.fromtimestamp(modified, UTC)
        row["made"] = f"{when:%Y-%m-%dT%H:%M:%SZ}"
        if task.ends is not None:
            row["delay_hours"] = round((when - task.ends).total_seconds() / 3600, 1)
    return row
