"""Spool the fields of each MGRS square to local disk until the plan is frozen.

Masks are drawn on workers, which read the fields of their squares from the store. The files must
not appear in the store before the plan is accepted, and all fields of a large dataset do not fit in
memory. So each batch of fields is appended to a temporary folder per square.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import shapely

from scenebeam.imaging.shards import PARTS_PREFIX
from scenebeam.vectors import Geometries

_SCHEMA = pa.schema([("number", pa.int64()), ("geometry", pa.binary())])


def fields_key(square: str) -> str:
    """Return the key in the store of the fields of a square, until all masks are made."""
    return f"{PARTS_PREFIX}fields/{square}.parquet"


@dataclass(frozen=True)
class SpooledFile:
    """The fields of one square on local disk."""

    folder: Path
    holder: TemporaryDirectory[str] = field(repr=False)
    """Removes the files when it is garbage-collected."""

    def to_bytes(self) -> bytes:
        """Return one Parquet file with the numbers of fields and their polygons (WKB, degrees)."""
        tables = [pq.ParquetFile(path).read() for path in sorted(self.folder.iterdir())]
        sink = io.BytesIO()
        pq.write_table(pa.concat_tables(tables), sink, compression="zstd")
        return sink.getvalue()


class FieldSpool:
    """A temporary folder with one subfolder per MGRS square, and one file per batch in each."""

    def __init__(self) -> None:
        self._holder: TemporaryDirectory[str] = TemporaryDirectory(prefix="scenebeam-fields-")
        self._folder = Path(self._holder.name)
        self._batches = 0

    def add(
        self,
        squares: Sequence[str],
        numbers: np.ndarray[Any, np.dtype[Any]],
        polygons: Geometries,
    ) -> None:
        """Add one batch of fields to the squares that they are on.

        Args:
            squares: For each polygon the square of a cell that it overlaps. A polygon appears once
                per cell, so it may be listed several times for one square.
            numbers: Number of the field of each polygon.
            polygons: Polygons in degrees.
        """
        # Each polygon is written once per square. One field may have several polygons with the same
        # number, so polygons are compared by identity: repeats are the same object.
        by_square: dict[str, dict[tuple[int, int], int]] = {}
        for index, (square, number) in enumerate(zip(squares, numbers.tolist(), strict=True)):
            by_square.setdefault(square, {}).setdefault((number, id(polygons[index])), index)
        self._batches += 1
        for square, unique in by_square.items():
            indices = list(unique.values())
            columns = {"number": numbers[indices], "geometry": shapely.to_wkb(polygons[indices])}
            folder = self._folder / square
            folder.mkdir(exist_ok=True)
            path = folder / f"{self._batches:06d}.parquet"
            pq.write_table(pa.table(columns, schema=_SCHEMA), path)

    def files(self, squares: Iterable[str]) -> dict[str, SpooledFile]:
        """Return the files of some squares, by their key in the store."""
        files: dict[str, SpooledFile] = {}
        for square in sorted(squares):
            files[fields_key(square)] = SpooledFile(self._folder / square, self._holder)
        return files
