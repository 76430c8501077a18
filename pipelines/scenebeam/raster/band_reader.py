"""Bands of GeoTIFFs that are read by block: tiles as they are, strips some at a time."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable
from concurrent.futures import Future
from dataclasses import replace

import numpy as np

from scenebeam.raster.blocks import TiffFile
from scenebeam.raster.codecs import block_bytes
from scenebeam.raster.source import LOOK, Block, RasterInfo, Source, read_window
from scenebeam.raster.validity import Array

_LOOKED_AT_ONCE = 64 * 2**20
"""Bytes of decoded blocks that a look at an image has at once."""
_STRIP_ROWS = 256
"""Rows of strips that are read as one block."""
_LEAST_LOOKS = 3
"""Where there is no overview: blocks across and down, more of them where they are small."""


def open_band(file: TiffFile, band: int) -> TiffSource:
    """One band of an open file, from 1."""
    file.expect(band)
    return StripSource(file, band) if file.layout.strips else TiffSource(file, band)


class TiffSource(Source):
    """One band of a TIFF, block by block."""

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
    def block_bytes(self) -> int:
        """See Source."""
        return block_bytes(self._file.layout)

    def fetch(self, blocks: Iterable[Block]) -> dict[Block, Future[Array]]:
        """See Source."""
        return self._file.fetch(blocks, self._band)

    def cost(self, blocks: Iterable[Block]) -> tuple[int, int] | None:
        """See Source."""
        return self._file.cost(blocks, self._band)

    def sample_overview(self, *, at_full_size: bool = False) -> list[Array]:
        """See Source."""
        layout, overviews = self._file.whole()
        height, width = self.info.block
        rows, columns = -(-layout.height // height), -(-layout.width // width)
        for future in self.fetch({(0, 0), (rows - 1, columns - 1)}).values():
            future.result()
        small = [
            one for one in (self._file, *overviews) if one.layout.width * one.layout.height <= LOOK
        ]
        if small and (small[0] is self._file or not at_full_size):
            source = open_band(small[0], self._band)
            return [read_window(source, 0, 0, source.info.height, source.info.width)]
        most = max(_LEAST_LOOKS, round((4 * LOOK / (height * width)) ** 0.5))
        spread = [(row, column) for row in _spread(rows, most) for column in _spread(columns, most)]
        pieces: list[Array] = []
        at_once = max(1, _LOOKED_AT_ONCE // self.block_bytes)
        for first in range(0, len(spread), at_once):
            futures = self.fetch(spread[first : first + at_once])
            pieces += [_thinned(future.result()) for _, future in sorted(futures.items())]
        return pieces


class StripSource(TiffSource):
    """One band of a TIFF of strips, some of which are read as one block: a row is little work."""

    def __init__(self, file: TiffFile, band: int) -> None:
        super().__init__(file, band)
        self._group = max(1, _STRIP_ROWS // file.layout.block[0])
        self._strips = -(-file.layout.height // file.layout.block[0])
        self.info = replace(
            self.info, block=(self._group * file.layout.block[0], file.layout.width)
        )

    @property
    def block_bytes(self) -> int:
        """See Source."""
        return self._group * block_bytes(self._file.layout)

    def fetch(self, blocks: Iterable[Block]) -> dict[Block, Future[Array]]:
        """See Source."""
        wanted = {block: self._of(block) for block in blocks}
        strips = self._file.fetch([strip for own in wanted.values() for strip in own], self._band)
        return {block: _stacked([strips[strip] for strip in own]) for block, own in wanted.items()}

    def cost(self, blocks: Iterable[Block]) -> tuple[int, int] | None:
        """See Source."""
        return self._file.cost([strip for block in blocks for strip in self._of(block)], self._band)

    def _of(self, block: Block) -> list[Block]:
        first = block[0] * self._group
        return [(number, 0) for number in range(first, min(first + self._group, self._strips))]


def _stacked(futures: list[Future[Array]]) -> Future[Array]:
    """Strips, top to bottom, as one array when the last of them is there."""
    if len(futures) == 1:
        return futures[0]
    whole: Future[Array] = Future()
    left, lock = [len(futures)], threading.Lock()

    def one_more(_: Future[Array]) -> None:
        with lock:
            left[0] -= 1
            last = left[0] == 0
        if not last:
            return
        error = next((one for future in futures if (one := future.exception()) is not None), None)
        if error is not None:
            whole.set_exception(error)
        else:
            whole.set_result(np.concatenate([future.result() for future in futures]))
        futures.clear()

    for future in list(futures):
        future.add_done_callback(one_more)
    return whole


def _thinned(pixels: Array) -> Array:
    """Every so many-th pixel of a block, where it has more than are enough to see it by."""
    step = math.ceil(math.sqrt(pixels.size / LOOK))
    return pixels if step == 1 else pixels[::step, ::step].copy()


def _spread(count: int, most: int) -> list[int]:
    """At most `most` of `count` places, evenly from the first to the last."""
    if count <= most:
        return list(range(count))
    return [round(number * (count - 1) / (most - 1)) for number in range(most)]
