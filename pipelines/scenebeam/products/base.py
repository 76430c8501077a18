"""Product: what the run asks of every product."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from shapely.geometry import MultiPolygon

from scenebeam.catalog.area import area_geometry
from scenebeam.catalog.search import SearchQuery, queries_for
from scenebeam.catalog.select import Selection
from scenebeam.csvtable import File
from scenebeam.metadata.item_tables import ReportFiles
from scenebeam.request import RunRequest
from scenebeam.storage import Store
from scenebeam.tasks import Outcome, Task


@dataclass(frozen=True)
class SearchScope:
    """Where and when a request wants scenes."""

    area: MultiPolygon | None
    """In degrees; None where nothing bounds it."""
    questions: Sequence[SearchQuery]
    """What the catalogue is asked."""
    hint: str = "Widen the area, the dates or the filters"
    """What to try where no scene is left."""
    measure: bool = field(default=False, kw_only=True)
    """Whether servers are asked for headers and sizes, so that the estimate is a good one: a run need not know."""


def scope_of_area(request: RunRequest) -> SearchScope:
    """The request's own area and dates."""
    area = area_geometry(request.area) if request.area is not None else None
    return SearchScope(area, queries_for(request, area))


@dataclass(frozen=True)
class Planned:
    """What a product's plan comes to: its tasks, and the tables that stand before the first of them is made."""

    tasks: Sequence[Task]
    tables: Mapping[str, File]


def reuse_if_identical(before: Sequence[Task], after: Sequence[Task]) -> set[str]:
    """Outputs of tasks that are good for the tasks that take their place: all of those that are the same."""
    following = {task.id: task for task in after}
    return {name for task in before if task == following.get(task.id) for name in task.outputs}


Report = Callable[[RunRequest, Sequence[Any], set[str], Mapping[str, Outcome], Store], ReportFiles]
"""(request, all tasks, ids of those that are done, outcomes of this run by task, store)."""


@dataclass(frozen=True)
class Product:
    """A product's task model and functions; they are described in `scenebeam.products`."""

    task: type[Task]
    plan: Callable[[Selection, RunRequest, SearchScope], Planned]
    make: Callable[..., Outcome]
    report: Report
    search_scope: Callable[[RunRequest], SearchScope] = scope_of_area
    reusable_outputs: Callable[..., set[str]] = reuse_if_identical
    """Which outputs of a plan's tasks stay when another plan's take their place."""
    io_bound: bool = False
    """Whether its tasks wait for the network rather than compute: then more of them than cores are made at once."""
