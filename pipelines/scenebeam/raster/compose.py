"""Compose many sources into bands on one grid, reading and decoding each compressed block once.

The grid is computed in chunks of rows, from top to bottom, several bands at once. Compressed blocks
are requested far ahead on the I/O pool (see `read_ahead`), decoded on the CPU pool one chunk ahead,
and dropped after the last chunk that needs them. So memory is bounded by a few chunks of rows and
some megabytes of compressed blocks, however large the area is.

Which blocks are needed at all is decided in two steps:

1. *Before reading*, by footprints: a block entirely under the footprints of sources with
   higher priority will probably not be seen, and is not prefetched.
2. *While merging*, by pixels: a block is read, prefetched or not, as long as the region that it
   lands on still contains nodata. So a footprint that promises too much only costs time.

A source may have a mask (see `masks`): what it hides does not count, and blocks that it hides
entirely are not decoded. Where an observation is only wanted for pixels that others leave open
(`Demand`), its blocks are not prefetched, and are read only if a clear pixel of them is wanted.

Sources without any data are noticed on the way. A source that is blank where its footprint promises
data is an error, which the caller can report, and then compose again without it.
"""

from __future__ import annotations

import mmap
import os
import threading
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import shapely
from shapely.geometry import box
from shapely.geometry.base import BaseGeometry

from scenebeam.errors import CheckError, ReadError
from scenebeam.raster.grid import Grid
from scenebeam.raster.layers import BandLayers, Layer, LayerError
from scenebeam.raster.merge import Merge, Region, harmonize, merge_method, new_merge
from scenebeam.raster.placement import Placement, Placements
from scenebeam.raster.read_ahead import IN_FLIGHT_ROWS, MAX_IN_FLIGHT, ReadAhead, Request
from scenebeam.raster.sample import Sample, blank_reason, sample_pieces
from scenebeam.raster.source import Block
from scenebeam.raster.validity import (
    Array,
    Mask,
    fill_masked,
    split_mask,
    valid_count,
    valid_mask,
)

ROW_CHUNK = 512
"""Rows of the grid that are computed together: one row of blocks of the output."""
AHEAD = 1
"""Chunks of rows whose blocks are decoded while one is composed."""
_DECODED_AHEAD = 8
"""Bands of a chunk of rows that are decoded ahead, if there are more."""
_TRIMMED = 0.75
"""Share of the columns of a block up to which it is worth a copy to drop the others."""
_REQUESTED_TOGETHER = 2
"""Chunks of rows whose blocks are requested together: source blocks often have twice their rows."""
_SAMPLE_STRIDE = 8
"""Smallest stride of samples: noise is in all pixels, so a 64th of them is enough to see it."""
_SAME_AREA = 0.999
"""Fraction of the image's area from which a footprint is just the outline of the image."""
_ENOUGH_PROMISED = 4096
"""Pixels inside a footprint that prove a source blank if none of them holds data."""


RowChunks = Generator[tuple[int, int, Array], None, None]
"""Yields chunks of rows: (index of the image, first row in the grid, pixels of the rows)."""


def compose(grid: Grid, bands: Sequence[BandLayers], whole: Grid | None = None) -> RowChunks:
    """Compose bands onto a grid, one chunk of rows at a time.

    Args:
        grid: The output grid.
        bands: The bands.
        whole: The whole output, if `grid` is only a shard of it: see `map_to_grid`.

    Yields:
        Index of the band, first row, and pixels of shape (rows, width of the grid), with ROW_CHUNK
        rows or fewer at the end. All bands of a chunk of rows come before the next one.

    Raises:
        LayerError: A source is blank or permanently broken.
        ReadError: A source cannot be read now, but perhaps later.
    """
    height = grid.shape[0]
    chunks = [(top, min(top + ROW_CHUNK, height)) for top in range(0, height, ROW_CHUNK)]
    placements = Placements(grid, chunks, whole)
    trims = len(bands) > _DECODED_AHEAD
    composites = [_BandComposite(grid, band, chunks, placements, trims=trims) for band in bands]
    if not composites:
        return
    row_bytes = grid.shape[1] * sum(band.dtype.itemsize for band in bands)
    max_bytes = min(MAX_IN_FLIGHT, IN_FLIGHT_ROWS * row_bytes)
    read_ahead = ReadAhead(_requests(composites, len(chunks)), max_bytes)
    # Bands are composed in threads of their own, in order, while the caller works on those before.
    at_once = min(len(composites), os.cpu_count() or 1)
    threads = ThreadPoolExecutor(at_once, thread_name_prefix="compose")
    running: deque[tuple[int, int, Future[Array]]] = deque()
    # One more waits for a thread, unless it might then be the same band as one that runs.
    most = min(at_once + 1, max(len(composites), 2))
    ahead = _decode_ahead(len(composites), most)
    interrupted = False
    try:
        for composite in composites[:ahead]:
            composite.start(0)
        for number, (top, _) in enumerate(chunks):
            for index, composite in enumerate(composites):
                if len(running) == most:
                    yield _result(running)
                chunks_on, next_index = divmod(index + ahead, len(composites))
                composites[next_index].start(number + chunks_on)
                running.append((index, top, threads.submit(composite.row_chunk, number)))
        while running:
            yield _result(running)
    except KeyboardInterrupt:
        interrupted = True
        raise
    finally:
        read_ahead.stop()
        for band in bands:
            if band.demand is not None:
                band.demand.close()
        # The caller closes its sources next: no thread may read from them any more. But if the
        # process is about to end, do not wait for a slow server.
        threads.shutdown(wait=not interrupted, cancel_futures=True)
    for composite in composites:
        composite.check_not_blank()


def _decode_ahead(bands: int, running: int) -> int:
    """Return how many chunks of bands are decoded before they are composed.

    A whole chunk of rows of a few bands, but no more than keeps all cores busy: of the many bands
    of a composite, one chunk of rows would take most of the memory.
    """
    return min(bands, max(_DECODED_AHEAD, 2 * running))


def _result(running: deque[tuple[int, int, Future[Array]]]) -> tuple[int, int, Array]:
    index, top, future = running.popleft()
    return index, top, future.result()


def _requests(composites: Sequence[_BandComposite], chunks: int) -> Iterator[Request]:
    """Yield the blocks of all bands in the order in which the output needs them."""
    for first in range(0, chunks, _REQUESTED_TOGETHER):
        for composite in composites:
            yield from composite.requests(first, first + _REQUESTED_TOGETHER)


class _BandComposite:
    """All sources of one band on one grid, in the order in which they are merged."""

    def __init__(
        self,
        grid: Grid,
        band: BandLayers,
        chunks: Sequence[tuple[int, int]],
        placements: Placements,
        *,
        trims: bool,
    ) -> None:
        self._trims = trims
        self._grid, self._band, self._chunks = grid, band, chunks
        order = merge_method(band.method).order
        layers = list(reversed(band.layers)) if order == "reversed" else list(band.layers)
        places = placements.of(
            [(layer.source.info, layer.footprint) for layer in layers],
            band.resampling,
            band.nodata,
            is_ordered=order != "any",
        )
        self._layers = []
        for layer, place in zip(layers, places, strict=True):
            self._layers.append(_LayerOnGrid(layer, place, grid, band))

    def requests(self, first: int, last: int) -> Iterator[Request]:
        """Yield the blocks that chunks [first, last) need and those before them do not."""
        # What may not be wanted is not read ahead.
        for layer in self._layers if self._band.demand is None else ():
            blocks = layer.place.blocks_for(first, last)
            if blocks:
                yield Request(layer.source, blocks)

    def start(self, number: int) -> None:
        """Start to decode what a chunk of rows needs and the one before it does not.

        Masks are started too: they are needed first.
        """
        if number >= len(self._chunks):
            return
        for layer in self._layers:
            if layer.mask is not None:
                layer.mask.start(*self._chunks[number])
            if self._band.demand is None:
                layer.start(layer.place.blocks_for(number, number + 1))

    def row_chunk(self, number: int) -> Array:
        """Compose a chunk of rows. Chunks must be composed in order, by one thread at a time."""
        top, bottom = self._chunks[number]
        demand = self._band.demand
        wanted = None if demand is None else demand.wanted(top, bottom)
        shape = (bottom - top, self._grid.shape[1])
        merge = new_merge(self._band.method, shape, self._band.dtype, self._band.nodata)
        if self._band.on_taken is not None:
            merge.track_sources()
        for index, layer in enumerate(self._layers):
            merge.source = index
            layer.composite(merge, top, bottom, wanted)
            layer.forget(bottom, trim=self._trims)
        if self._band.on_taken is not None:
            self._band.on_taken(top, merge.taken)
        return merge.result()

    def check_not_blank(self) -> None:
        for layer in self._layers:
            reason = layer.why_blank()
            if reason:
                raise LayerError(self._band.name, layer.name, CheckError(reason))


class _LayerOnGrid:
    """One source on the grid: its place, its blocks in flight, and statistics of its pixels."""

    def __init__(self, layer: Layer, place: Placement, grid: Grid, band: BandLayers) -> None:
        self.name, self.source, self.place = layer.name, layer.source, place
        self.mask = layer.mask
        self._layer, self._band = layer, band
        self._mapping = place.mapping
        self._blocks: dict[Block, Future[Array]] = {}
        self._trimmed: set[Block] = set()
        self._lock = threading.Lock()  # blocks are started by the caller of `compose`, and here
        self._seen = 0  # pixels that were looked at
        self._valid = 0  # those of them that hold data, until there are any
        self._promised = 0.0  # pixels inside the core of the footprint, until there is data
        left, first, right, last = self._mapping.outline
        on_grid = min(right - left, grid.shape[1]) * min(last - first, grid.shape[0])
        self._sample = Sample(int(max(on_grid, 1)), _SAMPLE_STRIDE)

    def start(self, blocks: list[Block]) -> None:
        """Start to read the blocks that have not been started yet."""
        with self._lock:
            missing = [block for block in dict.fromkeys(blocks) if block not in self._blocks]
            if missing:
                self._blocks.update(self._layer.source.fetch(missing))

    def composite(self, merge: Merge, top: int, bottom: int, wanted: Mask | None) -> None:
        """Add this source to rows [top, bottom), reading only blocks that can still change them.

        Args:
            merge: The merge.
            top: First row.
            bottom: Row after the last.
            wanted: Which pixels of the rows are wanted; None for all.
        """
        nodata = self._band.nodata
        # Earlier sources may have filled some regions completely by now; blocks that only land on
        # those are neither waited for nor, unless they were prefetched, read at all.
        required = self._mapping.required_blocks(top, bottom)
        visible = self._visible(top, bottom, wanted) if required else None
        blocks = []
        for block, region in required:
            if merge.can_change(region) and (visible is None or visible[region].any()):
                blocks.append(block)
        self.start(blocks)
        for region, pixels, reach in self._mapping.resample(top, bottom, blocks, self._get):
            values, inside = split_mask(pixels, reach)
            # Pixels are judged as they are in the file, before the offset is subtracted.
            self._look_at(region, top, values, inside)
            if self._layer.add_offset:
                valid = valid_mask(values, nodata)
                values = harmonize(values, valid, self._layer.add_offset, nodata)
            if visible is not None:
                inside = visible[region] if inside is None else inside & visible[region]
            merge.add(region, values, inside)
        if self.mask is not None:
            self.mask.release(top)

    def _visible(self, top: int, bottom: int, wanted: Mask | None) -> Mask | None:
        """Return which pixels of rows [top, bottom) are wanted and clear; None for all."""
        if self.mask is None:
            return wanted
        try:
            clear = self.mask.clear(top, bottom)
        except ReadError as error:
            if error.permanent:
                raise LayerError(self.mask.label, self.name, error) from error
            raise
        return clear if wanted is None else clear & wanted

    def _get(self, block: Block) -> Array:
        """Return the pixels of a block that has been started."""
        try:
            return fill_masked(self._blocks[block].result(), self._band.nodata)
        except ReadError as error:
            if error.permanent:
                raise LayerError(self._band.name, self.name, error) from error
            raise

    def forget(self, bottom: int, *, trim: bool) -> None:
        """Drop the blocks that no row from `bottom` on needs.

        Args:
            bottom: Row after the last one that is finished.
            trim: Whether to drop what blocks have beside the grid, too: of the many bands of a
                composite, narrow shards would otherwise keep much more than they need.
        """
        # Blocks of later rows than these have not been started.
        end = bottom + (AHEAD + 1) * ROW_CHUNK
        needed = {block for block, _ in self._mapping.required_blocks(bottom, end)}
        for block in list(self._blocks):
            if block not in needed:
                del self._blocks[block]
                self._trimmed.discard(block)
            elif trim and block not in self._trimmed:
                self._trim(block)

    def _trim(self, block: Block) -> None:
        """Replace a decoded block by one whose columns beside the grid take no memory."""
        future = self._blocks[block]
        if not future.done() or future.exception() is not None:
            return
        pixels, columns = future.result(), self._mapping.columns_of(block)
        if (
            isinstance(pixels, np.ma.MaskedArray)
            or columns.stop - columns.start > _TRIMMED * pixels.shape[1]
        ):
            return
        # Pages of anonymous memory exist once they are written to. Columns are contiguous.
        memory = mmap.mmap(-1, pixels.nbytes)
        kept = np.frombuffer(memory, pixels.dtype).reshape(pixels.shape, order="F")
        kept[:, columns] = pixels[:, columns]
        trimmed: Future[Array] = Future()
        trimmed.set_result(kept)
        self._blocks[block] = trimmed
        self._trimmed.add(block)

    def _look_at(self, region: Region, top: int, values: Array, inside: Mask | None) -> None:
        """Record what `why_blank` needs to know of a piece."""
        nodata = self._band.nodata
        self._seen += values.size
        # Once there is data, the source is not blank, and nothing more has to be counted.
        if not self._valid:
            core = shapely.intersection(self.place.core, _region_box(region, top))
            self._promised += core.area
            self._valid += valid_count(values if inside is None else values[inside], nodata)
        if self._band.min_std_dev is not None:
            self._sample.add(values, nodata, inside)

    def why_blank(self) -> str:
        """Return why the source is blank, as far as it was looked at; empty if it is not.

        A grid may show only the part of a source where its swath has ended, or only the inside of a
        cloud. So where the part on the grid looks blank, the whole source is judged: this also
        makes all shards of a mosaic report the same.
        """
        if self._seen and not self._valid:
            # No data was found. That is proof if a footprint that is more than the outline of the
            # image promised some; otherwise the data may all be outside of the grid.
            if self._promised >= _ENOUGH_PROMISED and self._is_footprint_tight():
                promised = f"{round(self._promised):,}"
                return f"blank: none of {promised} pixels inside its footprint holds data"
            return "" if self._sample_whole().values.size else "blank: all of it is nodata"
        # There is data, but it may be the same number everywhere.
        least = self._band.min_std_dev
        if least is None or not blank_reason(self._sample, least):
            return ""
        return blank_reason(self._sample_whole(), least)

    def _is_footprint_tight(self) -> bool:
        """Return whether the footprint says more than where the image is."""
        return bool(self.place.footprint.area < _SAME_AREA * self.place.extent.area)

    def _sample_whole(self) -> Sample:
        """Sample all of the source, wherever the grid is."""
        try:
            pieces = self._layer.source.sample_overview(at_full_size=True)
        except ReadError as error:
            if error.permanent:
                raise LayerError(self._band.name, self.name, error) from error
            raise
        return sample_pieces(pieces, self._band.nodata)


def _region_box(region: Region, top: int) -> BaseGeometry:
    """Rectangle of a region in pixels of the grid; `top` is the row that the region counts from."""
    rows, columns = region
    return box(columns.start, rows.start + top, columns.stop, rows.stop + top)
