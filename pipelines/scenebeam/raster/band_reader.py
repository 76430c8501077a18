"""Sources that read GeoTIFFs by block: tiles one by one, strips in groups."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import replace

import numpy as np

from scenebeam.raster.blocks import TiffFile
from scenebeam.raster.source import OVERVIEW_PIXELS, Block, RasterInfo, Source, read_window
from scenebeam.raster.validity import Array

_SAMPLED_AT_ONCE = 64 * 2**20
"""Bytes of decoded blocks that a sample of an image holds at once."""
_STRIP_ROWS = 256
"""Rows of strips that are read as one block."""
_MIN_SAMPLED_BLOCKS = 3
"""Blocks across and down that are sampled without an overview; more of them if they are small."""


def open_band(file: TiffFile, band: int) -> TiffSource:
    """Open a band, from 1, of an open file."""
    file.register_band(band)
    return StripSource(file, band) if file.layout.strips else TiffSource(file, band)


class TiffSource(Source):
    """One band of a TIFF in tiles. A block of the source is a block of the file."""

    def __init__(self, file: TiffFile, band: int) -> None:
        layout = file.layout
        self._file, self._band = file, band
        self.info = RasterInfo(
            layout.href,
            layout.crs,
            layout.transform,
            layout.width,
            layout.height,
            layout.count,
            layout.dtype.newbyteorder("="),
            layout.nodata,
            layout.block,
            layout.descriptions,
            "GTiff",
        )

    @property
    def tiff(self) -> TiffFile:
        """The file."""
        return self._file

    @property
    def band(self) -> int:
        """Number of the band in the file, from 1."""
        return self._band

    @property
    def block_bytes(self) -> int:
        """See Source."""
        return self._file.layout.block_bytes

    def fetch(self, blocks: Iterable[Block]) -> dict[Block, Future[Array]]:
        """See Source."""
        return self._file.fetch(blocks, self._band)

    def prefetch(self, blocks: Iterable[Block], release: Callable[[int], None]) -> int:
        """See Source."""
        return self._file.prefetch(blocks, self._band, release)

    def cost(self, blocks: Iterable[Block]) -> tuple[int, int] | None:
        """See Source."""
        return self._file.cost(blocks, self._band)

    def sample_overview(self, *, at_full_size: bool = False) -> list[Array]:
        """See Source."""
        layout, overviews = self._file.with_overviews()
        height, width = self.info.block
        rows, columns = -(-layout.height // height), -(-layout.width // width)
        for future in self.fetch({(0, 0), (rows - 1, columns - 1)}).values():
            future.result()
        # The largest overview that is small enough, or the image itself.
        for file in (self._file, *overviews):
            if file.layout.width * file.layout.height > OVERVIEW_PIXELS:
                continue
            if at_full_size and file is not self._file:
                break
            source = open_band(file, self._band)
            return [read_window(source, 0, 0, source.info.height, source.info.width)]
        return self._sample_blocks(rows, columns)

    def _sample_blocks(self, rows: int, columns: int) -> list[Array]:
        """Read some blocks from all over the image, out of `rows` x `columns`."""
        height, width = self.info.block
        per_side = max(_MIN_SAMPLED_BLOCKS, round((4 * OVERVIEW_PIXELS / (height * width)) ** 0.5))
        blocks: list[Block] = []
        for row in _spread(rows, per_side):
            blocks += [(row, column) for column in _spread(columns, per_side)]
        pieces: list[Array] = []
        at_once = max(1, _SAMPLED_AT_ONCE // self.block_bytes)
        for first in range(0, len(blocks), at_once):
            futures = self.fetch(blocks[first : first + at_once])
            pieces += [_thinned(future.result()) for _, future in sorted(futures.items())]
        return pieces


class StripSource(TiffSource):
    """One band of a TIFF in strips. A block of the source is a group of strips.

    A strip is often a single row, which is too little work to be worth a task of its own.
    """

    def __init__(self, file: TiffFile, band: int) -> None:
        super().__init__(file, band)
        self._strips_per_block = max(1, _STRIP_ROWS // file.layout.block[0])
        self._strips = -(-file.layout.height // file.layout.block[0])
        rows = self._strips_per_block * file.layout.block[0]
        self.info = replace(self.info, block=(rows, file.layout.width))

    @property
    def block_bytes(self) -> int:
        """See Source."""
        return self._strips_per_block * self._file.layout.block_bytes

    def fetch(self, blocks: Iterable[Block]) -> dict[Block, Future[Array]]:
        """See Source."""
        groups = {block: self._strips_of(block) for block in blocks}
        # One call for all strips, so that neighbors are fetched together.
        all_strips: list[Block] = []
        for strips in groups.values():
            all_strips += strips
        futures = self._file.fetch(all_strips, self._band)
        return {
            block: _concatenated([futures[strip] for strip in strips])
            for block, strips in groups.items()
        }

    def prefetch(self, blocks: Iterable[Block], release: Callable[[int], None]) -> int:
        """See Source."""
        return self._file.prefetch(self._all_strips(blocks), self._band, release)

    def cost(self, blocks: Iterable[Block]) -> tuple[int, int] | None:
        """See Source."""
        return self._file.cost(self._all_strips(blocks), self._band)

    def _all_strips(self, blocks: Iterable[Block]) -> list[Block]:
        strips: list[Block] = []
        for block in blocks:
            strips += self._strips_of(block)
        return strips

    def _strips_of(self, block: Block) -> list[Block]:
        """Strips of a block, as blocks of the file."""
        first = block[0] * self._strips_per_block
        last = min(first + self._strips_per_block, self._strips)
        return [(strip, 0) for strip in range(first, last)]


def _concatenated(futures: list[Future[Array]]) -> Future[Array]:
    """Return a future of all strips, top to bottom, as one array."""
    if len(futures) == 1:
        return futures[0]
    whole: Future[Array] = Future()
    pending, lock = [len(futures)], threading.Lock()

    def on_done(_: Future[Array]) -> None:
        with lock:
            pending[0] -= 1
            is_last = pending[0] == 0
        if not is_last:
            return
        error = _first_error(futures)
        if error is not None:
            whole.set_exception(error)
        else:
            whole.set_result(np.concatenate([future.result() for future in futures]))
        futures.clear()  # lets go of the strips, now that they have been copied

    for future in list(futures):
        future.add_done_callback(on_done)
    return whole


def _first_error(futures: list[Future[Array]]) -> BaseException | None:
    for future in futures:
        error = future.exception()
        if error is not None:
            return error
    return None


def _thinned(pixels: Array) -> Array:
    """Take every n-th pixel of a block that is larger than an overview needs to be."""
    step = math.ceil(math.sqrt(pixels.size / OVERVIEW_PIXELS))
    return pixels if step == 1 else pixels[::step, ::step].copy()


def _spread(count: int, most: int) -> list[int]:
    """Return at most `most` of `count` indices, evenly spread from the first to the last."""
    if count <= most:
        return list(range(count))
    return [round(number * (count - 1) / (most - 1)) for number in range(most)]
