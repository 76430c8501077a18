"""Modes: which of the acquisitions are taken. Pure functions: the same answer for any order of what
comes in.

In each, the better of two acquisitions is the one that has all bands, with less cloud (0 is the
best, unknown comes last), then with more of the area, then nearer to the date in question, then
with the smaller name. None is taken twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from scenebeam.catalog.acquisition import Acquisition
from scenebeam.request import Select, parse_interval

Interval = tuple[datetime, datetime]


def choose(
    candidates: Sequence[Acquisition], asked: Select, intervals: Sequence[Interval]
) -> list[Acquisition]:
    """The acquisitions that `select.mode` takes, in order of time, each with its `anchor`.

    `intervals` are the request's dates; without any, the period is that of the candidates.
    """
    if asked.mode == "all" or not candidates:
        return list(candidates)
    candidates = [one for one in candidates if one.scenes]  # a row of a table may have none
    if not candidates:
        return []
    first = min((start for start, _ in intervals), default=min(one.acquired for one in candidates))
    last = max((end for _, end in intervals), default=max(one.acquired for one in candidates))
    if asked.mode == "least-cloudy-per-period":
        given = asked.period
        periods = (
            calendar(first, last, given)
            if isinstance(given, str)
            else [parse_interval(text) for text in given]
        )
        chosen = least_cloudy_per_period(candidates, periods)
    else:
        full = [
            one
            for one in candidates
            if one.coverage is None or one.coverage >= asked.full_cover_threshold
        ]
        anchors = [parse_interval(day)[0] for day in asked.anchors] or spread(
            first, last, asked.n_anchors
        )
        take = best_near if asked.mode == "anchors" else nearest
        chosen = take(full, anchors, asked.window_days)
    return sorted(chosen, key=lambda one: one.acquired)


def spread(first: datetime, last: datetime, count: int) -> list[datetime]:
    """`count` days from the first to the last of a period, evenly spaced; a single one is the
    middle.
    """
    if count == 1:
        return [_midnight(first + (last - first) / 2)]
    return [_midnight(first + (last - first) * number / (count - 1)) for number in range(count)]


def calendar(first: datetime, last: datetime, period: str) -> list[Interval]:
    """The calendar months or quarters that a period meets, cut to it."""
    months = {"month": 1, "quarter": 3}[period]
    year, month = first.year, (first.month - 1) // months * months + 1
    found = []
    while (start := datetime(year, month, 1, tzinfo=UTC)) <= last:
        year, month = (year, month + months) if month + months <= 12 else (year + 1, 1)
        end = datetime(year, month, 1, tzinfo=UTC) - timedelta(microseconds=1)
        found.append((max(start, first), min(end, last)))
    return found


def best_near(
    candidates: Sequence[Acquisition], anchors: Sequence[datetime], window_days: int
) -> list[Acquisition]:
    """For each anchor in turn the best acquisition that is at most `window_days` away from it, if
    there is one.
    """
    return _one_each(
        ((anchor, _near(candidates, anchor, window_days)) for anchor in anchors),
        lambda one, anchor: (*quality(one), _distance(one, anchor)),
    )


def nearest(
    candidates: Sequence[Acquisition], anchors: Sequence[datetime], window_days: int
) -> list[Acquisition]:
    """For each date in turn the acquisition nearest to it, at most `window_days` away; the better
    of two as near.
    """
    return _one_each(
        ((anchor, _near(candidates, anchor, window_days)) for anchor in anchors),
        lambda one, anchor: (_distance(one, anchor), *quality(one)),
    )


def least_cloudy_per_period(
    candidates: Sequence[Acquisition], periods: Sequence[Interval]
) -> list[Acquisition]:
    """The best acquisition of each period; its anchor is the period's start."""
    return _one_each(
        (
            (start, [one for one in candidates if start <= one.acquired <= end])
            for start, end in periods
        ),
        lambda one, start: (*quality(one), one.acquired),
    )


def quality(one: Acquisition) -> tuple[bool, bool, float, float]:
    """Sort key: with all bands before without; known cloud before unknown, less before more; then
    more of the area before less.
    """
    return (
        not one.complete,
        one.cloud_cover is None,
        one.cloud_cover or 0.0,
        -round(one.coverage or 0.0, 9),
    )


def _one_each(
    rounds: Iterable[tuple[datetime, Sequence[Acquisition]]],
    key: Callable[[Acquisition, datetime], tuple[Any, ...]],
) -> list[Acquisition]:
    """Of each round, an anchor and those that would do, the first by `key` and name that no earlier
    round has taken.
    """
    taken: dict[str, Acquisition] = {}
    for anchor, fitting in rounds:
        left = [
            ((*key(one, anchor), one.timestamp), one)
            for one in fitting
            if one.timestamp not in taken
        ]
        if left:
            best = min(left, key=lambda pair: pair[0])[1]
            taken[best.timestamp] = replace(best, anchor=anchor)
    return list(taken.values())


def _near(candidates: Sequence[Acquisition], anchor: datetime, days: int) -> list[Acquisition]:
    return [
        one
        for one in candidates
        if abs((one.acquired.astimezone(UTC).date() - anchor.date()).days) <= days
    ]


def _distance(one: Acquisition, anchor: datetime) -> timedelta:
    """From the noon of the anchor: an anchor is a day, not an instant."""
    return abs(one.acquired - (anchor + timedelta(hours=12)))


def _midnight(instant: datetime) -> datetime:
    return instant.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
