"""Land-cover chips: windows of one class, from several sensors and dates, in a balanced release."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from scenebeam.catalog.selection import Selection
from scenebeam.metadata.item_tables import ReportFiles
from scenebeam.products.base import Demo, PageFacts, Planned, Product
from scenebeam.products.landcover.class_counts import ClassCounts
from scenebeam.products.landcover.make import make_area
from scenebeam.products.landcover.plan import LandcoverScope, plan_areas, scope_of_areas
from scenebeam.products.landcover.report import report_chips
from scenebeam.products.landcover.request import LandcoverRequest
from scenebeam.products.landcover.task import LandcoverTask
from scenebeam.request import RunRequest
from scenebeam.storage import Store
from scenebeam.tasks import Outcome
from scenebeam.transfer.retry import Budget


class Landcover(Product[LandcoverRequest, LandcoverTask, LandcoverScope]):
    """Find windows of one class, read them from every sensor, and release them in balance."""

    task = LandcoverTask
    demo = Demo(
        {
            "kind": "landcover",
            "aois": "aois.geojson",
            "include": [0, 1],
            "version": "demo",
            "periods": ["2021-01/2021-03", "2021-04/2021-06", "2021-07/2021-09", "2021-10/2021-12"],
            "chips_per_class": 2,
            "s2l2a": {"bands": ["blue", "green", "red", "nir", "swir16", "swir22"]},
            "lc2l2": {"bands": ["blue", "green", "red", "nir08", "swir16", "swir22"]},
            "lulc": {"dates": "2021"},
            "sampling_factor": 1,
        },
        dataset="landcover",
        images="processed/*/*_000000*.tif",
    )
    page = PageFacts(
        groups={
            "scenebeam:category": "Products by class",
            "scenebeam:split": "Chips by split",
            "scenebeam:aoi": "Chips by area of interest",
        },
        class_property="scenebeam:category",
        color_property="scenebeam:color",
        noun="chips",
    )
    plan_views: ClassVar = {"classes": ClassCounts()}

    def search_scope(self, request: RunRequest[LandcoverRequest]) -> LandcoverScope:
        return scope_of_areas(request)

    def plan(
        self,
        selection: Selection,
        request: RunRequest[LandcoverRequest],
        search_scope: LandcoverScope,
    ) -> Planned:
        return plan_areas(selection, request, search_scope)

    def make(self, task: LandcoverTask, store: Store, budget: Budget) -> Outcome:
        return make_area(task, store, budget)

    def report(
        self,
        request: RunRequest[LandcoverRequest],
        tasks: Sequence[LandcoverTask],
        done: set[str],
        outcomes: Mapping[str, Outcome],
        store: Store,
    ) -> ReportFiles:
        return report_chips(request, tasks, done, outcomes, store)


PRODUCT = Landcover()
