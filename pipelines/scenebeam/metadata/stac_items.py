"""STAC items and collections of products: what they hold, where it came from, and how to check it."""

from __future__ import annotations

import json
import math
import posixpath
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from functools import cache, lru_cache
from importlib.metadata import version
from typing import Any

import numpy as np
import shapely
from odc.geo.geobox import GeoBox
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
"""Metres of an edge that is as good as straight in degrees too: at 60° N it bends by less than one."""

Item = dict[str, Any]


def grid_footprint(grid: GeoBox) -> dict[str, Any]:
    """The outline of a grid in degrees, split at the antimeridian, as GeoJSON."""
    left, bottom, right, top = grid.extent.boundingbox.bbox
    outline = box(left, bottom, right, top)
    if max(right - left, top - bottom) > _STRAIGHT:
        outline = shapely.segmentize(outline, max(right - left, top - bottom) / 8)
    lonlat = shapely.transform(outline, to_lonlat(str(grid.crs)).transform, interleaved=False)
    rounded = shapely.transform(lonlat, lambda xy: np.round(xy, 7))
    return _plain(mapping(lonlat_geometry(mapping(rounded))))


@lru_cache(maxsize=64)
def to_lonlat(crs: str) -> Transformer:
    """From a CRS to longitude and latitude."""
    return Transformer.from_crs(crs, "EPSG:4326", always_xy=True)


def _plain(geometry: Any) -> dict[str, Any]:
    plain: dict[str, Any] = json.loads(json.dumps(geometry))
    return plain


def item_bbox(geometry: dict[str, Any]) -> list[float]:
    """West, south, east, north; west > east over the antimeridian (RFC 7946 section 5.2)."""
    parts = [
        part.bounds
        for part in getattr(
            shapely.geometry.shape(geometry), "geoms", [shapely.geometry.shape(geometry)]
        )
    ]
    south, north = min(b[1] for b in parts), max(b[3] for b in parts)
    if min(b[0] for b in parts) == -180 and max(b[2] for b in parts) == 180 and len(parts) > 1:
        return [
            min(b[0] for b in parts if b[2] > 0),
            south,
            max(b[2] for b in parts if b[0] < 0),
            north,
        ]
    return [min(b[0] for b in parts), south, max(b[2] for b in parts), north]


def make_item(
    name: str,
    collection: str,
    when: datetime,
    geometry: dict[str, Any] | None,
    assets: dict[str, dict[str, Any]],
    sources: Iterable[tuple[str, str | None]],
    properties: dict[str, Any],
) -> Item:
    """One product as a STAC item; `geometry` is in degrees. `sources` are (id, href) of the items it derives from.

    Nothing in it tells when or where it was made: the same plan gives the same bytes.
    """
    return {
        "type": "Feature",
        "stac_version": STAC_VERSION,
        "stac_extensions": _EXTENSIONS,
        "id": name,
        "collection": collection,
        "geometry": geometry,
        **({} if geometry is None else {"bbox": item_bbox(geometry)}),
        "properties": {
            "datetime": rfc3339(when),
            "processing:software": {"scenebeam": _version()},
            **properties,
        },
        "assets": assets,
        "links": [
            *collection_links("../../"),
            *(
                {"rel": "derived_from", "href": href or "../../scenes.parquet", "title": source}
                for source, href in sources
            ),
        ],
    }


def rebase_item(item: Item, folder: str) -> Item:
    """An item as it is read from another folder, to which its own folder is `folder`: `mosaics/20230202T092109Z`."""

    def full(named: dict[str, Any]) -> dict[str, Any]:
        href = str(named.get("href") or "")
        if not href or is_url(href) or posixpath.isabs(href):
            return named
        path = posixpath.normpath(posixpath.join(folder, href))
        return {**named, "href": path if path.startswith("../") else f"./{path}"}

    return {
        **item,
        "assets": {key: full(asset) for key, asset in item["assets"].items()},
        "links": [full(link) for link in item.get("links") or []],
    }


def collection_links(folder: str) -> list[dict[str, Any]]:
    """Links of an item to its collection, which lies in a folder relative to it: `../`."""
    href = f"{folder}collection.json"
    return [
        {"rel": rel, "href": href, "type": "application/json"}
        for rel in ("collection", "root", "parent")
    ]


def raster_band(
    dtype: str, nodata: float | None, scale: float, offset: float, resolution: float
) -> dict[str, Any]:
    """What the raster extension says of a band's numbers; `resolution` in units of the CRS."""
    return {
        "data_type": dtype,
        "nodata": json_nodata(nodata),
        "scale": scale,
        "offset": offset,
        "spatial_resolution": resolution,
    }


@cache
def _version() -> str:
    return version("scenebeam")


def grid_properties(grid: Grid) -> dict[str, Any]:
    """The properties of an item whose assets all lie on one grid."""
    code = str(grid.crs)
    return {
        "proj:code": code if code.startswith("EPSG:") else None,
        **({} if code.startswith("EPSG:") else {"proj:wkt2": code}),
        "proj:shape": list(grid.shape),
        "proj:transform": [float(x) for x in tuple(grid.transform)[:6]],
        "proj:bbox": list(grid.extent.boundingbox.bbox),
    }


def make_collection(
    name: str, description: str, items: Sequence[Item], hrefs: Sequence[str]
) -> dict[str, Any]:
    """The STAC collection of a run's items, which lie at `hrefs` beside it."""
    boxes = [item["bbox"] for item in items if "bbox" in item] or [[-180.0, -90.0, 180.0, 90.0]]
    times = sorted(item["properties"]["datetime"] for item in items)
    whole = [
        min(b[0] for b in boxes),
        min(b[1] for b in boxes),
        max(b[2] for b in boxes),
        max(b[3] for b in boxes),
    ]
    return {
        "type": "Collection",
        "stac_version": STAC_VERSION,
        "id": name,
        "description": description,
        "license": "other",
        "extent": {
            "spatial": {"bbox": [whole]},
            "temporal": {"interval": [[times[0], times[-1]] if times else [None, None]]},
        },
        "links": [
            {"rel": "root", "href": "./collection.json", "type": "application/json"},
            {"rel": "items", "href": "./items.parquet", "type": "application/vnd.apache.parquet"},
            *(
                {"rel": "item", "href": f"./{href}", "type": "application/geo+json"}
                for href in hrefs
            ),
        ],
        "assets": {
            "items": {
                "href": "./items.parquet",
                "type": "application/vnd.apache.parquet",
                "roles": ["collection-mirror"],
                "title": "All items as stac-geoparquet",
            }
        },
    }


def json_nodata(value: float | None) -> float | int | str | None:
    """A nodata value as the raster extension writes it: NaN and infinities by name."""
    if value is None:
        return None
    if math.isnan(value):
        return "nan"
    if math.isinf(value):
        return "inf" if value > 0 else "-inf"
    # A whole float beyond 2^53 (3.4e38, the most common nodata of float32) is no integer that JSON readers can hold.
    return int(value) if float(value).is_integer() and abs(value) < 2**53 else float(value)


def year_start(year: int) -> datetime:
    """The first instant of a year."""
    return datetime(year, 1, 1, tzinfo=UTC)


def rfc3339(when: datetime) -> str:
    """An instant in UTC as STAC writes it."""
    return when.astimezone(UTC).isoformat().replace("+00:00", "Z")


def to_bytes(document: dict[str, Any]) -> bytes:
    """JSON for people and machines, the same bytes each time."""
    return (json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()
