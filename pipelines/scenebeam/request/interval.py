"""Dates of a request: days, months, years, and intervals."""

from __future__ import annotations

import re
from calendar import monthrange
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from pydantic import BeforeValidator

MAX_DAYS = 36_500
"""Widest window around a day. Sums of dates then stay inside the years that Python supports."""
_FORMS = (
    "write a day as 2023-02-03, a month as 2023-02, a year as 2023, and an interval with a slash "
    "between its ends, as in 2023-02-01/2023-02-28"
)
_LAST_DAYS = re.compile(r"last ([0-9]{1,6}) days?")
_OPEN_END = "/.."
_FIRST_YEAR, _LAST_YEAR = 1800, 2999


def _parse_day(text: str, *, end: bool) -> datetime:
    """Parse `2023`, `2023-02`, `2023-02-03` or an RFC 3339 time.

    Returns:
        The first instant of the period, or its last one for an end.
    """
    text = text.strip()
    match = re.fullmatch(r"([0-9]{4})(?:-([0-9]{2}))?(?:-([0-9]{2}))?", text)
    try:
        if match is None:
            instant = datetime.fromisoformat(text)
            _check_year(instant.year)
            return instant if instant.tzinfo else instant.replace(tzinfo=UTC)
        year, month, day = (int(part) if part else None for part in match.groups())
        assert year is not None
        _check_year(year)
        if not end:
            return datetime(year, month or 1, day or 1, tzinfo=UTC)
        month = month or 12
        day = day or monthrange(year, month)[1]
        return (
            datetime(year, month, day, tzinfo=UTC) + timedelta(days=1) - timedelta(microseconds=1)
        )
    except ValueError as error:
        reason = str(error) if match or "year" in str(error) else _FORMS
        raise ValueError(f"{text[:100]!r} is not a date like 2023-02-03: {reason}") from None


def _check_year(year: int) -> None:
    if not _FIRST_YEAR <= year <= _LAST_YEAR:
        raise ValueError(f"the year must be from {_FIRST_YEAR} to {_LAST_YEAR}, not {year}")


def today() -> datetime:
    """Return the last instant of the current day, in UTC."""
    day = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return day + timedelta(days=1) - timedelta(microseconds=1)


def is_rolling(text: str) -> bool:
    """Whether an interval starts at another date each day, as `last 30 days` does."""
    return _LAST_DAYS.fullmatch(text.strip()) is not None


def parse_interval(text: str) -> tuple[datetime, datetime]:
    """Parse `start/end` or a single date.

    Args:
        text: Dates such as `2023-02-01/2023-02-28`; also a year, a month or an RFC 3339 time.
            `2023-02-01/..` ends with the current day, and so does `last 30 days`.

    Returns:
        The first and the last instant, both included.

    Raises:
        ValueError: A date is not valid, or the end is before the start.
    """
    if re.fullmatch(r"\s*[0-9]{1,4}/[0-9]{1,2}/[0-9]{1,4}\s*", str(text)):
        raise ValueError(f"{text!r} is not a date like 2023-02-03: {_FORMS}")
    if match := _LAST_DAYS.fullmatch(str(text).strip()):
        days = int(match[1])
        if not 1 <= days <= MAX_DAYS:
            raise ValueError(f"{text!r}: the number of days must be from 1 to {MAX_DAYS:,}")
        return today() - timedelta(days=days) + timedelta(microseconds=1), today()
    if str(text).strip().endswith(_OPEN_END):
        start = _parse_day(str(text).strip().removesuffix(_OPEN_END), end=False)
        if start > today():
            raise ValueError(f"{text!r} starts in the future")
        return start, today()
    first, slash, last = str(text).partition("/")
    start, end = _parse_day(first, end=False), _parse_day(last if slash else first, end=True)
    if end < start:
        raise ValueError(f"dates are reversed: {text!r} ends before it starts")
    return start, end


def _check_interval(value: Any) -> str:
    text = str(value)
    parse_interval(text)
    return text


Interval = Annotated[str, BeforeValidator(_check_interval, json_schema_input_type=str | int)]
