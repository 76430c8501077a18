"""Items: what a search found, kept beside the run as stac-geoparquet, so that it is asked for once."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import rustac

from scenebeam.products.catalogue import dump_items
from scenebeam.request import RunRequest, is_remote
from scenebeam.storage import Store

SCENES_FILE = "scenes.parquet"
SEARCH_FILE = "search.json"
"""What was asked to get them: the cache is good for the same question only."""

Item = dict[str, Any]


def read_search(request: RunRequest, store: Store) -> list[Item] | None:
    """The items that the same question brought before; None where it was not asked yet, or needs no network."""
    if not _is_kept(request):
        return None
    asked = store.read(SEARCH_FILE)
    if asked is None or json.loads(asked) != request.question() or SCENES_FILE not in store.list(SCENES_FILE):
        return None
    with store.fetched(SCENES_FILE) as path:
        items: list[Item] = rustac.read_sync(str(path))["features"]
    return items


def write_search(request: RunRequest, items: Sequence[Item], store: Store) -> None:
    """Keep what a search found; the question comes last, so that it never stands beside another's items."""
    store.delete([SEARCH_FILE])
    if items:
        store.write(SCENES_FILE, dump_items(items))
    if _is_kept(request):
        store.write(SEARCH_FILE, (json.dumps(request.question(), indent=2) + "\n").encode())


def _is_kept(request: RunRequest) -> bool:
    return isinstance(request.catalog, str) and is_remote(request.catalog)
