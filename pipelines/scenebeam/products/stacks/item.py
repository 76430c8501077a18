"""The STAC item of a scene's stacks."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import shapely

from scenebeam.catalog.scene import Asset
from scenebeam.imaging.bands import scale_offset
from scenebeam.imaging.fetch import file_asset
from scenebeam.metadata import stac_items
from scenebeam.products.stacks.task import StackBand, StackTask
from scenebeam.raster.grid import Grid
from scenebeam.storage import Store

VRT_TYPE = "application/x-gdal-vrt+xml"


@dataclass(frozen=True)
class StackedBand:
    """A band of a stack that is published."""

    band: StackBand
    dtype: str
    nodata: float | None
    valid: float
    """Fraction of its pixels that are valid."""


@dataclass(frozen=True)
class PublishedStack:
    """A stack that is published."""

    grid: Grid
    bands: Sequence[StackedBand]
    stored: Mapping[str, Any]
    """Fields of its asset that say where it is: `href`, `type`, `file:size` and so on."""


def stack_file(task: StackTask, stack: str, size: int, checksum: str) -> dict[str, Any]:
    """Return the fields of the asset of a stack that is a file.

    Args:
        task: The task.
        stack: Suffix of the stack.
        size: Bytes of the file.
        checksum: Its `file:checksum`.
    """
    return {
        "href": f"./{_file_name(task.stack_key(stack))}",
        "type": VRT_TYPE if task.format == "vrt" else stac_items.COG_TYPE,
        "roles": ["visual" if task.visualization else "data"],
        "file:size": size,
        "file:checksum": checksum,
    }


def publish_item(
    task: StackTask,
    store: Store,
    stacks: Mapping[str, PublishedStack],
    missing: Mapping[str, str],
    warnings: Sequence[str],
) -> None:
    """Publish the STAC item, the last output of a task.

    Args:
        task: The task.
        store: The output.
        stacks: Name of an asset → published stack, at least one.
        missing: Name of a band → why it is not in the stack.
        warnings: What users of the stack should know.
    """
    first = next(iter(stacks.values()))
    assets = {name: _stack_asset(task, made) for name, made in stacks.items()}
    assets |= _file_assets(task, store, stacks)
    if task.checks.screenshot:
        name = _file_name(task.screenshot_key)
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
        _geometry(task, first.grid),
        assets,
        [(task.scene.id, task.scene.item_href)],
        properties,
    )
    store.write(task.item_path, stac_items.to_bytes(item))


def _geometry(task: StackTask, grid: Grid) -> dict[str, Any]:
    """Return the part of the scene's footprint that is on the grid, as GeoJSON in degrees."""
    footprint = task.scene.geometry
    extent = shapely.geometry.shape(stac_items.grid_footprint(grid))
    visible = extent if footprint is None else shapely.intersection(footprint, extent)
    geometry: dict[str, Any] = json.loads(
        shapely.to_geojson(extent if visible.is_empty else visible)
    )
    return geometry


def _file_assets(
    task: StackTask, store: Store, stacks: Mapping[str, PublishedStack]
) -> dict[str, dict[str, Any]]:
    """Describe the bands' own files, to which a VRT refers.

    The stack may be harmonized, but the files are as their provider made them: a time series over
    the folder reads their radiometric offset here.
    """
    by_file: dict[str, list[tuple[str, Asset]]] = {}
    for stack in stacks.values():
        for stacked in stack.bands:
            band = stacked.band
            if band.file:
                by_file.setdefault(band.file, []).append((band.name, band.asset))
    assets = {}
    for file, bands in by_file.items():
        size, checksum = store.checksum(task.file_key(file))
        described = file_asset(f"./{file}", bands, size, checksum)
        assets[file.partition(".")[0]] = {**described, "scenebeam:values": "raw"}
    return assets


def _stack_asset(task: StackTask, stack: PublishedStack) -> dict[str, Any]:
    raster_bands = []
    for stacked in stack.bands:
        scale, offset = scale_offset(stacked.band.asset, task.values)
        raster_band = stac_items.raster_band(
            stacked.dtype, stacked.nodata, scale, offset, abs(stack.grid.transform.a)
        )
        raster_band["statistics"] = {"valid_percent": round(100 * stacked.valid, 4)}
        raster_bands.append(raster_band)
    # The bounding box is that of the item.
    projection = stac_items.grid_properties(stack.grid)
    del projection["proj:bbox"]
    return {
        **stack.stored,
        **projection,
        "bands": [{"name": stacked.band.name} for stacked in stack.bands],
        "raster:bands": raster_bands,
    }


def _file_name(key: str) -> str:
    return key.rpartition("/")[2]
