"""The table of an index run: a row per image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from scenebeam.csvtable import Table
from scenebeam.imaging.shard_outcomes import describe_failure, failed_outcomes, shards_by_name
from scenebeam.metadata.stac_items import Item
from scenebeam.products.indices.task import IndexTask
from scenebeam.tasks import Outcome

STATUS = "indices_status.csv"
_COLUMNS = (
    "name",
    "index",
    "status",
    "acquisitions",
    "scenes",
    "valid_percent",
    "missing",
    "message",
    "output_path",
)


def index_tables(
    tasks: Sequence[IndexTask], outcomes: Mapping[str, Outcome], items: Mapping[str, Item]
) -> dict[str, Table]:
    """Summarize a run as a table.

    Args:
        tasks: All tasks of the plan.
        outcomes: Outcomes of this run, by task id.
        items: STAC items of finished tasks, by key.

    Returns:
        File name → table.
    """
    rows = []
    for shards in shards_by_name(tasks).values():
        item = items.get(shards[0].item_path)
        result = _failure(shards, outcomes) if item is None else _success(shards[0], item)
        rows.append({**_common_cells(shards[0]), **result})
    return {STATUS: Table(_COLUMNS, rows)}


def _common_cells(task: IndexTask) -> dict[str, Any]:
    return {
        "name": task.name,
        "index": task.index,
        "acquisitions": len(task.acquisitions),
        "scenes": "|".join(task.sources),
    }


def _success(task: IndexTask, item: Item) -> dict[str, Any]:
    asset = item["assets"][task.index]
    scenes, messages = [], []
    for entry in asset.get("scenebeam:missing", []):
        scenes.append(entry["scene"])
        messages.append(f"{entry['scene']}: {entry['reason']}")
    return {
        "status": "success",
        "valid_percent": asset["raster:bands"][0]["statistics"]["valid_percent"],
        "missing": "|".join(scenes),
        "message": "; ".join(messages),
        "output_path": task.image_path(task.index),
    }


def _failure(shards: Sequence[IndexTask], outcomes: Mapping[str, Outcome]) -> dict[str, Any]:
    status, message = describe_failure(failed_outcomes(shards, outcomes))
    return {"status": status, "message": message}
