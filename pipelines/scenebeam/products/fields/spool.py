"""Spool the fields of each MGRS square until the plan is frozen: masks are drawn on workers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import shapely

from scenebeam.imaging.shards import PARTS_PREFIX
from scenebeam.imaging.spool import SpooledFile, TableSpool
from scenebeam.vectors import Geometries

_SCHEMA = pa.schema([("number", pa.int64()), ("geometry", pa.binary())])


def fields_key(square: str) -> str:
    """Return the key in the store of the fields of a square, until all masks are made."""
    return f"{PARTS_PREFIX}fields/{square}.parquet"


class FieldSpool:
    """The numbers of fields and their polygons (WKB, degrees), by MGRS square."""

    def __init__(self) -> None:
        self._spool = TableSpool()

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
        self._spool.start_batch()
        for square, unique in by_square.items():
            indices = list(unique.values())
            columns = {"number": numbers[indices], "geometry": shapely.to_wkb(polygons[indices])}
            self._spool.add(square, pa.table(columns, schema=_SCHEMA))

    def files(self, squares: Iterable[str]) -> dict[str, SpooledFile]:
        """Return the files of some squares, by their key in the store."""
        return {fields_key(square): self._spool.file(square) for square in sorted(squares)}
