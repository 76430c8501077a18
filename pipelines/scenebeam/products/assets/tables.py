"""The table of a download: a row per scene, what is there of it, and what to do about the rest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from scenebeam.csvtable import Table
from scenebeam.products.assets.plan import unchecked
from scenebeam.products.assets.task import AssetsTask
from scenebeam.products.task import Outcome

STATUS = "assets_download_status.csv"


def tables(
    tasks: Sequence[AssetsTask], outcomes: Mapping[str, Outcome], items: Mapping[str, dict[str, Any]]
) -> dict[str, Table]:
    """Tables by file name. `outcomes` by task id, `items` by item name; both hold only what there is.

    `status` is `success`, `skipped_missing_href`, `download_incomplete`, `validation_failed` or `exception`: that of
    the scene's worst band.
    """
    labels = [file.column for file in tasks[0].files] if tasks else []
    columns = ["scene_id", "status", *(f"ok_{label}" for label in labels), "message"]
    return {STATUS: Table(columns, [_row(task, outcomes.get(task.id), task.item_path in items) for task in tasks])}


def _row(task: AssetsTask, outcome: Outcome | None, done: bool) -> dict[str, Any]:
    bands: dict[str, Any] = outcome.detail if outcome is not None else {}
    if done:
        status, told = "success", "; ".join(filter(None, map(unchecked, task.files)))
    elif outcome is None:
        status, told = "download_incomplete", "not fetched yet; run it again to go on"
    else:
        status, told = (outcome.kind if bands else "exception"), outcome.reason
    return {
        "scene_id": task.scene,
        "status": status,
        **{f"ok_{file.column}": done or bands.get(file.column, {}).get("ok", False) for file in task.files},
        "message": told,
    }
