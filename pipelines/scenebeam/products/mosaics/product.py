"""Mosaics: for every acquisition and band one COG on the run's grid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace

import numpy as np

from scenebeam.catalog.selection import Selection
from scenebeam.csvtable import Table
from scenebeam.imaging.gridded_task import Missing, Output
from scenebeam.imaging.masks import apply_masks
from scenebeam.imaging.missing import describe_missing, has_usable_source
from scenebeam.metadata.stac_items import Item
from scenebeam.products.base import Demo, GriddedProduct, PageFacts, Planned, SearchScope
from scenebeam.products.mosaics.plan import plan_mosaics
from scenebeam.products.mosaics.request import MosaicRequest
from scenebeam.products.mosaics.tables import mosaic_tables
from scenebeam.products.mosaics.task import MosaicTask
from scenebeam.raster.compose import RowChunks, compose
from scenebeam.raster.grid import Grid
from scenebeam.raster.layers import BandLayers
from scenebeam.request import RunRequest
from scenebeam.tasks import Outcome


class Mosaics(GriddedProduct[MosaicRequest, MosaicTask]):
    """Merge the scenes of an acquisition, band by band."""

    task = MosaicTask
    demo = Demo({"kind": "mosaic", "bands": ["blue", "green", "red", "nir", "scl"]})
    page = PageFacts(
        measures={"scenebeam:coverage": ("Coverage of the area by the scenes", 100.0, "%")},
        pictures="rasters",
    )

    def plan(
        self, selection: Selection, request: RunRequest[MosaicRequest], search_scope: SearchScope
    ) -> Planned:
        return plan_mosaics(selection, request, search_scope)

    def outputs(self, task: MosaicTask, layers: Mapping[str, BandLayers]) -> list[Output]:
        outputs = []
        for band in task.made:
            # The open files may need a wider dtype than the plan expects.
            layer = layers.get(band.label)
            outputs.append(
                Output(
                    name=band.label,
                    dtype=layer.dtype if layer is not None else np.dtype(band.dtype),
                    nodata=layer.nodata if layer is not None else band.nodata,
                    scale=band.scale,
                    offset=band.offset,
                    categorical=band.categorical,
                    inputs=(band,),
                    masks=task.mask_bands,
                )
            )
        return outputs

    def row_chunks(
        self, task: MosaicTask, grid: Grid, layers: Mapping[str, BandLayers]
    ) -> RowChunks:
        composed = []
        for band in task.made:
            layer = layers.get(band.label)
            if layer is None:  # No scene of the band reaches this shard: it is all nodata.
                dtype = np.dtype(band.dtype)
                layer = BandLayers(band.label, [], dtype, band.nodata, band.resampling, task.method)
            composed.append(replace(layer, method=task.method))
        whole = task.grid.grid
        if not task.one_by_one:
            masked, _ = apply_masks(composed, task.masks, layers, grid, whole)
            yield from compose(grid, masked, whole)
            return
        for index, band_layers in enumerate(composed):
            masked, _ = apply_masks([band_layers], task.masks, layers, grid, whole)
            with closing(compose(grid, masked, whole)) as row_chunks:
                for _, top, pixels in row_chunks:
                    yield index, top, pixels

    def only(self, task: MosaicTask, output: str) -> MosaicTask:
        bands = [band for band in task.bands if band.label in (output, *task.masks)]
        return task.model_copy(update={"bands": tuple(bands)})

    def reason_to_refuse(self, task: MosaicTask, missing: Missing) -> str:
        masks = task.mask_bands
        empty = [b.label for b in task.made if not has_usable_source(b, missing, masks)]
        if not empty:
            return ""
        return f"no readable file of {', '.join(empty)}: {describe_missing(missing)}"

    def tables(
        self,
        tasks: Sequence[MosaicTask],
        outcomes: Mapping[str, Outcome],
        items: Mapping[str, Item],
    ) -> dict[str, Table]:
        return mosaic_tables(tasks, outcomes, items)


PRODUCT = Mosaics()
