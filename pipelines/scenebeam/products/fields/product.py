"""Field chips: for every chip its masks, and its imagery at planting and at harvest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from scenebeam.catalog.selection import Selection
from scenebeam.metadata.item_tables import ReportFiles
from scenebeam.products.base import Demo, PageFacts, Planned, Product
from scenebeam.products.fields.make import make_step
from scenebeam.products.fields.plan import plan_chips
from scenebeam.products.fields.report import report_chips
from scenebeam.products.fields.request import FieldsRequest
from scenebeam.products.fields.reuse import reusable_outputs
from scenebeam.products.fields.scope import FieldsScope, scope_of_chips
from scenebeam.products.fields.task import FieldsTask
from scenebeam.request import RunRequest
from scenebeam.storage import Store
from scenebeam.tasks import Outcome
from scenebeam.transfer.retry import Budget


class Fields(Product[FieldsRequest, FieldsTask, FieldsScope]):
    """Make chips of field boundaries, select their scenes, and read their imagery."""

    task = FieldsTask
    demo = Demo(
        {
            "kind": "fields",
            "year": 2021,
            "pixel_check": True,
            "cloud_cover_pixel": 5,
            "grid": {"size": 160},
            "boundaries": "fields.geojson",
            "crop_calendar": "calendar",
        },
        dataset="fields",
        images="*/*_image_*.tif",
    )
    page = PageFacts(
        groups={"ftw:split": "Chips by split", "ftw:season": "Images by season"},
        measures={"ftw:field_coverage": ("Share of a chip that is fields", 1.0, "%")},
        scene_property="ftw:scene",
        noun="chips",
        parts=("scenebeam:chip", "images"),
        pictures="rasters",
    )

    def search_scope(self, request: RunRequest[FieldsRequest]) -> FieldsScope:
        return scope_of_chips(request)

    def plan(
        self, selection: Selection, request: RunRequest[FieldsRequest], search_scope: FieldsScope
    ) -> Planned:
        return plan_chips(selection, request, search_scope)

    def make(self, task: FieldsTask, store: Store, budget: Budget) -> Outcome:
        return make_step(task, store, budget)

    def caution(self, request: RunRequest[FieldsRequest]) -> str:
        product = request.product
        if product.images == "none" or product.pixel_check:
            return ""
        return (
            f"Scenes were chosen by their whole cloud cover (at most {product.cloud_cover_scene:g} "
            "%): a cloud may cover a chip all the same. To choose by the chips' own pixels, set "
            "product.pixel_check: true."
        )

    def report(
        self,
        request: RunRequest[FieldsRequest],
        tasks: Sequence[FieldsTask],
        done: set[str],
        outcomes: Mapping[str, Outcome],
        store: Store,
    ) -> ReportFiles:
        return report_chips(request, tasks, done, outcomes, store)

    def reusable_outputs(
        self, before: Sequence[FieldsTask], after: Sequence[FieldsTask]
    ) -> set[str]:
        return reusable_outputs(before, after)


PRODUCT = Fields()
