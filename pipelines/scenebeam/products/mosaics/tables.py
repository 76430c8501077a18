"""The tables of a mosaic run: a row per timestamp, and a row per timestamp and band."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scenebeam.csvtable import Table
from scenebeam.imaging.bands import Band
from scenebeam.imaging.gridded_task import Missing
from scenebeam.imaging.shard_outcomes import describe_failure, failed_outcomes, shards_by_name
from scenebeam.metadata.stac_items import Item
from scenebeam.products.mosaics.task import MOSAICS, MosaicTask
from scenebeam.tasks import Outcome

STATUS = "timestamps_aggregation_status.csv"
SUMMARY = "timestamps_aggregation_summary.csv"
BANDS = "timestamps_aggregation_band_report.csv"
_STATUS_COLUMNS = ("timestamp", "status")
_SUMMARY_COLUMNS = (
    "timestamp",
    "success",
    "failed_bands",
    "missing_files",
    "error_message",
    "output_folder",
)
_BAND_COLUMNS = ("timestamp", "band", "status", "input_files", "output_path", "message")


def mosaic_tables(
    tasks: Sequence[MosaicTask], outcomes: Mapping[str, Outcome], items: Mapping[str, Item]
) -> dict[str, Table]:
    """Summarize a run as tables.

    They are made of the plan, the items and the failures alone, so that a resumed run gives the
    same tables.

    Args:
        tasks: All tasks of the plan.
        outcomes: Outcomes of this run, by task id.
        items: STAC items of finished tasks, by key.

    Returns:
        File name → table.
    """
    status_rows, summary_rows, band_rows = [], [], []
    for timestamp, shards in shards_by_name(tasks).items():
        item = items.get(shards[0].item_path)
        result = _result_of(shards, outcomes, item)
        status_rows.append({"timestamp": timestamp, "status": result.status})
        summary_rows.append(_summary_row(timestamp, result, has_item=item is not None))
        band_rows += [_band_row(shards[0], band, result) for band in shards[0].requested]
    return {
        STATUS: Table(_STATUS_COLUMNS, status_rows),
        SUMMARY: Table(_SUMMARY_COLUMNS, summary_rows),
        BANDS: Table(_BAND_COLUMNS, band_rows),
    }


@dataclass(frozen=True)
class _Result:
    """The result of one timestamp, over all its shards."""

    status: str
    failed_bands: Sequence[str]
    """Labels of the bands that have no output."""
    missing: Missing
    message: str


def _result_of(
    shards: Sequence[MosaicTask], outcomes: Mapping[str, Outcome], item: Item | None
) -> _Result:
    labels = [band.label for band in shards[0].requested]
    if item is not None:
        missing = _missing_in_item(item)
        failed_bands = [label for label in labels if label not in item["assets"]]
        status = "failed_missing_inputs" if failed_bands else "success"
        return _Result(status, failed_bands, missing, _describe_gaps(failed_bands, missing))
    failures = failed_outcomes(shards, outcomes)
    status, message = describe_failure(failures)
    return _Result(status, labels, _missing_in_outcomes(failures), message)


def _missing_in_item(item: Item) -> Missing:
    missing: Missing = {}
    for label, asset in item["assets"].items():
        for entry in asset.get("scenebeam:missing", []):
            missing.setdefault(label, {})[entry["scene"]] = entry["reason"]
    # The item itself lists the files of bands that have no asset.
    for entry in item["properties"].get("scenebeam:missing", []):
        missing.setdefault(entry["band"], {})[entry["scene"]] = entry["reason"]
    return missing


def _missing_in_outcomes(outcomes: Sequence[Outcome]) -> Missing:
    missing: Missing = {}
    for outcome in outcomes:
        for label, scenes in outcome.detail.get("missing", {}).items():
            missing.setdefault(label, {}).update(scenes)
    return {label: scenes for label, scenes in missing.items() if scenes}


def _describe_gaps(failed_bands: Sequence[str], missing: Missing) -> str:
    """Describe what a mosaic that was made lacks; empty if it is complete."""
    if failed_bands:
        return f"incomplete: no scene has {', '.join(failed_bands)}"
    scenes: set[str] = set()
    for reasons in missing.values():
        scenes.update(reasons)
    return f"incomplete: {len(scenes)} of its scenes could not be used" if scenes else ""


def _summary_row(timestamp: str, result: _Result, *, has_item: bool) -> dict[str, Any]:
    missing_files = []
    for label, scenes in result.missing.items():
        missing_files += [f"{scene}/{label}" for scene in scenes]
    return {
        "timestamp": timestamp,
        "success": result.status == "success",
        "failed_bands": "|".join(result.failed_bands),
        "missing_files": "|".join(missing_files),
        "error_message": result.message,
        "output_folder": f"{MOSAICS}/{timestamp}" if has_item else "",
    }


def _band_row(task: MosaicTask, band: Band, result: _Result) -> dict[str, Any]:
    missing = result.missing.get(band.label, {})
    is_made = band.label not in result.failed_bands
    used = [source.href for source in band.sources if source.scene not in missing]
    reasons = [f"{scene}: {reason}" for scene, reason in missing.items()]
    return {
        "timestamp": task.name,
        "band": band.label,
        "status": "success" if is_made else result.status,
        "input_files": "|".join(used),
        "output_path": task.image_path(band.label) if is_made else "",
        "message": "; ".join(reasons) or ("" if is_made else result.message),
    }
