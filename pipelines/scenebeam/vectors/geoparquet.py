"""Read GeoParquet with WKB geometries, one batch of rows at a time."""

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
from scenebeam.vectors.features import BATCH, EMPTY, Features, Geometries, build_features

_READ_ERRORS = (
    OSError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    RecursionError,
    MemoryError,
    pa.ArrowException,
)
"""What pyarrow raises for a damaged file, and what malformed `geo` metadata leads to."""


def read_geoparquet(path: Path, label: str, columns: Sequence[str] = ()) -> Iterator[Features]:
    """Read GeoParquet, up to 20,000 rows at a time.

    Args:
        path: The file.
        label: Name of the file in messages.
        columns: Attributes to read.

    Yields:
        Features in longitude and latitude.

    Raises:
        RequestError: The file is not GeoParquet with WKB geometries, or its CRS is unknown.
    """
    try:
        file = pq.ParquetFile(path)
        # GeoParquet 1.x describes its columns in the `geo` key of the schema metadata.
        metadata = json.loads((file.schema_arrow.metadata or {})[b"geo"])
        column = metadata["primary_column"]
        column_metadata = metadata["columns"][column]
        encoding = column_metadata.get("encoding")
        # An absent `crs` means OGC:CRS84; an explicit null means that the CRS is undefined.
        crs = column_metadata.get("crs", "OGC:CRS84")
        attributes = {"id", "name", *columns} & set(file.schema_arrow.names) - {column}
        batches = file.iter_batches(batch_size=BATCH, columns=[*sorted(attributes), column])
    except _READ_ERRORS as error:
        raise RequestError(f"{label} cannot be read as GeoParquet: {error}") from None
    if encoding != "WKB":
        raise RequestError(f"{label} is encoded as {encoding}; write it as WKB")
    try:
        to_lonlat = None if crs is None else lonlat_transformer(crs)
    except RequestError as error:
        raise RequestError(f"{label}: {error}") from None
    while True:
        try:
            batch = next(batches, None)
            if batch is None:
                return
            ids = _column_values(batch, "id", attributes)
            names = _column_values(batch, "name", attributes)
            values = {name: _column_values(batch, name, attributes) for name in columns}
            geometries, faults = read_wkb(batch.column(column).to_pylist())
        except _READ_ERRORS as error:
            raise RequestError(f"{label} cannot be read as GeoParquet: {error}") from None
        yield build_features(ids, names, geometries, faults, to_lonlat, values)


def _column_values(batch: Any, name: str, present: set[str]) -> list[Any]:
    """Return the values of a column; None for every row if the file has no such column."""
    if name not in present:
        return [None] * len(batch)
    values: list[Any] = batch.column(name).to_pylist()
    return values


def read_wkb(contents: Sequence[Any]) -> tuple[Geometries, list[str]]:
    """Parse well-known binary.

    Args:
        contents: One WKB string per feature; None for a missing geometry.

    Returns:
        The geometries (None where there is none), and the fault of each feature or "".

    Raises:
        TypeError: An element is neither bytes nor None.
    """
    geometries = np.array(shapely.from_wkb(contents, on_invalid="ignore"), object)
    faults = [""] * len(geometries)
    for index in np.flatnonzero(shapely.is_missing(geometries)).tolist():
        faults[index] = EMPTY if contents[index] is None else "cannot be read as WKB"
    return geometries, faults
