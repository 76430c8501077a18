"""Composites: one cloud-free image per period, masked pixel by pixel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from scenebeam.catalog.selection import Selection
from scenebeam.csvtable import Table
from scenebeam.imaging.cube import CubeImage
from scenebeam.imaging.gridded_task import Missing, Output
from scenebeam.imaging.missing import describe_missing, has_usable_source
from scenebeam.metadata.stac_items import Item
from scenebeam.products.base import Demo, GriddedProduct, PageFacts, Planned, SearchScope
from scenebeam.products.composites.compute import (
    composite_row_chunks,
    open_encoding,
    reduces_bands_apart,
)
from scenebeam.products.composites.extras import extra_outputs
from scenebeam.products.composites.plan import plan_composites
from scenebeam.products.composites.request import CompositeRequest
from scenebeam.products.composites.series import make_series
from scenebeam.products.composites.tables import composite_tables
from scenebeam.products.composites.task import CompositeTask
from scenebeam.raster.compose import RowChunks
from scenebeam.raster.grid import Grid
from scenebeam.raster.layers import BandLayers
from scenebeam.request import RunRequest
from scenebeam.storage import Store
from scenebeam.tasks import Outcome
from scenebeam.transfer.retry import Budget


class Composites(GriddedProduct[CompositeRequest, CompositeTask]):
    """Mask the acquisitions of a period, and reduce them to one image.

    A scene without a readable mask is left out and reported.
    """

    task = CompositeTask
    page = PageFacts(pictures="rasters")
    demo = Demo(
        {
            "kind": "composite",
            "bands": ["red", "green", "blue", "nir"],
            "period": "month",
            "method": "medoid",
            "extra": ["observations", "day"],
        },
        dataset="series",
    )

    def plan(
        self, selection: Selection, request: RunRequest[CompositeRequest], search_scope: SearchScope
    ) -> Planned:
        return plan_composites(selection, request, search_scope)

    def cube_images(self, task: CompositeTask) -> Sequence[CubeImage]:
        images: list[CubeImage] = []
        for period in task.periods:
            images += super().cube_images(period)
        return images

    def make(self, task: CompositeTask, store: Store, budget: Budget) -> Outcome:
        """Make one period, or all of a series to fill their gaps."""
        if task.series:
            return make_series(task, self, store, budget)
        return super().make(task, store, budget)

    def outputs(self, task: CompositeTask, layers: Mapping[str, BandLayers]) -> list[Output]:
        outputs = []
        for name, band in zip(task.made, task.encodings, strict=False):
            dtype, nodata = open_encoding(task, band, layers)
            outputs.append(
                Output(
                    name=name,
                    dtype=dtype,
                    nodata=nodata,
                    scale=band.scale,
                    offset=band.offset,
                    categorical=band.categorical,
                    inputs=task.bands_of(band.name),
                    masks=task.mask_bands,
                )
            )
        return outputs + extra_outputs(task)

    def row_chunks(
        self, task: CompositeTask, grid: Grid, layers: Mapping[str, BandLayers]
    ) -> RowChunks:
        return composite_row_chunks(task, grid, layers)

    def only(self, task: CompositeTask, output: str) -> CompositeTask:
        return task.only(output) if reduces_bands_apart(task) else task

    def reason_to_refuse(self, task: CompositeTask, missing: Missing) -> str:
        if not task.observations:
            return f"no scenes in {task.name}"
        for name in task.names[: len(task.made)]:
            if not any(
                has_usable_source(band, missing, task.masks_of(band))
                for band in task.bands_of(name)
            ):
                return f"no readable file of {name}: {describe_missing(missing)}"
        return ""

    def tables(
        self,
        tasks: Sequence[CompositeTask],
        outcomes: Mapping[str, Outcome],
        items: Mapping[str, Item],
    ) -> dict[str, Table]:
        return composite_tables(tasks, outcomes, items)


PRODUCT = Composites()
