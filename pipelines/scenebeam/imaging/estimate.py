"""Estimate blocks, requests, bytes and memory of a task, from headers and footprints alone.

A plan has thousands of files, and one header takes a round trip. So one header of each band stands
for all files of the band, and footprints tell which part of a file a task reads. `scenebeam plan`
shows the sums, and the executor admits tasks by their memory.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import shapely
from shapely.geometry import box
from shapely.geometry.base import BaseGeometry

from scenebeam.catalog.bands import records_for
from scenebeam.catalog.scene import Asset
from scenebeam.errors import SceneBeamError
from scenebeam.imaging.bands import Band
from scenebeam.imaging.refs import SceneRef
from scenebeam.imaging.shards import Window
from scenebeam.raster.compose import AHEAD, ROW_CHUNK
from scenebeam.raster.grid import Grid
from scenebeam.raster.merge import merge_method
from scenebeam.raster.reader import open_source
from scenebeam.raster.tiff import read_layout
from scenebeam.request import Limits, RunRequest, is_url
from scenebeam.tasks import Estimate
from scenebeam.transfer.rangefile import RangeFile
from scenebeam.transfer.ranges import UNKNOWN_SIZE, read_range_and_size
from scenebeam.transfer.retry import Budget

PROCESS_MEMORY = 230 * 2**20
"""Bytes that Python, its libraries and the allocator take in addition to pixels.

It is 160 MB at the start of a process, and grows with each thread.
"""
ENCODED_MEMORY = 48 * 2**20
"""Bytes of encoded blocks of one band that stay in memory before they are written to disk."""
_LARGEST_BLOCK = 1024
"""Rows of the largest source blocks that are common."""
_DEGREES = 0.5
"""A pixel size below this is in degrees, not in meters."""
_MAX_SIZE_SAMPLES = 3
"""Files of a band whose size a server is asked for; the others are assumed to be alike."""
_MAX_COLUMNS = 1e7
"""No file has more columns: an extent of more pixels is not in the units of the pixel size."""


@dataclass(frozen=True)
class BandProbe:
    """Facts from the header of one file that stand for all files of its band."""

    block: tuple[int, int] = (1024, 1024)
    """Rows and columns of a block."""
    pixel: float = 10.0
    """Pixel size in units of the file's CRS."""
    bytes_per_pixel: float = 1.0
    """Compressed bytes per pixel."""
    block_bytes: float = 2**20
    """Average compressed size of a block."""
    blocks: tuple[int, int] = (2**30, 2**30)
    """Rows and columns of blocks in the file."""


def probe(href: str, index: int, signing: str, limits: Limits) -> BandProbe:
    """Read the header of a file.

    A file that cannot be read gets the default values: the estimate goes on, and the error is
    reported when the task is made.

    Args:
        href: Unsigned href of the file.
        index: Index of the band in the file, from 1.
        signing: How the href is signed.
        limits: Timeouts; retries are cut short, as an estimate is not worth a long wait.
    """
    budget = _short_budget(limits)
    try:
        layout = read_layout(RangeFile(href, budget, signing))
        if layout is not None:
            # In a pixel-interleaved file, one block holds all bands, which are read together.
            bands = 1 if layout.interleaved else layout.count
            size = float(layout.sizes.sum())
            return BandProbe(
                block=layout.block,
                pixel=abs(layout.transform.a),
                bytes_per_pixel=size / (layout.width * layout.height * bands),
                block_bytes=size / layout.sizes.size,
                blocks=_block_counts(layout.height, layout.width, layout.block),
            )
        # Not a TIFF that our own reader knows: GDAL does not tell the sizes of blocks.
        source = open_source(href, index, budget, signing)
        info = source.info
        source.close()
    except SceneBeamError:
        return BandProbe()
    bytes_per_pixel = info.dtype.itemsize / 2
    return BandProbe(
        block=info.block,
        pixel=abs(info.transform.a),
        bytes_per_pixel=bytes_per_pixel,
        block_bytes=bytes_per_pixel * info.block[0] * info.block[1],
        blocks=_block_counts(info.height, info.width, info.block),
    )


def _short_budget(limits: Limits) -> Budget:
    return Budget.of(limits.model_copy(update={"max_attempts": 2, "retry_seconds": 5}))


def _block_counts(height: int, width: int, block: tuple[int, int]) -> tuple[int, int]:
    return -(-height // block[0]), -(-width // block[1])


def probe_bands(all_bands: Iterable[Sequence[Band]], limits: Limits) -> dict[str, BandProbe]:
    """Read one header of each band.

    Args:
        all_bands: Bands of all acquisitions; the first file of each name is read.
        limits: Timeouts.

    Returns:
        Name of the band → facts; bands without any file are left out.
    """
    probes: dict[str, BandProbe] = {}
    for bands in all_bands:
        for band in bands:
            if band.name not in probes and band.sources:
                source = band.sources[0]
                probes[band.name] = probe(source.href, source.index, source.signing, limits)
    return probes


class FileSizes:
    """Sizes of whole files: from the catalog, from the disk, or from a few files of the band."""

    def __init__(self, limits: Limits, *, measure: bool) -> None:
        """Create an empty cache.

        Args:
            limits: Timeouts.
            measure: Ask servers for sizes that neither the catalog nor the disk knows. Otherwise
                they are guessed.
        """
        self._budget = _short_budget(limits)
        self._samples: dict[str, list[int]] = {}
        self._measure = measure

    def of(self, asset: Asset) -> int:
        """Return the size of a file in bytes, as well as it is known."""
        if asset.size is not None:
            return asset.size
        if not is_url(asset.href):
            try:
                return os.path.getsize(asset.href)
            except OSError:
                return asset.likely_size
        if not self._measure:
            return asset.likely_size
        samples = self._samples.setdefault(asset.band, [])
        if len(samples) < _MAX_SIZE_SAMPLES:
            samples.append(self._request_size(asset))
        return sum(samples) // len(samples)

    def _request_size(self, asset: Asset) -> int:
        try:
            size = read_range_and_size(asset.href, 0, 1, self._budget, asset.signing)[1]
        except SceneBeamError:
            return asset.likely_size
        return size if size != UNKNOWN_SIZE else asset.likely_size


def blocks_in_extent(known: BandProbe, width: float, height: float) -> tuple[int, int]:
    """Count the blocks of a file that an extent intersects.

    Args:
        known: The header.
        width: Width of the extent, in units of the file's CRS.
        height: Height of the extent.

    Returns:
        (least, most): an extent that does not start at the edge of a block intersects one more row
        and column of blocks.
    """
    rows = int(height / known.pixel / known.block[0]) + 1
    columns = int(width / known.pixel / known.block[1]) + 1
    max_rows, max_columns = known.blocks
    least = min(rows, max_rows) * min(columns, max_columns)
    most = min(rows + 1, max_rows) * min(columns + 1, max_columns)
    return least, most


def compression_gain(known: BandProbe, pixel: float) -> float:
    """Return how much better an output compresses than its source, at most.

    An output with smaller pixels repeats or interpolates those of its source, and compresses about
    twice as well as the ratio of their numbers.

    Args:
        known: The header of the source.
        pixel: Pixel size of the output in meters.
    """
    # The area of a pixel in degrees cannot be compared with that of the output.
    ratio = (known.pixel / pixel) ** 2 if known.pixel >= _DEGREES else 1.0
    return 2 * ratio if ratio > 1 else 1.0


class ProbeCache:
    """Facts about the files of each band, from the header and the size of a few of them."""

    def __init__(self, limits: Limits, *, measure: bool) -> None:
        """Create an empty cache.

        Args:
            limits: Timeouts.
            measure: Read headers. Otherwise files are assumed to be typical.
        """
        self.sizes = FileSizes(limits, measure=measure)
        """Sizes of whole files."""
        self._limits = limits
        self._measure = measure
        self._probes: dict[str, BandProbe] = {}

    def of(self, asset: Asset) -> BandProbe:
        """Return the header of a file of the same band, which is read once."""
        if not self._measure:
            return BandProbe(pixel=asset.resolution)
        if asset.band not in self._probes:
            self._probes[asset.band] = probe(asset.href, asset.index, asset.signing, self._limits)
        return self._probes[asset.band]

    def blocks(self, asset: Asset, width: float, height: float) -> tuple[int, int]:
        """Count the blocks that an extent in meters intersects: (least, most)."""
        known = self.of(asset)
        # For a file in degrees, the resolution of the catalog, in meters, is close enough.
        meters = known.pixel if known.pixel >= _DEGREES else max(asset.resolution, _DEGREES)
        return blocks_in_extent(replace(known, pixel=meters), width, height)


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
    bands: Sequence[Band], method: str, memory: int, outputs: int, held: int = 0
) -> int:
    """Return the width of the widest window that a task can make within its memory.

    Args:
        bands: The bands that it reads.
        method: Merge method.
        memory: Bytes that it may take.
        outputs: Number of COGs that it writes.
        held: Bytes per column that the product itself keeps of each chunk of rows.

    Returns:
        Columns, at least ROW_CHUNK.
    """
    spare = memory - PROCESS_MEMORY - ENCODED_MEMORY * outputs
    return max(ROW_CHUNK, int(spare // (held + _bytes_per_column(bands, method))))


def _bytes_per_column(bands: Sequence[Band], method: str) -> int:
    total = 0
    for band in bands:
        # More than four scenes seldom overlap in one place.
        total += column_bytes(band.dtype, min(len(band.sources), 4) or 1, method)
    return total


def column_bytes(dtype: str, sources: int = 1, method: str = "first", ahead: int = AHEAD) -> int:
    """Return the bytes that one column of an output takes while it is composed.

    Args:
        dtype: Dtype of the band.
        sources: Number of files that overlap.
        method: Merge method.
        ahead: Chunks of rows that are read ahead.
    """
    itemsize = np.dtype(dtype).itemsize
    merge = merge_method(method)
    # Source blocks: of the chunk at work, of those that are read ahead, and one block of overhang.
    source_rows = (2 + ahead) * ROW_CHUNK + _LARGEST_BLOCK
    # An ordered merge skips blocks that earlier sources cover, and so reads few of them twice.
    overlap = 1.5 if merge.order != "any" else min(sources, 3)
    # Chunks of rows: composed, encoded and halved, and the working arrays of the merge.
    composing = ROW_CHUNK * (4 * itemsize + merge.bytes_per_pixel(sources))
    return int(composing + source_rows * itemsize * overlap)


@dataclass
class _Reads:
    """What a task reads, summed over its files."""

    files: int = 0
    blocks: int = 0
    most_blocks: int = 0
    bytes: float = 0.0
    most_bytes: float = 0.0


def estimate_task(
    grid: Grid,
    window: Window,
    bands: Sequence[Band],
    probes: Mapping[str, BandProbe],
    scenes: Sequence[SceneRef],
    method: str,
    outputs: int,
    held: int = 0,
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
        held: Bytes per column that the product itself keeps of each chunk of rows.
    """
    top, bottom, left, right = window
    extent = box(*grid[top:bottom, left:right].extent.boundingbox.bbox)
    reads = _estimate_reads(extent, bands, probes, scenes, method, abs(grid.transform.a))
    pixels = (bottom - top) * (right - left)
    least_written = most_written = 0
    for band in bands:
        known = probes.get(band.name, BandProbe())
        # With all its overviews, an image has 1 + 1/4 + 1/16 + … = 4/3 of its pixels.
        size = pixels * 4 / 3 * known.bytes_per_pixel
        most_written += int(size)
        least_written += int(size / compression_gain(known, abs(grid.transform.a)))
    chunks = (right - left) * (held + _bytes_per_column(bands, method))
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
            # An ordered merge does not read what earlier sources cover already.
            if ordered:
                seen, covered = shapely.difference(seen, covered), shapely.union(covered, seen)
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
    return reads
