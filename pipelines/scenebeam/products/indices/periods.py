"""Group acquisitions into the images of an index. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from scenebeam.catalog.acquisition import Acquisition
from scenebeam.catalog.selection_modes import calendar_periods
from scenebeam.products.indices.request import IndexRequest

Interval = tuple[datetime, datetime]
"""First and last instant, both inclusive."""


@dataclass(frozen=True)
class Group:
    """The acquisitions of one image."""

    name: str
    when: datetime
    acquisitions: tuple[Acquisition, ...]
    before: tuple[Acquisition, ...] = ()
    """The side of a difference from which the others are subtracted."""
    interval: Interval | None = None
    """The month or quarter, or the whole interval of a difference."""
    fallback: bool = False
    """Whether it replaces months that have too few acquisitions."""


def group_acquisitions(
    acquisitions: Sequence[Acquisition], product: IndexRequest, dates: Sequence[Interval]
) -> list[Group]:
    """Group acquisitions into images.

    A month with fewer than `min_scenes_per_period` acquisitions is replaced by the quarter that it
    is in, which is made once, of all its acquisitions. An acquisition without scenes, which a table
    may list, is an image if each acquisition is one, and adds nothing to other images.

    Args:
        acquisitions: The acquisitions that are on the grid.
        product: What becomes one image.
        dates: The two periods of a difference.

    Returns:
        The groups in order of time.
    """
    if not product.formula.differenced and product.per in ("acquisition", "day"):
        return [
            Group(acquisition.timestamp, acquisition.acquired, (acquisition,))
            for acquisition in acquisitions
        ]
    with_scenes = [acquisition for acquisition in acquisitions if acquisition.scenes]
    if product.formula.differenced:
        return _difference(with_scenes, dates)
    if product.per == "scene":
        return _single_scenes(with_scenes)
    return _periods(with_scenes, product.per, product.min_scenes_per_period)


def _single_scenes(acquisitions: Sequence[Acquisition]) -> list[Group]:
    # A scene may be in two rows of a table, and is one image all the same.
    groups: dict[str, Group] = {}
    for acquisition in acquisitions:
        for scene in acquisition.scenes:
            single = replace(acquisition, scenes=(scene,))
            groups[scene.id] = Group(scene.id, scene.datetime, (single,))
    return list(groups.values())


def _periods(acquisitions: Sequence[Acquisition], period: str, least: int) -> list[Group]:
    if not acquisitions:
        return []
    times = [acquisition.acquired for acquisition in acquisitions]
    groups: dict[str, Group] = {}
    for start, _ in calendar_periods(min(times), max(times), period):
        group = _period(acquisitions, start, period)
        if period == "month" and len(group.acquisitions) < least:
            group = replace(_period(acquisitions, start, "quarter"), fallback=True)
        if group.acquisitions:
            groups.setdefault(group.name, group)
    return sorted(groups.values(), key=lambda group: (group.when, group.name))


def _period(acquisitions: Sequence[Acquisition], within: datetime, period: str) -> Group:
    """Return the month or quarter that contains an instant, with its acquisitions."""
    month = within.month if period == "month" else (within.month - 1) // 3 * 3 + 1
    start = datetime(within.year, month, 1, tzinfo=UTC)
    year_end = datetime(within.year, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)
    interval = calendar_periods(start, year_end, period)[0]
    name = f"{start:%Y-%m}" if period == "month" else f"{start:%Y}-Q{(month + 2) // 3}"
    return Group(name, start, _acquired_in(acquisitions, interval), interval=interval)


def _acquired_in(
    acquisitions: Sequence[Acquisition], interval: Interval
) -> tuple[Acquisition, ...]:
    start, end = interval
    return tuple(
        acquisition for acquisition in acquisitions if start <= acquisition.acquired <= end
    )


def _difference(acquisitions: Sequence[Acquisition], dates: Sequence[Interval]) -> list[Group]:
    """Return the one image of a difference; none if one of its sides is empty."""
    first, second = dates
    before = _acquired_in(acquisitions, first)
    # Where the periods overlap, an acquisition is in the first one only.
    rest = [acquisition for acquisition in acquisitions if acquisition not in before]
    after = _acquired_in(rest, second)
    if not before or not after:
        return []
    name = f"{first[0]:%Y%m%d}-{second[1]:%Y%m%d}"
    interval = first[0], second[1]
    return [Group(name, second[0], (*before, *after), before, interval)]
