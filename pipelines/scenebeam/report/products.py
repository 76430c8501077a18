"""Products: what the table of items says of each product that the page shows by itself."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyproj import Transformer

from scenebeam.metadata.item_tables import SUPERSEDED
from scenebeam.storage import Store

MAX_PRODUCTS = 200
"""Most products that are shown by themselves."""
_SEARCHED_ROWS = 5000
"""Rows of a table that are searched for the newest products. A longer one shows its first ones."""
_COLUMNS = ("id", "datetime", "assets", "eo:cloud_cover")
_GRID_COLUMNS = ("proj:code", "proj:shape", "proj:transform")
_MISSING_BANDS, _MISSING = "scenebeam:missing_bands", "scenebeam:missing"


@dataclass(frozen=True)
class BandFile:
    """Where a band of a product is, and how to convert its pixels to physical units."""

    key: str
    index: int
    """Index of the band in the file, from 1."""
    scale: float
    offset: float
    classes: Mapping[int, tuple[str, str]] = field(default_factory=dict)
    """Class → name and color, if the item has them."""


@dataclass(frozen=True)
class ProductFile:
    """A file of a product."""

    name: str
    """Name of the asset."""
    key: str
    size: int | None
    """Bytes."""


@dataclass(frozen=True)
class ProductFact:
    """A product that the page shows by itself."""

    id: str
    when: datetime | None
    cloud: float | None
    """Cloud cover in percent."""
    valid: float | None
    """Valid pixels in percent, of the band with the fewest."""
    item: str
    """Key of its STAC item; empty if that is not a file of its own."""
    files: Sequence[ProductFile]
    bands: Mapping[str, BandFile]
    """Common name → where the band is, for rasters that pictures can be drawn of."""
    missing: Sequence[str]
    """What it lacks, one sentence each."""
    corners: Sequence[tuple[float, float]]
    """Longitude and latitude of the upper left, upper right and lower left corner of its grid;
    empty if it has none.
    """


def read_products(store: Store, items_key: str, existing: set[str]) -> list[ProductFact]:
    """Read the newest products of a run, newest first.

    Args:
        store: Output of the run.
        items_key: Key of the stac-geoparquet table of its products.
        existing: All keys in the store.

    Returns:
        At most `MAX_PRODUCTS`; empty if there is no table.
    """
    if store.size(items_key) is None:
        return []
    with store.local_copy(items_key) as path:
        file = pq.ParquetFile(path)
        wanted = {*_COLUMNS, *_GRID_COLUMNS, _MISSING_BANDS, _MISSING, SUPERSEDED}
        columns = [name for name in file.schema_arrow.names if name in wanted]
        rows = file.metadata.num_rows
        if rows <= _SEARCHED_ROWS:
            table = _newest(file, columns)
        else:
            first = next(file.iter_batches(MAX_PRODUCTS, columns=columns))
            table = pa.Table.from_batches([first])
    facts = []
    # Hrefs are relative to the folder of the table.
    folder = posixpath.dirname(items_key)
    for row in table.to_pylist():
        if not row.get(SUPERSEDED):
            facts.append(_product(row, folder, existing))
    return sorted(facts, key=_newest_first)


def _newest(file: pq.ParquetFile, columns: Sequence[str]) -> pa.Table:
    """Return the newest rows of a table."""
    times = file.read(["datetime"])["datetime"].to_pylist()
    known = [(when is not None, when.timestamp() if when else 0.0) for when in times]
    order = sorted(range(len(times)), key=lambda row: known[row], reverse=True)
    return file.read(list(columns)).take(sorted(order[:MAX_PRODUCTS]))


def _newest_first(fact: ProductFact) -> tuple[float, str]:
    return -fact.when.timestamp() if fact.when else 0.0, fact.id


def _product(row: Mapping[str, Any], folder: str, existing: set[str]) -> ProductFact:
    assets = {name: asset for name, asset in (row.get("assets") or {}).items() if asset is not None}
    files: list[ProductFile] = []
    bands: dict[str, BandFile] = {}
    valid: list[float] = []
    for name, asset in assets.items():
        key = posixpath.normpath(posixpath.join(folder, asset["href"]))
        if key not in existing:
            continue
        if "thumbnail" in (asset.get("roles") or ()) or key.endswith(".png"):
            continue
        files.append(ProductFile(name, key, asset.get("file:size")))
        raster_bands = asset.get("raster:bands") or []
        if (asset.get("type") or "").startswith("image/tiff"):
            bands |= dict(_bands(name, key, asset, raster_bands))
        for raster_band in raster_bands:
            percent = (raster_band.get("statistics") or {}).get("valid_percent")
            if percent is not None:
                valid.append(percent)
    item = _item_of(files[0].key, row["id"], existing) if files else ""
    return ProductFact(
        id=row["id"],
        when=row["datetime"],
        cloud=row.get("eo:cloud_cover"),
        valid=min(valid) if valid else None,
        item=item,
        files=files,
        bands=bands,
        missing=list(_missing(row, assets)),
        corners=_corners(row),
    )


def _item_of(key: str, product: str, existing: set[str]) -> str:
    """Return the key of a product's item, beside its files or one folder up; empty without one."""
    folder = posixpath.dirname(key)
    for place in (folder, posixpath.dirname(folder)):
        if f"{place}/{product}.json" in existing:
            return f"{place}/{product}.json"
    return ""


def _bands(
    asset_name: str, key: str, asset: Mapping[str, Any], raster: Sequence[Any]
) -> Iterator[tuple[str, BandFile]]:
    """Yield the bands of a file by common name; not those of labels without classes."""
    names, classes = asset.get("bands"), dict(_classes(asset))
    if "labels" in (asset.get("roles") or ()) and not classes:
        return
    for number, facts in enumerate(raster):
        # Assets with a single band are named like the band.
        described = names[number] if names and number < len(names) else {}
        name = described.get("eo:common_name") or described.get("name") or asset_name
        scale, offset = facts.get("scale"), facts.get("offset")
        band = BandFile(key, number + 1, 1.0 if scale is None else scale, offset or 0.0, classes)
        yield str(name).lower(), band


def _classes(asset: Mapping[str, Any]) -> Iterator[tuple[int, tuple[str, str]]]:
    for described in asset.get("classification:classes") or ():
        if described.get("color_hint"):
            yield described["value"], (described["name"], f"#{described['color_hint'].lower()}")


def _missing(row: Mapping[str, Any], assets: Mapping[str, Any]) -> Iterator[str]:
    for entry in row.get(_MISSING_BANDS) or ():
        yield f"{entry['band']}: {entry['reason']}"
    for entry in row.get(_MISSING) or ():
        yield f"{entry['band']}: {entry['scene']}: {entry['reason']}"
    for name, asset in assets.items():
        for entry in asset.get(_MISSING) or ():
            yield f"{name}: {entry['scene']}: {entry['reason']}"


def _corners(row: Mapping[str, Any]) -> Sequence[tuple[float, float]]:
    code, shape, transform = (row.get(name) for name in _GRID_COLUMNS)
    if not code or not shape or not transform:
        return ()
    (rows, columns), (a, b, c, d, e, f) = shape, transform[:6]
    pixels = np.array([(0, 0), (columns, 0), (0, rows)])
    x = a * pixels[:, 0] + b * pixels[:, 1] + c
    y = d * pixels[:, 0] + e * pixels[:, 1] + f
    to_degrees = Transformer.from_crs(code, "EPSG:4326", always_xy=True)
    longitudes, latitudes = to_degrees.transform(x, y)
    return list(zip(longitudes.tolist(), latitudes.tolist(), strict=True))
