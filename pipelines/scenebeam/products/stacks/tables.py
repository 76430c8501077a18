"""The table of a stack run: a row per scene, with the status of its bands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from scenebeam.csvtable import Table
from scenebeam.imaging.cube_layout import image_path
from scenebeam.metadata.stac_items import Item
from scenebeam.products.stacks.task import StackTask
from scenebeam.tasks import Outcome

STATUS = "stacks_status.csv"
_SPENDING = ("seconds", "bytes", "retries")
_COLUMNS = (
    "scene_id",
    "status",
    "bands",
    "missing_bands",
    "warnings",
    "message",
    "output_path",
    *_SPENDING,
)


def stack_tables(
    tasks: Sequence[StackTask], outcomes: Mapping[str, Outcome], items: Mapping[str, Item]
) -> dict[str, Table]:
    """Summarize a run as a table.

    `status` is `success`, or why there is no stack: `failed_required_bands`,
    `failed_no_visualization`, `failed_bands_for_now` or `exception`. `seconds`, `bytes` and
    `retries` are what this run has spent on each band.

    Args:
        tasks: All tasks of the plan.
        outcomes: Outcomes of this run, by task id.
        items: STAC items of finished tasks, by key.

    Returns:
        File name → table.
    """
    rows = [_row(task, outcomes.get(task.id), items.get(task.item_path)) for task in tasks]
    return {STATUS: Table(_COLUMNS, rows)}


def _row(task: StackTask, outcome: Outcome | None, item: Item | None) -> dict[str, Any]:
    detail = {} if outcome is None else outcome.detail
    missing: dict[str, str] = {}
    row: dict[str, Any] = {"scene_id": task.scene.id, **_spending(detail.get("bands", {}))}
    if item is not None:
        properties = item["properties"]
        for entry in properties["scenebeam:missing_bands"]:
            missing[entry["band"]] = entry["reason"]
        # The outcome repeats the item's warnings, and adds those of this run.
        warnings = dict.fromkeys([*properties["scenebeam:warnings"], *detail.get("warnings", [])])
        row["status"] = "success"
        row["warnings"] = "; ".join(warnings)
        row["message"] = "; ".join(f"{band}: {reason}" for band, reason in missing.items())
        row["output_path"] = "|".join(_paths(task))
    elif outcome is not None:
        missing = detail.get("missing", {})
        row["status"] = outcome.kind if outcome.kind.startswith("failed_") else "exception"
        row["warnings"] = "; ".join(detail.get("warnings", []))
        row["message"] = outcome.reason
    else:
        row["status"] = "exception"
        row["message"] = "not made yet"
    present = [band.name for band in task.bands if band.name not in missing]
    row["bands"], row["missing_bands"] = "|".join(present), "|".join(missing)
    return row


def _paths(task: StackTask) -> list[str]:
    if task.cube is None:
        return [task.stack_key(stack) for stack in task.stacks]
    return list(dict.fromkeys(image_path(task.cube, band.name) for band in task.cube.bands))


def _spending(bands: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Return what each band has taken: `blue=1.2|green=0.8` for each kind."""
    cells = {}
    for kind in _SPENDING:
        cells[kind] = "|".join(f"{band}={spent[kind]}" for band, spent in bands.items())
    return cells
