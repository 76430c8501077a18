"""Estimate blocks, requests, bytes and memory of a task, without reading pixels.

Headers tell how a band's files are blocked and compressed, and footprints which part of a file a
task reads. `scenebeam plan` shows the sums, and the executor admits tasks by their memory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import shapely
from shapely.geometry import box
from shapely.geometry.base import BaseGeometry

from scenebeam.catalog.bands import records_for
from scenebeam.imaging.bands import Band
from scenebeam.imaging.probes import BandProbe, blocks_in_extent, compression_gain
from scenebeam.imaging.refs import SceneRef
from scenebeam.imaging.shards import Window
from scenebeam.raster.compose import AHEAD, ROW_CHUNK
from scenebeam.raster.grid import Grid
from scenebeam.raster.merge import merge_method
from scenebeam.raster.read_ahead import IN_FLIGHT_ROWS
from scenebeam.request import RunRequest
from scenebeam.tasks import Estimate

PROCESS_MEMORY = 230 * 2**20
"""Bytes that Python, its libraries and the allocator take in addition to pixels.

It is 160 MB at the start of a process, and grows with each thread.
"""
ENCODED_MEMORY = 48 * 2**20
"""Bytes of encoded blocks of one band that stay in memory before they are written to disk."""
_LARGEST_BLOCK = 1024
"""Rows of the largest source blocks that are common."""
_MAX_COLUMNS = 1e7
"""No file has more columns: an extent of more pixels is not in the units of the pixel size."""


def finest_resolution(request: RunRequest, bands: Sequence[str]) -> float:
    """Return the resolution of the finest band, in meters.

    Args:
        request: The request, whose collections are searched.
        bands: Canonical names; if no collection has any of them, all its bands count.
    """
    requested: list[float] = []
    every: list[float] = []
    for record in records_for(request):
        every += [band.resolution for band in record.bands.values()]
        requested += [record.bands[name].resolution for name in bands if name in record.bands]
    return min(requested or every)


def max_window_width(
    bands: Sequence[Band],
    method: str,
    memory: int,
    outputs: int,
    extra_bytes: int = 0,
    at_once: int | None = None,
) -> int:
    """Return the width of the widest window that a task can make within its memory.

    Args:
        bands: The bands that it reads.
        method: Merge method.
        memory: Bytes that it may take.
        outputs: Number of COGs that it writes.
        extra_bytes: Bytes per column that the product itself keeps of each chunk of rows.
        at_once: Number of bands that are composed at the same time; all of them by default.

    Returns:
        Columns, at least ROW_CHUNK.
    """
    spare = memory - PROCESS_MEMORY - ENCODED_MEMORY * outputs
    column = extra_bytes + _bytes_per_column(bands, method, at_once)
    return max(ROW_CHUNK, int(spare // column))


def _bytes_per_column(bands: Sequence[Band], method: str, at_once: int | None) -> int:
    columns = []
    for band in bands:
        # More than four scenes seldom overlap in one place.
        columns.append(column_bytes(band.dtype, min(len(band.sources), 4) or 1, method))
    return sum(sorted(columns, reverse=True)[:at_once])


def column_bytes(dtype: str, sources: int = 1, method: str = "first") -> int:
    """Return the bytes that one column of an output takes while it is composed.

    Args:
        dtype: Dtype of the band.
        sources: Number of files that overlap.
        method: Merge method.
    """
    itemsize = np.dtype(dtype).itemsize
    merge = merge_method(method)
    # Source blocks: of the chunk at work, of those decoded ahead, and one block of overhang.
    source_rows = (2 + AHEAD) * ROW_CHUNK + _LARGEST_BLOCK
    # An ordered merge skips blocks that earlier sources cover, and so reads few of them twice.
    overlap = 1.5 if merge.order != "any" else min(sources, 3)
    # Chunks of rows: composed, encoded and halved, and the working arrays of the merge.
    composing = ROW_CHUNK * (4 * itemsize + merge.bytes_per_pixel(sources))
    in_flight = IN_FLIGHT_ROWS * itemsize
    return int(composing + source_rows * itemsize * overlap + in_flight)


@dataclass
class _Reads:
    """What a task reads, summed over its files."""

    files: int = 0
    blocks: int = 0
    most_blocks: int = 0
    bytes: float = 0.0
    most_bytes: float = 0.0
    covered: list[float] = field(default_factory=list)
    """For each band, the share of the extent that its files cover."""


def estimate_task(
    grid: Grid,
    window: Window,
    bands: Sequence[Band],
    probes: Mapping[str, BandProbe],
    scenes: Sequence[SceneRef],
    method: str,
    outputs: int,
    extra_bytes: int = 0,
    at_once: int | None = None,
) -> Estimate:
    """Estimate what one task reads, writes and keeps in memory.

    Args:
        grid: The whole grid.
        window: The part of it that the task makes.
        bands: The bands that it reads.
        probes: Name of a band → its header.
        scenes: Its scenes, with footprints in the CRS of the grid.
        method: Merge method.
        outputs: Number of COGs that it writes.
        extra_bytes: Bytes per column that the product itself keeps of each chunk of rows.
        at_once: Number of bands that are composed at the same time; all of them by default.
    """
    top, bottom, left, right = window
    extent = box(*grid[top:bottom, left:right].bounds)
    reads = _estimate_reads(extent, bands, probes, scenes, method, abs(grid.transform.a))
    pixels = (bottom - top) * (right - left)
    least_written = most_written = 0
    for band, covered in zip(bands, reads.covered, strict=True):
        known = probes.get(band.name, BandProbe())
        # Blocks without data take next to nothing.
        # With all its overviews, an image has 1 + 1/4 + 1/16 + … = 4/3 of its pixels.
        size = pixels * covered * 4 / 3 * known.bytes_per_pixel
        most_written += int(size)
        least_written += int(size / compression_gain(known, abs(grid.transform.a)))
    chunks = (right - left) * (extra_bytes + _bytes_per_column(bands, method, at_once))
    return Estimate(
        blocks=reads.blocks,
        # For each file a header, and all its blocks in one range; at most one range per block.
        requests=2 * reads.files,
        most_requests=3 * reads.files + reads.most_blocks,
        read_bytes=int(reads.bytes),
        most_read_bytes=int(reads.most_bytes),
        write_bytes=least_written,
        most_write_bytes=most_written,
        pixels=pixels * len(bands),
        memory=PROCESS_MEMORY + ENCODED_MEMORY * outputs + chunks,
    )


def _estimate_reads(
    extent: BaseGeometry,
    bands: Sequence[Band],
    probes: Mapping[str, BandProbe],
    scenes: Sequence[SceneRef],
    method: str,
    grid_pixel: float,
) -> _Reads:
    reads = _Reads()
    ordered = merge_method(method).order != "any"
    footprints = {ref.id: ref.geometry for ref in scenes}
    for band in bands:
        known = probes.get(band.name, BandProbe())
        covered: BaseGeometry = shapely.Polygon()
        for source in band.sources:
            footprint = footprints.get(source.scene)
            seen = extent if footprint is None else shapely.intersection(footprint, extent)
            # Where both only touch, the intersection is a line, or has one beside its polygons. A
            # buffer of 0 leaves the polygons.
            seen = shapely.buffer(seen, 0)
            before, covered = covered, shapely.union(covered, seen)
            # An ordered merge does not read what earlier sources cover already.
            if ordered:
                seen = shapely.difference(seen, before)
            if seen.is_empty:
                continue
            west, south, east, north = seen.bounds
            # The extent is in units of the grid. If the file is in degrees and the grid in meters,
            # the file's pixel size makes no sense here: count in pixels of the grid.
            same_units = (east - west) / known.pixel < _MAX_COLUMNS
            in_units = replace(known, pixel=known.pixel if same_units else grid_pixel)
            least, most = blocks_in_extent(in_units, east - west, north - south)
            reads.files += 1
            reads.blocks += least
            reads.most_blocks += most
            reads.bytes += least * known.block_bytes
            reads.most_bytes += most * known.block_bytes
        reads.covered.append(covered.area / extent.area)
    return reads
