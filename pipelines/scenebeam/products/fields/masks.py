"""Draw the masks of a cell's chips: the fields, rasterized onto the grids of the chips."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow.parquet as pq
import shapely
from pyproj import Transformer

from scenebeam.imaging.publish_queue import EncodedChip, PublishQueue
from scenebeam.metadata import stac_items
from scenebeam.multihash import content_multihash
from scenebeam.products.fields.spool import fields_key
from scenebeam.products.fields.task import MASKS, ChipRef, FieldsTask
from scenebeam.raster.cog import CogBand, CogProfile, small_cog
from scenebeam.raster.rasterize import BACKGROUND, BOUNDARY, FIELD, UNKNOWN, draw_masks
from scenebeam.raster.validity import Array
from scenebeam.storage import Store
from scenebeam.transfer.pools import io_threads

_CLASS_STYLES = {
    BACKGROUND: ("background", "E3DCCB"),
    FIELD: ("field", "6FA63A"),
    BOUNDARY: ("boundary", "2F4B1C"),
    UNKNOWN: ("unknown", "9A9A9A"),
}
"""Name and color of each class, the latter as STAC's `color_hint` has it."""

Assets = dict[str, dict[str, Any]]
"""STAC assets of a chip's masks, by mask."""


def make_masks(task: FieldsTask, store: Store) -> dict[str, Any]:
    """Publish the masks of each chip that does not have all of them yet.

    Args:
        task: A task of masks.
        store: Where the masks are published, and the fields of the task's squares are read.

    Returns:
        The record of the step: the assets of the masks of all chips.
    """
    existing = io_threads().map(lambda chip: _existing_assets(task, chip, store), task.chips)
    assets: dict[str, Assets] = {}
    missing: list[ChipRef] = []
    for chip, chip_assets in zip(task.chips, existing, strict=True):
        # An entry for each chip now keeps the chips in the order of the task.
        assets[chip.name] = chip_assets
        if not chip_assets:
            missing.append(chip)
    if missing:
        assets |= _draw(task.model_copy(update={"chips": tuple(missing)}), store)
    return {
        "cell": task.cell,
        "chips": {name: {"assets": chip_assets} for name, chip_assets in assets.items()},
    }


def _existing_assets(task: FieldsTask, chip: ChipRef, store: Store) -> Assets:
    """Return the assets of the masks of a chip; empty unless all of them exist."""
    keys = {mask: task.mask_key(chip, mask) for mask in MASKS}
    if not store.list(f"{chip.name}/").issuperset(keys.values()):
        return {}
    return {mask: _asset(task, mask, key, *store.checksum(key)) for mask, key in keys.items()}


def _draw(task: FieldsTask, store: Store) -> dict[str, Assets]:
    """Draw and publish the masks of all chips of a task; returns their assets by chip."""
    fields, numbers = _read_fields(task, store)
    tree = shapely.STRtree(fields)
    boxes = task.boxes()

    assets: dict[str, Assets] = {}

    def draw(index: int) -> EncodedChip:
        chip = task.chips[index]
        # Sorted because the order of query results is not defined.
        on_chip = np.sort(tree.query(boxes[index], predicate="intersects"))
        drawn = draw_masks(
            fields[on_chip].tolist(),
            numbers[on_chip].tolist(),
            task.grid_of(chip),
            presence_only=task.product.grid.presence_only,
        )
        files: dict[str, bytes] = {}
        chip_assets: Assets = {}
        for mask in MASKS:
            key = task.mask_key(chip, mask)
            content = files[key] = _encode(task, chip, mask, getattr(drawn, mask))
            chip_assets[mask] = _asset(task, mask, key, len(content), content_multihash(content))
        assets[chip.name] = chip_assets
        return EncodedChip(files)

    with PublishQueue[str](store) as pending:
        for index, chip in enumerate(task.chips):
            pending.add(chip.name, draw, index)
    return assets


def _read_fields(task: FieldsTask, store: Store) -> tuple[Array, Array]:
    """Read the fields of the task's squares.

    Returns:
        Polygons in the CRS of the task, shape (n,), and their numbers, shape (n,).
    """
    polygons, numbers = [], []
    for square in task.squares:
        with store.local_copy(fields_key(square)) as path:
            table = pq.ParquetFile(path).read()
        polygons.append(shapely.from_wkb(table.column("geometry").to_pylist()))
        numbers.append(table.column("number").to_numpy())
    to_crs = Transformer.from_crs("EPSG:4326", task.crs, always_xy=True)
    projected = shapely.transform(np.concatenate(polygons), to_crs.transform, interleaved=False)
    return projected, np.concatenate(numbers)


def _encode(task: FieldsTask, chip: ChipRef, mask: str, pixels: Array) -> bytes:
    """Encode one mask of shape (rows, columns)."""
    profile = CogProfile.for_grid(task.grid_of(chip), pixels.dtype, None, bands=(CogBand(mask),))
    return small_cog(pixels[None], profile, average=False)


def _asset(task: FieldsTask, mask: str, key: str, size: int, checksum: str) -> dict[str, Any]:
    dtype = "uint32" if mask == "instance" else "uint8"
    asset: dict[str, Any] = {
        "href": f"./{key.rpartition('/')[2]}",
        "type": stac_items.COG_TYPE,
        "roles": ["data", "labels"],
        "file:size": size,
        "file:checksum": checksum,
        "raster:bands": [{"data_type": dtype, "spatial_resolution": task.pixel[0]}],
    }
    if mask != "instance":
        asset["classification:classes"] = _classes(task, mask)
    return asset


def _classes(task: FieldsTask, mask: str) -> list[dict[str, Any]]:
    """Return the classes of a semantic mask."""
    values = [UNKNOWN if task.product.grid.presence_only else BACKGROUND, FIELD]
    if mask == "semantic_3_class":
        values.append(BOUNDARY)
    classes = []
    for value in sorted(values):
        name, color = _CLASS_STYLES[value]
        classes.append({"value": value, "name": name, "color_hint": color})
    return classes
