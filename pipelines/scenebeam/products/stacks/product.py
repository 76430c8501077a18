"""Stacks: for every scene its bands on one grid, in canonical order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from scenebeam.catalog.selection import Selection
from scenebeam.csvtable import Table
from scenebeam.imaging.cube import CubeImage
from scenebeam.imaging.shards import Window
from scenebeam.metadata.stac_items import Item
from scenebeam.products.base import Demo, PageFacts, Planned, Product, SearchScope, scope_of_area
from scenebeam.products.stacks.cube import read_stack_window, stack_image
from scenebeam.products.stacks.make import make_stack
from scenebeam.products.stacks.plan import plan_stacks
from scenebeam.products.stacks.request import StackRequest
from scenebeam.products.stacks.tables import stack_tables
from scenebeam.products.stacks.task import StackTask
from scenebeam.raster.validity import Array
from scenebeam.request import RunRequest
from scenebeam.storage import Store
from scenebeam.tasks import CubeBand, Outcome
from scenebeam.transfer.retry import Budget


class Stacks(Product[StackRequest, StackTask]):
    """Stack the bands of each scene as a VRT over their files, or as one COG of the area."""

    task = StackTask
    demo = Demo({"kind": "stack"})
    page = PageFacts(pictures="rasters")

    def search_scope(self, request: RunRequest[StackRequest]) -> SearchScope:
        return scope_of_area(request)

    def plan(
        self, selection: Selection, request: RunRequest[StackRequest], search_scope: SearchScope
    ) -> Planned:
        return plan_stacks(selection, request, search_scope)

    def make(self, task: StackTask, store: Store, budget: Budget) -> Outcome:
        return make_stack(task, store, budget)

    def cube_images(self, task: StackTask) -> Sequence[CubeImage]:
        return [stack_image(task)]

    def read_window(self, task: StackTask, band: CubeBand, window: Window, budget: Budget) -> Array:
        return read_stack_window(task, band, window, budget)

    def tables(
        self,
        tasks: Sequence[StackTask],
        outcomes: Mapping[str, Outcome],
        items: Mapping[str, Item],
    ) -> dict[str, Table]:
        return stack_tables(tasks, outcomes, items)


PRODUCT = Stacks()
