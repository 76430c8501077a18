"""Plan any number of tasks, and make each by skipping it."""

from __future__ import annotations

from nothing.request import NothingRequest
from scenebeam.catalog.selection import Selection
from scenebeam.metadata.item_tables import ReportFiles
from scenebeam.planning.stored_tasks import LazyTasks
from scenebeam.products.base import Demo, Planned, Product, SearchScope, scope_of_area
from scenebeam.request import RunRequest
from scenebeam.storage import Store
from scenebeam.tasks import Outcome, Task
from scenebeam.transfer.retry import Budget


class NothingTask(Task):
    """A task without sources."""


class NothingTasks(LazyTasks):
    """The tasks from 0 to `count`."""

    def __init__(self, count: int) -> None:
        self._count = count

    def __len__(self) -> int:
        return self._count

    def _at(self, row: int) -> Task:
        key = f"nothing/{row // 1000:05d}/{row:08d}.json"
        return NothingTask(id=f"task-{row:08d}", outputs=(key,), item_path=key)


class Nothing(Product[NothingRequest, NothingTask]):
    """Makes nothing."""

    task = NothingTask
    demo = Demo({"kind": "nothing"})

    def search_scope(self, request: RunRequest[NothingRequest]) -> SearchScope:
        return scope_of_area(request)

    def plan(
        self,
        selection: Selection,
        request: RunRequest[NothingRequest],
        search_scope: SearchScope,
    ) -> Planned:
        return Planned(NothingTasks(request.product.tasks))

    def make(self, task: NothingTask, store: Store, budget: Budget) -> Outcome:
        return Outcome(task=task.id, state="skipped", kind="nothing", reason="nothing to make")

    def report(self, *arguments: object) -> ReportFiles:
        """Describe no products."""
        return ReportFiles({})


PRODUCT = Nothing()
