"""CSV tables: those that scenebeam writes, and those of users that it reads."""

from __future__ import annotations

import csv
import io
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from scenebeam.errors import RequestError

_DELIMITERS = (",", "\t", ";")
_EMPTY = frozenset({"", "nan", "nat", "none", "null", "<na>"})
"""What stands for a missing value, in lower case."""
_ROWS_AT_ONCE = 1000
"""Rows of a table that are in memory while it is written."""


class File(ABC):
    """Content that can be stored."""

    @abstractmethod
    def to_bytes(self) -> bytes:
        """Serialize the content."""

    def write_to(self, file: Writable) -> None:
        """Write the content to a file; where it is large, piece by piece."""
        file.write(self.to_bytes())


class Writable(Protocol):
    """A binary file that is written."""

    def write(self, data: bytes, /) -> object:
        """Append bytes."""
        ...


@dataclass(frozen=True)
class Table(File):
    """Columns, and rows by column name. A missing value is None, and an empty field in the file.

    Rows may be computed when they are written, so that a long table is never in memory.
    """

    columns: Sequence[str]
    rows: Iterable[Mapping[str, Any]]

    def to_bytes(self) -> bytes:
        """Serialize to CSV in UTF-8, with a header."""
        content = io.BytesIO()
        self.write_to(content)
        return content.getvalue()

    def write_to(self, file: Writable) -> None:
        text = io.StringIO()
        writer = csv.DictWriter(text, self.columns, lineterminator="\n")
        writer.writeheader()
        for number, row in enumerate(self.rows, 1):
            writer.writerow(row)
            if number % _ROWS_AT_ONCE == 0:
                file.write(text.getvalue().encode())
                text.seek(0)
                text.truncate()
        file.write(text.getvalue().encode())


class Row(NamedTuple):
    """A row of a table that was read."""

    line: int
    """Line of the file on which the row ends, from 1."""
    cells: dict[str, str]
    """Text by column name; empty where the row is shorter than the header."""
    extra: tuple[str, ...]
    """Cells beyond the last column."""


def read_rows(path: Path, columns: Iterable[str]) -> list[dict[str, str]]:
    """Read the cells of a CSV file.

    Args:
        path: The file.
        columns: Columns that the file must have.

    Returns:
        The cells of each row, by column name.

    Raises:
        RequestError: See `parse_rows`.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise RequestError(f"cannot read the table {path}: {error}") from None
    return [row.cells for row in parse_rows(content, str(path), columns)]


def parse_rows(content: bytes, name: str, columns: Iterable[str]) -> list[Row]:
    """Parse a table in UTF-8, with or without a byte order mark.

    Columns may be separated by commas, tabs or semicolons, and may be in any order.

    Args:
        content: Content of the file.
        name: Name of the file, for messages.
        columns: Columns that the file must have.

    Returns:
        The rows, without those whose cells are all empty.

    Raises:
        RequestError: The content is not CSV in UTF-8, has no rows, or lacks columns (the message
            names them).
    """
    required = list(columns)
    try:
        text = content.decode("utf-8-sig")
        delimiter = _find_delimiter(text, required)
        lines = io.StringIO(text, newline="")
        reader = csv.reader(lines, delimiter=delimiter, skipinitialspace=True)
        # The line number belongs to the row just read, so it is recorded while iterating.
        records = [(reader.line_num, record) for record in reader if any(map(str.strip, record))]
    except (UnicodeDecodeError, csv.Error) as error:
        raise RequestError(f"cannot read the table {name}: {error}") from None
    header = [cell.strip() for cell in records[0][1]] if records else []
    missing = [column for column in required if column not in header]
    if missing:
        existing = ", ".join(header)
        raise RequestError(f"{name} lacks the columns {', '.join(missing)}; it has {existing}")
    if not records[1:]:
        raise RequestError(f"{name} has no rows")
    rows = []
    for line, record in records[1:]:
        cells = dict.fromkeys(header, "") | dict(zip(header, record, strict=False))
        rows.append(Row(line, cells, tuple(record[len(header) :])))
    return rows


def _find_delimiter(text: str, columns: Sequence[str]) -> str:
    """Return the delimiter with which the header has all columns; without one, the comma."""
    header = next(filter(str.strip, text.splitlines()), "")
    for delimiter in _DELIMITERS:
        cells = next(csv.reader([header], delimiter=delimiter), [])
        if set(map(str.strip, cells)).issuperset(columns):
            return delimiter
    return _DELIMITERS[0]


def is_empty(text: str | None) -> bool:
    """Return whether a cell is blank, or holds what pandas writes for a missing value."""
    return (text or "").strip().lower() in _EMPTY


def read_number(row: Mapping[str, str], column: str, where: str) -> float | None:
    """Read a number.

    Args:
        row: The cells of a row.
        column: The column to read; it may be missing.
        where: The row's place in the file, for messages.

    Returns:
        The number; None if the cell is empty.

    Raises:
        RequestError: The cell is not a number.
    """
    text = row.get(column) or ""
    if is_empty(text):
        return None
    try:
        return float(text)
    except ValueError:
        raise RequestError(f"{where}: {column} {text!r} is not a number") from None


def read_day(row: Mapping[str, str], column: str, where: str) -> datetime | None:
    """Read a date or time in ISO 8601.

    Args:
        row: The cells of a row.
        column: The column to read; it may be missing.
        where: The row's place in the file, for messages.

    Returns:
        The time, in UTC if the cell has no time zone; None if the cell is empty.

    Raises:
        RequestError: The cell is not a valid date or time.
    """
    text = (row.get(column) or "").strip()
    if is_empty(text):
        return None
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise RequestError(f"{where}: {column} {text!r} is not a valid date or time") from None
    return time if time.tzinfo else time.replace(tzinfo=UTC)
