"""Search: a STAC API, a static catalog or a file → items → Scenes.

One client asks, on the driver: catalogs answer a few requests per second, and block those that
send more.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import shapely

from scenebeam.catalog.bands import record_for_item, records_for
from scenebeam.catalog.hosts import HOST, merge_hosts
from scenebeam.catalog.item_reader import scene_from_item
from scenebeam.catalog.local import read_local_items, with_absolute_hrefs
from scenebeam.catalog.packed_items import Item, PackedItems
from scenebeam.catalog.queries import SearchQuery
from scenebeam.catalog.scene import Scene
from scenebeam.errors import CatalogError, ReadError, RequestError, SceneBeamError
from scenebeam.request import KNOWN_CATALOGS, RunRequest, is_remote, is_url
from scenebeam.transfer.signing import redact_url

log = logging.getLogger(__name__)


def search_items(request: RunRequest, queries: Sequence[SearchQuery]) -> PackedItems:
    """Search for the items of the request's collections.

    A file gives all of its items. Selection filters them further, and can then report what it left
    out.

    Args:
        request: The validated request; its catalog is not a time series.
        queries: What to search for.

    Returns:
        The items as they were received, in the order of the catalog, each once.

    Raises:
        CatalogError: The catalog cannot be read, or its answer is incomplete.
        RequestError: It has more items than limits.max_scenes.
    """
    assert request.catalogs, "scenes of a time series are listed, not searched"
    items = PackedItems()
    if len(request.catalogs) == 1:
        _search_catalog(request.catalogs[0], request, queries, items)
        return items
    failed: list[SceneBeamError] = []
    for catalog in request.catalogs:
        try:
            _search_catalog(catalog, request, queries, items, host=catalog)
        except CatalogError as error:
            log.warning("%s; going on with the other catalogs", error)
            failed.append(error)
    if len(failed) == len(request.catalogs):
        raise failed[0]
    return items


def _search_catalog(
    catalog: str,
    request: RunRequest,
    queries: Sequence[SearchQuery],
    items: PackedItems,
    host: str = "",
) -> None:
    """Add the items of one catalog; each is marked with `host`, if that is given."""
    url = KNOWN_CATALOGS.get(catalog, catalog)
    seen: set[tuple[str, str]] = set()
    try:
        if is_url(url):
            from scenebeam.catalog.remote import read_remote_items  # slow to import

            received = read_remote_items(url, request, queries)
        else:
            received = _local_items(url)
        for number, item in enumerate(received, start=1):
            if not isinstance(item, dict):
                log.warning("%s: item %d is left out: not a JSON object", redact_url(url), number)
                continue
            key = str(item.get("collection")), str(item.get("id"))
            if key in seen:
                continue
            seen.add(key)
            items.append({**item, HOST: host} if host else item)
            # A series makes at most so many in a pass, but finds all that it has made before.
            if len(seen) > request.limits.max_scenes and request.series is None:
                raise RequestError(
                    f"the search finds more than limits.max_scenes = {request.limits.max_scenes} "
                    "scenes; narrow the area or the dates, or raise the limit"
                )
    except (OSError, ValueError, KeyError, ReadError) as error:
        raise CatalogError(f"cannot read the catalog {redact_url(url)}: {error}") from error


def _local_items(path: str) -> Iterator[Any]:
    folder = Path(path).parent
    for item in read_local_items(Path(path)):
        yield with_absolute_hrefs(item, folder) if isinstance(item, dict) else item


def scenes_from_items(items: Iterable[Item], request: RunRequest) -> list[Scene]:
    """Convert items to Scenes by their records.

    Items of other collections are left out. An item that cannot be used is left out with a warning
    that names it.

    Raises:
        CatalogError: Not one of the items can be used.
    """
    records = records_for(request)
    bases = {name: _base_of(name) for name in request.catalogs}
    default = request.catalogs[0] if request.catalogs else ""
    resolution = request.product.preferred_resolution
    scenes: list[Scene] = []
    unusable = 0
    for item in items:
        try:
            record = record_for_item(item, records)
            if record is not None:
                host = str(item.get(HOST, ""))
                base = bases.get(host or default)
                scene = scene_from_item(item, record, base=base, resolution=resolution)
                scenes.append(replace(scene, host=host) if host else scene)
        except shapely.errors.ShapelyError as error:
            unusable += 1
            name = str(item.get("id"))[:100]
            log.warning("item %s is left out: its geometry is not valid: %s", name, error)
        except (
            SceneBeamError,
            ValueError,
            TypeError,
            KeyError,
            AttributeError,
            IndexError,
            ArithmeticError,
        ) as error:
            # Items come from outside: any of their fields may be of an unexpected type.
            unusable += 1
            log.warning("item %s is left out: %s", str(item.get("id"))[:100], error)
    if unusable and not scenes:
        raise CatalogError(f"none of the {unusable} items can be used; the log says why")
    return merge_hosts(scenes, request.catalogs) if len(request.catalogs) > 1 else scenes


def _base_of(catalog: str) -> str | None:
    """Return the folder of a local catalog; None for a remote one."""
    return None if is_remote(catalog) else str(Path(catalog).parent)
