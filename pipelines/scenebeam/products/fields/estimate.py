"""Estimate: what the chips of a cell will take, by where they lie and by one header of each band."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import shapely

from scenebeam.catalog.scene import Asset
from scenebeam.imaging.estimate import PROCESS, BandProbe, Probing
from scenebeam.products.fields.chips import Transform
from scenebeam.products.fields.request import FieldsRequest
from scenebeam.products.fields.task import Candidate, ChipRef
from scenebeam.raster.windows import ROWS_AHEAD
from scenebeam.tasks import Estimate

_ROUNDED = 20.0
"""Meters by which footprints, drawn in rounded degrees, may be short of their scene."""
_MASKS, _MASK_HEADERS = 3, 1100
"""Masks of a chip, and bytes of a mask's header."""


def estimate(
    chips: Sequence[ChipRef],
    candidates: Sequence[Candidate],
    transform: Transform,
    shape: tuple[int, int],
    product: FieldsRequest,
    probing: Probing,
) -> Estimate:
    """Estimate a step of a cell.

    At least, all chips have one scene: blocks that they meet are read once. At most, each has its
    own, and the classifications of all scenes are looked at.
    """
    pixels = len(chips) * shape[0] * shape[1]
    if not candidates:
        return Estimate(
            pixels=_MASKS * pixels,
            write_bytes=_MASKS * _MASK_HEADERS * len(chips) + pixels // 20,
            memory=PROCESS,
        )
    extent = extent_of(transform, shape)
    chips = _shown(chips, candidates, extent_of(transform, shape))
    pixels = len(chips) * shape[0] * shape[1]
    blocks = most_blocks = read = most_read = row = written = 0
    for asset in candidates[0].bands:
        known = probing.of(asset)
        met = [set(_met(chip, extent, known, asset)) for chip in chips]
        together, apart = set().union(*met), sum(len(one) for one in met)
        most = min(apart, len(together) * len(candidates))
        size = known.block_bytes
        blocks, most_blocks = blocks + len(together), most_blocks + most
        read, most_read = read + int(len(together) * size), most_read + int(most * size)
        row += (
            len({column for column, _ in together})
            * known.block[0]
            * known.block[1]
            * _item_size(asset)
        )
        written += int(pixels * known.bytes_per_pixel)
    looks, look_bytes = _looks(chips, candidates, extent, probing)
    if product.images != "download":
        return Estimate(
            blocks=0,
            most_requests=looks,
            most_read_bytes=look_bytes,
            memory=PROCESS + row,
        )
    bands = len(candidates[0].bands)
    return Estimate(
        blocks=blocks,
        requests=2 * bands if chips else 0,
        most_requests=most_blocks + looks + 3 * bands * len(candidates),
        read_bytes=read,
        most_read_bytes=most_read + look_bytes,
        write_bytes=written,
        most_write_bytes=int(1.5 * written) + 4096 * len(chips),
        pixels=pixels * bands,
        # A row of blocks for the chips across its edge, one that is read, and those on their way.
        memory=PROCESS + (2 + ROWS_AHEAD) * row,
    )


def extent_of(transform: Transform, shape: tuple[int, int]) -> tuple[float, float]:
    """Height and width of a chip, in units of its CRS."""
    return shape[0] * abs(transform[4]), shape[1] * abs(transform[0])


def _shown(
    chips: Sequence[ChipRef], candidates: Sequence[Candidate], extent: tuple[float, float]
) -> Sequence[ChipRef]:
    """Chips that some scene shows."""
    footprints = [candidate.geometry for candidate in candidates]
    if any(one is None for one in footprints):
        return chips
    ground = shapely.buffer(shapely.union_all(footprints), _ROUNDED)
    shapely.prepare(ground)
    left, top = np.array([chip.left for chip in chips]), np.array([chip.top for chip in chips])
    inside = shapely.covers(ground, shapely.box(left, top - extent[0], left + extent[1], top))
    return [chip for chip, shown in zip(chips, inside.tolist(), strict=True) if shown]


def _looks(
    chips: Sequence[ChipRef],
    candidates: Sequence[Candidate],
    extent: tuple[float, float],
    probing: Probing,
) -> tuple[int, int]:
    """Requests and bytes of looking at the classifications of all scenes."""
    requests = size = 0
    for asset in candidates[0].looked_at:
        known = probing.of(asset)
        met = set().union(*(set(_met(chip, extent, known, asset)) for chip in chips))
        requests += (len(met) + 3) * len(candidates)
        size += int(len(met) * known.block_bytes) * len(candidates)
    return requests, size


def _met(
    chip: ChipRef, extent: tuple[float, float], known: BandProbe, asset: Asset
) -> Iterator[tuple[int, int]]:
    """Blocks of a band's files that a chip meets, by column and row."""
    high, wide = known.block[0] * asset.resolution, known.block[1] * asset.resolution
    for across in (0.0, extent[1]):
        for down in (0.0, extent[0]):
            yield int((chip.left + across) // wide), int((chip.top - down) // high)


def _item_size(asset: Asset) -> int:
    return int(np.dtype(asset.dtype).itemsize)
