"""The table of a download: a row per scene, and whether each file of it is there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from scenebeam.csvtable import Table
from scenebeam.imaging.fetch import checksum_warning
from scenebeam.metadata.stac_items import Item
from scenebeam.products.assets.task import AssetsTask
from scenebeam.tasks import Outcome

STATUS = "assets_download_status.csv"
_SPENDING = ("seconds", "bytes", "retries")


def assets_tables(
    tasks: Sequence[AssetsTask], outcomes: Mapping[str, Outcome], items: Mapping[str, Item]
) -> dict[str, Table]:
    """Summarize a run as a table.

    `status` is that of the scene's worst band: `success`, `skipped_missing_href`,
    `download_incomplete`, `validation_failed` or `exception`. `seconds_…`, `bytes_…` and
    `retries_…` are what this run has spent on each band.

    Args:
        tasks: All tasks of the plan.
        outcomes: Outcomes of this run, by task id.
        items: STAC items of finished tasks, by key.

    Returns:
        File name → table.
    """
    labels = [file.column for file in tasks[0].files] if tasks else []
    columns = ["scene_id", "status", *(f"ok_{label}" for label in labels), "message"]
    for kind in _SPENDING:
        columns += [f"{kind}_{label}" for label in labels]
    rows = []
    for task in tasks:
        rows.append(_row(task, outcomes.get(task.id), is_done=task.item_path in items))
    return {STATUS: Table(columns, rows)}


def _row(task: AssetsTask, outcome: Outcome | None, *, is_done: bool) -> dict[str, Any]:
    bands: dict[str, Any] = outcome.detail if outcome is not None else {}
    row: dict[str, Any] = {"scene_id": task.scene.id}
    if is_done:
        row["status"], row["message"] = "success", "; ".join(_notes(task, bands))
    elif outcome is None:
        row["status"] = "download_incomplete"
        row["message"] = "not downloaded yet; run again to continue"
    else:
        row["status"] = outcome.kind if bands else "exception"
        row["message"] = outcome.reason
    for file in task.files:
        detail = bands.get(file.column, {})
        row[f"ok_{file.column}"] = is_done or detail.get("ok", False)
        for kind in _SPENDING:
            row[f"{kind}_{file.column}"] = detail.get(kind)
    return row


def _notes(task: AssetsTask, bands: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the warnings about a scene whose files are complete."""
    notes = []
    for file in task.files:
        message = bands.get(file.column, {}).get("message", "")
        for text in (checksum_warning(file.asset), message):
            if text:
                notes.append(f"{file.label}: {text}")
    return notes
