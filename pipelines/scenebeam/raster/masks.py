"""Masks: which pixels of a scene are clear, by a band of classes, bit flags or probabilities.

What a mask hides never counts, neither in mosaics nor in composites. Where the mask itself has no
data, nothing is known about the ground, so such pixels are hidden too.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass

import numpy as np
from pyproj import CRS

from scenebeam.raster.grid import Grid
from scenebeam.raster.mapping import GridMapping
from scenebeam.raster.morphology import dilate, distance_to, erode, opened
from scenebeam.raster.source import Block, Source
from scenebeam.raster.validity import Array, Mask, fill_masked, split_mask, valid_mask
from scenebeam.raster.warp import map_to_grid

_CHUNKS_AHEAD = 2
"""Chunks of rows of the output whose mask is read before it is needed."""


@dataclass(frozen=True)
class PixelTest:
    """Which values of a mask band hide the ground. One of the first four is given."""

    keep: tuple[int, ...] = ()
    """Classes of clear ground: all others are hidden."""
    drop: tuple[int, ...] = ()
    """Classes that are hidden."""
    bits: tuple[int, ...] = ()
    """Bits of a bit field, from 0, any of which hides the ground."""
    above: float | None = None
    """Probability, in percent, from which the ground is hidden."""
    opening: float = 0.0
    """Hidden areas into which a disk of this radius does not fit count as clear, in meters."""
    erode: float = 0.0
    """Meters by which hidden areas shrink, after the opening."""
    dilate: float = 0.0
    """Meters by which hidden areas grow, at last."""

    def hides(self, values: Array) -> Mask:
        """Return where values hide the ground, without opening, erosion and dilation.

        Args:
            values: Classes, bit fields such as Landsat's QA_PIXEL, or probabilities in percent.
        """
        if self.above is not None:
            return np.asarray(values >= self.above)
        if self.bits:
            selected = values.dtype.type(sum(1 << bit for bit in self.bits))
            return np.asarray((values & selected) != 0)
        listed = self.keep or self.drop
        if values.dtype == np.uint8:
            table = np.zeros(256, bool)
            table[[number for number in listed if 0 <= number < 256]] = True
            is_listed = table[values]
        else:
            is_listed = np.isin(values, listed)
        return np.asarray(~is_listed if self.keep else is_listed)

    def hidden(self, values: Array, nodata: float | None) -> Mask:
        """Return where the ground is hidden, pixel by pixel; also where there is no data."""
        valid = valid_mask(values, nodata)
        hidden = self.hides(np.asarray(values))
        return hidden if valid is None else hidden | ~valid

    def radii(self, pixel: float) -> tuple[int, int, int]:
        """Return the radii of opening, erosion and dilation in pixels of a size in meters."""
        opening, eroded, dilated = (
            math.floor(meters / pixel + 0.5) for meters in (self.opening, self.erode, self.dilate)
        )
        return opening, eroded, dilated

    def reshape(self, hidden: Mask, pixel: float) -> Mask:
        """Open, erode and dilate hidden areas, in this order."""
        opening, eroded, dilated = self.radii(pixel)
        return dilate(erode(opened(hidden, opening), eroded), dilated)


@dataclass(frozen=True)
class MaskBand:
    """A mask band of one scene: its open file, and what its values mean."""

    source: Source
    nodata: float | None
    test: PixelTest


class SceneMask:
    """Where one scene is clear on a grid, chunk by chunk. Safe to share between threads.

    A chunk is computed once, for all bands of the scene, and forgotten when each of them has
    released it. Masks are read on a grid that is wider than the output by as much as hidden areas
    may grow, so they are the same on both sides of a cut between chunks or shards.
    """

    def __init__(
        self,
        label: str,
        bands: Sequence[MaskBand],
        grid: Grid,
        whole: Grid,
        users: int,
        reach: float = 0.0,
    ) -> None:
        """Plan where the mask is. Nothing is read yet.

        Args:
            label: Name of the mask, for messages.
            bands: The mask bands; what any of them hides is hidden.
            grid: The grid.
            whole: The whole output, if `grid` is only a shard of it.
            users: How often each chunk is released.
            reach: Distance to hidden ground up to which `distance` is needed, in meters.
        """
        self.label = label
        self._pixel = pixel_meters(grid)
        self._reach = math.ceil(reach / self._pixel)
        margins = [2 * opening + more + less for opening, more, less in map(self._radii, bands)]
        self._margin = max(margins, default=0) + self._reach
        padded, padded_whole = _pad(grid, self._margin), _pad(whole, self._margin)
        self._bands = [_BandOnGrid(band, padded, padded_whole) for band in bands]
        self._shape, self._users = grid.shape, users
        self._chunks: dict[int, tuple[Mask, Array | None]] = {}
        self._released: dict[int, int] = {}
        self._lock = threading.Lock()

    def _radii(self, band: MaskBand) -> tuple[int, int, int]:
        return band.test.radii(self._pixel)

    def start(self, top: int, bottom: int) -> None:
        """Start to read what rows [top, bottom) and the chunks after them need."""
        ahead = (bottom - top) * _CHUNKS_AHEAD
        with self._lock:
            for band in self._bands:
                band.start(top, min(bottom + ahead, self._shape[0]) + 2 * self._margin)

    def clear(self, top: int, bottom: int) -> Mask:
        """Return where rows [top, bottom) are clear: a boolean array of their shape.

        Raises:
            ReadError: The mask cannot be read.
        """
        return self._chunk(top, bottom)[0]

    def distance(self, top: int, bottom: int) -> Array:
        """Return the distance to hidden ground in meters, at most `reach`, as float32."""
        distance = self._chunk(top, bottom)[1]
        assert distance is not None, "the mask was created without a reach"
        return distance

    def release(self, top: int) -> None:
        """Note that one more user needs the chunk from `top` no longer."""
        with self._lock:
            self._released[top] = self._released.get(top, 0) + 1
            if self._released[top] == self._users:
                self._chunks.pop(top, None)

    def _chunk(self, top: int, bottom: int) -> tuple[Mask, Array | None]:
        self.start(top, bottom)
        with self._lock:
            if top not in self._chunks:
                self._chunks[top] = self._compute(top, bottom)
            return self._chunks[top]

    def _compute(self, top: int, bottom: int) -> tuple[Mask, Array | None]:
        margin, (_, width) = self._margin, self._shape
        shape = (bottom - top + 2 * margin, width + 2 * margin)
        hidden, known = np.zeros(shape, bool), np.ones(shape, bool)
        for band in self._bands:
            values, has_data = band.read(top, bottom + 2 * margin, shape)
            # What the file does not say is hidden, but does not grow into its surroundings.
            hidden |= band.test.reshape(band.test.hides(values) & has_data, self._pixel)
            known &= has_data
        inner = (slice(margin, shape[0] - margin), slice(margin, shape[1] - margin))
        distance = None
        if self._reach:
            pixels = distance_to(hidden, self._reach)[inner]
            distance = pixels * np.float32(self._pixel)
        return ~hidden[inner] & known[inner], distance


class _BandOnGrid:
    """One mask band on the padded grid, and its blocks that are being read."""

    def __init__(self, band: MaskBand, grid: Grid, whole: Grid) -> None:
        self._source, self._nodata, self.test = band.source, band.nodata, band.test
        self._mapping: GridMapping = map_to_grid(
            band.source.info, grid, "nearest", band.nodata, whole
        )
        self._blocks: dict[Block, Future[Array]] = {}

    def start(self, top: int, bottom: int) -> None:
        blocks = dict.fromkeys(block for block, _ in self._mapping.required_blocks(top, bottom))
        missing = [block for block in blocks if block not in self._blocks]
        if missing:
            self._blocks.update(self._source.fetch(missing))

    def read(self, top: int, bottom: int, shape: tuple[int, int]) -> tuple[Array, Mask]:
        """Return the values of rows [top, bottom), and where there are any."""
        values = np.zeros(shape, self._source.info.dtype)
        has_data = np.zeros(shape, bool)
        blocks = list(
            dict.fromkeys(block for block, _ in self._mapping.required_blocks(top, bottom))
        )
        for region, pixels, reach in self._mapping.resample(top, bottom, blocks, self._get):
            numbers, inside = split_mask(pixels, reach)
            valid = valid_mask(numbers, self._nodata)
            if valid is not None:
                inside = valid if inside is None else valid & inside
            np.copyto(values[region], numbers, where=True if inside is None else inside)
            has_data[region] |= True if inside is None else inside
        # No later row needs a block that ends above it.
        first_needed = min(blocks, default=(0, 0))[0]
        for block in [block for block in self._blocks if block[0] < first_needed]:
            del self._blocks[block]
        return values, has_data

    def _get(self, block: Block) -> Array:
        return fill_masked(self._blocks[block].result(), self._nodata)


def pixel_meters(grid: Grid) -> float:
    """Return the size of a grid's pixels in meters; of degrees, that along a meridian."""
    size = float(abs(grid.transform.e))
    return size * 111_320.0 if CRS.from_user_input(grid.crs).is_geographic else size


def _pad(grid: Grid, margin: int) -> Grid:
    return grid.pad(margin) if margin else grid
