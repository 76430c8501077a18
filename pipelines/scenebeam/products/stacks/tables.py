"""The table of a stack run: a row per scene, and what became of its bands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from scenebeam.csvtable import Table
from scenebeam.products.stacks.task import StackTask
from scenebeam.tasks import Outcome

STATUS = "stacks_status.csv"
_SPENDING = ("seconds", "bytes", "retries")
_COLUMNS = (
    *("scene_id", "status", "bands", "missing_bands", "warnings", "message", "output_path"),
    *_SPENDING,
)


def stack_tables(
    tasks: Sequence[StackTask], outcomes: Mapping[str, Outcome], items: Mapping[str, dict[str, Any]]
) -> dict[str, Table]:
    """Tables by file name. `outcomes` by task id, `items` by item name; both hold only what there is.

    `status` is `success`, or why there is no stack: `failed_required_bands`, `failed_no_visualization`,
    `failed_bands_for_now`, `exception`. `seconds`, `bytes` and `retries` are what this run has spent
    on each band.
    """
    return {
        STATUS: Table(
            _COLUMNS,
            [_row(task, outcomes.get(task.id), items.get(task.item_path)) for task in tasks],
        )
    }


def _row(task: StackTask, outcome: Outcome | None, item: dict[str, Any] | None) -> dict[str, Any]:
    detail = {} if outcome is None else outcome.detail
    row: dict[str, Any] = {"scene_id": task.scene.id, **_spending(detail.get("bands", {}))}
    if item is not None:
        told = item["properties"]
        missing = {one["band"]: one["reason"] for one in told["scenebeam:missing_bands"]}
        warnings = dict.fromkeys([*told["scenebeam:warnings"], *detail.get("warnings", [])])
        row |= {
            "status": "success",
            "warnings": "; ".join(warnings),
            "message": "; ".join(f"{band}: {why}" for band, why in missing.items()),
            "output_path": "|".join(task.stack_key(stack) for stack in task.stacks),
        }
    elif outcome is not None:
        missing = detail.get("missing", {})
        row |= {
            "status": outcome.kind if outcome.kind.startswith("failed_") else "exception",
            "warnings": "; ".join(detail.get("warnings", [])),
            "message": outcome.reason,
        }
    else:
        missing = {}
        row |= {"status": "exception", "message": "not made yet"}
    present = [band.name for band in task.bands if band.name not in missing]
    return {**row, "bands": "|".join(present), "missing_bands": "|".join(missing)}


def _spending(bands: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Write what each band took: `blue=1.2|green=0.8`."""
    found = {}
    for kind in _SPENDING:
        found[kind] = "|".join(f"{band}={spent[kind]}" for band, spent in bands.items())
    return found
