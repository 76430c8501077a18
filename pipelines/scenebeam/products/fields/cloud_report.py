"""Refine: how cloudy the scenes that were chosen for field chips are over the chips themselves."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

from scenebeam.errors import RequestError
from scenebeam.metadata import stac_items
from scenebeam.planning.plan import read_plan
from scenebeam.products.fields.refine import measure
from scenebeam.products.fields.task import CELLS, FieldsTask
from scenebeam.storage import open_store
from scenebeam.transfer.ranges import Budget

CLOUD_REPORT = "cloud-report.json"
_AT_ONCE = 2
"""Cells that are looked at together."""


def measure_clouds(output: str, most: float) -> dict[str, Any]:
    """Look at every chosen scene over its chip, each block of a classification once; write and return the report.

    `most` is the percentage of cloud above which an image is named. Raises RequestError where nothing was chosen.
    """
    store = open_store(output)
    plan = read_plan(store)
    if plan is None:
        raise RequestError(f"{output} holds no run of field chips")
    tasks = [task for task in plan.tasks if isinstance(task, FieldsTask) and task.step != "masks"]
    existing = store.list(CELLS)
    if not tasks or not any(task.record in existing for task in tasks):
        raise RequestError(
            f"{output}: nothing was chosen there yet; begin with `scenebeam fields select`"
        )
    chosen = [task for task in tasks if task.record in existing]
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        rows = [
            row
            for found in threads.map(
                lambda task: measure(task, store, Budget(private=True)), chosen
            )
            for row in found
        ]
    cloudy = [row for row in rows if row["cloud_cover"] is not None and row["cloud_cover"] > most]
    document = {
        "operation": "refine-cloud-cover",
        "cloud_cover_pixel": most,
        "total_processed": len(rows),
        "above_threshold": [row["image"] for row in cloudy],
        "unchecked": {row["image"]: row["error"] for row in rows if row["error"]},
        "images": rows,
    }
    store.write(CLOUD_REPORT, stac_items.dump(document))
    return document
