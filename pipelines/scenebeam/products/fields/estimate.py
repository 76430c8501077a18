"""Estimate what a step of a cell will read, write and hold in memory.

Only the corners of chips and one header per band are needed, not the scenes' pixels. Which scene
each chip gets is not known yet, so most figures are ranges.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import shapely

from scenebeam.catalog.scene import Asset
from scenebeam.imaging.chip_scenes import ChipScene
from scenebeam.imaging.estimate import PROCESS_MEMORY
from scenebeam.imaging.probes import BandProbe, ProbeCache
from scenebeam.products.fields.chips import Transform
from scenebeam.products.fields.request import FieldsRequest
from scenebeam.products.fields.task import ChipRef
from scenebeam.raster.windows import ROWS_AHEAD
from scenebeam.tasks import Estimate

_FOOTPRINT_TOLERANCE = 20.0
"""Meters by which footprints, drawn in rounded degrees, may be smaller than their scene."""
_MASKS, _MASK_HEADER_BYTES = 3, 1100
"""Masks per chip, and bytes of the header of a mask."""
_MASK_PIXELS_PER_BYTE = 20
"""Pixels of a chip per byte of all its masks together, compressed."""
_ITEM_BYTES = 4096
"""Bytes of the item of an image."""
_FILE_REQUESTS = 3
"""Requests per file at most, besides those for blocks."""


def estimate(
    chips: Sequence[ChipRef],
    candidates: Sequence[ChipScene],
    transform: Transform,
    shape: tuple[int, int],
    product: FieldsRequest,
    probing: ProbeCache,
) -> Estimate:
    """Estimate a step of a cell.

    At the least, all chips use one scene, and blocks that they share are read once. At the most,
    each chip uses another scene, and the clouds of all scenes are measured.

    Args:
        chips: The chips of the cell.
        candidates: Scenes that may be suitable; empty for masks.
        transform: Affine transform of any of the chips, for its pixel size.
        shape: Rows and columns of a chip.
        product: The request of the product.
        probing: Headers of one file of each band.
    """
    if not candidates:
        return _estimate_masks(len(chips), shape)
    extent = shape[0] * abs(transform[4]), shape[1] * abs(transform[0])
    chips = _inside_footprints(chips, candidates, extent)
    pixels = len(chips) * shape[0] * shape[1]
    blocks = most_blocks = read = most_read = row_bytes = written = 0
    for asset in candidates[0].bands:
        probed = probing.of(asset)
        reads = _band_reads(chips, len(candidates), extent, probed, asset)
        blocks, most_blocks = blocks + reads.blocks, most_blocks + reads.most_blocks
        read += int(reads.blocks * probed.block_bytes)
        most_read += int(reads.most_blocks * probed.block_bytes)
        row_bytes += reads.row_bytes
        written += int(pixels * probed.bytes_per_pixel)
    cloud_requests, cloud_bytes = _cloud_reads(chips, candidates, extent, probing)
    if product.images != "download":
        return Estimate(
            blocks=0,
            most_requests=cloud_requests,
            most_read_bytes=cloud_bytes,
            memory=PROCESS_MEMORY + row_bytes,
        )
    bands = len(candidates[0].bands)
    most_files = bands * len(candidates)
    return Estimate(
        blocks=blocks,
        requests=2 * bands if chips else 0,
        most_requests=most_blocks + cloud_requests + _FILE_REQUESTS * most_files,
        read_bytes=read,
        most_read_bytes=most_read + cloud_bytes,
        write_bytes=written,
        most_write_bytes=int(1.5 * written) + _ITEM_BYTES * len(chips),
        pixels=pixels * bands,
        # Rows of blocks in memory: one that is kept for the chips across its lower edge, one that
        # is being read, and those that are prefetched.
        memory=PROCESS_MEMORY + (2 + ROWS_AHEAD) * row_bytes,
    )


def _estimate_masks(chips: int, shape: tuple[int, int]) -> Estimate:
    """Estimate a step without scenes."""
    pixels = chips * shape[0] * shape[1]
    headers = _MASKS * _MASK_HEADER_BYTES * chips
    return Estimate(
        pixels=_MASKS * pixels,
        write_bytes=headers + pixels // _MASK_PIXELS_PER_BYTE,
        memory=PROCESS_MEMORY,
    )


class _BandReads(NamedTuple):
    """What all chips together read of one band."""

    blocks: int
    most_blocks: int
    row_bytes: int
    """Bytes in memory of one row of blocks."""


def _band_reads(
    chips: Sequence[ChipRef],
    candidates: int,
    extent: tuple[float, float],
    probed: BandProbe,
    asset: Asset,
) -> _BandReads:
    together: set[tuple[int, int]] = set()
    apart = 0
    for chip in chips:
        chip_blocks = set(_blocks(chip, extent, probed, asset))
        together |= chip_blocks
        apart += len(chip_blocks)
    columns = {column for column, _ in together}
    return _BandReads(
        blocks=len(together),
        # With different scenes, a block is read once per chip, but at most once per candidate.
        most_blocks=min(apart, len(together) * candidates),
        row_bytes=len(columns) * probed.block[0] * probed.block[1] * _item_size(asset),
    )


def _inside_footprints(
    chips: Sequence[ChipRef], candidates: Sequence[ChipScene], extent: tuple[float, float]
) -> Sequence[ChipRef]:
    """Return the chips inside the union of all footprints; all if a footprint is not known.

    `extent` is height and width of a chip in units of its CRS, here and below.
    """
    footprints = [candidate.geometry for candidate in candidates]
    if any(footprint is None for footprint in footprints):
        return chips
    ground = shapely.buffer(shapely.union_all(footprints), _FOOTPRINT_TOLERANCE)
    shapely.prepare(ground)
    left = np.array([chip.left for chip in chips])
    top = np.array([chip.top for chip in chips])
    inside = shapely.covers(ground, shapely.box(left, top - extent[0], left + extent[1], top))
    return [chips[number] for number in np.flatnonzero(inside).tolist()]


def _cloud_reads(
    chips: Sequence[ChipRef],
    candidates: Sequence[ChipScene],
    extent: tuple[float, float],
    probing: ProbeCache,
) -> tuple[int, int]:
    """Return requests and bytes of measuring the clouds of all scenes."""
    requests = size = 0
    for asset in candidates[0].looked_at:
        probed = probing.of(asset)
        blocks: set[tuple[int, int]] = set()
        for chip in chips:
            blocks.update(_blocks(chip, extent, probed, asset))
        requests += (len(blocks) + _FILE_REQUESTS) * len(candidates)
        size += int(len(blocks) * probed.block_bytes) * len(candidates)
    return requests, size


def _blocks(
    chip: ChipRef, extent: tuple[float, float], probed: BandProbe, asset: Asset
) -> Iterator[tuple[int, int]]:
    """Yield column and row of the blocks at the four corners of a chip, possibly repeated.

    Chips are smaller than blocks, so there are no others. The origin of blocks is taken to be that
    of the CRS: their number is right on average.
    """
    height, width = probed.block[0] * asset.resolution, probed.block[1] * asset.resolution
    for across in (0.0, extent[1]):
        for down in (0.0, extent[0]):
            yield int((chip.left + across) // width), int((chip.top - down) // height)


def _item_size(asset: Asset) -> int:
    return int(np.dtype(asset.dtype).itemsize)
