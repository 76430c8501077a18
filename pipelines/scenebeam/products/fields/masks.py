"""Masks: the fields of a cell's chips, drawn onto the chips' grids."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import shapely
from pyproj import Transformer

from scenebeam.metadata import stac_items
from scenebeam.products.fields.lattice import fields_name
from scenebeam.products.fields.task import MASKS, ChipRef, FieldsTask
from scenebeam.raster.cog import CogBand, CogProfile, small_cog
from scenebeam.raster.rasterize import BACKGROUND, BOUNDARY, FIELD, UNKNOWN, draw_masks
from scenebeam.raster.validity import Array
from scenebeam.storage import Store
from scenebeam.transfer.pools import io_threads

_DTYPES = dict(zip(MASKS, ("uint32", "uint8", "uint8"), strict=True))
_NAMES = {BACKGROUND: "background", FIELD: "field", BOUNDARY: "boundary", UNKNOWN: "unknown"}


def make_masks(task: FieldsTask, store: Store) -> dict[str, Any]:
    """Publish three masks for each chip that has none yet; the assets of all of them, as JSON."""
    standing = dict(
        zip(
            task.chips,
            io_threads().map(lambda chip: _standing(task, chip, store), task.chips),
            strict=True,
        )
    )
    lacking = [chip for chip in task.chips if standing[chip] is None]
    drawn = _draw(task.model_copy(update={"chips": tuple(lacking)}), store) if lacking else {}
    assets = {chip.name: {"assets": standing[chip] or drawn[chip]} for chip in task.chips}
    return {"cell": task.cell, "chips": assets}


def _standing(task: FieldsTask, chip: ChipRef, store: Store) -> dict[str, Any] | None:
    """The assets of the masks that stand; None where one of them does not."""
    names = {mask: task.mask_name(chip, mask) for mask in MASKS}
    if not set(names.values()) <= store.list(f"{chip.name}/"):
        return None
    return {mask: _asset(task, mask, name, *store.checksum(name)) for mask, name in names.items()}


def _draw(task: FieldsTask, store: Store) -> dict[ChipRef, dict[str, Any]]:
    fields, numbers = _fields(task, store)
    tree = shapely.STRtree(fields)
    boxes = task.boxes()

    def make(index: int) -> dict[str, Any]:
        chip = task.chips[index]
        here = np.sort(tree.query(boxes[index], predicate="intersects"))
        drawn = draw_masks(
            fields[here].tolist(),
            numbers[here].tolist(),
            task.grid_of(chip),
            presence_only=task.product.grid.presence_only,
        )
        return {mask: _publish(task, chip, mask, getattr(drawn, mask), store) for mask in MASKS}

    return dict(zip(task.chips, io_threads().map(make, range(len(task.chips))), strict=True))


def _fields(task: FieldsTask, store: Store) -> tuple[Array, Array]:
    """The fields that may lie on the cell's chips, in its CRS, and their numbers."""
    shapes, numbers = [], []
    for square in task.squares:
        with store.local_copy(fields_name(square)) as path:
            table = pq.ParquetFile(path).read()
        shapes.append(shapely.from_wkb(table.column("geometry").to_pylist()))
        numbers.append(table.column("number").to_numpy())
    found, owners = np.concatenate(shapes), np.concatenate(numbers)
    to_crs = Transformer.from_crs("EPSG:4326", task.crs, always_xy=True)
    return shapely.transform(found, to_crs.transform, interleaved=False), owners


def _publish(
    task: FieldsTask, chip: ChipRef, mask: str, pixels: Array, store: Store
) -> dict[str, Any]:
    profile = CogProfile.on(task.grid_of(chip), pixels.dtype, None, bands=(CogBand(mask),))
    name = task.mask_name(chip, mask)
    with store.open_write(name) as file:
        file.write(small_cog(pixels[None], profile, average=False))
    return _asset(task, mask, name, file.size, file.checksum)


def _asset(task: FieldsTask, mask: str, name: str, size: int, checksum: str) -> dict[str, Any]:
    return {
        "href": f"./{name.rpartition('/')[2]}",
        "type": stac_items.COG_TYPE,
        "roles": ["data", "labels"],
        "file:size": size,
        "file:checksum": checksum,
        "raster:bands": [
            {
                "data_type": "uint32" if mask == "instance" else "uint8",
                "spatial_resolution": task.pixel[0],
            }
        ],
        **({} if mask == "instance" else {"classification:classes": _classes(task, mask)}),
    }


def _classes(task: FieldsTask, mask: str) -> list[dict[str, Any]]:
    values: Sequence[int] = (UNKNOWN if task.product.grid.presence_only else BACKGROUND, FIELD)
    return [
        {"value": v, "name": _NAMES[v]}
        for v in sorted((*values, *([BOUNDARY] if "3" in mask else [])))
    ]
