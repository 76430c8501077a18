"""The table of a composite run: a row per period."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from scenebeam.csvtable import Table
from scenebeam.imaging.shard_outcomes import describe_failure, failed_outcomes, shards_by_name
from scenebeam.metadata.stac_items import Item
from scenebeam.products.composites.task import CompositeTask
from scenebeam.tasks import Outcome

STATUS = "composites_status.csv"
_COLUMNS = (
    "period",
    "start",
    "end",
    "status",
    "acquisitions",
    "scenes",
    "valid_percent",
    "missing",
    "message",
    "output_folder",
)


def composite_tables(
    tasks: Sequence[CompositeTask], outcomes: Mapping[str, Outcome], items: Mapping[str, Item]
) -> dict[str, Table]:
    """Summarize a run as a table.

    Args:
        tasks: All tasks of the plan.
        outcomes: Outcomes of this run, by task id.
        items: STAC items of finished tasks, by key.

    Returns:
        File name → table.
    """
    periods = []
    for task in tasks:
        for period in task.periods:
            # A failure is that of the task which makes the period.
            periods.append(period.model_copy(update={"id": task.id}))
    rows = []
    for name, shards in shards_by_name(periods).items():
        task, item = shards[0], items.get(shards[0].item_path)
        row: dict[str, Any] = {
            "period": name,
            "start": task.properties["start_datetime"],
            "end": task.properties["end_datetime"],
            "acquisitions": task.properties["scenebeam:acquisitions"],
            "scenes": "|".join(task.sources),
        }
        rows.append(
            {**row, **(_failure(shards, outcomes) if item is None else _success(task, item))}
        )
    return {STATUS: Table(_COLUMNS, rows)}


def _success(task: CompositeTask, item: Item) -> dict[str, Any]:
    missing: dict[str, str] = {}
    for asset in item["assets"].values():
        for entry in asset.get("scenebeam:missing", []):
            missing[entry["scene"]] = entry["reason"]
    first = item["assets"][task.made[0]]
    return {
        "status": "success",
        "valid_percent": first["raster:bands"][0]["statistics"]["valid_percent"],
        "missing": "|".join(missing),
        "message": "; ".join(f"{scene}: {reason}" for scene, reason in missing.items()),
        "output_folder": f"{task.folder}/{task.name}",
    }


def _failure(shards: Sequence[CompositeTask], outcomes: Mapping[str, Outcome]) -> dict[str, Any]:
    status, message = describe_failure(failed_outcomes(shards, outcomes))
    return {"status": status, "message": message}
