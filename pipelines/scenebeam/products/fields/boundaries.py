"""Boundaries: the fields of a GeoParquet or GeoJSON file, batch by batch, mended where they can be."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import antimeridian
import numpy as np
import pyarrow.parquet as pq
import shapely
from pyproj import Transformer

from scenebeam.catalog.area import geojson_transformer, lonlat_transformer
from scenebeam.csvtable import Table
from scenebeam.errors import RequestError

_BATCH = 20_000
Geometries = np.ndarray[tuple[int], np.dtype[Any]]
"""Of shapely geometries."""


@dataclass
class Faults:
    """What was wrong with fields: those that were mended, and those without a geometry, which are left out."""

    rows: list[dict[str, Any]] = field(default_factory=list)

    def add(self, number: int, name: Any, what: str) -> None:
        """One more; `number` counts from 1."""
        self.rows.append({"field": number, "id": name, "fault": what})

    @property
    def table(self) -> Table:
        """A row for each."""
        return Table(("field", "id", "fault"), self.rows)


def read_fields(path: str, faults: Faults) -> Iterator[tuple[np.ndarray[Any, Any], Geometries]]:
    """(numbers from 1 in the order of the file, polygons in degrees) of up to 20,000 fields at a time.

    Invalid polygons are mended and noted in `faults`; those over the antimeridian are split there. Raises RequestError
    where the file cannot be read, or a field is no polygon on the Earth: it names the field.
    """
    first = 1
    batches = _parquet(path) if path.endswith((".parquet", ".geoparquet")) else _geojson(path)
    for names, geometries in batches:
        numbers = np.arange(first, first + len(geometries))
        first += len(geometries)
        good = _mended(path, numbers, names, geometries, faults)
        there = np.array([one is not None for one in good], bool)
        yield numbers[there], np.asarray(good, object)[there]


def _parquet(path: str) -> Iterator[tuple[Sequence[Any], Geometries]]:
    try:
        file = pq.ParquetFile(path)
        told = json.loads((file.schema_arrow.metadata or {})[b"geo"])
        column = told["primary_column"]
        facts = told["columns"][column]
    except (OSError, ValueError, KeyError) as error:
        raise RequestError(f"product.boundaries: {path} cannot be read as GeoParquet: {error}") from None
    if facts.get("encoding") != "WKB":
        raise RequestError(f"product.boundaries: {path} is encoded as {facts.get('encoding')}; write it as WKB")
    crs = facts.get("crs", "OGC:CRS84")
    try:
        to_lonlat = None if crs is None else lonlat_transformer(crs)
    except RequestError as error:
        raise RequestError(f"product.boundaries: {path}: {error}") from None
    names = ["id"] if "id" in file.schema_arrow.names else []
    for batch in file.iter_batches(batch_size=_BATCH, columns=[*names, column]):
        geometries = shapely.from_wkb(batch.column(column).to_pylist(), on_invalid="ignore")
        ids = batch.column("id").to_pylist() if names else [None] * len(geometries)
        yield ids, _moved(geometries, to_lonlat)


def _geojson(path: str) -> Iterator[tuple[Sequence[Any], Geometries]]:
    try:
        document = json.loads(Path(path).read_text(encoding="utf-8"))
        features = document["features"] if document["type"] == "FeatureCollection" else [document]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RequestError(f"product.boundaries: {path} cannot be read as GeoJSON: {error}") from None
    try:
        to_lonlat = geojson_transformer(document)
    except RequestError as error:
        raise RequestError(f"product.boundaries: {path}: {error}") from None
    for start in range(0, len(features), _BATCH):
        some = features[start : start + _BATCH]
        texts = [None if one.get("geometry") is None else json.dumps(one["geometry"]) for one in some]
        geometries = shapely.from_geojson(texts, on_invalid="ignore")
        ids = [one.get("id", (one.get("properties") or {}).get("id")) for one in some]
        yield ids, _moved(geometries, to_lonlat)


def _moved(geometries: Geometries, to_lonlat: Transformer | None) -> Geometries:
    if to_lonlat is None:
        return np.asarray(shapely.force_2d(geometries))
    return np.asarray(shapely.transform(shapely.force_2d(geometries), to_lonlat.transform, interleaved=False))


def _mended(
    path: str, numbers: np.ndarray[Any, Any], names: Sequence[Any], geometries: Geometries, faults: Faults
) -> list[Any]:
    """The polygons; None for those that are left out."""
    found: list[Any] = list(geometries)
    empty = shapely.is_missing(geometries) | shapely.is_empty(geometries)
    for index in np.flatnonzero(empty).tolist():
        faults.add(int(numbers[index]), names[index], "no geometry: left out")
        found[index] = None
    bounds = shapely.bounds(geometries)
    inside = (bounds[:, 0] >= -180) & (bounds[:, 2] <= 180) & (bounds[:, 1] >= -90) & (bounds[:, 3] <= 90)
    polygonal = np.isin(shapely.get_type_id(geometries), (3, 6))
    for index in np.flatnonzero(~empty & ~(inside & polygonal)).tolist():
        what = "is no polygon" if not polygonal[index] else "lies outside of the Earth: is its CRS the one declared?"
        raise RequestError(f"product.boundaries: {path}: {_called(numbers[index], names[index])} {what}")
    wide = ~empty & (bounds[:, 2] - bounds[:, 0] > 180)
    for index in np.flatnonzero(wide).tolist():
        found[index] = antimeridian.fix_shape(found[index], fix_winding=True)
        found[index] = shapely.geometry.shape(found[index])
    for index in np.flatnonzero(~empty & ~wide & ~shapely.is_valid(geometries)).tolist():
        why = shapely.is_valid_reason(found[index])
        parts = shapely.get_parts(shapely.make_valid(found[index]))
        flat = shapely.union_all([part for part in parts if part.geom_type in ("Polygon", "MultiPolygon")])
        if flat.is_empty:
            name = _called(numbers[index], names[index])
            raise RequestError(f"product.boundaries: {path}: {name} has no inside: {why}")
        faults.add(int(numbers[index]), names[index], f"mended: {why}")
        found[index] = flat
    return found


def _called(number: Any, name: Any) -> str:
    return f"field {number}" + ("" if name is None else f" (id {name})")
