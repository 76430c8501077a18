"""Outcomes of a run as files: workers write parts, parts are merged by a tree, the report reads.

    outcomes/20261128T100000Z/00000000.parquet          of the rows of the plan from 0
    outcomes/20261128T100000Z/00000100.parquet          …
    outcomes/20261128T100000Z/merged/00000000.parquet   many of them in one file

A part holds the outcomes of one range of rows of the plan, and says that the range was made: a
worker that gets the same range again leaves it alone. The folder belongs to one run, so the next
run tries again what has failed. The report deletes it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence, ValuesView
from functools import lru_cache

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from scenebeam.status import RunStatus
from scenebeam.storage import Store
from scenebeam.tasks import Outcome

OUTCOMES_PREFIX = "outcomes/"
_SCHEMA = pa.schema([("task", pa.string()), ("outcome", pa.string())])
_GROUP_ROWS = 1000
"""Outcomes of a row group, which are in memory at once."""
_STALLED = "stalled/"
"""Folder of the notes about tasks that have stalled."""
_KEPT_GROUPS = 4
"""Row groups that stay in memory after they were read, and files that stay open."""


def outcomes_folder(status: RunStatus) -> str:
    """Return the prefix of the outcomes of a run, which has started."""
    return f"{OUTCOMES_PREFIX}{status.started:%Y%m%dT%H%M%SZ}/"


def part_key(folder: str, first: int) -> str:
    """Return the key of the part of the rows of a plan that begin with `first`."""
    return f"{folder}{first:08d}.parquet"


def stall_key(part: str) -> str:
    """Return the key of the note that names the task of a range that has stalled."""
    folder, _, name = part.rpartition("/")
    return f"{folder}/{_STALLED}{name.removesuffix('.parquet')}.json"


def stalled_tasks(folder: str, store: Store) -> list[str]:
    """Return the ids of the tasks of a run that have stalled, each with its host.

    Args:
        folder: Prefix of the outcomes of the run.
        store: The output.
    """
    tasks = []
    for key in sorted(store.list(f"{folder}{_STALLED}")):
        content = store.read(key)
        if content is not None:
            note = json.loads(content)
            tasks.append(f"{note['task']} on {note['host']} since {note['noticed']}")
    return tasks


def write_part(outcomes: Sequence[Outcome], store: Store, key: str) -> None:
    """Write the outcomes of a range, a row for each."""
    _write(((outcome.task, outcome.model_dump_json()) for outcome in outcomes), store, key)


def merge_parts(keys: Iterable[str], store: Store) -> str:
    """Merge parts into one file, and delete them. It may be repeated at any time.

    Args:
        keys: Keys of parts, at least one.
        store: Where they are.

    Returns:
        The key of the file.
    """
    ordered = sorted(keys)
    folder, _, name = ordered[0].rpartition("/")
    merged = f"{folder}/merged/{name}"
    # If it exists, an earlier attempt has written it, and may have deleted some of the parts.
    if store.size(merged) is None:
        _write(_rows(ordered, store), store, merged)
    store.delete(ordered)
    return merged


def delete_outcomes(folder: str, store: Store) -> None:
    """Delete the outcomes of a run, and of earlier ones that have not come to their report."""
    last = f"{folder}\U0010ffff"
    store.delete(sorted(key for key in store.list(OUTCOMES_PREFIX) if key < last))


def _write(rows: Iterable[tuple[str, str]], store: Store, key: str) -> None:
    with (
        store.open_write(key) as file,
        pq.ParquetWriter(file, _SCHEMA, compression="zstd") as writer,
    ):
        group: list[tuple[str, str]] = []
        for row in rows:
            group.append(row)
            if len(group) == _GROUP_ROWS:
                writer.write_table(_table(group))
                group = []
        writer.write_table(_table(group))


def _table(rows: Sequence[tuple[str, str]]) -> pa.Table:
    tasks, outcomes = zip(*rows, strict=True) if rows else ((), ())
    return pa.table([pa.array(tasks, pa.string()), pa.array(outcomes, pa.string())], schema=_SCHEMA)


def _rows(keys: Iterable[str], store: Store) -> Iterator[tuple[str, str]]:
    """Yield (task, outcome) of all rows of some files; those that do not exist have none."""
    for key in keys:
        if store.size(key) is None:
            continue
        with store.open_read(key) as content:
            file = pq.ParquetFile(content)
            for group in range(file.metadata.num_row_groups):
                columns = file.read_row_group(group, use_threads=False).columns
                tasks, outcomes = (column.to_pylist() for column in columns)
                yield from zip(tasks, outcomes, strict=True)


class Outcomes(Mapping[str, Outcome]):
    """Outcomes by task id. They are read from files when they are used.

    In memory are 16 bytes per outcome, by which it is found, and some row groups. It is fast if
    tasks are looked up in the order of the plan.
    """

    def __init__(self, keys: Iterable[str], store: Store) -> None:
        """Index some files of outcomes.

        Args:
            keys: Their keys; those that do not exist are left out.
            store: Where they are.
        """
        self._keys = [key for key in sorted(keys) if store.size(key) is not None]
        self._store = store
        self._file = lru_cache(_KEPT_GROUPS)(self._open_file)
        hashes: list[np.ndarray[tuple[int], np.dtype[np.int64]]] = []
        self._groups: list[tuple[int, int]] = []
        """(number of the file, number of the row group) of each row group."""
        self._starts = [0]
        """First row of each row group, and the number of all rows."""
        for number in range(len(self._keys)):
            file = self._file(number)
            for group in range(file.metadata.num_row_groups):
                tasks = file.read_row_group(group, ["task"], use_threads=False)[0].to_pylist()
                hashes.append(np.fromiter(map(hash, tasks), np.int64, len(tasks)))
                self._groups.append((number, group))
                self._starts.append(self._starts[-1] + len(tasks))
        every = np.concatenate(hashes) if hashes else np.empty(0, np.int64)
        self._order = np.argsort(every, kind="stable")
        self._hashes = every[self._order]
        self._read = lru_cache(_KEPT_GROUPS)(self._read_group)

    def __len__(self) -> int:
        return self._starts[-1]

    def __iter__(self) -> Iterator[str]:
        for group in range(len(self._groups)):
            yield from self._read(group)[0]

    def values(self) -> ValuesView[Outcome]:
        return _Values(self)

    def read_all(self) -> Iterator[Outcome]:
        """Read all outcomes from front to back."""
        for group in range(len(self._groups)):
            for text in self._read(group)[1]:
                yield Outcome.model_validate_json(text)

    def __getitem__(self, task: str) -> Outcome:
        key = hash(task)
        place = int(np.searchsorted(self._hashes, key))
        # Different ids may have the same hash.
        while place < len(self._hashes) and self._hashes[place] == key:
            row = int(self._order[place])
            group = int(np.searchsorted(self._starts, row, "right")) - 1
            tasks, outcomes = self._read(group)
            if tasks[row - self._starts[group]] == task:
                return Outcome.model_validate_json(outcomes[row - self._starts[group]])
            place += 1
        raise KeyError(task)

    def _read_group(self, group: int) -> tuple[list[str], list[str]]:
        number, row_group = self._groups[group]
        columns = self._file(number).read_row_group(row_group, use_threads=False).columns
        tasks, outcomes = (column.to_pylist() for column in columns)
        return tasks, outcomes

    def _open_file(self, number: int) -> pq.ParquetFile:
        return pq.ParquetFile(self._store.open_read(self._keys[number]))


class _Values(ValuesView[Outcome]):
    """The outcomes, without looking each of them up."""

    def __init__(self, outcomes: Outcomes) -> None:
        super().__init__(outcomes)
        self._outcomes = outcomes

    def __iter__(self) -> Iterator[Outcome]:
        return self._outcomes.read_all()
