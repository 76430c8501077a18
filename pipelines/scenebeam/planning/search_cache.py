"""Items: what a search found, kept beside the run exactly as it came, so that it is asked for once.

`search.ndjson.zst` is the answer itself, an item a line. `scenes.parquet` is an export of it as
stac-geoparquet, for other tools: properties in STAC are free-form, and not every valid item fits
into a table.
"""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from scenebeam.catalog.packed_items import PackedItems, links_of
from scenebeam.errors import StorageError
from scenebeam.metadata.item_tables import dump_many_items
from scenebeam.request import RunRequest, is_remote
from scenebeam.storage import Store

SCENES_FILE = "scenes.parquet"
ANSWER_FILE = "search.ndjson.zst"
SEARCH_FILE = "search.json"
"""What was asked to get them: the cache is good for the same question only."""
_COMMON = (
    "datetime",
    "start_datetime",
    "end_datetime",
    "platform",
    "constellation",
    "eo:cloud_cover",
    "grid:code",
)
"""Properties that an export keeps where not all can be."""

log = logging.getLogger(__name__)

Item = dict[str, Any]


def read_search(request: RunRequest, store: Store) -> Sequence[Item] | None:
    """Return the items that the same question brought before; None where it was not asked yet, or
    needs no network.

    Raises StorageError where they cannot be read.
    """
    if not _is_kept(request):
        return None
    asked = store.read(SEARCH_FILE)
    if asked is None or json.loads(asked) != request.search_key():
        return None
    content = store.read(ANSWER_FILE)
    if content is None:
        return None
    try:
        with pa.CompressedInputStream(pa.BufferReader(content), "zstd") as stream:
            return PackedItems.from_lines(io.BufferedReader(stream))
    except (OSError, ValueError, pa.ArrowException) as error:
        raise StorageError(
            f"{store.uri_for(ANSWER_FILE)} cannot be read: {error}; run with --refresh"
        ) from error


def write_search(request: RunRequest, items: Sequence[Item], store: Store) -> None:
    """Keep what a search found; the question comes last, so that it never stands beside another's
    items.
    """
    store.delete([SEARCH_FILE])
    if items:
        _export(items, store)
    if _is_kept(request):
        with store.open_write(ANSWER_FILE) as file:
            sink = pa.PythonFile(file, mode="w")
            with pa.CompressedOutputStream(sink, "zstd") as stream:
                kept = items if isinstance(items, PackedItems) else PackedItems(items)
                for line in kept.lines():
                    stream.write(line)
        store.write(SEARCH_FILE, (json.dumps(request.search_key(), indent=2) + "\n").encode())


def _export(items: Sequence[Item], store: Store) -> None:
    """Write the items as stac-geoparquet; where they do not fit into one table, what all items have
    in common.
    """
    try:
        content = dump_many_items(items)
    except ValueError as error:
        log.warning("%s holds the common fields of the items alone: %s", SCENES_FILE, error)
        try:
            content = dump_many_items(
                [_common(item) for item in items if isinstance(item.get("geometry"), dict)]
            )
        except ValueError as deeper:  # a geometry that is none, a date that is no date
            log.warning("%s is not written: %s", SCENES_FILE, deeper)
            return
    if content:
        store.write(SCENES_FILE, content)


def _common(item: Item) -> Item:
    properties, assets = (
        held if isinstance(held, dict) else {}
        for held in (item.get("properties"), item.get("assets"))
    )
    assets = {
        key: {name: str(asset[name]) for name in ("href", "type") if asset.get(name)}
        for key, asset in assets.items()
        if isinstance(asset, dict)
    }
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": str(item.get("id")),
        "collection": item.get("collection"),
        "geometry": item["geometry"],
        "bbox": item.get("bbox"),
        "links": links_of(item, "self"),
        "assets": assets,
        "properties": {
            name: properties[name] for name in _COMMON if properties.get(name) is not None
        },
    }


def _is_kept(request: RunRequest) -> bool:
    return isinstance(request.catalog, str) and is_remote(request.catalog)
