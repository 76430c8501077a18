"""The table of an index run: a row per image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from scenebeam.csvtable import Table
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
    tasks: Sequence[IndexTask], outcomes: Mapping[str, Outcome], items: Mapping[str, dict[str, Any]]
) -> dict[str, Table]:
    """Tables by file name. `outcomes` by task id, `items` by item name; both hold only what there is."""
    shards: dict[str, list[IndexTask]] = {}
    for task in tasks:
        shards.setdefault(task.name, []).append(task)
    return {
        STATUS: Table(
            _COLUMNS, [_row(own, outcomes, items.get(own[0].item_path)) for own in shards.values()]
        )
    }


def _row(
    shards: Sequence[IndexTask], outcomes: Mapping[str, Outcome], item: dict[str, Any] | None
) -> dict[str, Any]:
    task = shards[0]
    row = {
        "name": task.name,
        "index": task.index,
        "acquisitions": len(task.acquisitions),
        "scenes": "|".join(task.sources),
    }
    if item is not None:
        asset = item["assets"][task.index]
        missing = asset.get("scenebeam:missing", [])
        return {
            **row,
            "status": "success",
            "valid_percent": asset["raster:bands"][0]["statistics"]["valid_percent"],
            "missing": "|".join(one["scene"] for one in missing),
            "message": "; ".join(f"{one['scene']}: {one['reason']}" for one in missing),
            "output_path": task.output_key(task.index),
        }
    faults = [
        o for shard in shards if (o := outcomes.get(shard.id)) is not None and o.state != "done"
    ]
    kind = next((fault.kind for fault in faults if fault.kind.startswith("failed_")), "exception")
    return {**row, "status": kind, "message": faults[0].reason if faults else "not made yet"}
