"""Items in local files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from scenebeam.catalog.packed_items import Item, links_of
from scenebeam.errors import CatalogError, RequestError
from scenebeam.request import KNOWN_CATALOGS, is_url
from scenebeam.stac_geoparquet import read_items
from scenebeam.suggestions import suggest

TABLE_SUFFIXES = (".parquet", ".geoparquet")


def read_local_items(path: Path) -> Iterator[Any]:
    """Yield the items of a local file.

    Args:
        path: An ItemCollection, an Item, stac-geoparquet, or the root of a static catalog.

    Raises:
        RequestError: There is no such file, or it is of another kind.
        CatalogError: A document of the static catalog is not valid STAC.
    """
    if not path.exists():
        hint = suggest(path.name, KNOWN_CATALOGS)
        raise RequestError(
            f"catalog: {path} does not exist, and is not the URL of a STAC API; {hint}"
        )
    if path.suffix in TABLE_SUFFIXES:
        yield from read_items(path)
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
        import pystac  # slow to import, and needed for static catalogs only

        try:
            root = pystac.read_file(str(path))
            assert isinstance(root, pystac.Catalog)
            for item in root.get_items(recursive=True):
                item.make_asset_hrefs_absolute()
                yield item.to_dict(transform_hrefs=False)
        except pystac.STACError as error:
            raise CatalogError(f"cannot read the catalog {path}: {error}") from error
    else:
        raise RequestError(
            f"catalog: {path} is not an ItemCollection, Item, Catalog or stac-geoparquet file"
        )


def with_absolute_hrefs(item: Item, folder: Path) -> Item:
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
