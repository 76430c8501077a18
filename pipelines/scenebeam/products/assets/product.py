"""Assets: the scenes' own files, band by band, with a manifest and a STAC item per scene."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from scenebeam.catalog.selection import Selection
from scenebeam.csvtable import Table
from scenebeam.metadata.stac_items import Item
from scenebeam.products.assets.download import download_scene
from scenebeam.products.assets.plan import plan_assets
from scenebeam.products.assets.request import AssetsRequest
from scenebeam.products.assets.tables import assets_tables
from scenebeam.products.assets.task import AssetsTask
from scenebeam.products.base import Demo, Planned, Product, SearchScope, scope_of_area
from scenebeam.request import RunRequest
from scenebeam.storage import Store
from scenebeam.tasks import Outcome
from scenebeam.transfer.retry import Budget


class Assets(Product[AssetsRequest, AssetsTask]):
    """Download, verify and publish the files of each scene."""

    task = AssetsTask
    demo = Demo({"kind": "assets", "bands": ["B04", "B08", "SCL"]})
    io_bound = True

    def search_scope(self, request: RunRequest[AssetsRequest]) -> SearchScope:
        return scope_of_area(request)

    def plan(
        self, selection: Selection, request: RunRequest[AssetsRequest], search_scope: SearchScope
    ) -> Planned:
        return plan_assets(selection, request, search_scope)

    def make(self, task: AssetsTask, store: Store, budget: Budget) -> Outcome:
        return download_scene(task, store, budget)

    def tables(
        self,
        tasks: Sequence[AssetsTask],
        outcomes: Mapping[str, Outcome],
        items: Mapping[str, Item],
    ) -> dict[str, Table]:
        return assets_tables(tasks, outcomes, items)

    def reusable_outputs(
        self, before: Sequence[AssetsTask], after: Sequence[AssetsTask]
    ) -> set[str]:
        """Files stay if the next plan downloads the same source under the same name."""
        following = {task.id: task for task in after}
        keys: set[str] = set()
        for task in before:
            successor = following.get(task.id)
            if successor == task:
                keys.update(task.possible_outputs)
            elif successor is not None:
                same = [file for file in task.files if file in successor.files]
                keys.update(task.local_key(file) for file in same)
        return keys


PRODUCT = Assets()
