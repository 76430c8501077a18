"""Chips: images and labels at places of one's own, packed for training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from scenebeam.catalog.selection import Selection
from scenebeam.metadata.item_tables import ReportFiles
from scenebeam.products.base import Demo, PageFacts, Planned, Product
from scenebeam.products.chips.make import make_cell
from scenebeam.products.chips.plan import plan_chips
from scenebeam.products.chips.report import report_chips
from scenebeam.products.chips.request import ChipsRequest
from scenebeam.products.chips.scope import ChipsScope, scope_of_places
from scenebeam.products.chips.task import ChipsTask
from scenebeam.request import RunRequest
from scenebeam.storage import Store
from scenebeam.tasks import Outcome
from scenebeam.transfer.retry import Budget


class Chips(Product[ChipsRequest, ChipsTask, ChipsScope]):
    """Make chips of places: their images, their labels, and what training needs beside them."""

    task = ChipsTask
    demo = Demo(
        {
            "kind": "chips",
            "places": "fields.geojson",
            "draw": {"count": 60},
            "size": 128,
            "bands": ["red", "green", "blue", "nir"],
            "labels": [{"name": "fields", "vector": "fields.geojson"}],
            "split": {"block": 2},
        },
        dataset="dated_fields",
    )
    page = PageFacts(
        groups={"scenebeam:split": "Chips by split"},
        measures={"scenebeam:images": ("Images of a chip", 1.0, "")},
        noun="chips",
        pictures="rasters",
    )

    def search_scope(self, request: RunRequest[ChipsRequest]) -> ChipsScope:
        return scope_of_places(request)

    def plan(
        self, selection: Selection, request: RunRequest[ChipsRequest], search_scope: ChipsScope
    ) -> Planned:
        return plan_chips(selection, request, search_scope)

    def make(self, task: ChipsTask, store: Store, budget: Budget) -> Outcome:
        return make_cell(task, store, budget)

    def report(
        self,
        request: RunRequest[ChipsRequest],
        tasks: Sequence[ChipsTask],
        done: set[str],
        outcomes: Mapping[str, Outcome],
        store: Store,
    ) -> ReportFiles:
        return report_chips(request, tasks, done, store)


PRODUCT = Chips()
