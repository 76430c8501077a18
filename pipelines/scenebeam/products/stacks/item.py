"""The STAC item of a scene's stacks."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import shapely

from scenebeam.catalog.scene import Asset
from scenebeam.imaging import bands as inputs
from scenebeam.imaging.fetch import file_asset
from scenebeam.metadata import stac_items
from scenebeam.products.stacks.task import StackBand, StackTask
from scenebeam.raster.grid import Grid
from scenebeam.storage import Store

VRT_TYPE = "application/x-gdal-vrt+xml"


@dataclass(frozen=True)
class MadeStack:
    """A stack that stands in the store."""

    grid: Grid
    bands: Sequence[StackBand]
    numbers: Sequence[tuple[str, float | None]]
    """dtype and nodata value of each band, as it stands in the stack."""
    valid: Sequence[float]
    """Fraction of each band that is data."""
    size: int
    checksum: str


def scale_offset(band: StackBand, values: str) -> tuple[float, float]:
    """(scale, offset) of a band as it stands in the stack."""
    return inputs.scale_offset(band.asset, values)


def publish_item(
    task: StackTask,
    store: Store,
    made: Mapping[str, MadeStack],
    missing: Mapping[str, str],
    warnings: Sequence[str],
) -> None:
    """Write the item, the last of a task's outputs."""
    first = next(iter(made.values()))
    footprint = task.scene.geometry
    extent = shapely.geometry.shape(stac_items.grid_footprint(first.grid))
    seen = extent if footprint is None else shapely.intersection(footprint, extent)
    geometry = json.loads(shapely.to_geojson(extent if seen.is_empty else seen))
    assets = {f"stack{stack}": _asset(task, stack, one) for stack, one in made.items()}
    assets |= _file_assets(task, store, made)
    if task.checks.screenshot:
        name = task.screenshot_key.rpartition("/")[2]
        assets["thumbnail"] = {"href": f"./{name}", "type": "image/png", "roles": ["thumbnail"]}
    properties = {
        **stac_items.grid_properties(first.grid),
        **task.properties,
        "scenebeam:values": task.values,
        "scenebeam:analysis_ready": not task.visualization,
        "scenebeam:complete": not missing,
        "scenebeam:missing_bands": [{"band": band, "reason": missing[band]} for band in missing],
        "scenebeam:warnings": list(warnings),
    }
    item = stac_items.make_item(
        task.scene.id,
        task.collection,
        task.scene.when,
        geometry,
        assets,
        [(task.scene.id, task.scene.item_href)],
        properties,
    )
    store.write(task.item_path, stac_items.to_bytes(item))


def _file_assets(
    task: StackTask,
    store: Store,
    made: Mapping[str, MadeStack],
) -> dict[str, dict[str, Any]]:
    """Describe the bands' own files, which a VRT names.

    The stack may be harmonized, but they are as their provider made them: a time series over the
    folder reads their shift here.
    """
    by_file: dict[str, list[tuple[str, Asset]]] = {}
    for one in made.values():
        for band in one.bands:
            if band.file:
                by_file.setdefault(band.file, []).append((band.name, band.asset))
    assets = {}
    for file, bands in by_file.items():
        size, checksum = store.checksum(task.file_key(file))
        described = file_asset(f"./{file}", bands, size, checksum)
        assets[file.partition(".")[0]] = {**described, "scenebeam:values": "raw"}
    return assets


def _asset(task: StackTask, stack: str, one: MadeStack) -> dict[str, Any]:
    name = task.stack_key(stack).rpartition("/")[2]
    bands = []
    for number, (band, (dtype, nodata)) in enumerate(zip(one.bands, one.numbers, strict=True)):
        scale, offset = scale_offset(band, task.values)
        described = stac_items.raster_band(dtype, nodata, scale, offset, abs(one.grid.transform.a))
        valid_percent = round(100 * one.valid[number], 4)
        bands.append({**described, "statistics": {"valid_percent": valid_percent}})
    return {
        "href": f"./{name}",
        "type": VRT_TYPE if task.format == "vrt" else stac_items.COG_TYPE,
        "roles": ["visual" if task.visualization else "data"],
        "file:size": one.size,
        "file:checksum": one.checksum,
        **{
            key: value
            for key, value in stac_items.grid_properties(one.grid).items()
            if key != "proj:bbox"
        },
        "bands": [{"name": band.name} for band in one.bands],
        "raster:bands": bands,
    }
