"""Periods: which acquisitions one image of an index is made of. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from scenebeam.catalog.acquisition import Acquisition
from scenebeam.catalog.selection_modes import calendar_periods
from scenebeam.products.indices.request import IndexRequest

Interval = tuple[datetime, datetime]


@dataclass(frozen=True)
class Group:
    """The acquisitions of one image."""

    name: str
    when: datetime
    acquisitions: tuple[Acquisition, ...]
    before: tuple[Acquisition, ...] = ()
    """Of a difference: the side that the others are taken from."""
    interval: Interval | None = None
    """Of a period."""
    fallback: bool = False
    """Whether it stands in for months that have too few acquisitions."""


def groups(
    acquisitions: Sequence[Acquisition], product: IndexRequest, dates: Sequence[Interval]
) -> list[Group]:
    """What one image each is made of, in order of time.

    Of months, those with fewer than `min_scenes_per_period` acquisitions give way to the quarter that they lie in,
    which is made once, of all its acquisitions. An acquisition without scenes, as a table may list it, is an image
    where each acquisition is one, and adds nothing to others.
    """
    if not product.formula.differenced and product.per in ("acquisition", "day"):
        return [Group(one.timestamp, one.acquired, (one,)) for one in acquisitions]
    acquisitions = [one for one in acquisitions if one.scenes]
    if product.formula.differenced:
        return _difference(acquisitions, dates)
    if product.per == "scene":
        singles = {
            scene.id: (scene, one) for one in acquisitions for scene in one.scenes
        }  # a scene may be in two rows
        return [
            Group(scene.id, scene.datetime, (replace(one, scenes=(scene,)),))
            for scene, one in singles.values()
        ]
    if not acquisitions:
        return []
    first, last = (
        min(one.acquired for one in acquisitions),
        max(one.acquired for one in acquisitions),
    )
    found: dict[str, Group] = {}
    for start, _ in calendar_periods(first, last, product.per):
        group = _period(acquisitions, start, product.per)
        if product.per == "month" and len(group.acquisitions) < product.min_scenes_per_period:
            group = replace(_period(acquisitions, start, "quarter"), fallback=True)
        if group.acquisitions:
            found.setdefault(group.name, group)
    return sorted(found.values(), key=lambda group: (group.when, group.name))


def _period(acquisitions: Sequence[Acquisition], within: datetime, period: str) -> Group:
    """The month or quarter that an instant lies in, with its acquisitions."""
    month = within.month if period == "month" else (within.month - 1) // 3 * 3 + 1
    start = datetime(within.year, month, 1, tzinfo=UTC)
    year_end = datetime(within.year, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)
    interval = calendar_periods(start, year_end, period)[0]
    name = f"{start:%Y-%m}" if period == "month" else f"{start:%Y}-Q{(month + 2) // 3}"
    inside = tuple(one for one in acquisitions if interval[0] <= one.acquired <= interval[1])
    return Group(name, start, inside, interval=interval)


def _difference(acquisitions: Sequence[Acquisition], dates: Sequence[Interval]) -> list[Group]:
    (start, stop), (begin, end) = dates
    before = tuple(one for one in acquisitions if start <= one.acquired <= stop)
    after = tuple(one for one in acquisitions if begin <= one.acquired <= end and one not in before)
    name = f"{start:%Y%m%d}-{end:%Y%m%d}"
    return [Group(name, begin, (*before, *after), before, (start, end))] if before and after else []
