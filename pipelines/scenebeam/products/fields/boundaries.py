"""Boundaries: the fields of a vector file, batch by batch, mended where they can be."""

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

from scenebeam.csvtable import Table
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

__all__ = ["Faults", "Geometries", "read_fields"]
_NAMES = pa.schema([("number", pa.int64()), ("id", pa.string()), ("name", pa.string())])
_MOST_REPEATED = 1000
"""Repeated ids that are listed."""


@dataclass
class Faults:
    """What is wrong with fields: those that are mended or left out, and ids that are used twice."""

    rows: list[dict[str, Any]] = field(default_factory=list)

    def add(self, number: int, name: Any, what: str) -> None:
        """One more; `number` counts from 1."""
        self.rows.append({"field": number, "id": name, "fault": what})

    @property
    def table(self) -> Table:
        """A row for each."""
        return Table(("field", "id", "fault"), self.rows)


class FieldNames:
    """The ids and names of fields by their numbers, which instance masks hold; on disk while they are read."""

    def __init__(self) -> None:
        self._file = NamedTemporaryFile(prefix="scenebeam-fields-")  # noqa: SIM115 - it lives as long as this
        self._writer = pq.ParquetWriter(self._file.name, _NAMES, compression="zstd")

    def add(self, numbers: np.ndarray[Any, Any], features: Features) -> None:
        """Some fields more."""
        ids, names = (
            [None if one is None else _text(one) for one in told]
            for told in (features.ids, features.names)
        )
        self._writer.write_table(pa.table([numbers, ids, names], schema=_NAMES))

    def to_bytes(self) -> bytes:
        """One Parquet file: number, id, name."""
        self._writer.close()
        return Path(self._file.name).read_bytes()


def read_fields(
    path: str, faults: Faults, names: FieldNames | None = None
) -> Iterator[tuple[np.ndarray[Any, Any], Geometries]]:
    """Read field boundaries, up to 20,000 at a time.

    Invalid polygons are made valid, and those over the antimeridian are split there. What is no
    polygon, has no inside, or cannot be read is left out.

    Args:
        path: A vector file: a path on this machine, or an address.
        faults: Gets a row for each field that is mended or left out, or has an earlier one's id.
        names: Gets the id and name of each field.

    Yields:
        The numbers of fields, from 1 in the order of the file, and their polygons in degrees.

    Raises:
        RequestError: The file cannot be read, no field of it can be used, or one lies outside of
            the Earth, as all do whose CRS is not the one declared: it names the field.
    """
    first, any_left, seen = 1, False, _SeenIds()
    try:
        for features in read_features(path):
            numbers = np.arange(first, first + len(features.faults))
            first += len(numbers)
            checked = check_polygons(features)
            _record(numbers, features, checked, faults, redact_url(path))
            seen.record(numbers, features.ids, faults)
            if names is not None:
                names.add(numbers, features)
            there = ~shapely.is_missing(checked.polygons)
            any_left = any_left or bool(there.any())
            yield numbers[there], checked.polygons[there]
    except RequestError as error:
        raise RequestError(f"product.boundaries: {error}") from None
    if not any_left:
        told = ""
        if faults.rows:
            worst = faults.rows[0]
            told = f"; the first: {_called(worst['field'], worst['id'])} {worst['fault']}"
        raise RequestError(f"product.boundaries: no field of {redact_url(path)} can be used{told}")


def _record(
    numbers: np.ndarray[Any, Any],
    features: Features,
    checked: CheckedPolygons,
    faults: Faults,
    place: str,
) -> None:
    for number, name, fault in zip(numbers.tolist(), features.ids, checked.faults, strict=True):
        if fault == OUTSIDE:
            told = "lies outside of the Earth: is its CRS the one declared?"
            raise RequestError(f"{place}: {_called(number, name)} {told}")
        if fault:
            told = "no geometry" if fault == EMPTY else fault
            faults.add(number, name, f"{told}: left out")
    for number, name, why in zip(numbers.tolist(), features.ids, checked.repairs, strict=True):
        if why:
            faults.add(number, name, f"mended: {why}")


class _SeenIds:
    """Which ids have been used before, in eight bytes for each field.

    Hashes are kept in sorted arrays, each at least twice as long as the next: of ten million fields
    some twenty arrays are searched, and each hash is moved some twenty times.
    """

    def __init__(self) -> None:
        self._arrays: list[np.ndarray[Any, Any]] = []
        self._repeated = 0

    def record(self, numbers: np.ndarray[Any, Any], ids: Sequence[Any], faults: Faults) -> None:
        """Note fields whose id an earlier one has; they stay."""
        given = [index for index, name in enumerate(ids) if name is not None]
        hashes = np.array([hash(_text(ids[index])) for index in given], np.int64)
        known = np.zeros(len(hashes), bool)
        for array in self._arrays:
            places = np.searchsorted(array, hashes)
            known |= array[np.minimum(places, len(array) - 1)] == hashes
        fresh, firsts = np.unique(hashes, return_index=True)
        again = np.ones(len(hashes), bool)
        again[firsts] = False
        for place in np.flatnonzero(known | again).tolist():
            self._repeated += 1
            if self._repeated > _MOST_REPEATED:
                break
            index = given[place]
            last = self._repeated == _MOST_REPEATED
            told = "; later ones are not listed" if last else ""
            faults.add(int(numbers[index]), ids[index], f"an earlier field has the same id{told}")
        if len(fresh):
            self._arrays.append(fresh)
        while len(self._arrays) > 1 and len(self._arrays[-2]) < 2 * len(self._arrays[-1]):
            last_two = self._arrays.pop(), self._arrays.pop()
            self._arrays.append(np.union1d(*last_two))


def _text(name: Any) -> str:
    return name if isinstance(name, str) else json.dumps(name, default=str)


def _called(number: Any, name: Any) -> str:
    return f"field {number}" + ("" if name is None else f" (id {name})")
