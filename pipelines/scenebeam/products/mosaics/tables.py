"""The tables of a mosaic run: a row per timestamp, and a row per timestamp and band."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from scenebeam.csvtable import Table
from scenebeam.imaging.bands import Band
from scenebeam.products.mosaics.task import MosaicTask
from scenebeam.tasks import Outcome

STATUS = "timestamps_aggregation_status.csv"
SUMMARY = "timestamps_aggregation_summary.csv"
BANDS = "timestamps_aggregation_band_report.csv"
_COLUMNS = {
    STATUS: ("timestamp", "status"),
    SUMMARY: (
        "timestamp",
        "success",
        "failed_bands",
        "missing_files",
        "error_message",
        "output_folder",
    ),
    BANDS: ("timestamp", "band", "status", "input_files", "output_path", "message"),
}


def mosaic_tables(
    tasks: Sequence[MosaicTask],
    outcomes: Mapping[str, Outcome],
    items: Mapping[str, dict[str, Any]],
) -> dict[str, Table]:
    """Tables by file name. `outcomes` by task id, `items` by item name; both hold only what there is.

    They come from the plan, the items and the failures alone: a resumed run gives the same tables.
    """
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in _COLUMNS}
    by_timestamp: dict[str, list[MosaicTask]] = {}
    for task in tasks:
        by_timestamp.setdefault(task.name, []).append(task)
    for timestamp, shards in by_timestamp.items():
        task, item = shards[0], items.get(shards[0].item_path)
        faults = [
            o for shard in shards if (o := outcomes.get(shard.id)) is not None and o.state != "done"
        ]
        missing = _missing(item, faults)
        made = set() if item is None else item["assets"].keys()
        failed = [band.label for band in task.bands if band.label not in made]
        status = _status(item, failed, faults)
        message = _message(item, failed, faults, missing)
        found[STATUS].append({"timestamp": timestamp, "status": status})
        found[SUMMARY].append(
            {
                "timestamp": timestamp,
                "success": status == "success",
                "failed_bands": "|".join(failed),
                "missing_files": "|".join(
                    f"{s}/{band}" for band, scenes in missing.items() for s in scenes
                ),
                "error_message": message,
                "output_folder": f"mosaics/{timestamp}" if item is not None else "",
            }
        )
        for band in task.bands:
            band_status = status if band.label in failed else "success"
            row = _band_row(task, band, band_status, missing.get(band.label, {}), message)
            found[BANDS].append(row)
    return {name: Table(columns, found[name]) for name, columns in _COLUMNS.items()}


def _band_row(
    task: MosaicTask,
    band: Band,
    status: str,
    missing: dict[str, str],
    message: str,
) -> dict[str, Any]:
    told = "; ".join(f"{scene}: {why}" for scene, why in missing.items())
    success = status == "success"
    return {
        "timestamp": task.name,
        "band": band.label,
        "status": status,
        "input_files": "|".join(
            source.href for source in band.sources if source.scene not in missing
        ),
        "output_path": task.output_key(band.label) if success else "",
        "message": told or ("" if success else message),
    }


def _missing(item: dict[str, Any] | None, faults: Sequence[Outcome]) -> dict[str, dict[str, str]]:
    if item is not None:
        assets: dict[str, Any] = item["assets"]
        told = {
            band: {one["scene"]: one["reason"] for one in asset.get("scenebeam:missing", [])}
            for band, asset in assets.items()
        }
        for one in item["properties"].get("scenebeam:missing", []):
            told.setdefault(one["band"], {})[one["scene"]] = one["reason"]
    else:
        told = {}
        for fault in faults:
            for band, scenes in fault.detail.get("missing", {}).items():
                told.setdefault(band, {}).update(scenes)
    return {band: scenes for band, scenes in told.items() if scenes}


def _status(item: dict[str, Any] | None, failed: Sequence[str], faults: Sequence[Outcome]) -> str:
    if item is not None:
        return "failed_missing_inputs" if failed else "success"
    kinds = [fault.kind for fault in faults]
    return next((kind for kind in kinds if kind.startswith("failed_")), "exception")


def _message(
    item: dict[str, Any] | None,
    failed: Sequence[str],
    faults: Sequence[Outcome],
    missing: dict[str, dict[str, str]],
) -> str:
    if item is None:
        return faults[0].reason if faults else "not made yet"
    if failed:
        return f"incomplete: no tile has {', '.join(failed)}"
    count = len({scene for scenes in missing.values() for scene in scenes})
    return f"incomplete: {count} of its tiles could not be used" if missing else ""
