"""Refine: how cloudy the scenes that were chosen for field chips are over the chips themselves."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from scenebeam.errors import RequestError
from scenebeam.metadata import stac_items
from scenebeam.products.fields.refine import measure
from scenebeam.products.fields.task import CELLS, FieldsTask
from scenebeam.storage import Store
from scenebeam.tasks import Task
from scenebeam.transfer.retry import Budget

CLOUD_REPORT = "cloud-report.json"
_AT_ONCE = 2
"""Cells that are looked at together."""


def measure_clouds(tasks: Iterable[Task], store: Store, most: float) -> dict[str, Any]:
    """Measure the clouds of every selected scene over its chip, and write the report.

    Each block of a classification is read once.

    Args:
        tasks: The tasks of a run of field chips.
        store: Where the run's output is.
        most: Percent of cloud above which an image is listed.

    Returns:
        The report, as it is written to CLOUD_REPORT.

    Raises:
        RequestError: No scene has been selected yet.
    """
    imagery = [task for task in tasks if isinstance(task, FieldsTask) and task.step != "masks"]
    existing = store.list(CELLS)
    chosen = [task for task in imagery if task.record in existing]
    if not chosen:
        raise RequestError(
            f"{store.uri}: no scenes have been selected; begin with `scenebeam fields select`"
        )
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
    store.write(CLOUD_REPORT, stac_items.to_bytes(document))
    return document
