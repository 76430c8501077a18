"""The table of a download: a row per scene, what is there of it, and what to do about the rest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from scenebeam.csvtable import Table
from scenebeam.imaging.fetch import checksum_warning
from scenebeam.products.assets.task import AssetsTask
from scenebeam.tasks import Outcome

STATUS = "assets_download_status.csv"
_SPENDING = ("seconds", "bytes", "retries")


def assets_tables(
    tasks: Sequence[AssetsTask],
    outcomes: Mapping[str, Outcome],
    items: Mapping[str, dict[str, Any]],
) -> dict[str, Table]:
    """Tables by file name. `outcomes` by task id, `items` by item name; both hold only what there is.

    `status` is `success`, `skipped_missing_href`, `download_incomplete`, `validation_failed` or `exception`: that of
    the scene's worst band. `seconds_…`, `bytes_…` and `retries_…` are what this run has spent on each.
    """
    labels = [file.column for file in tasks[0].files] if tasks else []
    columns = ["scene_id", "status", *(f"ok_{label}" for label in labels), "message"]
    columns += [f"{kind}_{label}" for kind in _SPENDING for label in labels]
    return {
        STATUS: Table(
            columns, [_row(task, outcomes.get(task.id), task.item_path in items) for task in tasks]
        )
    }


def _row(task: AssetsTask, outcome: Outcome | None, done: bool) -> dict[str, Any]:
    bands: dict[str, Any] = outcome.detail if outcome is not None else {}
    if done:
        status, told = "success", "; ".join(_notes(task, bands))
    elif outcome is None:
        status, told = "download_incomplete", "not fetched yet; run it again to go on"
    else:
        status, told = (outcome.kind if bands else "exception"), outcome.reason
    return {
        "scene_id": task.scene.id,
        "status": status,
        **{
            f"ok_{file.column}": done or bands.get(file.column, {}).get("ok", False)
            for file in task.files
        },
        "message": told,
        **_spending(task, bands),
    }


def _spending(task: AssetsTask, bands: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Report what each band has taken in this run."""
    found: dict[str, Any] = {}
    for file in task.files:
        spent = bands.get(file.column, {})
        found |= {f"{kind}_{file.column}": spent.get(kind) for kind in _SPENDING}
    return found


def _notes(task: AssetsTask, bands: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What is to be told of a scene whose files are all there."""
    notes = []
    for file in task.files:
        told = [checksum_warning(file.asset), bands.get(file.column, {}).get("message", "")]
        notes += [f"{file.label}: {text}" for text in told if text]
    return notes
