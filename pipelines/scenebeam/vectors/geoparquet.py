"""GeoParquet, its geometries as WKB, a batch of rows at a time."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import shapely

from scenebeam.errors import RequestError
from scenebeam.vectors.crs import lonlat_transformer
from scenebeam.vectors.features import BATCH, EMPTY, Features, Geometries, locate_features

_FAULTS = (
    OSError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    RecursionError,
    MemoryError,
    pa.ArrowException,
)
"""What pyarrow raises of a file that is damaged, and what its metadata may come to."""


def read_geoparquet(path: Path, place: str) -> Iterator[Features]:
    """Read GeoParquet, up to 20,000 rows at a time.

    Args:
        path: The file.
        place: What messages call it.

    Yields:
        Features in longitude and latitude.

    Raises:
        RequestError: It is not GeoParquet with geometries as WKB, or its CRS is not known.
    """
    try:
        file = pq.ParquetFile(path)
        told = json.loads((file.schema_arrow.metadata or {})[b"geo"])
        column = told["primary_column"]
        facts = told["columns"][column]
        encoding, crs = facts.get("encoding"), facts.get("crs", "OGC:CRS84")
        there = {"id", "name"} & set(file.schema_arrow.names) - {column}
        rows = file.iter_batches(batch_size=BATCH, columns=[*sorted(there), column])
    except _FAULTS as error:
        raise RequestError(f"{place} cannot be read as GeoParquet: {error}") from None
    if encoding != "WKB":
        raise RequestError(f"{place} is encoded as {encoding}; write it as WKB")
    try:
        to_lonlat = None if crs is None else lonlat_transformer(crs)
    except RequestError as error:
        raise RequestError(f"{place}: {error}") from None
    while True:
        try:
            batch = next(rows, None)
            if batch is None:
                return
            ids, names = (_column(batch, one, there) for one in ("id", "name"))
            geometries, faults = read_wkb(batch.column(column).to_pylist())
        except _FAULTS as error:
            raise RequestError(f"{place} cannot be read as GeoParquet: {error}") from None
        yield locate_features(ids, names, geometries, faults, to_lonlat)


def _column(batch: Any, name: str, there: set[str]) -> list[Any]:
    """The values of a column; None for each row where it is not there."""
    if name not in there:
        return [None] * len(batch)
    values: list[Any] = batch.column(name).to_pylist()
    return values


def read_wkb(contents: Sequence[Any]) -> tuple[Geometries, list[str]]:
    """Well-known binary → geometries, and what is wrong with each. None is no geometry.

    Raises:
        TypeError: Something is not bytes.
    """
    found = np.array(shapely.from_wkb(contents, on_invalid="ignore"), object)
    faults = [""] * len(found)
    for index in np.flatnonzero(shapely.is_missing(found)).tolist():
        faults[index] = EMPTY if contents[index] is None else "cannot be read as WKB"
    return found, faults
