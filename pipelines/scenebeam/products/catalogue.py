"""Catalogue: what a run's products come to, as tables, a STAC collection and stac-geoparquet."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import rustac

from scenebeam.csvtable import File
from scenebeam.products import stac
from scenebeam.products.task import Outcome, Task
from scenebeam.request import RunRequest
from scenebeam.storage import Store

ITEMS_FILE, COLLECTION_FILE = "items.parquet", "collection.json"


@dataclass(frozen=True)
class Reported:
    """What a product tells of a run: files by name, and how many of its products lack something."""

    files: Mapping[str, File]
    incomplete: int = 0


@dataclass(frozen=True)
class Dumped:
    """A file of the report whose bytes are known."""

    content: bytes

    def dump(self) -> bytes:
        """As it is stored."""
        return self.content


Tables = Callable[[Any, Mapping[str, Outcome], Mapping[str, stac.Item]], Mapping[str, File]]
"""(tasks, outcomes by task, items by name) → tables by file name."""


def report_items(tables: Tables) -> Callable[..., Reported]:
    """The report of a product that has one STAC item for each of its tasks' `item_path`."""

    def report(
        request: RunRequest, tasks: Sequence[Task], done: set[str], outcomes: Mapping[str, Outcome], store: Store
    ) -> Reported:
        items = _read_items([task for task in tasks if task.id in done], store)
        ordered = [items[name] for name in sorted(items)]
        description = f"{request.product.kind} products of the run {request.run}"
        collection = stac.make_collection(request.run, description, ordered, sorted(items))
        return Reported(
            {
                **tables(tasks, outcomes, items),
                **({ITEMS_FILE: Dumped(dump_items(ordered))} if ordered else {}),
                COLLECTION_FILE: Dumped(stac.dump(collection)),
            },
            incomplete=sum(not item["properties"].get("scenebeam:complete", True) for item in ordered),
        )

    return report


def _read_items(tasks: Sequence[Task], store: Store) -> dict[str, stac.Item]:
    """The STAC items of tasks that are done, by name."""
    names = sorted({task.item_path for task in tasks})
    with ThreadPoolExecutor(16) as threads:
        contents = threads.map(store.read, names)
        return {name: json.loads(content) for name, content in zip(names, contents, strict=True) if content}


def dump_items(items: Sequence[stac.Item]) -> bytes:
    """STAC items as a stac-geoparquet file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "items.parquet"
        rustac.write_sync(str(path), {"type": "FeatureCollection", "features": [_storable(item) for item in items]})
        return path.read_bytes()


def _storable(value: Any) -> Any:
    """Without empty objects inside: Parquet has no type for them. Lists of numbers (coordinates) hold none."""
    if isinstance(value, dict):
        return {key: _storable(inner) for key, inner in value.items() if inner != {}}
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return [_storable(inner) for inner in value]
    return value
