"""Catalogue: what a run's products come to, as tables, a STAC collection and stac-geoparquet."""

from __future__ import annotations

import io
import json
import posixpath
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import rustac

from scenebeam.csvtable import File
from scenebeam.errors import StorageError
from scenebeam.metadata import stac_items
from scenebeam.request import RunRequest
from scenebeam.storage import Store
from scenebeam.tasks import Outcome, Task

ITEMS_FILE, COLLECTION_FILE = "items.parquet", "collection.json"
SUPERSEDED = "scenebeam:superseded"
"""Property, in tables, of products that another request has made: they stand until they are replaced."""
_AT_ONCE = 2000
"""Items that are written as one table."""
_COLUMNS = {
    "id",
    "type",
    "stac_version",
    "stac_extensions",
    "geometry",
    "bbox",
    "links",
    "assets",
    "collection",
}


@dataclass(frozen=True)
class ReportFiles:
    """What a product tells of a run: files by name, and how many of its products lack something."""

    files: Mapping[str, File]
    incomplete: int = 0
    nothing: str = ""
    """Why there is no product at all, although its tasks are done; empty where there is one."""
    items: str = ITEMS_FILE
    """Where the items of all products lie, as stac-geoparquet."""


@dataclass(frozen=True)
class BytesFile:
    """A file of the report whose bytes are known."""

    content: bytes

    def to_bytes(self) -> bytes:
        """As it is stored."""
        return self.content


Tables = Callable[[Any, Mapping[str, Outcome], Mapping[str, stac_items.Item]], Mapping[str, File]]
"""(tasks, outcomes by task, items by name) → tables by file name."""


def report_items(
    tables: Tables,
    request: RunRequest,
    tasks: Sequence[Any],
    done: set[str],
    outcomes: Mapping[str, Outcome],
    store: Store,
) -> ReportFiles:
    """Report a product that has one STAC item for each of its tasks' `item_path`.

    Args:
        tables: Makes the product's own tables.
        request: The request of the run.
        tasks: All tasks of the plan.
        done: Ids of finished tasks.
        outcomes: Outcomes of this run, by task id.
        store: Where the items are.
    """
    items = _read_items({task.item_path for task in tasks if task.id in done}, store)
    older = _read_items(_older(tasks, store) - items.keys(), store)
    listed = {}
    for name, item in {**items, **older}.items():
        listed[name] = stac_items.rebase_item(item, posixpath.dirname(name))
    for name in older:
        listed[name]["properties"] = {**listed[name]["properties"], SUPERSEDED: True}
    ordered = [listed[name] for name in sorted(listed)]
    description = f"{request.product.kind} products of the run {request.run}"
    collection = stac_items.make_collection(request.run, description, ordered, sorted(listed))
    files = dict(tables(tasks, outcomes, items))
    if ordered:
        files[ITEMS_FILE] = BytesFile(items_to_parquet(ordered))
    files[COLLECTION_FILE] = BytesFile(stac_items.to_bytes(collection))
    complete = [item["properties"].get("scenebeam:complete", True) for item in items.values()]
    return ReportFiles(files, incomplete=complete.count(False))


def _older(tasks: Sequence[Task], store: Store) -> set[str]:
    """Names of items that another request has made, and that nothing has replaced yet."""
    folders = {task.item_path.partition("/")[0] for task in tasks}
    return {
        name
        for folder in folders
        for name in store.superseded(f"{folder}/")
        if name.endswith(".json")
    }


def _read_items(paths: Iterable[str], store: Store) -> dict[str, stac_items.Item]:
    """STAC items by name."""
    names = sorted(paths)
    with ThreadPoolExecutor(16) as threads:
        contents = threads.map(store.read, names)
        return {
            name: json.loads(content)
            for name, content in zip(names, contents, strict=True)
            if content
        }


def read_required(store: Store, name: str) -> bytes:
    """A file that this run has published or found. Raises StorageError where it is not there any
    more.
    """
    content = store.read(name)
    if content is None:
        raise StorageError(
            f"{store.uri_for(name)} has been removed while the run was going on: run again"
        )
    return content


def items_to_parquet(items: Sequence[stac_items.Item]) -> bytes:
    """STAC items as a stac-geoparquet file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "items.parquet"
        rustac.write_sync(
            str(path),
            {"type": "FeatureCollection", "features": [_storable(item) for item in items]},
        )
        return path.read_bytes()


def catalog_items_to_parquet(items: Sequence[stac_items.Item]) -> bytes:
    """As `items_to_parquet`, for more items than should be in memory as objects at once, and for items of
    others.

    Returns:
        The file; empty where no item has a file.

    Raises:
        ValueError: They do not fit into one table.
    """
    try:
        if len(items) <= _AT_ONCE:
            return _dump_some(items)
        with tempfile.TemporaryDirectory() as folder:
            names = []
            for start in range(0, len(items), _AT_ONCE):
                names.append(f"{folder}/{start:09d}.parquet")
                Path(names[-1]).write_bytes(_dump_some(items[start : start + _AT_ONCE]))
            names = [name for name in names if Path(name).stat().st_size]
            if not names:
                return b""
            return merge_items(names, lambda name: nullcontext(Path(name))).content
    except (KeyboardInterrupt, SystemExit, MemoryError):
        raise
    except BaseException as error:  # rustac panics where a value has two types
        raise ValueError(str(error)[:300]) from None


def _dump_some(items: Sequence[stac_items.Item]) -> bytes:
    found = _tabular(items)
    return items_to_parquet(found) if found else b""


def _tabular(items: Iterable[stac_items.Item]) -> list[stac_items.Item]:
    """Items as a table can hold them: those with files, and without properties that bear the name
    of a column.
    """
    found = []
    for item in items:
        stored = item.get("assets")
        assets = (
            {key: one for key, one in stored.items() if isinstance(one, dict) and one.get("href")}
            if isinstance(stored, dict)
            else {}
        )
        if not assets:
            continue
        properties = {
            key: value
            for key, value in (item.get("properties") or {}).items()
            if key not in _COLUMNS
        }
        when = properties.get("datetime")
        if isinstance(when, str) and re.fullmatch(r"\d{4}-\d{2}-\d{2}", when):
            properties["datetime"] = f"{when}T00:00:00Z"
        found.append({**item, "properties": properties, "assets": assets})
    return found


def _storable(value: Any) -> Any:
    """Without empty objects inside: Parquet has no type for them. Lists of numbers (coordinates)
    hold none.
    """
    if isinstance(value, dict):
        return {key: _storable(inner) for key, inner in value.items() if inner != {}}
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return [_storable(inner) for inner in value]
    return value


@dataclass(frozen=True)
class MergedItems:
    """Several tables of items as one."""

    content: bytes
    """As stac-geoparquet."""
    bbox: tuple[float, float, float, float]
    times: tuple[datetime | None, datetime | None]
    """First and last."""

    @property
    def extent(self) -> dict[str, Any]:
        """Of a collection of them."""
        interval = [None if time is None else stac_items.rfc3339(time) for time in self.times]
        return {"spatial": {"bbox": [list(self.bbox)]}, "temporal": {"interval": [interval]}}


def merge_items(
    names: Sequence[str],
    fetched: Callable[[str], AbstractContextManager[Path]],
    seen: Callable[[pa.Table], None] = lambda table: None,
) -> MergedItems:
    """Tables that `items_to_parquet` made, by name, as one; each is in memory alone, and `seen` is shown
    it then.
    """
    schemas, metadata = [], {}
    for name in names:
        with fetched(name) as path:
            file = pq.ParquetFile(path)
        metadata = {
            key: value for key, value in file.metadata.metadata.items() if key != b"ARROW:schema"
        }
        schemas.append(file.schema_arrow.remove_metadata())
    unified = pa.unify_schemas(schemas, promote_options="permissive")
    geo = json.loads(metadata[b"geo"])
    boxes, kinds, times = [], set[str](), []
    sink = io.BytesIO()
    with pq.ParquetWriter(sink, unified, compression="zstd") as writer:
        for name in names:
            with fetched(name) as path:
                file = pq.ParquetFile(path)
                own = json.loads(file.metadata.metadata[b"geo"])["columns"]["geometry"]
                table = file.read()
            boxes.append(own["bbox"])
            kinds |= set(own["geometry_types"])
            times += [time for time in table.column("datetime").to_pylist() if time is not None]
            seen(table)
            writer.write_table(_fitted(table, unified))
        west, south, east, north = (float(side) for side in _around(boxes))
        geo["columns"]["geometry"] |= {
            "bbox": [west, south, east, north],
            "geometry_types": sorted(kinds),
        }
        writer.add_key_value_metadata({**metadata, b"geo": json.dumps(geo).encode()})
    return MergedItems(
        sink.getvalue(),
        (west, south, east, north),
        (min(times, default=None), max(times, default=None)),
    )


def _around(boxes: Sequence[Sequence[float]]) -> Iterator[float]:
    west, south, east, north = zip(*boxes, strict=True)
    yield from (min(west), min(south), max(east), max(north))


def _fitted(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """A table with the columns of all."""
    there = set(table.column_names)
    columns = [
        table.column(field.name).cast(field.type)
        if field.name in there
        else pa.nulls(len(table), field.type)
        for field in schema
    ]
    return pa.table(columns, schema=schema)
