"""Read field boundaries from a vector file, in batches, and repair them where possible."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import shapely

from scenebeam.csvtable import File, Table
from scenebeam.errors import RequestError
from scenebeam.transfer.signing import redact_url
from scenebeam.vectors import (
    OUTSIDE,
    CheckedPolygons,
    Features,
    Geometries,
    check_polygons,
    read_features,
)
from scenebeam.vectors.features import EMPTY

Array = np.ndarray[Any, Any]
_NAMES_SCHEMA = pa.schema([("number", pa.int64()), ("id", pa.string()), ("name", pa.string())])
_MAX_REPEATED = 1000
"""Fields with a repeated id that are listed at most."""


@dataclass
class Faults:
    """Fields that are made valid, left out, or have the id of an earlier field."""

    rows: list[dict[str, Any]] = field(default_factory=list)

    def add(self, number: int, name: Any, fault: str) -> None:
        """Add one field.

        Args:
            number: Its number, from 1.
            name: Its id, if it has one.
            fault: What is wrong with it, and what is done about it.
        """
        self.rows.append({"field": number, "id": name, "fault": fault})

    @property
    def table(self) -> Table:
        """All rows, as `field_faults.csv` lists them."""
        return Table(("field", "id", "fault"), self.rows)


class FieldNames(File):
    """The ids and names of fields, by the numbers that instance masks hold. Spooled to disk."""

    def __init__(self) -> None:
        # The file exists as long as this object, not only in one block.
        self._file = NamedTemporaryFile(prefix="scenebeam-fields-")  # noqa: SIM115
        self._writer = pq.ParquetWriter(self._file.name, _NAMES_SCHEMA, compression="zstd")

    def add(self, numbers: Array, features: Features) -> None:
        """Add one batch of fields."""
        columns = [numbers, _texts(features.ids), _texts(features.names)]
        self._writer.write_table(pa.table(columns, schema=_NAMES_SCHEMA))

    def to_bytes(self) -> bytes:
        """Return one Parquet file with the columns number, id and name."""
        self._writer.close()
        return Path(self._file.name).read_bytes()


def read_fields(
    path: str, faults: Faults, names: FieldNames | None = None
) -> Iterator[tuple[Array, Geometries]]:
    """Read field boundaries, up to 20,000 at a time.

    Invalid polygons are made valid, and polygons across the antimeridian are split there. Features
    that are not polygons, have no interior or cannot be read are left out.

    Args:
        path: A vector file: a local path or a URL.
        faults: Gets a row for each field that is made valid, is left out, or has the id of an
            earlier field.
        names: Gets the id and name of each field.

    Yields:
        The numbers of fields, counted from 1 in the order of the file, shape (n,); and their
        polygons in degrees, shape (n,).

    Raises:
        RequestError: The file cannot be read, no field of it can be used, or a field is outside of
            the Earth. The latter means that the CRS is not the declared one, so it is not just left
            out; the message names the field.
    """
    first, any_usable, seen = 1, False, _SeenIds()
    try:
        for features in read_features(path):
            numbers = np.arange(first, first + len(features.faults))
            first += len(numbers)
            checked = check_polygons(features)
            _record_faults(numbers, features, checked, faults, redact_url(path))
            seen.record(numbers, features.ids, faults)
            if names is not None:
                names.add(numbers, features)
            usable = ~shapely.is_missing(checked.polygons)
            any_usable = any_usable or bool(usable.any())
            yield numbers[usable], checked.polygons[usable]
    except RequestError as error:
        raise RequestError(f"product.boundaries: {error}") from None
    if not any_usable:
        example = ""
        if faults.rows:
            row = faults.rows[0]
            example = f"; the first: {_label(row['field'], row['id'])} {row['fault']}"
        raise RequestError(
            f"product.boundaries: no field of {redact_url(path)} can be used{example}"
        )


def _record_faults(
    numbers: Array, features: Features, checked: CheckedPolygons, faults: Faults, path: str
) -> None:
    for number, name, fault in zip(numbers.tolist(), features.ids, checked.faults, strict=True):
        if fault == OUTSIDE:
            raise RequestError(
                f"{path}: {_label(number, name)} is outside the Earth: is its CRS the one declared?"
            )
        if fault:
            described = "no geometry" if fault == EMPTY else fault
            faults.add(number, name, f"{described}: left out")
    for number, name, repair in zip(numbers.tolist(), features.ids, checked.repairs, strict=True):
        if repair:
            faults.add(number, name, f"made valid: {repair}")


class _SeenIds:
    """The ids that have been used so far, in eight bytes per field.

    Their hashes are in sorted arrays, each at least twice as long as the next. For ten million
    fields that is about twenty arrays to search, and each hash is merged about twenty times.
    """

    def __init__(self) -> None:
        self._arrays: list[Array] = []
        self._repeated = 0

    def record(self, numbers: Array, ids: Sequence[Any], faults: Faults) -> None:
        """Add a batch of ids, and record the fields whose id an earlier field has."""
        with_id = [index for index, name in enumerate(ids) if name is not None]
        hashes = np.array([hash(_text(ids[index])) for index in with_id], np.int64)

        # Repeats of an earlier batch, then those within this batch: all but the first of each.
        known = np.zeros(len(hashes), bool)
        for array in self._arrays:
            positions = np.searchsorted(array, hashes)
            known |= array[np.minimum(positions, len(array) - 1)] == hashes
        unique, firsts = np.unique(hashes, return_index=True)
        repeated = np.ones(len(hashes), bool)
        repeated[firsts] = False
        for position in np.flatnonzero(known | repeated).tolist():
            self._repeated += 1
            if self._repeated > _MAX_REPEATED:
                break
            index = with_id[position]
            note = "; later ones are not listed" if self._repeated == _MAX_REPEATED else ""
            faults.add(int(numbers[index]), ids[index], f"an earlier field has the same id{note}")

        # Merge from the end until each array is twice as long as the next again.
        if len(unique):
            self._arrays.append(unique)
        while len(self._arrays) > 1 and len(self._arrays[-2]) < 2 * len(self._arrays[-1]):
            last_two = self._arrays.pop(), self._arrays.pop()
            self._arrays.append(np.union1d(*last_two))


def _texts(values: Sequence[Any]) -> list[str | None]:
    texts: list[str | None] = []
    for value in values:
        texts.append(None if value is None else _text(value))
    return texts


def _text(name: Any) -> str:
    return name if isinstance(name, str) else json.dumps(name, default=str)


def _label(number: Any, name: Any) -> str:
    return f"field {number}" + ("" if name is None else f" (id {name})")
