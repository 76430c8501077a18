"""STAC items as a table, and back: stac-geoparquet 1.0 by pyarrow.

Properties are columns of their own, `assets` is a struct with a field for each asset, `bbox` is a
struct, `geometry` is WKB, and times are timestamps (https://radiantearth.github.io/
stac-geoparquet-spec). Fields that an item lacks are null, and nulls are left out again on reading.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import shapely
from shapely.errors import ShapelyError

Item = dict[str, Any]
Shapes = np.ndarray[Any, Any]
"""Array of shapely geometries."""

COLUMNS = {
    "id",
    "type",
    "stac_version",
    "stac_extensions",
    "geometry",
    "bbox",
    "links",
    "assets",
    "collection",
}
"""Columns that are not properties."""
_TIMES = {
    "datetime",
    "start_datetime",
    "end_datetime",
    "created",
    "updated",
    "published",
    "expires",
    "unpublished",
}
"""Properties that are timestamps."""
_TIMESTAMP = pa.timestamp("us", tz="UTC")
_FOOTPRINT = "proj:geometry"
"""A property that is a geometry, too."""
_VERSION = "1.0.0"
_ROWS_AT_ONCE = 1000


def write_items(items: Sequence[Item]) -> bytes:
    """Serialize items as stac-geoparquet.

    Args:
        items: Items, at least one, with a geometry or without.

    Raises:
        ValueError: They do not fit into one table, as when a property has different types.
    """
    try:
        table, shapes = _table(items)
    except (pa.ArrowException, ShapelyError, OverflowError, TypeError, AttributeError) as error:
        raise ValueError(str(error)[:300]) from error
    metadata = {
        "geo": json.dumps(_geo_metadata(shapes)),
        "stac-geoparquet": json.dumps({"version": _VERSION}),
    }
    sink = io.BytesIO()
    with pq.ParquetWriter(sink, table.schema, compression="zstd") as writer:
        writer.write_table(table)
        writer.add_key_value_metadata(metadata)
    return sink.getvalue()


def _table(items: Sequence[Item]) -> tuple[pa.Table, Shapes]:
    """Return the table of items, and their geometries."""
    columns: dict[str, list[Any]] = {}
    for number, item in enumerate(items):
        for name, value in _row(item):
            values = columns.setdefault(name, [None] * len(items))
            values[number] = value
    shapes = _geometries([item.get("geometry") for item in items])
    arrays: dict[str, pa.Array] = {}
    for name, values in columns.items():
        array = _array(name, values)
        # Parquet has no type for objects without fields, such as the assets of items without any.
        if not (pa.types.is_struct(array.type) and array.type.num_fields == 0):
            arrays[name] = array
    arrays["bbox"] = _bbox_array([item.get("bbox") for item in items], shapes)
    arrays["geometry"] = pa.array(shapely.to_wkb(shapes).tolist(), pa.binary())
    return pa.table(arrays), shapes


def read_items(path: Path | str) -> Iterator[Item]:
    """Read the items of a stac-geoparquet file.

    Args:
        path: The file.

    Yields:
        The items in the order of the rows.

    Raises:
        ValueError: The file is not Parquet, or has no column `id` or `geometry`.
    """
    try:
        file = pq.ParquetFile(path)
    except pa.ArrowException as error:
        raise ValueError(f"not a Parquet file: {error}") from error
    lacking = {"id", "geometry"} - set(file.schema_arrow.names)
    if lacking:
        raise ValueError(f"not stac-geoparquet: it has no column {', '.join(sorted(lacking))}")
    for batch in file.iter_batches(_ROWS_AT_ONCE):
        for row in _without_nanoseconds(batch).to_pylist():
            yield _item(row)


def _row(item: Item) -> Iterator[tuple[str, Any]]:
    """Yield the columns of an item that are not geometries."""
    for name in ("type", "stac_version", "stac_extensions", "id"):
        if name in item:
            yield name, item[name]
    for name, value in (item.get("properties") or {}).items():
        yield name, _without_empty_objects(value)
    for name in ("links", "assets", "collection"):
        if name in item:
            yield name, _without_empty_objects(item[name])


def _array(name: str, values: Sequence[Any]) -> pa.Array:
    if name in _TIMES:
        times = [_parse_time(value) for value in values]
        if all(time is None or isinstance(time, datetime) for time in times):
            return pa.array(times, _TIMESTAMP)
    if name == _FOOTPRINT:
        return pa.array(shapely.to_wkb(_geometries(values)).tolist(), pa.binary())
    return pa.array(values)


def _parse_time(value: Any) -> Any:
    """Parse an RFC 3339 time; other values stay as they are."""
    if not isinstance(value, str):
        return value
    try:
        time = datetime.fromisoformat(value)
    except ValueError:
        return value
    return time if time.tzinfo is not None else time.replace(tzinfo=UTC)


def _without_empty_objects(value: Any) -> Any:
    """Remove empty objects inside a JSON value: Parquet has no type for them."""
    if isinstance(value, dict):
        return {key: _without_empty_objects(inner) for key, inner in value.items() if inner != {}}
    # Long lists of coordinates hold no objects, and need not be copied.
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return [_without_empty_objects(inner) for inner in value]
    return value


def _geometries(values: Sequence[Any]) -> Shapes:
    texts = [None if value is None else json.dumps(value) for value in values]
    # Some readers of GeoParquet refuse heights, and footprints need none.
    return np.atleast_1d(np.asarray(shapely.force_2d(shapely.from_geojson(texts)), object))


def _bbox_array(boxes: Sequence[Any], shapes: Shapes) -> pa.Array:
    """Return the bounds of items; those of the geometry where an item states none."""
    bounds = shapely.bounds(shapes)
    rows: list[dict[str, float] | None] = []
    for box, own in zip(boxes, bounds.tolist(), strict=True):
        sides = box if box else own
        if len(sides) == 6:
            sides = [*sides[:2], *sides[3:5]]
        is_known = len(sides) == 4 and not any(side is None or side != side for side in sides)
        names = ("xmin", "ymin", "xmax", "ymax")
        rows.append(dict(zip(names, map(float, sides), strict=True)) if is_known else None)
    fields = [(name, pa.float64()) for name in ("xmin", "ymin", "xmax", "ymax")]
    return pa.array(rows, pa.struct(fields))


def _geo_metadata(shapes: Shapes) -> dict[str, Any]:
    """Return the metadata of GeoParquet 1.1, whose default CRS is longitude and latitude."""
    known = shapes[~shapely.is_missing(shapes)]
    bounds = shapely.total_bounds(known).tolist() if len(known) else []
    return {
        "version": "1.1.0",
        "primary_column": "geometry",
        "columns": {
            "geometry": {
                "encoding": "WKB",
                "geometry_types": sorted({shape.geom_type for shape in known}),
                "bbox": bounds,
                "covering": {
                    "bbox": {side: ["bbox", side] for side in ("xmin", "ymin", "xmax", "ymax")}
                },
            }
        },
    }


def _without_nanoseconds(batch: pa.RecordBatch) -> pa.Table:
    """Convert timestamps to microseconds: pyarrow needs pandas to convert finer ones."""
    table = pa.Table.from_batches([batch])
    for number, field in enumerate(table.schema):
        if pa.types.is_timestamp(field.type) and field.type.unit == "ns":
            coarse = pa.timestamp("us", tz=field.type.tz)
            column = table.column(number).cast(coarse, safe=False)
            table = table.set_column(number, field.with_type(coarse), column)
    return table


def _item(row: Mapping[str, Any]) -> Item:
    properties: dict[str, Any] = {}
    for name, value in row.items():
        if name in COLUMNS or (value is None and name != "datetime"):
            continue
        if name == _FOOTPRINT and isinstance(value, bytes):
            properties[name] = _geojson(value)
        else:
            properties[name] = _plain(value)
    item: Item = {
        "type": "Feature",
        "stac_version": row.get("stac_version") or "1.0.0",
        "stac_extensions": row.get("stac_extensions") or [],
        "id": row["id"],
        "geometry": _geojson(row["geometry"]),
        "properties": properties,
        "links": _plain(row.get("links") or []),
        "assets": _plain(row.get("assets") or {}),
    }
    if row.get("collection") is not None:
        item["collection"] = row["collection"]
    box = row.get("bbox")
    if isinstance(box, Mapping):
        box = [box[side] for side in ("xmin", "ymin", "xmax", "ymax")]
    if box is not None:
        item["bbox"] = list(box)
    return item


def _geojson(wkb: bytes | None) -> dict[str, Any] | None:
    if wkb is None:
        return None
    geometry: dict[str, Any] = json.loads(shapely.to_geojson(shapely.from_wkb(wkb)))
    return geometry


def _plain(value: Any) -> Any:
    """Convert a value to JSON's types, without the nulls of fields that others have."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items() if inner is not None}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    return value
