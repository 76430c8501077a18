"""Selection modes: choose among acquisitions by date and quality.

Pure functions: the result does not depend on the order of the candidates.

In every mode, the better of two acquisitions is the one that has all bands, then the one with less
cloud (0 is best, unknown is worst), then with more of the area covered, then nearer to the date in
question, then with the smaller name. No acquisition is selected twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from scenebeam.catalog.acquisition import Acquisition
from scenebeam.request import Select, parse_interval

Interval = tuple[datetime, datetime]
"""First and last instant, both included."""


def choose(
    candidates: Sequence[Acquisition], requested: Select, intervals: Sequence[Interval]
) -> list[Acquisition]:
    """Choose the acquisitions that `select.mode` takes.

    Args:
        candidates: The acquisitions that passed the filters.
        requested: The `select` section of the request.
        intervals: The dates of the request; if there are none, the dates of the candidates count.

    Returns:
        The chosen acquisitions in order of time, each with its `anchor`.
    """
    if requested.mode == "all" or not candidates:
        return list(candidates)
    # A row of a time-series table may have no scenes: there is nothing to compare.
    candidates = [acquisition for acquisition in candidates if acquisition.scenes]
    if not candidates:
        return []
    first, last = _date_range(candidates, intervals)
    if requested.mode == "least-cloudy-per-period":
        if isinstance(requested.period, str):
            periods = calendar_periods(first, last, requested.period)
        else:
            periods = [parse_interval(text) for text in requested.period]
        chosen = least_cloudy_per_period(candidates, periods)
    else:
        covering = _with_full_cover(candidates, requested.full_cover_threshold)
        anchors = [parse_interval(day)[0] for day in requested.anchors]
        if not anchors:
            anchors = evenly_spaced_days(first, last, requested.n_anchors)
        near = best_near_anchors if requested.mode == "anchors" else nearest_to_anchors
        chosen = near(covering, anchors, requested.window_days)
    return sorted(chosen, key=lambda acquisition: acquisition.acquired)


def _date_range(candidates: Sequence[Acquisition], intervals: Sequence[Interval]) -> Interval:
    """Return the first and last instant of the request's dates, else of the candidates."""
    if intervals:
        return min(start for start, _ in intervals), max(end for _, end in intervals)
    acquired = [acquisition.acquired for acquisition in candidates]
    return min(acquired), max(acquired)


def _with_full_cover(candidates: Iterable[Acquisition], threshold: float) -> list[Acquisition]:
    covering = []
    for acquisition in candidates:
        # An unknown coverage passes: the footprints are only known once the files are opened.
        if acquisition.coverage is None or acquisition.coverage >= threshold:
            covering.append(acquisition)
    return covering


def evenly_spaced_days(first: datetime, last: datetime, count: int) -> list[datetime]:
    """Return days that are evenly spaced over a period.

    Args:
        first: First instant of the period.
        last: Last instant of the period.
        count: Number of days, at least 1.

    Returns:
        `count` instants at midnight UTC. They include the first and the last day; a single one is
        in the middle.
    """
    if count == 1:
        return [_midnight(first + (last - first) / 2)]
    return [_midnight(first + (last - first) * index / (count - 1)) for index in range(count)]


def calendar_periods(first: datetime, last: datetime, period: str) -> list[Interval]:
    """Return the calendar months or quarters (in UTC) that overlap a period, clipped to it.

    Args:
        first: First instant of the period.
        last: Last instant of the period.
        period: `month` or `quarter`.
    """
    months = {"month": 1, "quarter": 3}[period]
    # The month in which the calendar period of `first` begins: quarters begin in 1, 4, 7 and 10.
    year, month = first.year, (first.month - 1) // months * months + 1
    periods = []
    while (start := datetime(year, month, 1, tzinfo=UTC)) <= last:
        # The end is the last microsecond before the next period, as both ends are included.
        year, month = (year, month + months) if month + months <= 12 else (year + 1, 1)
        end = datetime(year, month, 1, tzinfo=UTC) - timedelta(microseconds=1)
        periods.append((max(start, first), min(end, last)))
    return periods


def best_near_anchors(
    candidates: Sequence[Acquisition], anchors: Sequence[datetime], window_days: int
) -> list[Acquisition]:
    """For each anchor in turn, choose the best acquisition within `window_days` of it, if any.

    Args:
        candidates: In any order.
        anchors: Days, as instants at midnight UTC.
        window_days: Maximum distance in calendar days.

    Returns:
        The chosen acquisitions in the order of the anchors, each with its `anchor`.
    """
    windows = _windows(candidates, anchors, window_days)
    return _choose_one_each(
        windows, lambda candidate, anchor: (*quality_key(candidate), _distance(candidate, anchor))
    )


def nearest_to_anchors(
    candidates: Sequence[Acquisition], anchors: Sequence[datetime], window_days: int
) -> list[Acquisition]:
    """For each anchor in turn, choose the nearest acquisition within `window_days`, if any.

    Of two at the same distance, the better one is chosen. For arguments and result see
    `best_near_anchors`.
    """
    windows = _windows(candidates, anchors, window_days)
    return _choose_one_each(
        windows, lambda candidate, anchor: (_distance(candidate, anchor), *quality_key(candidate))
    )


def least_cloudy_per_period(
    candidates: Sequence[Acquisition], periods: Sequence[Interval]
) -> list[Acquisition]:
    """Choose the best acquisition of each period; its `anchor` is the start of the period.

    Args:
        candidates: In any order.
        periods: Intervals; they may overlap.

    Returns:
        The chosen acquisitions in the order of the periods.
    """
    by_period = []
    for start, end in periods:
        inside = [candidate for candidate in candidates if start <= candidate.acquired <= end]
        by_period.append((start, inside))
    return _choose_one_each(
        by_period, lambda candidate, start: (*quality_key(candidate), candidate.acquired)
    )


def quality_key(acquisition: Acquisition) -> tuple[bool, bool, float, float]:
    """Return the sort key that puts better acquisitions first.

    All bands before missing ones, known cloud cover before unknown, less cloud before more, more
    of the area before less.
    """
    return (
        not acquisition.complete,
        acquisition.cloud_cover is None,
        acquisition.cloud_cover or 0.0,
        # Rounding makes coverages equal that differ only by floating-point noise.
        -round(acquisition.coverage or 0.0, 9),
    )


def _choose_one_each(
    choices: Iterable[tuple[datetime, Sequence[Acquisition]]],
    key: Callable[[Acquisition, datetime], tuple[Any, ...]],
) -> list[Acquisition]:
    """Choose one acquisition for each anchor, among those that no earlier anchor has taken.

    Args:
        choices: An anchor and the acquisitions that are eligible for it, in order of priority.
        key: Sort key of an acquisition for an anchor; the smallest wins.

    Returns:
        The chosen acquisitions; an anchor without a free one gives none.
    """
    taken: dict[str, Acquisition] = {}
    for anchor, eligible in choices:
        best: tuple[tuple[Any, ...], Acquisition] | None = None
        for acquisition in eligible:
            if acquisition.timestamp in taken:
                continue
            # The name breaks ties, so that the order of the candidates never matters.
            rank = (*key(acquisition, anchor), acquisition.timestamp)
            if best is None or rank < best[0]:
                best = rank, acquisition
        if best is not None:
            taken[best[1].timestamp] = replace(best[1], anchor=anchor)
    return list(taken.values())


def _windows(
    candidates: Sequence[Acquisition], anchors: Iterable[datetime], days: int
) -> list[tuple[datetime, list[Acquisition]]]:
    """Return each anchor with the acquisitions that are at most `days` calendar days away."""
    windows = []
    for anchor in anchors:
        near = []
        for acquisition in candidates:
            # Whole days, not hours: an acquisition in the evening is as near as one at noon.
            date = acquisition.acquired.astimezone(UTC).date()
            if abs((date - anchor.date()).days) <= days:
                near.append(acquisition)
        windows.append((anchor, near))
    return windows


def _distance(acquisition: Acquisition, anchor: datetime) -> timedelta:
    # An anchor is a day, not an instant: distances are measured from its noon.
    return abs(acquisition.acquired - (anchor + timedelta(hours=12)))


def _midnight(instant: datetime) -> datetime:
    return instant.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
