"""Report: what became of the chips, as the report of the reference, a table, a collection and stac-geoparquet."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from scenebeam.csvtable import File, Table
from scenebeam.products import stac
from scenebeam.products.catalogue import COLLECTION_FILE, ITEMS_FILE, Dumped, Reported
from scenebeam.products.fields.chips import collection_of
from scenebeam.products.fields.task import FieldsTask
from scenebeam.products.task import Outcome
from scenebeam.request import SEASONS, FieldsRequest, RunRequest
from scenebeam.storage import Store

REPORT_FILE, STATUS_TABLE = "report.json", "chips_status.csv"
_COLUMNS = (
    *("chip", "season", "status", "scene", "cloud_cover", "cloud_cover_scene", "nodata", "day", "buffer_used"),
    *("expansions", "candidates_checked", "message"),
)


def report(
    request: RunRequest, tasks: Sequence[FieldsTask], done: set[str], outcomes: Mapping[str, Outcome], store: Store
) -> Reported:
    """Tables, `report.json`, `items.parquet` and `collection.json`."""
    rows = [row for task in tasks if task.step != "masks" for row in _rows(task, outcomes.get(task.id), store)]
    document = summary(request, tasks, rows, done)
    files: dict[str, File] = {
        STATUS_TABLE: Table(_COLUMNS, rows),
        REPORT_FILE: Dumped(stac.dump(document)),
    }
    cells = sorted({task.item_path for task in tasks if task.id in done})
    with tempfile.TemporaryDirectory() as folder:
        found = _Merged(store, cells, Path(folder))
        if cells:
            files[ITEMS_FILE] = Dumped(found.write())
    files[COLLECTION_FILE] = Dumped(stac.dump(_collection(request, found)))
    return Reported(files, incomplete=len(document["skipped"]))


def _rows(task: FieldsTask, outcome: Outcome | None, store: Store) -> Iterator[dict[str, Any]]:
    """A row for each chip of a season."""
    faults: Mapping[str, str] = {} if outcome is None else outcome.detail.get("chips", {})
    whole = "" if outcome is None or outcome.state == "done" or faults else outcome.reason
    content = store.read(task.record)
    choices = {} if content is None else {one["chip"]: one for one in json.loads(content)["choices"]}
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
                "message": one["reason"] or ("least cloudy there is" if one["relaxed"] else ""),
            }
        if chip.name in faults or one is None:
            yield {**row, "status": "failed", "message": faults.get(chip.name) or whole or "not made yet"}
        elif one["scene"] is None:
            yield {**row, "status": "skipped"}
        elif whole:
            yield {**row, "status": "failed", "message": whole}
        else:
            yield {**row, "status": "success"}


def summary(
    request: RunRequest, tasks: Sequence[FieldsTask], rows: Sequence[Mapping[str, Any]], done: set[str]
) -> dict[str, Any]:
    """The report of the reference: a chip is successful where both seasons are, failed where one of them is."""
    product = request.product
    assert isinstance(product, FieldsRequest)
    by_chip: dict[str, list[Mapping[str, Any]]] = {chip.name: [] for task in tasks for chip in task.chips}
    for row in rows:
        by_chip[row["chip"]].append(row)
    undone = {chip.name for task in tasks if task.step == "masks" and task.id not in done for chip in task.chips}
    skipped, failed = [], []
    for chip, seasons in sorted(by_chip.items()):
        broken = [row for row in seasons if row["status"] == "failed"]
        without = [row for row in seasons if row["status"] == "skipped"]
        if broken or (chip in undone and not seasons):
            told = "; ".join(f"{row['season']}: {row['message']}" for row in broken) or "not made yet"
            failed.append({"chip": chip, "error": told})
        elif without:
            checked = sum(row["candidates_checked"] for row in without)
            reason = "; ".join(row["message"] for row in without)
            skipped.append({"chip": chip, "reason": reason, "candidates_checked": checked})
    return {
        "operation": {"none": "create", "select": "select-images", "download": "download-images"}[product.images],
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
            if (cloud := row["cloud_cover"] if row["cloud_cover"] is not None else row["cloud_cover_scene"]) is not None
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
            "buffer_used": {str(days): n for days, n in sorted(Counter(row["buffer_used"] for row in chosen).items())},
        }
    return found


@dataclass
class _Merged:
    """The items of all cells as one table, a cell in memory at a time."""

    store: Store
    names: Sequence[str]
    folder: Path
    bbox: tuple[float, float, float, float] | None = None
    times: tuple[Any, Any] = (None, None)
    parents: Sequence[str] = ()

    def write(self) -> bytes:
        """As stac-geoparquet."""
        schemas, metadata = [], {}
        for name in self.names:
            with self.store.fetched(name) as path:
                file = pq.ParquetFile(path)
            metadata = {key: value for key, value in file.metadata.metadata.items() if key != b"ARROW:schema"}
            schemas.append(file.schema_arrow.remove_metadata())
        unified = pa.unify_schemas(schemas, promote_options="permissive")
        boxes, parents, times = [], [], []
        geo = json.loads(metadata[b"geo"])
        kinds: set[str] = set()
        target = self.folder / ITEMS_FILE
        with pq.ParquetWriter(target, unified, compression="zstd") as writer:
            for name in self.names:
                with self.store.fetched(name) as path:
                    file = pq.ParquetFile(path)
                    own = json.loads(file.metadata.metadata[b"geo"])["columns"]["geometry"]
                    table = file.read()
                boxes.append(own["bbox"])
                kinds |= set(own["geometry_types"])
                ids = table.column("id").to_pylist()
                images = table.column("ftw:season").to_pylist() if "ftw:season" in table.column_names else ids[:0]
                parents += [one for one, image in zip_longest(ids, images) if image is None]
                times += [time for time in table.column("datetime").to_pylist() if time is not None]
                writer.write_table(_fitted(table, unified))
            west, south, east, north = np.array(boxes).T
            self.bbox = (float(west.min()), float(south.min()), float(east.max()), float(north.max()))
            geo["columns"]["geometry"] |= {"bbox": list(self.bbox), "geometry_types": sorted(kinds)}
            writer.add_key_value_metadata({**metadata, b"geo": json.dumps(geo).encode()})
        self.parents = sorted(parents)
        self.times = (min(times), max(times)) if times else (None, None)
        return target.read_bytes()


def _fitted(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """A cell's table with the columns of all."""
    there = set(table.column_names)
    columns = [
        table.column(field.name).cast(field.type) if field.name in there else pa.nulls(len(table), field.type)
        for field in schema
    ]
    return pa.table(columns, schema=schema)


def _collection(request: RunRequest, found: _Merged) -> dict[str, Any]:
    """The catalogue's own collection brought up to date; a new one where the run makes the chips."""
    product = request.product
    assert isinstance(product, FieldsRequest)
    base = {} if product.chips is None else collection_of(product.chips)
    made = stac.make_collection(request.run, f"Field chips of {request.run}, {product.year}", [], [])
    document = {**made, **base}
    if found.bbox is not None:
        times = [None if time is None else stac.rfc3339(time) for time in found.times]
        document["extent"] = {"spatial": {"bbox": [list(found.bbox)]}, "temporal": {"interval": [times]}}
    links = [link for link in document.get("links") or [] if link.get("rel") not in ("item", "items", "root")]
    items = [{"rel": "item", "href": f"./{name}/{name}.json", "type": "application/geo+json"} for name in found.parents]
    document["links"] = [*(link for link in made["links"] if link["rel"] in ("items", "root")), *links, *items]
    document["links"] = [link for link in document["links"] if found.parents or link["rel"] != "items"]
    document["assets"] = {**(base.get("assets") or {}), **made["assets"]}
    return document
