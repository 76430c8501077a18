"""Tables as CSV: what scenebeam writes for people and other programs, and what it reads of theirs."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from scenebeam.errors import RequestError

_DELIMITERS = (",", "\t", ";")
_NOTHING = frozenset({"", "nan", "nat", "none", "null", "<na>"})


class File(Protocol):
    """What can be stored under a name."""

    def to_bytes(self) -> bytes:
        """As it is stored."""
        ...


class Table(NamedTuple):
    """Columns, and rows by column name; what is not known is None, and an empty field in the file."""

    columns: Sequence[str]
    rows: Sequence[Mapping[str, Any]]

    def to_bytes(self) -> bytes:
        """As a CSV file."""
        text = io.StringIO()
        writer = csv.DictWriter(text, self.columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        return text.getvalue().encode()


class Row(NamedTuple):
    """A row of a table that was read."""

    line: int
    """Line of the file that it ends on."""
    cells: dict[str, str]
    extra: tuple[str, ...]
    """Cells beyond the last column."""


def read_rows(path: Path, columns: Iterable[str]) -> list[dict[str, str]]:
    """Read the rows of a CSV file; see `parse_rows`."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise RequestError(f"cannot read the table {path}: {error}") from None
    return [row.cells for row in parse_rows(content, str(path), columns)]


def parse_rows(content: bytes, name: str, columns: Iterable[str]) -> list[Row]:
    """Parse a table in UTF-8, with or without a byte order mark.

    Columns may be separated by commas, tabs or semicolons, and come in any order.

    Args:
        content: The file.
        name: What messages call it.
        columns: Columns that it must have.

    Returns:
        Its rows, without those whose cells are all empty.

    Raises:
        RequestError: It cannot be read, has no rows, or lacks columns, which are named.
    """
    wanted = list(columns)
    try:
        text = content.decode("utf-8-sig")
        delimiter = _find_delimiter(text, wanted)
        lines = io.StringIO(text, newline="")
        reader = csv.reader(lines, delimiter=delimiter, skipinitialspace=True)
        records = [(reader.line_num, record) for record in reader if any(map(str.strip, record))]
    except (UnicodeDecodeError, csv.Error) as error:
        raise RequestError(f"cannot read the table {name}: {error}") from None
    header = [cell.strip() for cell in records[0][1]] if records else []
    missing = [column for column in wanted if column not in header]
    if missing:
        there = ", ".join(header)
        raise RequestError(f"{name} lacks the columns {', '.join(missing)}; it has {there}")
    if not records[1:]:
        raise RequestError(f"{name} has no rows")
    rows = []
    for line, record in records[1:]:
        cells = dict.fromkeys(header, "") | dict(zip(header, record, strict=False))
        rows.append(Row(line, cells, tuple(record[len(header) :])))
    return rows


def _find_delimiter(text: str, columns: Sequence[str]) -> str:
    """The separator by which the header has all columns that are wanted; else the comma."""
    first = next((line for line in text.splitlines() if line.strip()), "")
    for delimiter in _DELIMITERS:
        names = {cell.strip() for cell in next(csv.reader([first], delimiter=delimiter), [])}
        if names.issuperset(columns):
            return delimiter
    return _DELIMITERS[0]


def is_empty(text: str | None) -> bool:
    """Whether a cell says nothing: blank, or what pandas writes for a missing value."""
    return (text or "").strip().lower() in _NOTHING


def read_number(row: Mapping[str, str], column: str, where: str) -> float | None:
    """Read a number of a row; None where it is empty. RequestError where it is not a number."""
    text = row.get(column) or ""
    if is_empty(text):
        return None
    try:
        return float(text)
    except ValueError:
        raise RequestError(f"{where}: {column} {text!r} is not a number") from None


def read_day(row: Mapping[str, str], column: str, where: str) -> datetime | None:
    """A time or day in a row; None where it is empty. RequestError where it is no time."""
    text = (row.get(column) or "").strip()
    if is_empty(text):
        return None
    try:
        found = datetime.fromisoformat(text)
        return found if found.tzinfo else found.replace(tzinfo=UTC)
    except ValueError:
        raise RequestError(f"{where}: {column} {text!r} is no time") from None
