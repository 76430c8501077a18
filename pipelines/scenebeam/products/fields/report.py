"""Report a run of field chips: a table, a JSON summary, a STAC collection and stac-geoparquet."""

from __future__ import annotations

import json
import posixpath
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from scenebeam.csvtable import File, Table
from scenebeam.metadata import stac_items
from scenebeam.metadata.item_tables import (
    COLLECTION_FILE,
    ITEMS_FILE,
    BytesFile,
    MergedItems,
    ReportFiles,
    merge_items,
)
from scenebeam.products.fields.chips import read_collection
from scenebeam.products.fields.request import SEASONS, FieldsRequest
from scenebeam.products.fields.task import CELLS, FieldsTask
from scenebeam.request import RunRequest
from scenebeam.storage import Store
from scenebeam.tasks import Outcome

REPORT_FILE, STATUS_TABLE = "report.json", "chips_status.csv"
_COLUMNS = (
    "chip",
    "season",
    "status",
    "scene",
    "cloud_cover",
    "cloud_cover_scene",
    "nodata",
    "day",
    "buffer_used",
    "expansions",
    "candidates_checked",
    "message",
)
_OPERATIONS = {"none": "create", "select": "select-images", "download": "download-images"}
"""`product.images` → name of the operation in the report."""
_NOT_MADE = "not made yet"

Row = dict[str, Any]
"""A chip in one season, by the columns of the status table."""


def report_chips(
    request: RunRequest[FieldsRequest],
    tasks: Sequence[FieldsTask],
    done: set[str],
    outcomes: Mapping[str, Outcome],
    store: Store,
) -> ReportFiles:
    """Write the report of a run.

    Args:
        request: The request of the run.
        tasks: All tasks of the plan.
        done: Ids of finished tasks.
        outcomes: Outcomes of this run, by task id.
        store: Where the outputs are.

    Returns:
        `chips_status.csv`, `report.json`, `collection.json`, and `items.parquet` if there are
        items.
    """
    rows: list[Row] = []
    for task in tasks:
        if task.step != "masks":
            rows += _rows(task, outcomes.get(task.id), store)
    document = summary(request, tasks, rows, done)
    files: dict[str, File] = {
        STATUS_TABLE: Table(_COLUMNS, rows),
        REPORT_FILE: BytesFile(stac_items.to_bytes(document)),
    }

    # The tables of superseded cells count until the cells are made again.
    superseded = store.superseded(CELLS)
    cells: set[str] = set()
    for task in tasks:
        if task.id in done or task.item_path in superseded:
            cells.add(task.item_path)
    item_keys: list[str] = []
    merged: MergedItems | None = None
    if cells:
        merged = merge_items(
            sorted(cells),
            store.local_copy,
            lambda table: item_keys.extend(_item_keys(tasks, table)),
        )
        files[ITEMS_FILE] = BytesFile(merged.content)
    collection = _collection(request, merged, sorted(item_keys))
    files[COLLECTION_FILE] = BytesFile(stac_items.to_bytes(collection))
    return ReportFiles(files, incomplete=len(document["skipped"]), nothing=_why_nothing(document))


def _why_nothing(document: Mapping[str, Any]) -> str:
    """Return why no chip has what was requested, although none failed; "" if one has."""
    skipped = Counter(chip["reason"] for chip in document["skipped"])
    if not skipped or document["successful"] or document["failed"]:
        return ""
    (reason, _), *others = skipped.most_common()
    return f"{reason}; and {len(others)} other reasons, see {STATUS_TABLE}" if others else reason


def _rows(task: FieldsTask, outcome: Outcome | None, store: Store) -> Iterator[Row]:
    """Yield a row for each chip of one season."""
    # A task may fail for some of its chips, or as a whole.
    chip_faults: Mapping[str, str] = {}
    task_fault = ""
    if outcome is not None:
        chip_faults = outcome.detail.get("chips", {})
        if outcome.state != "done" and not chip_faults:
            task_fault = outcome.reason
    choices: dict[str, Mapping[str, Any]] = {}
    content = store.read(task.record_key)
    if content is not None:
        for choice in json.loads(content)["choices"]:
            choices[choice["chip"]] = choice
    for chip in task.chips:
        row: Row = {"chip": chip.name, "season": task.step, "day": chip.day}
        chip_choice = choices.get(chip.name)
        if chip_choice is not None:
            row |= _choice_columns(chip_choice)
        if chip.name in chip_faults or chip_choice is None:
            row["status"] = "failed"
            row["message"] = chip_faults.get(chip.name) or task_fault or _NOT_MADE
        elif chip_choice["scene"] is None:
            row["status"] = "skipped"
        elif task_fault:
            row |= {"status": "failed", "message": task_fault}
        else:
            row["status"] = "success"
        yield row


def _choice_columns(choice: Mapping[str, Any]) -> Row:
    message = choice["reason"]
    if not message and choice["relaxed"]:
        message = "least cloudy scene; none meets the thresholds"
    elif not message:
        message = "; ".join(choice["rejected"].values())
    return {
        "scene": choice["scene"],
        "cloud_cover": choice["cloud"],
        "cloud_cover_scene": choice["cloud_scene"],
        "nodata": choice["nodata"],
        "buffer_used": choice["buffer"] if choice["scene"] else None,
        "expansions": choice["expansions"],
        "candidates_checked": choice["checked"],
        "message": message,
    }


def summary(
    request: RunRequest[FieldsRequest],
    tasks: Sequence[FieldsTask],
    rows: Sequence[Row],
    done: set[str],
) -> dict[str, Any]:
    """Summarize a run by chip, in the format of the reference implementation.

    Args:
        request: The request of the run.
        tasks: All tasks of the plan.
        rows: The rows of the status table.
        done: Ids of finished tasks.

    Returns:
        The content of `report.json`. A chip is failed if one of its seasons is, else skipped if one
        of them has no scene, else successful.
    """
    product = request.product
    by_chip: dict[str, list[Row]] = {}
    without_masks: set[str] = set()
    for task in tasks:
        for chip in task.chips:
            by_chip[chip.name] = []
            if task.step == "masks" and task.id not in done:
                without_masks.add(chip.name)
    for row in rows:
        by_chip[row["chip"]].append(row)

    skipped, failed = [], []
    for name, seasons in sorted(by_chip.items()):
        failed_seasons = [row for row in seasons if row["status"] == "failed"]
        without_scene = [row for row in seasons if row["status"] == "skipped"]
        # Masks have no rows of their own. With rows, the seasons tell how far the chip is.
        if failed_seasons or (name in without_masks and not seasons):
            errors = [f"{row['season']}: {row['message']}" for row in failed_seasons]
            failed.append({"chip": name, "error": "; ".join(errors) or _NOT_MADE})
        elif without_scene:
            skipped.append(
                {
                    "chip": name,
                    "reason": "; ".join(row["message"] for row in without_scene),
                    "candidates_checked": sum(row["candidates_checked"] for row in without_scene),
                }
            )
    return {
        "operation": _OPERATIONS[product.images],
        "year": product.year,
        "total_processed": len(by_chip),
        "successful": len(by_chip) - len(skipped) - len(failed),
        "skipped": skipped,
        "failed": failed,
        "statistics": statistics(rows),
    }


def statistics(rows: Sequence[Row]) -> dict[str, Any]:
    """Summarize each season: numbers of chips and scenes, cloud cover, and width of the window.

    The cloud cover is that of the chip where it is known, else that of the scene.
    """
    seasons: dict[str, Any] = {}
    for season in SEASONS:
        clouds: list[float] = []
        scenes: Counter[str] = Counter()
        buffers: Counter[int] = Counter()
        for row in rows:
            if row["season"] != season or not row.get("scene"):
                continue
            scenes[row["scene"]] += 1
            buffers[row["buffer_used"]] += 1
            cloud = row["cloud_cover"]
            cloud = row["cloud_cover_scene"] if cloud is None else cloud
            if cloud is not None:
                clouds.append(cloud)
        cloud_cover = None
        if clouds:
            cloud_cover = {
                "mean": round(float(np.mean(clouds)), 4),
                "median": round(float(np.median(clouds)), 4),
                "max": max(clouds),
            }
        seasons[season] = {
            "chips": scenes.total(),
            "scenes": len(scenes),
            "cloud_cover": cloud_cover,
            "buffer_used": {str(days): count for days, count in sorted(buffers.items())},
        }
    return seasons


def _item_keys(tasks: Sequence[FieldsTask], table: pa.Table) -> Iterator[str]:
    """Yield the keys of the items of a table: those of the chips, and of their imagery."""
    ids = set(table.column("id").to_pylist())
    for task in tasks:
        for chip in task.chips:
            if chip.name in ids:
                yield task.parent_key(chip)
            if task.step != "masks" and task.image_id(chip) in ids:
                yield task.item_key(chip)


def _collection(
    request: RunRequest[FieldsRequest], merged: MergedItems | None, item_keys: Sequence[str]
) -> dict[str, Any]:
    """Make the collection of a run, or add the run's items to the catalog's own collection."""
    product = request.product
    base = {} if product.chips is None else read_collection(product.chips)
    description = f"Field chips of {request.run}, {product.year}"
    new = stac_items.make_collection(request.run, description, [], [])
    document = {**new, **base}
    if merged is not None:
        document["extent"] = merged.extent

    # Existing links are kept as they are, and what they lack is added.
    links = list(base.get("links") or ())
    rels = {link.get("rel") for link in links}
    linked_keys: set[str] = set()
    for link in links:
        if link.get("rel") == "item":
            linked_keys.add(posixpath.normpath(str(link.get("href"))))
    for link in new["links"]:
        # The table of items exists only if there are items.
        if link["rel"] not in rels and (item_keys or link["rel"] != "items"):
            links.append(link)
    for key in dict.fromkeys(item_keys):
        if key not in linked_keys:
            links.append({"rel": "item", "href": f"./{key}", "type": "application/geo+json"})
    document["links"] = links
    document["assets"] = {**(base.get("assets") or {}), **new["assets"]}
    return document
