"""Report a run of chips: tables of all chips and files, statistics, a dataset card, STAC."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from scenebeam.csvtable import File, Writable
from scenebeam.metadata import stac_items
from scenebeam.metadata.item_tables import (
    COLLECTION_FILE,
    ITEMS_FILE,
    BytesFile,
    ReportFiles,
    merge_items,
    read_required,
)
from scenebeam.products.chips.card import CARD_FILE, dataset_card
from scenebeam.products.chips.layouts import LAYOUTS
from scenebeam.products.chips.layouts.base import CHIPS_FILE
from scenebeam.products.chips.record import CellRecord, statistics_key
from scenebeam.products.chips.request import ChipsRequest
from scenebeam.products.chips.statistics import ChipStatistics
from scenebeam.products.chips.task import ChipsTask
from scenebeam.request import RunRequest
from scenebeam.storage import Store

MANIFEST_FILE, STATISTICS_FILE = "manifest.parquet", "statistics.json"
_CHIPS_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("split", pa.string()),
        ("number", pa.int64()),
        ("cell", pa.string()),
        ("crs", pa.string()),
        ("left", pa.float64()),
        ("top", pa.float64()),
        ("date", pa.string()),
        ("images", pa.int32()),
        ("reason", pa.string()),
        ("values", pa.string()),
        ("place", pa.string()),
    ]
)
_MANIFEST_SCHEMA = pa.schema(
    [("file", pa.string()), ("size", pa.int64()), ("checksum", pa.string())]
)
_MAX_REASONS = 5


@dataclass(frozen=True)
class DatasetSummary:
    """What all cells together have."""

    chips: int
    images: int
    missing: Mapping[str, int]
    """Why chips are missing → how many."""
    splits: Mapping[str, int]
    classes: Mapping[str, Mapping[str, int]]
    class_names: Mapping[str, Mapping[int, str]]
    bands: Mapping[str, Mapping[str, Mapping[str, float | int]]]
    """Name of the images → band → statistics over the training split."""

    def to_bytes(self) -> bytes:
        """Serialize to JSON."""
        document = {
            "chips": self.chips,
            "images": self.images,
            "missing": dict(self.missing),
            "splits": dict(self.splits),
            "classes": self.classes,
            "class_names": {
                label: {str(number): name for number, name in names.items()}
                for label, names in self.class_names.items()
            },
            "bands": self.bands,
        }
        return (json.dumps(document, indent=1) + "\n").encode()


def report_chips(
    request: RunRequest[ChipsRequest],
    tasks: Sequence[ChipsTask],
    done: set[str],
    store: Store,
) -> ReportFiles:
    """Write the report of a run, one cell after the other.

    Args:
        request: The request of the run.
        tasks: All tasks of the plan.
        done: Ids of finished tasks.
        store: Where the outputs are.

    Returns:
        `chips.parquet` with a row for each chip, made or not, `manifest.parquet` with the checksum
        of each file, `statistics.json`, `README.md`, `collection.json` and `items.parquet`. When
        all tasks are done, also what completes the layout.
    """
    finished = [task for task in tasks if task.id in done]
    tables = TemporaryDirectory(prefix="scenebeam-report-")
    folder = Path(tables.name)
    summary = _write_tables(finished, store, folder)
    files: dict[str, File] = {
        CHIPS_FILE: _LocalFile(folder / CHIPS_FILE, tables),
        MANIFEST_FILE: _LocalFile(folder / MANIFEST_FILE, tables),
        STATISTICS_FILE: BytesFile(summary.to_bytes()),
        CARD_FILE: BytesFile(dataset_card(request, summary).encode()),
    }
    collection = stac_items.make_collection(request.run, f"Chips of the run {request.run}", [], [])
    item_keys = [task.item_path for task in finished if store.size(task.item_path) is not None]
    if item_keys:
        merged = merge_items(item_keys, store.local_copy)
        collection["extent"] = merged.extent
        files[ITEMS_FILE] = BytesFile(merged.content)
    files[COLLECTION_FILE] = BytesFile(stac_items.to_bytes(collection))
    if finished and len(finished) == len(tasks):
        files |= LAYOUTS[request.product.layout].finish(finished)
    nothing = ""
    if finished and not summary.chips:
        reasons = "; ".join(f"{count}: {reason}" for reason, count in summary.missing.items())
        nothing = f"no chip could be made: {reasons}"
    return ReportFiles(files, nothing=nothing)


@dataclass(frozen=True)
class _LocalFile(File):
    """A file in a temporary folder, which exists as long as this object."""

    path: Path
    holder: TemporaryDirectory[str]

    def to_bytes(self) -> bytes:
        return self.path.read_bytes()

    def write_to(self, file: Writable) -> None:
        with self.path.open("rb") as content:
            while data := content.read(2**20):
                file.write(data)


def _write_tables(tasks: Sequence[ChipsTask], store: Store, folder: Path) -> DatasetSummary:
    """Write the tables of chips and of files, and sum up the cells."""
    chips = images = 0
    missing: Counter[str] = Counter()
    splits: Counter[str] = Counter()
    classes: dict[str, Counter[str]] = {}
    class_names: dict[str, dict[int, str]] = {}
    statistics = ChipStatistics()
    with (
        pq.ParquetWriter(folder / CHIPS_FILE, _CHIPS_SCHEMA, compression="zstd") as chip_writer,
        pq.ParquetWriter(folder / MANIFEST_FILE, _MANIFEST_SCHEMA, compression="zstd") as files,
    ):
        for task in tasks:
            record = CellRecord.model_validate_json(read_required(store, task.record_key))
            chips += record.chips
            images += record.images
            splits.update(record.splits)
            missing.update(record.missing.values())
            for label, counts in record.classes.items():
                classes.setdefault(label, Counter()).update(counts)
            for source in task.labels:
                if source.classes and not source.instances:
                    class_names[source.name] = source.classes
            chip_writer.write_table(_chip_rows(task, record, store))
            rows = [(one.key, one.size, one.checksum) for one in record.files]
            if rows:
                columns = zip(*rows, strict=True)
                arrays = dict(zip(_MANIFEST_SCHEMA.names, columns, strict=True))
                files.write_table(pa.table(arrays, schema=_MANIFEST_SCHEMA))
            if record.chips:
                with store.local_copy(statistics_key(task)) as path:
                    statistics.merge(pq.ParquetFile(path).read())
    return DatasetSummary(
        chips=chips,
        images=images,
        missing=dict(missing.most_common(_MAX_REASONS)),
        splits=dict(sorted(splits.items())),
        classes={label: dict(sorted(counts.items())) for label, counts in classes.items()},
        class_names=class_names,
        bands=statistics.describe(),
    )


def _chip_rows(task: ChipsTask, record: CellRecord, store: Store) -> pa.Table:
    with store.local_copy(task.chips_key) as path:
        table = pq.ParquetFile(path).read()
    ids = table.column("id").to_pylist()
    count = len(ids)
    columns: dict[str, Any] = {
        "cell": [task.cell] * count,
        "crs": [task.crs] * count,
        "images": [record.image_counts.get(name, 0) for name in ids],
        "reason": [record.missing.get(name, "") for name in ids],
    }
    for name in _CHIPS_SCHEMA.names:
        if name not in columns:
            columns[name] = table.column(name)
    return pa.table({name: columns[name] for name in _CHIPS_SCHEMA.names}, schema=_CHIPS_SCHEMA)


def manifest_keys(store: Store) -> Iterator[str]:
    """Yield the keys of all files of chips in an output, sorted."""
    with store.local_copy(MANIFEST_FILE) as path:
        for batch in pq.ParquetFile(path).iter_batches(columns=["file"]):
            yield from batch.column(0).to_pylist()
