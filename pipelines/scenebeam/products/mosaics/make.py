"""Make mosaics: each band of an acquisition merged from its scenes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np

from scenebeam.imaging.gridded import Recipe, describe_missing, is_empty, make_gridded
from scenebeam.imaging.gridded_task import Missing, Output
from scenebeam.products.mosaics.task import MosaicTask
from scenebeam.raster.compose import BandLayers, compose
from scenebeam.raster.grid import Grid
from scenebeam.raster.validity import Array
from scenebeam.storage import Store
from scenebeam.tasks import Outcome
from scenebeam.transfer.ranges import Budget


def make(task: MosaicTask, store: Store, budget: Budget) -> Outcome:
    """Make the mosaics of one acquisition, or one shard of them: see `make_gridded`."""
    return make_gridded(task, _RECIPE, store, budget)


def _outputs(task: MosaicTask, layers: Mapping[str, BandLayers]) -> list[Output]:
    return [
        Output(
            name=band.label,
            dtype=layers[band.label].dtype if band.label in layers else np.dtype(band.dtype),
            nodata=layers[band.label].nodata if band.label in layers else band.nodata,
            scale=band.scale,
            offset=band.offset,
            categorical=band.categorical,
            inputs=(band,),
        )
        for band in task.made
    ]


def _strips(
    task: MosaicTask, grid: Grid, layers: Mapping[str, BandLayers]
) -> Iterator[tuple[int, int, Array]]:
    bands = []
    for band in task.made:
        # A shard that no scene of the band reaches is all nodata.
        known = layers.get(band.label) or BandLayers(
            band.label, [], np.dtype(band.dtype), band.nodata, band.resampling, task.method
        )
        bands.append(replace(known, method=task.method))
    return compose(grid, bands)


def _lacking(task: MosaicTask, missing: Missing) -> str:
    empty = [band.label for band in task.made if is_empty(band, missing)]
    return f"no readable tile of {', '.join(empty)}: {describe_missing(missing)}" if empty else ""


_RECIPE = Recipe(_outputs, _strips, _lacking)
