"""What a gridded task will take: blocks, requests, bytes and memory, from headers and footprints alone."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import shapely
from shapely.geometry import box

from scenebeam.catalog.bands import records_for
from scenebeam.catalog.scene import Asset
from scenebeam.errors import SceneBeamError
from scenebeam.imaging.bands import Band
from scenebeam.imaging.refs import SceneRef
from scenebeam.imaging.shards import Window
from scenebeam.raster.compose import AHEAD, ROW_CHUNK
from scenebeam.raster.grid import Grid
from scenebeam.raster.merge import MERGE_METHODS
from scenebeam.raster.reader import open_source
from scenebeam.raster.tiff import read_layout
from scenebeam.request import Limits, RunRequest, is_url
from scenebeam.tasks import Estimate
from scenebeam.transfer.rangefile import RangeFile
from scenebeam.transfer.ranges import UNKNOWN_SIZE, read_range_and_size
from scenebeam.transfer.retry import Budget

PROCESS = 230 * 2**20
"""What Python, its libraries and the allocator hold beside the pixels: 160 MB at the start, more with each thread."""
ENCODED = 48 * 2**20
"""Encoded tiles of one band that wait in memory before they go to disk."""
_LARGEST_BLOCK = 1024
_DEGREES = 0.5
"""A pixel smaller than that is in degrees."""
_SAMPLES = 3
"""Files of a band whose size is asked for: those of the others will be alike."""


@dataclass(frozen=True)
class BandProbe:
    """What a header says of a band's files."""

    block: tuple[int, int] = (1024, 1024)
    pixel: float = 10.0
    """Size of a pixel in units of the file's CRS."""
    bytes_per_pixel: float = 1.0
    block_bytes: float = 2**20
    """Of one block, on average."""
    blocks: tuple[int, int] = (2**30, 2**30)
    """Of a file, down and across."""


def probe(href: str, index: int, signing: str, limits: Limits) -> BandProbe:
    """Read one header. What cannot be read is guessed, for the estimate only: making will name the fault."""
    budget = Budget.of(limits.model_copy(update={"max_attempts": 2, "retry_seconds": 5}))
    try:
        layout = read_layout(RangeFile(href, budget, signing))
        if layout is not None:
            pixels = layout.width * layout.height * (1 if layout.interleaved else layout.count)
            size = float(layout.sizes.sum())
            known = BandProbe(
                layout.block, abs(layout.transform.a), size / pixels, size / layout.sizes.size
            )
            return replace(known, blocks=_block_counts(layout.height, layout.width, layout.block))
        source = open_source(href, index, budget, signing)
        info = source.info
        source.close()
        half = info.dtype.itemsize / 2
        known = BandProbe(
            info.block, abs(info.transform.a), half, half * info.block[0] * info.block[1]
        )
        return replace(known, blocks=_block_counts(info.height, info.width, info.block))
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


class FileSizes:
    """Bytes of whole files: by the catalog, by the file on this machine, else by some files of the same band."""

    def __init__(self, limits: Limits, *, ask: bool) -> None:
        """With `ask`, servers are asked for what neither the catalog nor the disk tells; else it is guessed."""
        self._budget = Budget.of(limits.model_copy(update={"max_attempts": 2, "retry_seconds": 5}))
        self._seen: dict[str, list[int]] = {}
        self._ask_servers = ask

    def of(self, asset: Asset) -> int:
        """Bytes of a file, as far as can be told."""
        if asset.size is not None:
            return asset.size
        if not is_url(asset.href):
            try:
                return os.path.getsize(asset.href)
            except OSError:
                return asset.likely_size
        if not self._ask_servers:
            return asset.likely_size
        seen = self._seen.setdefault(asset.band, [])
        if len(seen) < _SAMPLES:
            seen.append(self._ask(asset))
        return sum(seen) // len(seen)

    def _ask(self, asset: Asset) -> int:
        try:
            size = read_range_and_size(asset.href, 0, 1, self._budget, asset.signing)[1]
        except SceneBeamError:
            return asset.likely_size
        return size if size != UNKNOWN_SIZE else asset.likely_size


def _block_counts(height: int, width: int, block: tuple[int, int]) -> tuple[int, int]:
    return -(-height // block[0]), -(-width // block[1])


def blocks_met(known: BandProbe, width: float, height: float) -> tuple[int, int]:
    """How many blocks of a band's file an extent in units of its CRS meets: at least, and where it lies across more."""
    rows = int(height / known.pixel / known.block[0]) + 1
    columns = int(width / known.pixel / known.block[1]) + 1
    down, across = known.blocks
    return min(rows, down) * min(columns, across), min(rows + 1, down) * min(columns + 1, across)


def finer_by(known: BandProbe, pixel: float) -> float:
    """How many times more pixels than its source an output has: so much better they may be packed."""
    ratio = (known.pixel / pixel) ** 2 if known.pixel >= _DEGREES else 1.0
    return 2 * ratio if ratio > 1 else 1.0


class Probing:
    """What headers and sizes of some files say of all files of a band."""

    def __init__(self, limits: Limits, *, ask: bool) -> None:
        """With `ask`, headers are read; else files are taken for usual ones."""
        self.sizes, self._limits, self._ask = FileSizes(limits, ask=ask), limits, ask
        self._probes: dict[str, BandProbe] = {}

    def of(self, asset: Asset) -> BandProbe:
        """The header of one file of the band, which is read once."""
        if not self._ask:
            return BandProbe(pixel=asset.resolution)
        if asset.band not in self._probes:
            self._probes[asset.band] = probe(asset.href, asset.index, asset.signing, self._limits)
        return self._probes[asset.band]

    def blocks(self, asset: Asset, width: float, height: float) -> tuple[int, int]:
        """How many blocks an extent in meters meets, at least and at most."""
        known = self.of(asset)
        # A pixel in degrees says little here: that which the catalog tells in meters is near enough.
        in_meters = known.pixel if known.pixel >= _DEGREES else max(asset.resolution, _DEGREES)
        return blocks_met(replace(known, pixel=in_meters), width, height)


def finest(request: RunRequest, bands: Sequence[str]) -> float:
    """The resolution of the finest of some bands, by the request's collections."""
    records = records_for(request)
    known = [
        record.bands[name].resolution
        for record in records
        for name in bands
        if name in record.bands
    ]
    return min(
        known, default=min(band.resolution for record in records for band in record.bands.values())
    )


def widest_window(
    bands: Sequence[Band], method: str, memory: int, outputs: int, held: int = 0
) -> int:
    """The widest part of a grid of which a task can read `bands` and write `outputs` COGs within `memory` bytes.

    `held` are bytes of one column of a strip that the product holds besides.
    """
    spare = memory - PROCESS - ENCODED * outputs
    return max(
        ROW_CHUNK, int(spare // (held + sum(_bytes_per_column(band, method) for band in bands)))
    )


def _bytes_per_column(band: Band, method: str) -> int:
    return column_bytes(band.dtype, min(len(band.sources), 4) or 1, method)


def column_bytes(dtype: str, tiles: int = 1, method: str = "first", ahead: int = AHEAD) -> int:
    """Bytes that one column of a band's output holds at once: strips, merging, and source blocks."""
    item = np.dtype(dtype).itemsize
    rows = (2 + ahead) * ROW_CHUNK + _LARGEST_BLOCK
    merge = MERGE_METHODS[method]
    merging = merge.bytes_per_pixel(tiles)
    overlap = 1.5 if merge.order != "any" else min(tiles, 3)
    return int(ROW_CHUNK * (4 * item + merging) + rows * item * overlap)


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
    footprints = {
        ref.id: None if ref.footprint is None else shapely.from_wkb(ref.footprint) for ref in scenes
    }
    blocks = most_blocks = files = 0
    read = most_read = 0.0
    for band in bands:
        known = probes.get(band.name, BandProbe())
        covered = shapely.Polygon()
        for source in band.sources:
            footprint = footprints.get(source.scene)
            seen = part if footprint is None else shapely.intersection(footprint, part)
            if MERGE_METHODS[method].order != "any":
                seen, covered = shapely.difference(seen, covered), shapely.union(covered, seen)
            if seen.is_empty:
                continue
            west, south, east, north = seen.bounds
            unit = known.pixel if (east - west) / known.pixel < 1e7 else abs(grid.transform.a)
            least, most = blocks_met(replace(known, pixel=unit), east - west, north - south)
            blocks, most_blocks = blocks + least, most_blocks + most
            read, most_read = read + least * known.block_bytes, most_read + most * known.block_bytes
            files += 1
    pixels = (bottom - top) * (right - left) * len(bands)
    least_written, written = 0, 0
    for band in bands:
        known = probes.get(band.name, BandProbe())
        each = (bottom - top) * (right - left) * 4 / 3 * known.bytes_per_pixel
        written += int(each)
        least_written += int(each / finer_by(known, abs(grid.transform.a)))
    columns = right - left
    memory = (
        PROCESS
        + ENCODED * outputs
        + columns * (held + sum(_bytes_per_column(band, method) for band in bands))
    )
    return Estimate(
        blocks=blocks,
        requests=2 * files,  # a header, and all blocks in one range
        most_requests=3 * files + most_blocks,
        read_bytes=int(read),
        most_read_bytes=int(most_read),
        write_bytes=least_written,
        most_write_bytes=written,
        pixels=pixels,
        memory=memory,
    )
