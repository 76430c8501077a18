"""Estimate what the stack of one scene takes, and how many bands fit into memory at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import shapely
from shapely.geometry import MultiPolygon
from shapely.geometry.base import BaseGeometry

from scenebeam.catalog.area import TILE_METERS
from scenebeam.catalog.scene import Scene
from scenebeam.errors import RequestError
from scenebeam.imaging.estimate import ENCODED_MEMORY, PROCESS_MEMORY, column_bytes
from scenebeam.imaging.probes import ProbeCache, compression_gain
from scenebeam.products.stacks.task import StackBand
from scenebeam.raster.grid import project, utm_crs
from scenebeam.tasks import Estimate, GridSpec

_TYPICAL_PIXEL = 10.0
"""Pixel size in meters of a stack without any file."""


@dataclass(frozen=True)
class StackShape:
    """The pixels of a stack, as well as they are known before its files are opened."""

    rows: int
    columns: int
    pixel: float
    """Pixel size in units of the grid's CRS; in meters if the grid is not known."""
    width: float
    """Width of the part of the scene that is read, in meters."""
    height: float
    """Its height in meters."""


def stack_shape(
    scene: Scene,
    bands: Sequence[StackBand],
    grid: GridSpec | None,
    area: MultiPolygon | None,
) -> StackShape:
    """Return the pixels of a stack.

    Args:
        scene: The scene.
        bands: Its bands with a file.
        grid: The grid of the request; None for the scene's own.
        area: Area in degrees; None for all of the scene.
    """
    width, height = _extent(scene, area)
    if grid is not None:
        rows, columns = grid.shape
        return StackShape(rows, columns, grid.transform[0], width, height)
    finest = min((band.asset.resolution for band in bands), default=_TYPICAL_PIXEL)
    rows, columns = int(height / finest) + 1, int(width / finest) + 1
    return StackShape(rows, columns, finest, width, height)


def _extent(scene: Scene, area: MultiPolygon | None) -> tuple[float, float]:
    """Return width and height in meters of the part of a scene that is inside an area."""
    visible: BaseGeometry | None = scene.footprint
    if area is not None:
        visible = area if visible is None else shapely.intersection(visible, area)
    if visible is None or visible.is_empty:
        return TILE_METERS, TILE_METERS
    parts = getattr(visible, "geoms", [visible])
    polygons = MultiPolygon([part for part in parts if part.geom_type == "Polygon"])
    left, bottom, right, top = project(visible, utm_crs(polygons)).bounds
    return right - left, top - bottom


@dataclass(frozen=True)
class MemoryPlan:
    """How a stack is made within the memory of its task."""

    at_once: int
    """Bands that are made at the same time."""
    memory: int
    """Bytes that it takes."""


def plan_memory(
    scene: str, bands: Sequence[StackBand], count: int, shape: StackShape, memory: int, form: str
) -> MemoryPlan:
    """Return how many bands fit into memory at once.

    Args:
        scene: Id of the scene, for the message.
        bands: Its bands with a file.
        count: Number of requested bands.
        shape: The pixels of the stack.
        memory: Bytes that the task may take.
        form: `vrt` or `geotiff`.

    Raises:
        RequestError: Not even one band fits.
    """
    encoded = 0 if form == "vrt" else ENCODED_MEMORY
    largest = 1
    for band in bands:
        largest = max(largest, encoded + shape.columns * column_bytes(band.asset.dtype))
    at_once = min(count, (memory - PROCESS_MEMORY) // largest)
    if at_once < 1:
        raise RequestError(
            f"limits.memory: a stack of {scene}, {shape.columns:,} pixels wide, takes "
            f"{(PROCESS_MEMORY + largest) / 1e6:,.0f} MB; raise it, or narrow the area"
        )
    return MemoryPlan(at_once, PROCESS_MEMORY + at_once * largest)


def estimate_stack(
    bands: Sequence[StackBand], shape: StackShape, memory: int, form: str, probes: ProbeCache
) -> Estimate:
    """Estimate what a stack reads and writes.

    Args:
        bands: Its bands with a file.
        shape: Its pixels.
        memory: Bytes that it takes.
        form: `vrt` or `geotiff`.
        probes: Headers and sizes of files.
    """
    blocks = most_blocks = downloaded = 0
    read = most_read = written = most_written = 0.0
    for band in bands:
        known = probes.of(band.asset)
        least, most = probes.blocks(band.asset, shape.width, shape.height)
        blocks, most_blocks = blocks + least, most_blocks + most
        read += least * known.block_bytes
        most_read += most * known.block_bytes
        if form == "vrt":
            downloaded += probes.sizes.of(band.asset) if band.file else 0
        else:
            size = shape.rows * shape.columns * 4 / 3 * known.bytes_per_pixel
            written += size / compression_gain(known, shape.pixel)
            most_written += size
    requests = {"requests": 2 * len(bands), "most_requests": 4 * len(bands) + most_blocks}
    if form == "vrt":
        # Whole files are downloaded, and checked where they are; those on this machine are read.
        return Estimate(
            blocks=blocks,
            read_bytes=downloaded,
            most_read_bytes=downloaded + int(most_read),
            write_bytes=downloaded,
            memory=memory,
            **requests,
        )
    return Estimate(
        blocks=blocks,
        read_bytes=int(read),
        most_read_bytes=int(most_read),
        write_bytes=int(written),
        most_write_bytes=int(most_written),
        pixels=shape.rows * shape.columns * len(bands),
        memory=memory,
        **requests,
    )
