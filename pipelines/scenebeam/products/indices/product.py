"""Indices: band math over an area, one COG per scene, acquisition, day, month or quarter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from scenebeam.catalog.selection import Selection
from scenebeam.csvtable import Table
from scenebeam.imaging.gridded_task import Missing, Output
from scenebeam.imaging.missing import describe_missing, has_usable_source
from scenebeam.metadata.stac_items import Item
from scenebeam.products.base import Demo, GriddedProduct, PageFacts, Planned, SearchScope
from scenebeam.products.indices.compute import index_row_chunks
from scenebeam.products.indices.plan import plan_indices
from scenebeam.products.indices.request import IndexRequest
from scenebeam.products.indices.tables import index_tables
from scenebeam.products.indices.task import IndexTask
from scenebeam.raster.compose import RowChunks
from scenebeam.raster.grid import Grid
from scenebeam.raster.layers import BandLayers
from scenebeam.request import RunRequest
from scenebeam.tasks import Outcome


class Indices(GriddedProduct[IndexRequest, IndexTask]):
    """Evaluate an expression of bands, and combine the acquisitions of a period.

    An acquisition that lacks a whole band, or its classification, is left out and reported.
    """

    task = IndexTask
    demo = Demo({"kind": "index", "index": "ndvi"})
    page = PageFacts(pictures="indices")

    def plan(
        self, selection: Selection, request: RunRequest[IndexRequest], search_scope: SearchScope
    ) -> Planned:
        return plan_indices(selection, request, search_scope)

    def outputs(self, task: IndexTask, layers: Mapping[str, BandLayers]) -> list[Output]:
        dtype = np.dtype(np.float32)
        nan = float("nan")
        return [Output(task.index, dtype, nan, 1.0, 0.0, False, task.bands, index=True)]

    def row_chunks(
        self, task: IndexTask, grid: Grid, layers: Mapping[str, BandLayers]
    ) -> RowChunks:
        return index_row_chunks(task, grid, layers)

    def reason_to_refuse(self, task: IndexTask, missing: Missing) -> str:
        # Of a difference, each side needs an acquisition with all its bands.
        before_complete = after_complete = False
        for acquisition in task.acquisitions:
            bands = task.bands_of(acquisition)
            if all(has_usable_source(band, missing) for band in bands):
                before_complete |= acquisition in task.before
                after_complete |= acquisition not in task.before
        if after_complete and (before_complete or not task.before):
            return ""
        return f"no acquisition has all bands: {describe_missing(missing)}"

    def tables(
        self,
        tasks: Sequence[IndexTask],
        outcomes: Mapping[str, Outcome],
        items: Mapping[str, Item],
    ) -> dict[str, Table]:
        return index_tables(tasks, outcomes, items)


PRODUCT = Indices()
