"""Make the masks of the chips of a cell: features that are rasterized, and rasters of classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

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

Masks = dict[int, Array]
"""Index of a chip → its mask; a chip outside of the label has none."""


def make_labels(
    task: ChipsTask, chips: Mapping[int, ChipRef], store: Store, budget: Budget
) -> dict[str, Masks]:
    """Make all masks of some chips.

    Args:
        task: The task of the cell.
        chips: Index of a chip → the chip.
        store: Where the features of the cell are.
        budget: Retries of the task's reads.

    Returns:
        Label → masks.

    Raises:
        ReadError: A file cannot be read.
    """
    masks = {}
    for label in task.labels:
        if label.layer:
            masks[label.name] = _read_raster(task, label, chips, budget)
        elif label.features or not _is_raster(task, label):
            masks[label.name] = _draw_features(task, label, chips, store)
        else:
            masks[label.name] = {}  # no file of the label is near
    return masks


def _is_raster(task: ChipsTask, label: LabelSource) -> bool:
    return any(one.name == label.name and not one.vector for one in task.product.labels)


def _draw_features(
    task: ChipsTask, label: LabelSource, chips: Mapping[int, ChipRef], store: Store
) -> Masks:
    side = task.side * task.resolution
    polygons, values = _features(task, label, store)
    tree = shapely.STRtree(polygons)
    masks = {}
    for number, chip in chips.items():
        box = shapely.box(chip.left, chip.top - side, chip.left + side, chip.top)
        # In the order of the file: of features that overlap, the last one is seen.
        near = np.sort(tree.query(box, predicate="intersects")).tolist()
        masks[number] = draw_classes(
            [polygons[index] for index in near],
            [values[index] for index in near],
            task.grid_of(chip),
            label.dtype,
            background=label.background,
            boundary=label.boundary,
            all_touched=label.all_touched,
        )
    return masks


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
) -> Masks:
    numbers: Sequence[int] = list(chips)
    grids = [task.grid_of(chips[number]) for number in numbers]
    masks: Masks = {}
    layer = read_layer(label.layer, grids, all_bands, keep_stored, "nearest", budget)
    for index, [(values, valid)] in layer:
        if valid is not None:
            if not valid.any():
                continue  # the chip is outside of the label
            nodata = label.layer[0].bands[0].nodata
            missing = label.background if nodata is None else nodata
            values = np.where(valid, values, np.dtype(label.dtype).type(missing))
        masks[numbers[index]] = values.astype(label.dtype)
    return masks
