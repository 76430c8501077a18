"""Make the masks of the chips of a cell: features that are rasterized, and rasters of classes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
import pyarrow.parquet as pq
import shapely
from pyproj import Transformer

from scenebeam.imaging.layered_reader import all_bands, keep_stored, read_layer
from scenebeam.products.chips.task import ChipRef, ChipsTask, LabelSource
from scenebeam.raster.rasterize import draw_classes
from scenebeam.raster.validity import Array
from scenebeam.storage import Store
from scenebeam.transfer.retry import Budget


class LabelMask(NamedTuple):
    """The mask of a chip."""

    number: int
    """Index of the chip."""
    pixels: Array
    share: float
    """Percent of the chip that has a class."""


def make_masks(
    task: ChipsTask,
    label: LabelSource,
    chips: Mapping[int, ChipRef],
    store: Store,
    budget: Budget,
) -> Iterator[LabelMask]:
    """Make the masks of some chips.

    Args:
        task: The task of the cell.
        label: The label.
        chips: Index of a chip → the chip.
        store: Where the features of the cell are.
        budget: Retries of the task's reads.

    Yields:
        A mask for each chip on which the label has data.

    Raises:
        ReadError: A file cannot be read.
    """
    if label.is_vector:
        return _draw_features(task, label, chips, store)
    return _read_raster(task, label, chips, budget)


def _draw_features(
    task: ChipsTask, label: LabelSource, chips: Mapping[int, ChipRef], store: Store
) -> Iterator[LabelMask]:
    polygons, values = _features(task, label, store)
    tree = shapely.STRtree(polygons)
    boxes = task.boxes(chips.values())
    for (number, chip), box in zip(chips.items(), boxes, strict=True):
        # In the order of the file: of features that overlap, the last one is seen.
        near = np.sort(tree.query(box, predicate="intersects")).tolist()
        mask = draw_classes(
            [polygons[index] for index in near],
            [values[index] for index in near],
            task.grid_of(chip),
            label.dtype,
            background=label.background,
            boundary=label.boundary,
            all_touched=label.all_touched,
        )
        classed = np.count_nonzero(mask != label.background)
        yield LabelMask(number, mask, 100 * classed / mask.size)


def _features(task: ChipsTask, label: LabelSource, store: Store) -> tuple[Array, list[int]]:
    """Return the polygons of a label near the cell in the task's CRS, and their values."""
    if not label.features:
        return np.empty(0, object), []
    with store.local_copy(label.features) as path:
        table = pq.ParquetFile(path).read().sort_by("number")
    polygons = np.asarray(shapely.from_wkb(table.column("geometry").to_pylist()), object)
    to_crs = Transformer.from_crs("EPSG:4326", task.crs, always_xy=True)
    projected = np.asarray(shapely.transform(polygons, to_crs.transform, interleaved=False))
    column = "number" if label.instances else "class"
    return projected, table.column(column).to_pylist()


def _read_raster(
    task: ChipsTask, label: LabelSource, chips: Mapping[int, ChipRef], budget: Budget
) -> Iterator[LabelMask]:
    if not label.layer or not chips:
        return
    numbers = list(chips)
    grids = [task.grid_of(chips[number]) for number in numbers]
    missing = label.background if label.nodata is None else label.nodata
    layer = read_layer(label.layer, grids, all_bands, keep_stored, lambda asset: "nearest", budget)
    for index, [(values, valid)] in layer:
        share = 100.0
        if valid is not None:
            share = 100 * np.count_nonzero(valid) / valid.size
            values = np.where(valid, values, np.dtype(label.dtype).type(missing))
        if share:
            yield LabelMask(numbers[index], values.astype(label.dtype), share)
