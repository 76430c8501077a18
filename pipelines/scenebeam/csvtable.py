"""Tables as CSV: what scenebeam writes for people and other programs, and what it reads of theirs."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from scenebeam.errors import RequestError


class File(Protocol):
    """What can be stored under a name."""

    def dump(self) -> bytes:
        """As it is stored."""
        ...


class Table(NamedTuple):
    """Columns, and rows by column name; what is not known is None, and an empty field in the file."""

    columns: Sequence[str]
    rows: Sequence[Mapping[str, Any]]

    def dump(self) -> bytes:
        """As a CSV file."""
        text = io.StringIO()
        writer = csv.DictWriter(text, self.columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        return text.getvalue().encode()


def read_rows(path: Path, columns: Iterable[str]) -> list[dict[str, str]]:
    """The rows of a CSV file. RequestError where it cannot be read, has no rows, or lacks columns: it names them."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            rows = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise RequestError(f"cannot read the table {path}: {error}") from None
    missing = [name for name in columns if name not in (reader.fieldnames or ())]
    if missing:
        raise RequestError(
            f"{path} lacks the columns {', '.join(missing)}; it has {', '.join(reader.fieldnames or ())}"
        )
    if not rows:
        raise RequestError(f"{path} has no rows")
    return rows


def read_day(row: Mapping[str, str], column: str, where: str) -> datetime | None:
    """A time or day in a row; None where it is empty. RequestError where it is no time."""
    text = (row.get(column) or "").strip()
    if not text:
        return None
    try:
        found = datetime.fromisoformat(text)
        return found if found.tzinfo else found.replace(tzinfo=UTC)
    except ValueError:
        raise RequestError(f"{where}: {column} {text!r} is no time") from None
