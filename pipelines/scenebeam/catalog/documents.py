"""Items in files and static catalogs, in a bucket or behind a URL."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pystac

from scenebeam.catalog.api import CatalogIO
from scenebeam.catalog.bucket import BucketIO
from scenebeam.catalog.local import read_local_items
from scenebeam.catalog.packed_items import Item, links_of
from scenebeam.errors import CatalogError
from scenebeam.transfer.ranges import local_copy
from scenebeam.transfer.retry import Budget
from scenebeam.transfer.signing import redact_url

_LARGEST_TABLE = 4 * 2**30
"""Largest stac-geoparquet file that is downloaded, in bytes."""


def read_remote_table(url: str, budget: Budget) -> Iterator[Any]:
    """Download a stac-geoparquet file and yield its items."""
    with local_copy(url, budget, _LARGEST_TABLE) as path:
        for item in read_local_items(path):
            yield with_self_link(item, url)


def read_bucket_items(url: str, stac_io: BucketIO) -> Iterator[Any]:
    """Yield the items of a document in a bucket, or of the static catalog that it is the root of.

    Raises:
        CatalogError: It is neither.
    """
    document = json.loads(stac_io.read_text(url))
    kind = document.get("type") if isinstance(document, dict) else None
    if kind == "FeatureCollection" and isinstance(document.get("features"), list):
        for item in document["features"]:
            yield with_self_link(item, url)
    elif kind == "Feature":
        yield with_self_link(document, url)
    elif kind in ("Catalog", "Collection"):
        model = pystac.Catalog if kind == "Catalog" else pystac.Collection
        yield from crawl(model.from_dict(document, href=url), stac_io)
    else:
        raise CatalogError(
            f"{redact_url(url)} is not an ItemCollection, Item, Catalog or Collection"
        )


def crawl(root: pystac.Catalog, stac_io: CatalogIO | BucketIO) -> Iterator[Item]:
    """Yield the items of a static catalog by following its links."""
    root._stac_io = stac_io
    for item in root.get_items(recursive=True):
        yield with_self_link(item.to_dict(transform_hrefs=False), item.get_self_href() or "")


def with_self_link(item: Any, url: str) -> Any:
    """Add a self link to an item without one, so that its relative hrefs can be resolved."""
    if not isinstance(item, dict) or links_of(item, "self"):
        return item
    return {**item, "links": [*links_of(item), {"rel": "self", "href": url}]}
