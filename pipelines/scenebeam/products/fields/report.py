"""Report: what became of the chips, as the report of the reference, a table, a collection and stac-geoparquet."""

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
    join_items,
)
from scenebeam.products.fields.chips import collection_of
from scenebeam.products.fields.request import SEASONS, FieldsRequest
from scenebeam.products.fields.task import CELLS, FieldsTask
from scenebeam.request import RunRequest
from scenebeam.storage import Store
from scenebeam.tasks import Outcome

REPORT_FILE, STATUS_TABLE = "report.json", "chips_status.csv"
_COLUMNS = (
    *(
        "chip",
        "season",
        "status",
        "scene",
        "cloud_cover",
        "cloud_cover_scene",
        "nodata",
        "day",
        "buffer_used",
    ),
    *("expansions", "candidates_checked", "message"),
)


def report_chips(
    request: RunRequest[FieldsRequest],
    tasks: Sequence[FieldsTask],
    done: set[str],
    outcomes: Mapping[str, Outcome],
    store: Store,
) -> ReportFiles:
    """Tables, `report.json`, `items.parquet` and `collection.json`."""
    rows = [
        row
        for task in tasks
        if task.step != "masks"
        for row in _rows(task, outcomes.get(task.id), store)
    ]
    document = summary(request, tasks, rows, done)
    files: dict[str, File] = {
        STATUS_TABLE: Table(_COLUMNS, rows),
        REPORT_FILE: BytesFile(stac_items.to_bytes(document)),
    }
    older = store.superseded(CELLS)
    cells = sorted({task.item_path for task in tasks if task.id in done or task.item_path in older})
    listed: list[str] = []
    joined = (
        join_items(cells, store.local_copy, lambda table: listed.extend(_names(tasks, table)))
        if cells
        else None
    )
    if joined is not None:
        files[ITEMS_FILE] = BytesFile(joined.content)
    files[COLLECTION_FILE] = BytesFile(
        stac_items.to_bytes(_collection(request, joined, sorted(listed)))
    )
    return ReportFiles(files, incomplete=len(document["skipped"]), nothing=_nothing(document))


def _nothing(document: Mapping[str, Any]) -> str:
    """Why no chip has what was asked for, where none failed; empty where one has it."""
    skipped = Counter(chip["reason"] for chip in document["skipped"])
    if not skipped or document["successful"] or document["failed"]:
        return ""
    (reason, _), *others = skipped.most_common()
    return f"{reason}; and {len(others)} other reasons, see {STATUS_TABLE}" if others else reason


def _rows(task: FieldsTask, outcome: Outcome | None, store: Store) -> Iterator[dict[str, Any]]:
    """A row for each chip of a season."""
    faults: Mapping[str, str] = {} if outcome is None else outcome.detail.get("chips", {})
    whole = "" if outcome is None or outcome.state == "done" or faults else outcome.reason
    content = store.read(task.record)
    choices = (
        {} if content is None else {one["chip"]: one for one in json.loads(content)["choices"]}
    )
    for chip in task.chips:
        row: dict[str, Any] = {"chip": chip.name, "season": task.step, "day": chip.day}
        one = choices.get(chip.name)
        if one is not None:
            row |= {
                "scene": one["scene"],
                "cloud_cover": one["cloud"],
                "cloud_cover_scene": one["cloud_scene"],
                "nodata": one["nodata"],
                "buffer_used": one["buffer"] if one["scene"] else None,
                "expansions": one["expansions"],
                "candidates_checked": one["checked"],
                "message": one["reason"]
                or (
                    "least cloudy there is"
                    if one["relaxed"]
                    else "; ".join(one["rejected"].values())
                ),
            }
        if chip.name in faults or one is None:
            yield {
                **row,
                "status": "failed",
                "message": faults.get(chip.name) or whole or "not made yet",
            }
        elif one["scene"] is None:
            yield {**row, "status": "skipped"}
        elif whole:
            yield {**row, "status": "failed", "message": whole}
        else:
            yield {**row, "status": "success"}


def summary(
    request: RunRequest[FieldsRequest],
    tasks: Sequence[FieldsTask],
    rows: Sequence[Mapping[str, Any]],
    done: set[str],
) -> dict[str, Any]:
    """The report of the reference: a chip is successful where both seasons are, failed where one of them is."""
    product = request.product
    by_chip: dict[str, list[Mapping[str, Any]]] = {
        chip.name: [] for task in tasks for chip in task.chips
    }
    for row in rows:
        by_chip[row["chip"]].append(row)
    undone = {
        chip.name
        for task in tasks
        if task.step == "masks" and task.id not in done
        for chip in task.chips
    }
    skipped, failed = [], []
    for chip, seasons in sorted(by_chip.items()):
        broken = [row for row in seasons if row["status"] == "failed"]
        without = [row for row in seasons if row["status"] == "skipped"]
        if broken or (chip in undone and not seasons):
            told = (
                "; ".join(f"{row['season']}: {row['message']}" for row in broken) or "not made yet"
            )
            failed.append({"chip": chip, "error": told})
        elif without:
            checked = sum(row["candidates_checked"] for row in without)
            reason = "; ".join(row["message"] for row in without)
            skipped.append({"chip": chip, "reason": reason, "candidates_checked": checked})
    return {
        "operation": {"none": "create", "select": "select-images", "download": "download-images"}[
            product.images
        ],
        "year": product.year,
        "total_processed": len(by_chip),
        "successful": len(by_chip) - len(skipped) - len(failed),
        "skipped": skipped,
        "failed": failed,
        "statistics": statistics(rows),
    }


def statistics(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Of each season: chips, scenes, cloud, and how wide the window had to be."""
    found: dict[str, Any] = {}
    for season in SEASONS:
        chosen = [row for row in rows if row["season"] == season and row.get("scene")]
        clouds = [
            cloud
            for row in chosen
            if (
                cloud := row["cloud_cover"]
                if row["cloud_cover"] is not None
                else row["cloud_cover_scene"]
            )
            is not None
        ]
        found[season] = {
            "chips": len(chosen),
            "scenes": len({row["scene"] for row in chosen}),
            "cloud_cover": {
                "mean": round(float(np.mean(clouds)), 4),
                "median": round(float(np.median(clouds)), 4),
                "max": max(clouds),
            }
            if clouds
            else None,
            "buffer_used": {
                str(days): n
                for days, n in sorted(Counter(row["buffer_used"] for row in chosen).items())
            },
        }
    return found


def _names(tasks: Sequence[FieldsTask], table: pa.Table) -> Iterator[str]:
    """Names of the items of a table: the chips' own, and those of their images."""
    ids = set(table.column("id").to_pylist())
    for task in tasks:
        for chip in task.chips:
            if chip.name in ids:
                yield task.parent_name(chip)
            if task.step != "masks" and task.image_id(chip) in ids:
                yield task.item_name(chip)


def _collection(
    request: RunRequest[FieldsRequest], joined: MergedItems | None, listed: Sequence[str]
) -> dict[str, Any]:
    """The catalogue's own collection with what the run has added; a new one where the run makes the chips."""
    product = request.product
    base = {} if product.chips is None else collection_of(product.chips)
    made = stac_items.make_collection(
        request.run, f"Field chips of {request.run}, {product.year}", [], []
    )
    document = {**made, **base}
    if joined is not None:
        document["extent"] = joined.extent
    links = list(base.get("links") or ())
    rels = {link.get("rel") for link in links}
    there = {
        posixpath.normpath(str(link.get("href"))) for link in links if link.get("rel") == "item"
    }
    links += [
        link
        for link in made["links"]
        if link["rel"] not in rels and (listed or link["rel"] != "items")
    ]
    links += [
        {"rel": "item", "href": f"./{name}", "type": "application/geo+json"}
        for name in dict.fromkeys(listed)
        if name not in there
    ]
    document["links"] = links
    document["assets"] = {**(base.get("assets") or {}), **made["assets"]}
    return document
