"""Build the STAC items and collections of products.

An item holds nothing about when or where it was made, so that the same plan gives the same bytes.
"""

from __future__ import annotations

import json
import math
import posixpath
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache, lru_cache
from importlib.metadata import version
from typing import Any

import numpy as np
import shapely
from pyproj import Transformer
from shapely.geometry import box, mapping

from scenebeam.catalog.area import lonlat_geometry
from scenebeam.raster.grid import Grid
from scenebeam.request import is_url

COG_TYPE = "image/tiff; application=geotiff; profile=cloud-optimized"
STAC_VERSION = "1.1.0"
_EXTENSIONS = [
    "https://stac-extensions.github.io/projection/v2.0.0/schema.json",
    "https://stac-extensions.github.io/raster/v1.1.0/schema.json",
    "https://stac-extensions.github.io/file/v2.1.0/schema.json",
    "https://stac-extensions.github.io/processing/v1.2.0/schema.json",
]

_STRAIGHT = 5000.0
"""Length in meters up to which an edge is straight in degrees too: at 60° N it bends by < 1 m."""

Item = dict[str, Any]


def grid_footprint(grid: Grid) -> dict[str, Any]:
    """Return the outline of a grid in degrees as GeoJSON, split at the antimeridian."""
    # Parsed anew each time, because callers own what they get.
    geometry: dict[str, Any] = json.loads(_footprint_text(grid))
    return geometry


@lru_cache(maxsize=4096)
def _footprint_text(grid: Grid) -> str:
    """Return a footprint as text. The images of a chip in all seasons have the same."""
    left, bottom, right, top = grid.bounds
    outline = box(left, bottom, right, top)
    longest = max(right - left, top - bottom)
    if longest > _STRAIGHT:
        # A long straight edge bends in degrees: follow it with more vertices.
        outline = shapely.segmentize(outline, longest / 8)
    lonlat = shapely.transform(outline, to_lonlat(grid.crs).transform, interleaved=False)
    rounded = shapely.transform(lonlat, lambda xy: np.round(xy, 7))
    return json.dumps(mapping(lonlat_geometry(mapping(rounded))))


@lru_cache(maxsize=64)
def to_lonlat(crs: str) -> Transformer:
    """Return the transformation from a CRS to longitude and latitude."""
    return Transformer.from_crs(crs, "EPSG:4326", always_xy=True)


def item_bbox(geometry: dict[str, Any]) -> list[float]:
    """Return the bounding box of a GeoJSON geometry: west, south, east, north.

    West is greater than east if the geometry crosses the antimeridian (RFC 7946, section 5.2).
    """
    whole = shapely.geometry.shape(geometry)
    parts = np.array([part.bounds for part in getattr(whole, "geoms", [whole])])
    wests, souths, easts, norths = parts.T
    west, east = wests.min(), easts.max()
    if west == -180 and east == 180 and len(parts) > 1:
        # It is split at the antimeridian: from the west of its eastern parts across the line to
        # the east of its western parts.
        west, east = wests[easts > 0].min(), easts[wests < 0].max()
    return [float(west), float(souths.min()), float(east), float(norths.max())]


def make_item(
    name: str,
    collection: str,
    when: datetime,
    geometry: dict[str, Any] | None,
    assets: dict[str, dict[str, Any]],
    sources: Iterable[tuple[str, str | None]],
    properties: dict[str, Any],
) -> Item:
    """Build the STAC item of one product.

    Args:
        name: Id of the item.
        collection: Id of its collection.
        when: Time of acquisition.
        geometry: GeoJSON in degrees; None if it is not known.
        assets: Name → asset.
        sources: (id, href) of each item that it is derived from. Without an href, the link is to
            the table of the run's scenes.
        properties: Added to `datetime` and `processing:software`.

    Returns:
        The item, with links to its collection two folders above.
    """
    links = collection_links("../../")
    for source, href in sources:
        target = href or "../../scenes.parquet"
        links.append({"rel": "derived_from", "href": target, "title": source})
    item: Item = {
        "type": "Feature",
        "stac_version": STAC_VERSION,
        "stac_extensions": _EXTENSIONS,
        "id": name,
        "collection": collection,
        "geometry": geometry,
    }
    if geometry is not None:
        item["bbox"] = item_bbox(geometry)
    item["properties"] = {
        "datetime": rfc3339(when),
        "processing:software": {"scenebeam": _version()},
        **properties,
    }
    item["assets"] = assets
    item["links"] = links
    return item


@cache
def _version() -> str:
    return version("scenebeam")


def rebase_item(item: Item, folder: str) -> Item:
    """Make the relative hrefs of an item relative to another folder.

    Args:
        item: A STAC item.
        folder: Its own folder, relative to the other one: `mosaics/20230202T092109Z`.
    """
    assets = {name: _rebase_href(asset, folder) for name, asset in item["assets"].items()}
    links = [_rebase_href(link, folder) for link in item.get("links") or []]
    return {**item, "assets": assets, "links": links}


def _rebase_href(linked: dict[str, Any], folder: str) -> dict[str, Any]:
    """Return an asset or a link with another href."""
    href = str(linked.get("href") or "")
    if not href or is_url(href) or posixpath.isabs(href):
        return linked
    path = posixpath.normpath(posixpath.join(folder, href))
    return {**linked, "href": path if path.startswith("../") else f"./{path}"}


def collection_links(folder: str) -> list[dict[str, Any]]:
    """Return the links of an item to its collection.

    Args:
        folder: Folder of the collection relative to the item: `../`.
    """
    href = f"{folder}collection.json"
    relations = ("collection", "root", "parent")
    return [{"rel": rel, "href": href, "type": "application/json"} for rel in relations]


def raster_band(
    dtype: str, nodata: float | None, scale: float, offset: float, resolution: float
) -> dict[str, Any]:
    """Describe a band by the raster extension.

    Args:
        dtype: Name of the dtype.
        nodata: Nodata value.
        scale: Factor from pixels to physical values.
        offset: Added after `scale`.
        resolution: Pixel size in units of the CRS.
    """
    return {
        "data_type": dtype,
        "nodata": json_nodata(nodata),
        "scale": scale,
        "offset": offset,
        "spatial_resolution": resolution,
    }


def grid_properties(grid: Grid) -> dict[str, Any]:
    """Return the properties of the projection extension for assets on one grid."""
    code = grid.crs
    has_code = code.startswith("EPSG:")
    properties: dict[str, Any] = {"proj:code": code if has_code else None}
    if not has_code:
        properties["proj:wkt2"] = code
    properties["proj:shape"] = list(grid.shape)
    properties["proj:transform"] = [float(number) for number in tuple(grid.transform)[:6]]
    properties["proj:bbox"] = list(grid.bounds)
    return properties


def make_collection(
    name: str, description: str, items: Sequence[Item], hrefs: Sequence[str]
) -> dict[str, Any]:
    """Build the STAC collection of a run.

    Args:
        name: Id of the collection.
        description: Its description.
        items: All its items, or what `extent_of` returns for each.
        hrefs: Their hrefs, relative to the collection.
    """
    links: list[dict[str, Any]] = [
        {"rel": "root", "href": "./collection.json", "type": "application/json"},
        {"rel": "items", "href": "./items.parquet", "type": "application/vnd.apache.parquet"},
    ]
    for href in hrefs:
        links.append({"rel": "item", "href": f"./{href}", "type": "application/geo+json"})
    return {
        "type": "Collection",
        "stac_version": STAC_VERSION,
        "id": name,
        "description": description,
        "license": "other",
        "extent": _extent(items),
        "links": links,
        "assets": {
            "items": {
                "href": "./items.parquet",
                "type": "application/vnd.apache.parquet",
                "roles": ["collection-mirror"],
                "title": "All items as stac-geoparquet",
            }
        },
    }


def extent_of(item: Item) -> Item:
    """Return the fields of an item that the extent of its collection is made of."""
    small: Item = {"properties": {"datetime": item["properties"]["datetime"]}}
    return small | ({"bbox": item["bbox"]} if "bbox" in item else {})


def _extent(items: Sequence[Item]) -> dict[str, Any]:
    boxes = [item["bbox"] for item in items if "bbox" in item] or [[-180.0, -90.0, 180.0, 90.0]]
    times = sorted(item["properties"]["datetime"] for item in items)
    return {
        "spatial": {"bbox": [union_bbox(boxes)]},
        "temporal": {"interval": [[times[0], times[-1]] if times else [None, None]]},
    }


def union_bbox(boxes: Iterable[Sequence[float]]) -> list[float]:
    """Return the bounding box of bounding boxes: west, south, east, north."""
    wests, souths, easts, norths = zip(*boxes, strict=True)
    return [min(wests), min(souths), max(easts), max(norths)]


def json_nodata(value: float | None) -> float | int | str | None:
    """Return a nodata value as the raster extension writes it: NaN and infinities by name."""
    if value is None:
        return None
    if math.isnan(value):
        return "nan"
    if math.isinf(value):
        return "inf" if value > 0 else "-inf"
    # JSON readers hold integers as doubles or as 64-bit integers. A whole number beyond 2^53, such
    # as 3.4e38, the most common nodata value of float32, is safe as a float only.
    return int(value) if float(value).is_integer() and abs(value) < 2**53 else float(value)


def year_start(year: int) -> datetime:
    """Return the first instant of a year in UTC."""
    return datetime(year, 1, 1, tzinfo=UTC)


def rfc3339(when: datetime) -> str:
    """Format an instant in UTC as STAC does."""
    return when.astimezone(UTC).isoformat().replace("+00:00", "Z")


def to_bytes(document: Mapping[str, Any]) -> bytes:
    """Serialize a document as indented JSON."""
    return (json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()
