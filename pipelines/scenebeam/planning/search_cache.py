"""The search cache: the items of a search, stored beside the run exactly as they were received.

`search.ndjson.zst` has one item per line. `scenes.parquet` is an export as stac-geoparquet, for
other tools: properties in STAC are free-form, and not every valid item fits into a table.
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
from scenebeam.metadata.item_tables import catalog_items_to_parquet
from scenebeam.request import RunRequest, is_remote
from scenebeam.storage import Store

SCENES_FILE = "scenes.parquet"
ANSWER_FILE = "search.ndjson.zst"
SEARCH_FILE = "search.json"
"""The search key: the cache is valid for the same search only."""
_COMMON = (
    "datetime",
    "start_datetime",
    "end_datetime",
    "platform",
    "constellation",
    "eo:cloud_cover",
    "grid:code",
)
"""Properties of the export where not all of them fit into a table."""

log = logging.getLogger(__name__)

Item = dict[str, Any]


def read_search(request: RunRequest, store: Store) -> Sequence[Item] | None:
    """Read the cached items of a search.

    Returns:
        The items; None if the same search has not been made, or its catalog is a local file.

    Raises:
        StorageError: The cache cannot be read.
    """
    if not _is_cached(request):
        return None
    key = store.read(SEARCH_FILE)
    if key is None or json.loads(key) != request.search_key():
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
    """Cache the items of a search. The key is written last, so that it always matches the items.

    Args:
        request: The request whose search it was.
        items: The items as they were received.
        store: The output.
    """
    store.delete([SEARCH_FILE])
    if items:
        _export(items, store)
    if _is_cached(request):
        with store.open_write(ANSWER_FILE) as file:
            sink = pa.PythonFile(file, mode="w")
            with pa.CompressedOutputStream(sink, "zstd") as stream:
                packed = items if isinstance(items, PackedItems) else PackedItems(items)
                for line in packed.lines():
                    stream.write(line)
        store.write(SEARCH_FILE, (json.dumps(request.search_key(), indent=2) + "\n").encode())


def _export(items: Sequence[Item], store: Store) -> None:
    """Write the items as stac-geoparquet: whole, or their common fields if they do not fit."""
    try:
        content = catalog_items_to_parquet(items)
    except ValueError as error:
        log.warning("%s has only the common fields of the items: %s", SCENES_FILE, error)
        with_geometry = [item for item in items if isinstance(item.get("geometry"), dict)]
        try:
            content = catalog_items_to_parquet([_common(item) for item in with_geometry])
        except ValueError as common_error:  # an invalid geometry or date
            log.warning("%s is not written: %s", SCENES_FILE, common_error)
            return
    if content:
        store.write(SCENES_FILE, content)


def _common(item: Item) -> Item:
    """The fields of an item that every valid item has, each of one type."""
    properties, assets = item.get("properties"), item.get("assets")
    hrefs: dict[str, dict[str, str]] = {}
    for key, asset in assets.items() if isinstance(assets, dict) else ():
        if isinstance(asset, dict):
            hrefs[key] = {name: str(asset[name]) for name in ("href", "type") if asset.get(name)}
    common: dict[str, Any] = {}
    for name in _COMMON:
        if isinstance(properties, dict) and properties.get(name) is not None:
            common[name] = properties[name]
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": str(item.get("id")),
        "collection": item.get("collection"),
        "geometry": item["geometry"],
        "bbox": item.get("bbox"),
        "links": links_of(item, "self"),
        "assets": hrefs,
        "properties": common,
    }


def _is_cached(request: RunRequest) -> bool:
    return any(map(is_remote, request.catalogs))
