"""Search: a STAC API, a static catalog or a file → items → Scenes.

One client asks, on the driver: catalogs answer a few requests per second, and block those that
send more.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pystac
import rustac
import shapely
from pystac_client.exceptions import APIError

from scenebeam.catalog.api import CatalogIO, describe_refusal
from scenebeam.catalog.bands import record_for_item, records_for
from scenebeam.catalog.bucket import BucketIO
from scenebeam.catalog.documents import (
    TABLE_SUFFIXES,
    crawl,
    read_bucket_items,
    read_local_items,
    read_remote_table,
    with_self_link,
)
from scenebeam.catalog.item_reader import scene_from_item
from scenebeam.catalog.item_search import SearchQuery, search_api
from scenebeam.catalog.packed_items import Item, PackedItems, links_of
from scenebeam.catalog.scene import Scene
from scenebeam.errors import CatalogError, ReadError, RequestError, SceneBeamError
from scenebeam.request import KNOWN_CATALOGS, RunRequest, is_remote, is_url
from scenebeam.transfer.retry import Budget
from scenebeam.transfer.signing import effective_limits, redact_url

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
    catalog = request.catalog
    assert isinstance(catalog, str), "scenes of a time series are listed, not searched"
    url = KNOWN_CATALOGS.get(catalog, catalog)
    items = PackedItems()
    seen: set[tuple[str, str]] = set()
    try:
        received = _remote_items(url, request, queries) if is_url(url) else _local_items(url)
        for number, item in enumerate(received, start=1):
            if not isinstance(item, dict):
                log.warning("%s: item %d is left out: not a JSON object", redact_url(url), number)
                continue
            key = str(item.get("collection")), str(item.get("id"))
            if key in seen:
                continue
            seen.add(key)
            items.append(item)
            if len(seen) > request.limits.max_scenes:
                raise RequestError(
                    f"the search finds more than limits.max_scenes = {request.limits.max_scenes} "
                    "scenes; narrow the area or the dates, or raise the limit"
                )
    except APIError as error:
        message = f"{redact_url(url)} refused the search: {describe_refusal(error)}"
        raise CatalogError(message) from error
    except (
        OSError,
        ValueError,
        KeyError,
        pystac.STACError,
        rustac.RustacError,
        ReadError,
    ) as error:
        raise CatalogError(f"cannot read the catalog {redact_url(url)}: {error}") from error
    return items


def _local_items(path: str) -> Iterator[Any]:
    folder = Path(path).parent
    for item in read_local_items(Path(path)):
        yield _with_absolute_hrefs(item, folder) if isinstance(item, dict) else item


def _remote_items(url: str, request: RunRequest, queries: Sequence[SearchQuery]) -> Iterator[Any]:
    """The items behind a URL: of a STAC API, a static catalog, or one document."""
    limits = effective_limits(request)
    if url.endswith(TABLE_SUFFIXES):
        yield from read_remote_table(url, Budget.of(limits))
        return
    if url.startswith("gs://"):
        yield from read_bucket_items(url, BucketIO(Budget.of(limits)))
        return
    stac_io = CatalogIO(limits)
    document = stac_io.read_document(url)
    kind = document.get("type")
    if kind == "FeatureCollection":
        for page in stac_io.get_pages(url, "GET"):
            for item in page["features"]:
                yield with_self_link(item, url)
    elif kind == "Feature":
        yield with_self_link(document, url)
    elif kind == "Collection":
        yield from crawl(pystac.Collection.from_dict(document, href=url), stac_io)
    elif kind == "Catalog":
        yield from search_api(url, document, stac_io, request, queries)
    else:
        raise CatalogError(
            f"{redact_url(url)} is not a STAC API, catalog, collection, ItemCollection or item"
        )


def scenes_from_items(items: Iterable[Item], request: RunRequest) -> list[Scene]:
    """Convert items to Scenes by their records.

    Items of other collections are left out. An item that cannot be used is left out with a warning
    that names it.

    Raises:
        CatalogError: Not one of the items can be used.
    """
    catalog = request.catalog
    records = records_for(request)
    is_local = isinstance(catalog, str) and not is_remote(catalog)
    base = str(Path(str(catalog)).parent) if is_local else None
    resolution = request.product.preferred_resolution
    scenes: list[Scene] = []
    unusable = 0
    for item in items:
        try:
            record = record_for_item(item, records)
            if record is not None:
                scenes.append(scene_from_item(item, record, base=base, resolution=resolution))
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
    return scenes


def _with_absolute_hrefs(item: Item, folder: Path) -> Item:
    """Resolve the relative hrefs of an item against the folder of its file.

    A frozen search is stored in another folder than its catalog.
    """
    stored = item.get("assets")
    assets: dict[str, Any] = {}
    if isinstance(stored, dict):
        assets = {key: asset for key, asset in stored.items() if isinstance(asset, dict)}
    self_links = links_of(item, "self")
    self_href = str(self_links[0].get("href")) if self_links else ""
    if not is_url(self_href):
        for key, asset in assets.items():
            href = asset.get("href")
            if isinstance(href, str) and not is_url(href):
                assets[key] = {**asset, "href": str(folder / href)}
    return {**item, "assets": assets}
