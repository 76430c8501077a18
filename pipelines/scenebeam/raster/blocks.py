"""Blocks of tiled GeoTIFFs, straight out of the file: each fetched once and decoded once, whatever bands are wanted."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from functools import partial
from typing import Any
from weakref import WeakValueDictionary

import imagecodecs
import numpy as np

from scenebeam.errors import ReadError
from scenebeam.raster.source import LOOK, Block, RasterInfo, Source, read_window
from scenebeam.raster.tiff import TiffLayout, read_layout
from scenebeam.raster.validity import Array
from scenebeam.transfer.access import shown
from scenebeam.transfer.rangefile import RangeFile
from scenebeam.transfer.ranges import Budget, cpu_threads, io_threads, read_range

_GAP = 64 * 1024
"""Bytes between two blocks that cost less to read than another request."""
_LARGEST_REQUEST = 8 * 2**20
_KEPT = 64 * 2**20
"""Bytes of decoded blocks that one file holds for those of its bands that have not asked for them yet."""
_LEAST_LOOKS = 3
"""Where there is no overview: blocks across and down, more of them where they are small."""
_MOST_PACKED = 1500
"""Bytes that one byte of DEFLATE (1,032) or LZW (1,365) can come to, at most: more is a forged header."""

Stored = tuple[int, int, Block]
"""Offset, size, and block."""


class TiffFile:
    """One open tiled TIFF, shared by the sources of its bands."""

    def __init__(self, layout: TiffLayout, file: RangeFile, budget: Budget) -> None:
        self.layout, self.budget = layout, budget
        self._file = file
        self._lock = threading.Lock()
        self._decoded: WeakValueDictionary[int, _Decoded] = WeakValueDictionary()
        self._kept: OrderedDict[int, _Decoded] = OrderedDict()
        self._bands: set[int] = set()

    def source(self, band: int) -> TiffSource:
        """One of its bands, from 1."""
        with self._lock:
            self._bands.add(band)
        return TiffSource(self, band)

    def fetch(self, blocks: Iterable[Block], band: int) -> dict[Block, Future[Array]]:
        """Start reading blocks of a band (from 1); one that another band has asked for and still holds is shared."""
        futures: dict[Block, Future[Array]] = {}
        wanted: list[Stored] = []
        waiting: dict[Block, _Decoded] = {}
        for offset, size, block in self.stored(blocks, band):
            futures[block] = Future()
            if size == 0:
                futures[block].set_result(self._cut(self._empty(), block))
                continue
            number = self.layout.number(*block, band)
            with self._lock:
                decoded = self._decoded.get(number)
                if decoded is None:
                    decoded = self._decoded[number] = _Decoded()
                    wanted.append((offset, size, block))
                self._keep(number, decoded, band)
            waiting[block] = decoded
        for run in _runs(wanted):
            io_threads().submit(self._read_run, run, {block: waiting[block] for _, _, block in run})
        for block, decoded in waiting.items():
            decoded.give(futures[block], partial(self._pixels, block, band))
        return futures

    def stored(self, blocks: Iterable[Block], band: int) -> list[Stored]:
        """Where blocks lie, in file order."""
        layout = self.layout
        numbers = [(layout.number(*block, band), block) for block in blocks]
        return sorted((int(layout.offsets[n]), int(layout.sizes[n]), block) for n, block in numbers)

    def cost(self, blocks: Iterable[Block], band: int) -> tuple[int, int]:
        """Requests and bytes of fetching them."""
        runs = list(_runs([one for one in self.stored(blocks, band) if one[1]]))
        return len(runs), sum(run[-1][0] + run[-1][1] - run[0][0] for run in runs)

    def _keep(self, number: int, decoded: _Decoded, band: int) -> None:
        """Hold a block of several bands for those of them that are open and have not asked for it yet."""
        if not self.layout.interleaved or len(self._bands) < 2:
            return
        decoded.given.add(band)
        if decoded.given >= self._bands:
            self._kept.pop(number, None)
            return
        self._kept[number] = decoded
        size = self.layout.block[0] * self.layout.block[1] * self.layout.count * self.layout.dtype.itemsize
        while len(self._kept) * size > _KEPT and len(self._kept) > 1:
            self._kept.popitem(last=False)

    def _read_run(self, run: list[Stored], decoded: dict[Block, _Decoded]) -> None:
        """Fetch one run of neighboring blocks and hand each to a decoder."""
        try:
            body = self._read(run[0][0], run[-1][0] + run[-1][1])
        except BaseException as error:
            for _, _, block in run:
                decoded[block].settle(error)
            return
        for stored in run:
            part = body[stored[0] - run[0][0] :][: stored[1]]
            cpu_threads().submit(self._decode_into, decoded[stored[2]], part, stored)

    def _read(self, start: int, stop: int) -> memoryview:
        """Bytes of the file. What would make them unreadable for good is believed of a second, independent answer."""
        layout = self.layout
        for fresh in (False, True):
            try:
                body = read_range(layout.href, start, stop, self.budget, layout.signing, fresh=fresh)
            except ReadError as error:
                if fresh or not error.permanent:
                    raise
                continue
            if len(body) == stop - start:
                return memoryview(body)
        raise ReadError(f"{shown(layout.href)} is truncated: it ends at byte {start + len(body):,}")

    def _decode_into(self, decoded: _Decoded, encoded: memoryview, stored: Stored) -> None:
        try:
            samples = decode(self.layout, encoded)
        except Exception as error:
            io_threads().submit(self._read_again, decoded, encoded, stored, str(error))
        else:
            decoded.settle(samples)

    def _read_again(self, decoded: _Decoded, encoded: memoryview, stored: Stored, reason: str) -> None:
        """Decide on a block that cannot be decoded: it is corrupt if an independent answer brings the same bytes."""
        name, (offset, size, block) = shown(self.layout.href), stored
        try:
            for _ in range(self.budget.attempts):
                again = memoryview(
                    read_range(self.layout.href, offset, offset + size, self.budget, self.layout.signing, fresh=True)
                )
                if again == encoded:
                    self._check_header()
                    raise ReadError(f"{name}: block {block} is corrupt: {reason}")
                try:
                    decoded.settle(decode(self.layout, again))
                    return
                except Exception as error:
                    encoded, reason = again, str(error)
            raise ReadError(
                f"{name}: block {block} comes differently each time that it is read; run again later", permanent=False
            )
        except BaseException as error:
            decoded.settle(error)

    def _check_header(self) -> None:
        """Raise a ReadError that may pass where the header, too, comes differently the second time."""
        layout = self.layout
        again = RangeFile(layout.href, self.budget, layout.signing, fresh=True)
        if not self._file.agrees_with(again):
            raise ReadError(f"{shown(layout.href)} comes differently each time that it is read", permanent=False)

    def _pixels(self, block: Block, band: int, samples: Array) -> Array:
        return self._cut(samples[:, :, (band - 1) if self.layout.interleaved else 0], block)

    def _cut(self, full: Array, block: Block) -> Array:
        """A block at the right or lower edge is stored whole; its part outside the image is padding."""
        height = min(full.shape[0], self.layout.height - block[0] * self.layout.block[0])
        width = min(full.shape[1], self.layout.width - block[1] * self.layout.block[1])
        return full[:height, :width]

    def _empty(self) -> Array:
        """A block that was never written: nodata, and 0 where there is none."""
        fill = 0 if self.layout.nodata is None else self.layout.nodata
        return np.full(self.layout.block, fill, self.layout.dtype.newbyteorder("="))


class _Decoded:
    """All samples of one block, (rows, columns, samples), as long as a future of one of its bands is held."""

    def __init__(self) -> None:
        self.given: set[int] = set()
        """Bands that have asked for it."""
        self._lock = threading.Lock()
        self._result: Array | BaseException | None = None
        self._waiting: list[tuple[Future[Array], Callable[[Array], Array]]] = []

    def give(self, future: Future[Array], part: Callable[[Array], Array]) -> None:
        """Let `future` have a part of the samples when they are there; it keeps them all until then, and after."""
        future.block = self  # type: ignore[attr-defined]
        with self._lock:
            if self._result is None:
                self._waiting.append((future, part))
                return
        self._pass_on(future, part)

    def settle(self, result: Array | BaseException) -> None:
        """The samples, or why there are none."""
        with self._lock:
            self._result, waiting = result, self._waiting
            self._waiting = []
        for future, part in waiting:
            self._pass_on(future, part)

    def _pass_on(self, future: Future[Array], part: Callable[[Array], Array]) -> None:
        if isinstance(self._result, BaseException):
            future.set_exception(self._result)
        else:
            assert self._result is not None, "it has been settled"
            future.set_result(part(self._result))


class TiffSource(Source):
    """One band of a tiled TIFF."""

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

    def fetch(self, blocks: Iterable[Block]) -> dict[Block, Future[Array]]:
        """See Source."""
        return self._file.fetch(blocks, self._band)

    def cost(self, blocks: Iterable[Block]) -> tuple[int, int] | None:
        """See Source."""
        return self._file.cost(blocks, self._band)

    def look(self, *, at_full_size: bool = False) -> list[Array]:
        """See Source."""
        own, budget = self._file.layout, self._file.budget
        file = RangeFile(own.href, budget, own.signing)
        layout = read_layout(file, overviews=True)
        if layout is None:
            raise ReadError(f"{shown(own.href)} has changed while it was read", permanent=False)
        if layout.missing:
            raise ReadError(f"{shown(own.href)} is truncated: {layout.missing:,} bytes of it are not there")
        rows, columns = -(-layout.height // layout.block[0]), -(-layout.width // layout.block[1])
        ends = self.fetch({(0, 0), (rows - 1, columns - 1)})
        small = [one for one in (layout, *layout.overviews) if one.width * one.height <= LOOK]
        if small and (small[0] is layout or not at_full_size):
            source = TiffFile(small[0], file, budget).source(self._band)
            pieces = [read_window(source, 0, 0, small[0].height, small[0].width)]
        else:
            most = max(_LEAST_LOOKS, round((4 * LOOK / (layout.block[0] * layout.block[1])) ** 0.5))
            spread = {(row, column) for row in _spread(rows, most) for column in _spread(columns, most)}
            pieces = [future.result() for _, future in sorted(self.fetch(spread).items())]
        for future in ends.values():
            future.result()
        return pieces


def _spread(count: int, most: int) -> list[int]:
    """At most `most` of `count` places, evenly from the first to the last."""
    if count <= most:
        return list(range(count))
    return [round(number * (count - 1) / (most - 1)) for number in range(most)]


def _runs(stored: list[Stored]) -> Iterable[list[Stored]]:
    """Blocks in file order → runs of neighbors, each to be read by one request."""
    run: list[Stored] = []
    for offset, size, block in stored:
        if run and (offset - (run[-1][0] + run[-1][1]) > _GAP or offset + size - run[0][0] > _LARGEST_REQUEST):
            yield run
            run = []
        run.append((offset, size, block))
    if run:
        yield run


_DECODE: dict[str, Any] = {"deflate": imagecodecs.deflate_decode, "zstd": imagecodecs.zstd_decode}


def decode(layout: TiffLayout, encoded: memoryview) -> Array:
    """Compressed bytes → (rows, columns, samples) in this machine's byte order. Raises what the codecs raise."""
    shape = (*layout.block, layout.count if layout.interleaved else 1)
    size = int(np.prod(shape)) * layout.dtype.itemsize
    if layout.codec in ("deflate", "lzw") and size > _MOST_PACKED * len(encoded) + _MOST_PACKED:
        raise ValueError(f"{len(encoded)} bytes cannot come to {size}")
    raw = np.empty(size, np.uint8)
    if layout.codec == "none":
        raw[:] = np.frombuffer(encoded, np.uint8, size)
    elif layout.codec == "lzw":
        raw = np.frombuffer(imagecodecs.lzw_decode(bytes(encoded), out=size), np.uint8)
    elif len(_DECODE[layout.codec](encoded, out=raw)) != size:
        raise ValueError(f"a block of {size} bytes was expected")
    if raw.nbytes != size:
        raise ValueError(f"it has {raw.nbytes} bytes where {size} were expected")
    if layout.predictor == 3:
        pixels = np.empty(shape, layout.dtype)
        imagecodecs.floatpred_decode(raw.view(layout.dtype).reshape(shape), axis=-2, out=pixels)
    else:
        pixels = raw.view(layout.dtype).reshape(shape)
    if not pixels.dtype.isnative:
        pixels = pixels.astype(pixels.dtype.newbyteorder("="))
    if layout.predictor == 2:
        pixels = imagecodecs.delta_decode(pixels, axis=-2, out=pixels if pixels.flags.writeable else None)
    return pixels
