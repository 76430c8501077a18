"""Ranges of rows of a plan: what a worker makes at a time. References only, never tasks.

A plan of few tasks has one range per task, so that tasks are spread over all workers. A plan of
very many has ranges of several tasks: their number is bounded, and with it the size of the graph
and the number of files with outcomes.
"""

from __future__ import annotations

from collections.abc import Iterator

from scenebeam.planning.plan import Plan
from scenebeam.storage import Store

MOST_RANGES = 10_000
"""Ranges of a plan, at most."""
_MERGED_RANGES = 100
"""Ranges whose outcomes are merged into one file."""
RowRanges = tuple[str, int, tuple[int, ...]]
"""URI of an output, rows of a range, numbers of the ranges that have something left to make."""
RowRange = tuple[str, int, int]
"""URI of an output, first row, last row; the last is exclusive. 0, 0: nothing is left to make."""


def undone_ranges(plan: Plan, store: Store) -> RowRanges:
    """Return the ranges of a plan that have something left to make."""
    size = -(-len(plan.tasks) // MOST_RANGES) or 1
    numbers = sorted({row // size for row in plan.undone(store.list()).rows})
    return store.uri, size, tuple(numbers)


def split_ranges(ranges: RowRanges) -> Iterator[RowRange]:
    """Yield the ranges one by one; one of no rows if nothing is left to make.

    The latter carries an output whose tasks are all done to its report.
    """
    output, size, numbers = ranges
    if not numbers:
        yield output, 0, 0
    for number in numbers:
        yield output, number * size, (number + 1) * size


def merged_group(rows: RowRange) -> int:
    """Return the number of the group of ranges whose outcomes are merged into one file."""
    _, first, last = rows
    return first // max(last - first, 1) // _MERGED_RANGES
