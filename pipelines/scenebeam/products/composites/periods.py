"""The periods of composites. Pure functions of dates."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from scenebeam.request.interval import parse_interval

Interval = tuple[datetime, datetime]
"""First and last instant, both inclusive."""
_LAST = timedelta(microseconds=1)
_MAX_PERIODS = 10_000
CALENDAR = {"month": 1, "quarter": 3, "year": 12}
"""Calendar period → its months."""


@dataclass(frozen=True)
class Period:
    """One image: its folder, and when its observations are from."""

    name: str
    start: datetime
    end: datetime
    """Last instant, included."""
    fallback: Interval | None = None
    """A longer period that contains it."""


def parse_duration(text: str) -> tuple[int, str]:
    """Parse a duration such as `P10D`.

    Returns:
        Number and unit: `D`, `W`, `M` or `Y`.

    Raises:
        ValueError: It is not such a duration, or is not positive.
    """
    match = re.fullmatch(r"P([0-9]{1,4})([DWMY])", str(text))
    if match is None or not int(match[1]):
        raise ValueError(f"{text!r} is not month, quarter, year or a duration such as P10D or P2M")
    return int(match[1]), match[2]


def find_periods(
    period: str | Sequence[str],
    dates: Sequence[Interval],
    fallback: str | None,
    *,
    whole: bool = False,
) -> list[Period]:
    """Return the periods of a request, in order.

    Args:
        period: `month`, `quarter`, `year`, a duration, or a list of intervals.
        dates: What the request covers. Calendar periods that overlap any of it count; a duration
            is counted from the start of the first, and its last period ends with the last date.
        fallback: A longer period, or None.
        whole: Do not end the last period with the last date: in a series, that is another one each
            day.

    Raises:
        ValueError: There are too many periods.
    """
    if not isinstance(period, str):
        found = [_of_days(*parse_interval(text)) for text in period]
    elif not dates:
        found = []
    elif period in CALENDAR:
        found = _calendar_periods(period, dates)
    else:
        found = _durations(period, dates, whole=whole)
    if fallback is not None:
        found = [_with_fallback(one, fallback) for one in found]
    return found


def _calendar_periods(period: str, dates: Sequence[Interval]) -> list[Period]:
    found: dict[str, Period] = {}
    for first, last in sorted(dates):
        start = _calendar_start(first, period)
        while start <= last:
            following = _add_months(start, CALENDAR[period])
            name = _calendar_name(start, period)
            found[name] = Period(name, start, following - _LAST)
            start = following
            _check_number(len(found))
    return list(found.values())


def _durations(period: str, dates: Sequence[Interval], *, whole: bool) -> list[Period]:
    number, unit = parse_duration(period)
    start, end = min(first for first, _ in dates), max(last for _, last in dates)
    start = start.replace(hour=0, minute=0, second=0, microsecond=0)
    found = []
    for index in range(_MAX_PERIODS + 1):
        begins = _add(start, number * index, unit)
        if begins > end:
            break
        _check_number(index + 1)
        last = _add(start, number * (index + 1), unit) - _LAST
        found.append(_of_days(begins, last if whole else min(last, end)))
    return found


def _add(start: datetime, number: int, unit: str) -> datetime:
    if unit in "DW":
        return start + timedelta(days=number * (7 if unit == "W" else 1))
    return _add_months(start, number * (12 if unit == "Y" else 1))


def _add_months(start: datetime, months: int) -> datetime:
    """Add months; the day is cut to the length of the month."""
    year, month = divmod(start.year * 12 + start.month - 1 + months, 12)
    following = datetime(year + (month == 11), month % 12 + 2 if month < 11 else 1, 1, tzinfo=UTC)
    last_day = (following - timedelta(days=1)).day
    return start.replace(year=year, month=month + 1, day=min(start.day, last_day))


def _of_days(start: datetime, end: datetime) -> Period:
    return Period(f"{start:%Y%m%d}-{end:%Y%m%d}", start, end)


def _calendar_start(instant: datetime, period: str) -> datetime:
    months = CALENDAR[period]
    month = (instant.month - 1) // months * months + 1
    return datetime(instant.year, month, 1, tzinfo=UTC)


def _calendar_name(start: datetime, period: str) -> str:
    if period == "year":
        return f"{start:%Y}"
    return f"{start:%Y-%m}" if period == "month" else f"{start:%Y}-Q{(start.month + 2) // 3}"


def _with_fallback(period: Period, fallback: str) -> Period:
    """Add the longer period: the calendar period that it is in, or a duration around its middle."""
    if fallback in CALENDAR:
        start = _calendar_start(period.start, fallback)
        longer = start, _add_months(start, CALENDAR[fallback]) - _LAST
    else:
        number, unit = parse_duration(fallback)
        length = _add(period.start, number, unit) - period.start
        middle = period.start + (period.end - period.start) / 2
        longer = middle - length / 2, middle + length / 2
    longer = min(longer[0], period.start), max(longer[1], period.end)
    return Period(period.name, period.start, period.end, longer)


def _check_number(count: int) -> None:
    if count > _MAX_PERIODS:
        raise ValueError(f"product.period: more than {_MAX_PERIODS:,} periods; use longer ones")
