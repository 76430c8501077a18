"""Report the items of a run: its own tables, a STAC collection, and stac-geoparquet."""

from __future__ import annotations

import io
import json
import posixpath
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from scenebeam.csvtable import File
from scenebeam.errors import StorageError
from scenebeam.metadata import stac_items
from scenebeam.metadata.stored_items import StoredItems
from scenebeam.request import RunRequest
from scenebeam.stac_geoparquet import COLUMNS, write_items
from scenebeam.storage import Store
from scenebeam.tasks import Outcome, Task

ITEMS_FILE, COLLECTION_FILE = "items.parquet", "collection.json"
SUPERSEDED = "scenebeam:superseded"
"""Property, in tables, of products of an earlier request that no product has replaced yet."""
_ITEMS_AT_ONCE = 2000
"""Items that are converted to one table: as objects, they take much memory."""


@dataclass(frozen=True)
class ReportFiles:
    """The files that a product writes about a run."""

    files: Mapping[str, File]
    """Name → file."""
    incomplete: int = 0
    """Number of products with missing inputs."""
    nothing: str = ""
    """Why there is no product although all tasks are done; empty if there is one."""
    items: str = ITEMS_FILE
    """Key of the stac-geoparquet file of all items."""


@dataclass(frozen=True)
class BytesFile(File):
    """A file of known content."""

    content: bytes

    def to_bytes(self) -> bytes:
        return self.content


Tables = Callable[[Any, Mapping[str, Outcome], Mapping[str, stac_items.Item]], Mapping[str, File]]
"""(tasks, outcomes by task id, items by key) → tables by file name."""


def report_items(
    tables: Tables,
    request: RunRequest,
    tasks: Sequence[Any],
    done: set[str],
    outcomes: Mapping[str, Outcome],
    store: Store,
) -> ReportFiles:
    """Report a product that has one STAC item at each of its tasks' `item_keys`.

    Args:
        tables: Makes the product's own tables.
        request: The request of the run.
        tasks: All tasks of the plan.
        done: Ids of finished tasks.
        outcomes: Outcomes of this run, by task id.
        store: Where the items are.
    """
    keys_done = {key for task in tasks if task.id in done for key in task.item_keys}
    items = StoredItems(store.find_existing(keys_done), store)
    superseded = StoredItems(_superseded_keys(tasks, store) - set(items), store)
    files = dict(tables(tasks, outcomes, items))
    keys = sorted([*items, *superseded])
    extents: list[stac_items.Item] = []
    incomplete = 0

    def listed() -> Iterator[stac_items.Item]:
        """Yield all items as the table lists them, and note what the collection says of them."""
        nonlocal incomplete
        for key in keys:
            # Hrefs of an item start at its own folder, those of a table at the run's.
            item = stac_items.rebase_item(
                (superseded if key in superseded else items)[key], posixpath.dirname(key)
            )
            if key in superseded:
                item["properties"] = {**item["properties"], SUPERSEDED: True}
            elif not item["properties"].get("scenebeam:complete", True):
                incomplete += 1
            extents.append(stac_items.extent_of(item))
            yield item

    if keys:
        files[ITEMS_FILE] = BytesFile(_write_in_parts(listed(), write_items))
    description = f"{request.product.kind} products of the run {request.run}"
    collection = stac_items.make_collection(request.run, description, extents, keys)
    files[COLLECTION_FILE] = BytesFile(stac_items.to_bytes(collection))
    return ReportFiles(files, incomplete=incomplete)


def _superseded_keys(tasks: Sequence[Task], store: Store) -> set[str]:
    """Return the keys of items of an earlier request that nothing has replaced yet."""
    folders = {task.item_path.partition("/")[0] for task in tasks}
    keys: set[str] = set()
    for folder in folders:
        keys.update(key for key in store.superseded(f"{folder}/") if key.endswith(".json"))
    return keys


def read_required(store: Store, key: str) -> bytes:
    """Read a file that this run has published or found.

    Raises:
        StorageError: It does not exist any more.
    """
    content = store.read(key)
    if content is None:
        raise StorageError(f"{store.uri_for(key)} was removed during the run; run again")
    return content


def catalog_items_to_parquet(items: Sequence[stac_items.Item]) -> bytes:
    """Serialize items of a catalog as stac-geoparquet.

    They may be of any form: fields that a table cannot hold are left out.

    Args:
        items: Items.

    Returns:
        The file; empty if no item has an asset with a href.

    Raises:
        ValueError: They do not fit into one table, as when a property has different types.
    """
    return _write_in_parts(items, _tabular_items_to_parquet)


def _write_in_parts(
    items: Iterable[stac_items.Item], write: Callable[[Sequence[stac_items.Item]], bytes]
) -> bytes:
    """Serialize items some at a time, and merge the tables.

    Args:
        items: Items; they are read once, in order.
        write: Serializes some of them; it may leave all of them out.

    Returns:
        The file; empty if all are left out.

    Raises:
        ValueError: They do not fit into one table.
    """
    remaining = iter(items)
    with tempfile.TemporaryDirectory() as folder:
        paths: list[str] = []
        while batch := list(islice(remaining, _ITEMS_AT_ONCE)):
            content = write(batch)
            if content:
                paths.append(f"{folder}/{len(paths):06d}.parquet")
                Path(paths[-1]).write_bytes(content)
        if len(paths) < 2:
            return Path(paths[0]).read_bytes() if paths else b""
        try:
            return merge_items(paths, lambda path: nullcontext(Path(path))).content
        except pa.ArrowException as error:
            raise ValueError(str(error)[:300]) from error


def _tabular_items_to_parquet(items: Iterable[stac_items.Item]) -> bytes:
    tabular = []
    for item in items:
        assets = _assets_with_href(item)
        if assets:
            tabular.append({**item, "properties": _tabular_properties(item), "assets": assets})
    return write_items(tabular) if tabular else b""


def _assets_with_href(item: stac_items.Item) -> dict[str, Any]:
    assets = item.get("assets")
    if not isinstance(assets, dict):
        return {}
    usable = {}
    for key, asset in assets.items():
        if isinstance(asset, dict) and asset.get("href"):
            usable[key] = asset
    return usable


def _tabular_properties(item: stac_items.Item) -> dict[str, Any]:
    """Return the properties without those named like a column, and with a complete datetime."""
    stored = item.get("properties")
    properties = {}
    for key, value in stored.items() if isinstance(stored, dict) else ():
        if key not in COLUMNS:
            properties[key] = value
    when = properties.get("datetime")
    if isinstance(when, str) and re.fullmatch(r"\d{4}-\d{2}-\d{2}", when):
        properties["datetime"] = f"{when}T00:00:00Z"
    return properties


@dataclass(frozen=True)
class MergedItems:
    """Several tables of items, merged."""

    content: bytes
    """As stac-geoparquet."""
    bbox: tuple[float, float, float, float]
    """West, south, east, north of all items."""
    times: tuple[datetime | None, datetime | None]
    """First and last datetime."""

    @property
    def extent(self) -> dict[str, Any]:
        """The extent of a STAC collection of the items."""
        interval = [None if time is None else stac_items.rfc3339(time) for time in self.times]
        return {"spatial": {"bbox": [list(self.bbox)]}, "temporal": {"interval": [interval]}}


def merge_items(
    names: Sequence[str],
    open_table: Callable[[str], AbstractContextManager[Path]],
    on_table: Callable[[pa.Table], None] = lambda table: None,
) -> MergedItems:
    """Merge tables that `write_items` has made. Only one of them is in memory at a time.

    Args:
        names: Names of the tables, at least one.
        open_table: Name → context manager of the table's path on this machine.
        on_table: Called with each table while it is in memory.

    Returns:
        The merged table; a column that some tables lack is null there.
    """
    schema, metadata = _unified_schema(names, open_table)
    bboxes, geometry_types = [], set[str]()
    times: list[datetime] = []
    sink = io.BytesIO()
    with pq.ParquetWriter(sink, schema, compression="zstd") as writer:
        for name in names:
            with open_table(name) as path:
                file = pq.ParquetFile(path)
                geometry = json.loads(file.metadata.metadata[b"geo"])["columns"]["geometry"]
                table = file.read()
            bboxes.append(geometry["bbox"])
            geometry_types.update(geometry["geometry_types"])
            times += [time for time in table.column("datetime").to_pylist() if time is not None]
            on_table(table)
            writer.write_table(_with_schema(table, schema))
        west, south, east, north = (float(side) for side in stac_items.union_bbox(bboxes))
        # The GeoParquet metadata of one table, with the extent and the types of all.
        geo = json.loads(metadata[b"geo"])
        geo["columns"]["geometry"] |= {
            "bbox": [west, south, east, north],
            "geometry_types": sorted(geometry_types),
        }
        writer.add_key_value_metadata({**metadata, b"geo": json.dumps(geo).encode()})
    return MergedItems(
        sink.getvalue(),
        (west, south, east, north),
        (min(times, default=None), max(times, default=None)),
    )


def _unified_schema(
    names: Sequence[str], open_table: Callable[[str], AbstractContextManager[Path]]
) -> tuple[pa.Schema, dict[bytes, bytes]]:
    """Return a schema with the columns of all tables, and the file metadata of the last one."""
    schemas = []
    metadata: dict[bytes, bytes] = {}
    for name in names:
        with open_table(name) as path:
            file = pq.ParquetFile(path)
        schemas.append(file.schema_arrow.remove_metadata())
        metadata = dict(file.metadata.metadata)
    metadata.pop(b"ARROW:schema", None)  # pyarrow writes the one of the merged schema
    return pa.unify_schemas(schemas, promote_options="permissive"), metadata


def _with_schema(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return a table with the columns of a schema, null where it has none."""
    existing = set(table.column_names)
    columns = []
    for field in schema:
        if field.name in existing:
            columns.append(table.column(field.name).cast(field.type))
        else:
            columns.append(pa.nulls(len(table), field.type))
    return pa.table(columns, schema=schema)
