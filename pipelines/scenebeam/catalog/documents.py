"""Items in files and static catalogs: local, in a bucket, or behind a URL."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pystac
import rustac

from scenebeam.catalog.api import CatalogIO
from scenebeam.catalog.bucket import BucketIO
from scenebeam.catalog.packed_items import Item, links_of
from scenebeam.errors import CatalogError, RequestError
from scenebeam.request import KNOWN_CATALOGS
from scenebeam.transfer.ranges import local_copy
from scenebeam.transfer.retry import Budget
from scenebeam.transfer.signing import redact_url

TABLE_SUFFIXES = (".parquet", ".geoparquet")
_LARGEST_TABLE = 4 * 2**30
"""Largest stac-geoparquet file that is downloaded, in bytes."""


def read_local_items(path: Path) -> Iterator[Any]:
    """Yield the items of a local file.

    Args:
        path: An ItemCollection, an Item, stac-geoparquet, or the root of a static catalog.

    Raises:
        RequestError: There is no such file, or it is of another kind.
    """
    if not path.exists():
        known = ", ".join(KNOWN_CATALOGS)
        raise RequestError(
            f"catalog: {path} does not exist; give a file, one of {known}, or the URL of a STAC API"
        )
    if path.suffix in TABLE_SUFFIXES:
        yield from rustac.read_sync(str(path))["features"]
        return
    document = json.loads(path.read_text(encoding="utf-8"))
    kind = document.get("type") if isinstance(document, dict) else None
    if kind == "FeatureCollection":
        if not isinstance(document.get("features"), list):
            raise RequestError(f"catalog: {path} is an ItemCollection without a list of features")
        yield from document["features"]
    elif kind == "Feature":
        yield document
    elif kind in ("Catalog", "Collection"):
        root = pystac.read_file(str(path))
        assert isinstance(root, pystac.Catalog)
        for item in root.get_items(recursive=True):
            item.make_asset_hrefs_absolute()
            yield item.to_dict(transform_hrefs=False)
    else:
        raise RequestError(
            f"catalog: {path} is not an ItemCollection, Item, Catalog or stac-geoparquet file"
        )


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
