"""Tasks of a plan as sequences that are read when they are needed, however many there are."""

from __future__ import annotations

import io
from abc import abstractmethod
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import accumulate
from operator import eq
from threading import Lock
from typing import IO, Any, overload

import pyarrow as pa
import pyarrow.json
import pyarrow.parquet as pq

from scenebeam.errors import StorageError
from scenebeam.storage import Store
from scenebeam.tasks import Estimate, Task

_SCHEMA = pa.schema(
    [
        ("task", pa.string()),
        ("outputs", pa.list_(pa.string())),
        *((name, pa.int64()) for name in Estimate.model_fields),
        ("definition", pa.string()),
    ]
)
_GROUP_ROWS, _GROUP_BYTES = 1000, 4 * 2**20
"""Tasks of a row group, and bytes of their definitions, at most: who reads one task reads its
row group."""
_SMALL_FILE = 8 * 2**20
"""Bytes up to which a file is read at once, which takes a single request."""
_KEPT_TASKS, _KEPT_GROUPS = 1000, 4
"""Tasks, and row groups, that stay in memory after they were read."""


class LazyTasks(Sequence[Task]):
    """Tasks that exist only while they are used."""

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(map(eq, self, other))

    @overload
    def __getitem__(self, index: int) -> Task: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Task]: ...
    def __getitem__(self, index: int | slice) -> Task | Sequence[Task]:
        rows = range(len(self))[index]
        return self._at(rows) if isinstance(rows, int) else TaskRows(self, rows)

    def __iter__(self) -> Iterator[Task]:
        for row in range(len(self)):
            yield self._at(row)

    @abstractmethod
    def _at(self, row: int) -> Task:
        """Return the task of a row from 0."""


class TaskRows(LazyTasks):
    """Some of the tasks of a sequence."""

    def __init__(self, tasks: Sequence[Task], rows: Sequence[int]) -> None:
        """Choose tasks by their places in the sequence."""
        self.rows = rows
        self._tasks = tasks

    def __len__(self) -> int:
        return len(self.rows)

    def _at(self, row: int) -> Task:
        return self._tasks[self.rows[row]]


class StoredTasks(LazyTasks):
    """The tasks of a `plan.parquet`. What was read last is kept; threads may share it."""

    def __init__(self, store: Store, key: str, model: type[Task]) -> None:
        """Open the file. Only its footer is read, unless it is small.

        Args:
            store: Where the file is.
            key: Its key.
            model: The model of the tasks.

        Raises:
            StorageError: The file does not exist, or is not a plan.
        """
        self._uri, self._model = store.uri_for(key), model
        # Not `pq.read_table`: it imports pandas, and its threads may abort a process that ends
        # soon afterwards.
        try:
            self._file = pq.ParquetFile(_open(store, key))
        except pa.ArrowException as error:
            raise unreadable(self._uri, error) from error
        metadata = self._file.metadata
        sizes = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
        self._starts = list(accumulate(sizes, initial=0))
        self._lock = Lock()
        self._definitions = lru_cache(_KEPT_GROUPS)(self._read_definitions)
        self._task = lru_cache(_KEPT_TASKS)(self._parse)

    def __len__(self) -> int:
        return int(self._starts[-1])

    def _at(self, row: int) -> Task:
        return self._task(row)

    def _parse(self, row: int) -> Task:
        group = bisect_right(self._starts, row) - 1
        with self._lock:
            definition = self._definitions(group)[row - self._starts[group]]
        try:
            return self._model.model_validate_json(definition)
        except ValueError as error:
            raise unreadable(self._uri, error) from error

    def _read_definitions(self, group: int) -> list[str]:
        try:
            table = self._file.read_row_group(group, ["definition"], use_threads=False)
        except pa.ArrowException as error:
            raise unreadable(self._uri, error) from error
        definitions: list[str] = table.column("definition").to_pylist()
        return definitions


def unreadable(uri: str, error: Exception) -> StorageError:
    """Return the error of a plan that this version cannot read."""
    return StorageError(
        f"the plan {uri} cannot be read (made by another version?): {error}; run again with "
        "--overwrite"
    )


def _open(store: Store, key: str) -> IO[bytes]:
    size = store.size(key)
    if size is not None and size <= _SMALL_FILE:
        return io.BytesIO(store.read(key) or b"")
    return store.open_read(key)


def store_tasks(tasks: Sequence[Task], store: Store, key: str) -> None:
    """Write tasks as a Parquet file with a row per task, some at a time.

    Args:
        tasks: The tasks.
        store: Where the file is written.
        key: Its key.
    """
    with (
        store.open_write(key) as file,
        pq.ParquetWriter(file, _SCHEMA, compression="zstd") as writer,
    ):
        for rows in _row_groups(tasks):
            writer.write_table(_table(rows))


def _row_groups(tasks: Sequence[Task]) -> Iterator[list[dict[str, Any]]]:
    rows: list[dict[str, Any]] = []
    size = 0
    for task in tasks:
        definition = task.model_dump_json()
        row = {"task": task.id, "outputs": list(task.outputs), **task.estimate.model_dump()}
        rows.append({**row, "definition": definition})
        size += len(definition)
        if len(rows) == _GROUP_ROWS or size > _GROUP_BYTES:
            yield rows
            rows, size = [], 0
    if rows:
        yield rows


def _table(rows: list[dict[str, Any]]) -> pa.Table:
    """Convert rows to a table by columns: `pa.Table.from_pylist` would import pandas."""
    columns = [pa.array([row[field.name] for row in rows], field.type) for field in _SCHEMA]
    return pa.table(columns, schema=_SCHEMA)
