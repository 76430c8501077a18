"""Read the places of chips: a vector file, or a table with coordinates."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import shapely

from scenebeam.csvtable import Table, is_empty, parse_rows
from scenebeam.errors import RequestError
from scenebeam.raster.validity import Array
from scenebeam.transfer.signing import redact_url
from scenebeam.vectors import Features, read_features
from scenebeam.vectors.features import BATCH, Geometries
from scenebeam.vectors.reader import local_file

_POINT: tuple[str, ...] = ("lon", "lat")
_BOX: tuple[str, ...] = ("west", "south", "east", "north")
_LONGEST_ID = 60
_ID = re.compile(rf"[A-Za-z0-9_][A-Za-z0-9_-]{{0,{_LONGEST_ID - 1}}}")
_MAX_LATITUDE = 89.0
_OUTSIDE = "is outside the Earth: is its CRS the one declared?"
FAULTS_TABLE = "place_faults.csv"


@dataclass
class PlaceFaults:
    """Places that are left out, and why."""

    rows: list[dict[str, Any]] = field(default_factory=list)

    def add(self, number: int, name: Any, fault: str) -> None:
        """Add the place in a row, from 1."""
        self.rows.append({"row": number, "id": name, "fault": fault})

    @property
    def table(self) -> Table:
        """All of them, as `place_faults.csv` lists them."""
        return Table(("row", "id", "fault"), self.rows)


@dataclass(frozen=True)
class Places:
    """Places in the order of their file. All sequences have the same length."""

    names: Sequence[str]
    """Their ids in the file, or the numbers of their rows."""
    lon: Array
    """Longitudes of the centers in degrees."""
    lat: Array
    columns: Mapping[str, Sequence[Any]]
    """Values of the columns that the request names."""

    def subset(self, kept: Array) -> Places:
        """Return the places at some indices."""
        indices = kept.tolist()
        columns = {}
        for name, values in self.columns.items():
            columns[name] = [values[index] for index in indices]
        return Places(
            [self.names[index] for index in indices], self.lon[kept], self.lat[kept], columns
        )


def read_places(
    location: str,
    id_column: str | None,
    columns: Sequence[str],
    required: Sequence[str],
    faults: PlaceFaults,
) -> Places:
    """Read all places of a file.

    Args:
        location: A local path, or an http(s), gs or s3 URL.
        id_column: Column of the ids.
        columns: Columns to read.
        required: Those of them that a place must have a value of.
        faults: Gets a row for each place that is left out.

    Raises:
        RequestError: The file cannot be read or lacks a column, no place of it can be used, two
            places have one id, or a place is outside of the Earth.
    """
    shown = redact_url(location)
    places: list[str] = []
    centers: list[Array] = []
    values: dict[str, list[Any]] = {name: [] for name in columns}
    first = 1
    for batch in _batches(location, columns):
        numbers = np.arange(first, first + len(batch.faults))
        first += len(numbers)
        names = batch.columns[id_column] if id_column else batch.ids
        usable = _usable(batch, numbers, names, required, faults, shown)
        for index in usable:
            name = names[index]
            places.append(_place_name(int(numbers[index]), name))
            for column in columns:
                values[column].append(batch.columns[column][index])
        centers.append(_centers(batch.geometries[usable]))
    if not places:
        example = f"; row {faults.rows[0]['row']} {faults.rows[0]['fault']}" if faults.rows else ""
        raise RequestError(f"product.places: no place of {shown} can be used{example}")
    _check_unique(places, shown)
    lon, lat = np.concatenate(centers).T
    return Places(places, lon, lat, values)


def _usable(
    batch: Features,
    numbers: Array,
    names: Sequence[Any],
    required: Sequence[str],
    faults: PlaceFaults,
    shown: str,
) -> list[int]:
    """Return the indices of the places of a batch that can be used."""
    bounds = shapely.bounds(batch.geometries)
    outside = (bounds[:, 0] < -180.001) | (bounds[:, 2] > 360) | (np.abs(bounds[:, 1]) > 90.001)
    outside |= np.abs(bounds[:, 3]) > 90.001
    usable = []
    for index, fault in enumerate(batch.faults):
        number, name = int(numbers[index]), names[index]
        lacking = next((one for one in required if _is_null(batch.columns[one][index])), None)
        if fault:
            faults.add(number, name, f"{fault}: left out")
        elif outside[index]:
            raise RequestError(f"product.places: {shown}: row {number} (id {name}) {_OUTSIDE}")
        elif max(abs(bounds[index, 1]), abs(bounds[index, 3])) > _MAX_LATITUDE:
            faults.add(number, name, "is within a degree of a pole: left out")
        elif lacking is not None:
            faults.add(number, name, f"has no {lacking}: left out")
        else:
            usable.append(index)
    return usable


def _is_null(value: Any) -> bool:
    return value is None or (isinstance(value, str) and is_empty(value)) or value != value


def _centers(geometries: Geometries) -> Array:
    """Return the centers of the bounds of geometries, longitude and latitude, shape (n, 2)."""
    west, south, east, north = shapely.bounds(geometries).T
    for index in np.flatnonzero(east - west > 180).tolist():
        # Across the antimeridian: turn the western hemisphere to the east of it.
        x = shapely.get_coordinates(geometries[index])[:, 0] % 360
        west[index], east[index] = x.min(), x.max()
    lon = ((west + east) / 2 + 180) % 360 - 180
    return np.stack([lon, (south + north) / 2], axis=-1)


def identifier(place: str) -> str:
    """Return the id of a chip: that of its place, if that can be the name of a file anywhere.

    Otherwise other characters are replaced, and a hash tells such ids apart.
    """
    if _ID.fullmatch(place):
        return place
    clean = re.sub("[^A-Za-z0-9_-]", "_", place).strip("-")[: _LONGEST_ID - 9]
    return f"{clean or '_'}-{hashlib.sha256(place.encode('utf-8', 'replace')).hexdigest()[:8]}"


def _place_name(number: int, value: Any) -> str:
    """Return the id of a place as a text: its own, or the number of its row."""
    if value is None:
        return f"{number:06d}"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _check_unique(places: Sequence[str], shown: str) -> None:
    """Check that no two chips would have one name, also where case does not count.

    Raises:
        RequestError: Two would.
    """
    seen: dict[str, str] = {}
    for place in places:
        name = identifier(place).lower()
        if name in seen:
            other = seen[name]
            same = f"the id {place}" if other == place else f"ids like {other} and {place}"
            raise RequestError(
                f"product.places: two places of {shown} have {same}; name another column in "
                "product.id_column"
            )
        seen[name] = place


def as_numbers(values: Sequence[Any]) -> Sequence[Any]:
    """Return a column of a CSV file as numbers if all its values are numbers."""
    if not all(isinstance(value, str) for value in values):
        return values
    for convert in (int, float):
        try:
            return [convert(value) for value in values]
        except ValueError:
            continue
    return values


def _batches(location: str, columns: Sequence[str]) -> Iterator[Features]:
    """Read a vector file or a table in batches.

    Raises:
        RequestError: It cannot be read, or lacks a column.
    """
    try:
        with local_file(location) as path:
            is_table = _is_table(path)
            if is_table:
                yield from _read_table(path, redact_url(location), columns)
        if not is_table:
            yield from _checked(read_features(location, columns), location, columns)
    except RequestError as error:
        raise RequestError(f"product.places: {error}") from None


def _checked(
    batches: Iterator[Features], location: str, columns: Sequence[str]
) -> Iterator[Features]:
    """Yield batches, and check that some feature has each column."""
    lacking = set(columns)
    for batch in batches:
        lacking = {name for name in lacking if all(one is None for one in batch.columns[name])}
        yield batch
    if lacking:
        names = ", ".join(sorted(lacking))
        raise RequestError(f"{redact_url(location)} has no values in the columns {names}")


def _is_table(path: Path) -> bool:
    """Whether a file is CSV, or Parquet without geometries."""
    if path.suffix.lower() in (".csv", ".tsv", ".txt"):
        return True
    with path.open("rb") as file:
        head = file.read(4)
    if head != b"PAR1":
        return False
    try:
        return b"geo" not in (pq.read_schema(path).metadata or {})
    except (OSError, pa.ArrowException):
        return False


def _read_table(path: Path, shown: str, columns: Sequence[str]) -> Iterator[Features]:
    names, table = _load_table(path, shown, columns)
    missing = sorted(set(columns) - table.keys())
    if missing:
        raise RequestError(f"{shown} lacks the columns {', '.join(missing)}")
    for start in range(0, len(table[names[0]]), BATCH):
        part = {name: values[start : start + BATCH] for name, values in table.items()}
        numbers = np.array([_to_numbers(part[name]) for name in names])
        if names == _POINT:
            geometries = np.array(shapely.points(*numbers), object)
        else:
            # A box across the antimeridian has its west east of its east.
            west, south, east, north = numbers
            east = np.where(east < west, east + 360, east)
            geometries = np.array(shapely.box(west, south, east, north), object)
        is_number = np.isfinite(numbers).all(axis=0)
        geometries[~is_number] = None
        faults = ["" if ok else "has no coordinates" for ok in is_number.tolist()]
        ids = part.get("id", [None] * len(faults))
        read = {name: part[name] for name in columns}
        yield Features(ids, [None] * len(faults), geometries, faults, read)


def _load_table(
    path: Path, shown: str, columns: Sequence[str]
) -> tuple[tuple[str, ...], dict[str, list[Any]]]:
    """Return the names of the coordinates, and the columns that are needed.

    Raises:
        RequestError: The file cannot be read, or has no coordinates.
    """
    wanted = {"id", *_POINT, *_BOX, *columns}
    content = path.read_bytes()
    if content[:4] == b"PAR1":
        try:
            file = pq.ParquetFile(path)
            present = [name for name in file.schema_arrow.names if name in wanted]
            table = dict(file.read(columns=present).to_pydict())
        except (OSError, pa.ArrowException) as error:
            raise RequestError(f"{shown} cannot be read as Parquet: {error}") from None
        for names in (_POINT, _BOX):
            if set(names) <= table.keys():
                return names, table
        raise RequestError(f"{shown} needs the columns lon and lat, or {', '.join(_BOX)}")
    try:
        names, rows = _POINT, parse_rows(content, shown, _POINT)
    except RequestError as error:
        try:
            names, rows = _BOX, parse_rows(content, shown, _BOX)
        except RequestError:
            raise RequestError(f"{error}; or give {', '.join(_BOX)}") from None
    present = [name for name in rows[0].cells if name in wanted]
    return names, {name: [_cell(row.cells.get(name, "")) for row in rows] for name in present}


def _cell(text: str) -> str | None:
    return None if is_empty(text) else text.strip()


def _to_numbers(values: Sequence[Any]) -> list[float]:
    numbers = []
    for value in values:
        try:
            numbers.append(float(value))
        except (TypeError, ValueError):
            numbers.append(float("nan"))
    return numbers
