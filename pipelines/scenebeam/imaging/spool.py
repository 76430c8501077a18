"""Spool rows to local disk until the plan is frozen.

Workers read what concerns them from the store. The files must not appear in the store before the
plan is accepted, and all rows of a large data set do not fit in memory. So each batch of rows is
appended to a temporary folder per key.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
import pyarrow.parquet as pq

from scenebeam.csvtable import File


@dataclass(frozen=True)
class SpooledFile(File):
    """The rows of one key on local disk."""

    folder: Path
    holder: TemporaryDirectory[str] = field(repr=False)
    """Removes the files when it is garbage-collected."""

    def table(self) -> pa.Table:
        """Return all rows, in the order in which they were added."""
        tables = [pq.ParquetFile(path).read() for path in sorted(self.folder.iterdir())]
        return pa.concat_tables(tables)

    def to_bytes(self) -> bytes:
        """Return one Parquet file."""
        return parquet_bytes(self.table())


class TableSpool:
    """A temporary folder with one subfolder per key, and one file per batch in each."""

    def __init__(self) -> None:
        self._holder: TemporaryDirectory[str] = TemporaryDirectory(prefix="scenebeam-spool-")
        self._folder = Path(self._holder.name)
        self._batches = 0

    def start_batch(self) -> None:
        """Begin a batch: each key gets one table of it at most."""
        self._batches += 1

    def add(self, key: str, table: pa.Table) -> None:
        """Add the rows of the current batch to a key."""
        folder = self._folder / key
        folder.mkdir(exist_ok=True)
        pq.write_table(table, folder / f"{self._batches:06d}.parquet")

    def names(self) -> list[str]:
        """Return the keys that have rows, sorted."""
        return sorted(path.name for path in self._folder.iterdir())

    def file(self, key: str) -> SpooledFile:
        """Return the rows of a key."""
        return SpooledFile(self._folder / key, self._holder)


def parquet_bytes(table: pa.Table) -> bytes:
    """Serialize a table."""
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue()
