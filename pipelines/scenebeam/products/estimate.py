"""What a gridded task will take: blocks, requests, bytes and memory, from headers and footprints alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import shapely
from shapely.geometry import box

from scenebeam.catalog.search import records_for
from scenebeam.errors import SceneBeamError
from scenebeam.products.inputs import Band, SceneRef
from scenebeam.products.shards import Window
from scenebeam.products.task import Estimate
from scenebeam.raster.compose import AHEAD, STRIP
from scenebeam.raster.grid import Grid
from scenebeam.raster.reader import open_source
from scenebeam.raster.tiff import read_layout
from scenebeam.request import Limits, RunRequest
from scenebeam.transfer.rangefile import RangeFile
from scenebeam.transfer.ranges import Budget

PROCESS = 230 * 2**20
"""What Python, its libraries and the allocator hold beside the pixels: 160 MB at the start, more with each thread."""
ENCODED = 48 * 2**20
"""Encoded tiles of one band that wait in memory before they go to disk."""
_LARGEST_BLOCK = 1024


@dataclass(frozen=True)
class BandProbe:
    """What a header says of a band's files."""

    block: tuple[int, int] = (1024, 1024)
    pixel: float = 10.0
    """Size of a pixel in units of the file's CRS."""
    bytes_per_pixel: float = 1.0


def probe(href: str, index: int, signing: str, limits: Limits) -> BandProbe:
    """Read one header. What cannot be read is guessed, for the estimate only: making will name the fault."""
    budget = Budget.of(limits.model_copy(update={"max_attempts": 2, "retry_seconds": 5}))
    try:
        layout = read_layout(RangeFile(href, budget, signing))
        if layout is not None:
            pixels = layout.width * layout.height * (1 if layout.interleaved else layout.count)
            return BandProbe(layout.block, abs(layout.transform.a), float(layout.sizes.sum()) / pixels)
        source = open_source(href, index, budget, signing)
        info = source.info
        source.close()
        return BandProbe(info.block, abs(info.transform.a), info.dtype.itemsize / 2)
    except SceneBeamError:
        return BandProbe()


def probe_bands(all_bands: Iterable[Sequence[Band]], limits: Limits) -> dict[str, BandProbe]:
    """What one header of each band, by name, says of block size and bytes per pixel."""
    probes: dict[str, BandProbe] = {}
    for bands in all_bands:
        for band in bands:
            if band.name not in probes and band.sources:
                source = band.sources[0]
                probes[band.name] = probe(source.href, source.index, source.signing, limits)
    return probes


def finest(request: RunRequest, bands: Sequence[str]) -> float:
    """The resolution of the finest of some bands, by the request's collections."""
    records = records_for(request)
    known = [record.bands[name].resolution for record in records for name in bands if name in record.bands]
    return min(known, default=min(band.resolution for record in records for band in record.bands.values()))


def widest_window(bands: Sequence[Band], method: str, memory: int, outputs: int, held: int = 0) -> int:
    """The widest part of a grid of which a task can read `bands` and write `outputs` COGs within `memory` bytes.

    `held` are bytes of one column of a strip that the product holds besides.
    """
    spare = memory - PROCESS - ENCODED * outputs
    return max(STRIP, int(spare // (held + sum(_bytes_per_column(band, method) for band in bands))))


def _bytes_per_column(band: Band, method: str) -> int:
    return column_bytes(band.dtype, min(len(band.sources), 4) or 1, method)


def column_bytes(dtype: str, tiles: int = 1, method: str = "first", ahead: int = AHEAD) -> int:
    """Bytes that one column of a band's output holds at once: strips, merging, and source blocks."""
    item = np.dtype(dtype).itemsize
    rows = (2 + ahead) * STRIP + _LARGEST_BLOCK
    merging = {"mean": 10, "median": 24 * tiles, "min": 2, "max": 2}.get(method, 1)
    overlap = 1.5 if method in ("first", "last") else min(tiles, 3)
    return int(STRIP * (4 * item + merging) + rows * item * overlap)


def estimate(
    grid: Grid,
    window: Window,
    bands: Sequence[Band],
    probes: dict[str, BandProbe],
    scenes: Sequence[SceneRef],
    method: str,
    outputs: int,
    held: int = 0,
) -> Estimate:
    """What one task will read, write and hold."""
    top, bottom, left, right = window
    part = box(*grid[top:bottom, left:right].extent.boundingbox.bbox)
    footprints = {ref.id: None if ref.footprint is None else shapely.from_wkb(ref.footprint) for ref in scenes}
    blocks = requests = read = 0
    for band in bands:
        known = probes.get(band.name, BandProbe())
        covered = shapely.Polygon()
        for source in band.sources:
            footprint = footprints.get(source.scene)
            seen = part if footprint is None else shapely.intersection(footprint, part)
            if method in ("first", "last"):
                seen, covered = shapely.difference(seen, covered), shapely.union(covered, seen)
            if seen.is_empty:
                continue
            west, south, east, north = seen.bounds
            unit = known.pixel if (east - west) / known.pixel < 1e7 else abs(grid.transform.a)
            rows = int((north - south) / unit / known.block[0]) + 1
            columns = int((east - west) / unit / known.block[1]) + 1
            blocks += rows * columns
            requests += rows + 1
            read += int(rows * columns * known.block[0] * known.block[1] * known.bytes_per_pixel)
    pixels = (bottom - top) * (right - left) * len(bands)
    written = sum(
        int((bottom - top) * (right - left) * 4 / 3 * probes.get(band.name, BandProbe()).bytes_per_pixel)
        for band in bands
    )
    columns = right - left
    memory = PROCESS + ENCODED * outputs + columns * (held + sum(_bytes_per_column(band, method) for band in bands))
    return Estimate(
        blocks=blocks, requests=requests, read_bytes=read, write_bytes=written, pixels=pixels, memory=memory
    )
