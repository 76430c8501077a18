"""Blocks of GeoTIFFs, straight out of the file: each fetched once and decoded once, whatever bands
are wanted.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from functools import partial
from weakref import WeakValueDictionary

import numpy as np

from scenebeam.errors import ReadError
from scenebeam.raster.codecs import block_bytes, decode
from scenebeam.raster.source import Block
from scenebeam.raster.tiff import TiffLayout, read_layout
from scenebeam.raster.validity import Array
from scenebeam.transfer.rangefile import RangeFile
from scenebeam.transfer.pools import cpu_threads, io_threads
from scenebeam.transfer.ranges import read_range
from scenebeam.transfer.retry import Budget
from scenebeam.transfer.signing import redact_url

_GAP = 64 * 1024
"""Bytes between two blocks that cost less to read than another request."""
_LARGEST_REQUEST = 8 * 2**20
_KEPT, _KEPT_WIDE = 64 * 2**20, 256 * 2**20
"""Bytes of decoded blocks that one file holds for those of its bands that have not asked for them
yet; a wide one more, as each of its blocks is as many times the work.
"""
_KEPT_ENCODED = 128 * 2**20
"""Bytes of blocks as they are stored that are held for the same bands, so that none is read
twice.
"""
_WIDE = 8
"""Bands from which those that share a block hold copies of their own pixels, and not all samples of
the block.
"""
_LARGE = 2**26
"""Bytes of a block from which one is decoded at a time."""
_decoding_large = threading.Lock()

Stored = tuple[int, int, Block]
"""Offset, size, and block."""


class TiffFile:
    """One open TIFF, shared by the sources of its bands."""

    def __init__(self, layout: TiffLayout, file: RangeFile, budget: Budget) -> None:
        self.layout, self.budget = layout, budget
        self._file = file
        self._lock, self._reading_header = threading.Lock(), threading.Lock()
        self._decoded: WeakValueDictionary[int, _Decoded] = WeakValueDictionary()
        self._kept: OrderedDict[int, _Decoded] = OrderedDict()
        self._given: dict[int, set[int]] = {}
        """Bands that have asked for a block, as long as others have not."""
        self._encoded: dict[int, bytes] = {}
        self._encoded_size = 0
        self._bands: set[int] = set()
        self._whole: tuple[TiffLayout, list[TiffFile]] | None = None

    def expect(self, band: int) -> None:
        """Note that a band, from 1, is open: blocks are held for it that others ask for first."""
        with self._lock:
            self._bands.add(band)

    def whole(self) -> tuple[TiffLayout, list[TiffFile]]:
        """The layout with its overviews, and these opened, the largest first; read once for all
        bands.

        Raises ReadError where the file is truncated, or has become another one.
        """
        with self._reading_header:
            if self._whole is None:
                layout, name = read_layout(self._file, overviews=True), redact_url(self.layout.href)
                if layout is None:
                    raise ReadError(f"{name} has changed while it was read", permanent=False)
                if layout.missing:
                    raise ReadError(
                        f"{name} is truncated: {layout.missing:,} bytes of it are not there"
                    )
                smaller = [TiffFile(one, self._file, self.budget) for one in layout.overviews]
                for one in smaller:
                    one._bands = self._bands
                self._whole = layout, smaller
            return self._whole

    def fetch(self, blocks: Iterable[Block], band: int) -> dict[Block, Future[Array]]:
        """Start reading blocks of a band (from 1); one that another band has asked for and still
        holds is shared.
        """
        futures: dict[Block, Future[Array]] = {}
        wanted: list[Stored] = []
        held: list[tuple[_Decoded, bytes, Stored]] = []
        waiting: dict[Block, _Decoded] = {}
        for offset, size, block in self.stored(blocks, band):
            futures[block] = Future()
            if size == 0:
                futures[block].set_result(self._empty(block))
                continue
            number = self.layout.number(*block, band)
            with self._lock:
                decoded = self._decoded.get(number)
                if decoded is None:
                    decoded = self._decoded[number] = _Decoded(holds_all=not self._is_wide)
                    if number in self._encoded:
                        held.append((decoded, self._encoded[number], (offset, size, block)))
                    else:
                        wanted.append((offset, size, block))
                self._keep(number, decoded, band)
            waiting[block] = decoded
        for decoded, encoded, stored in held:
            cpu_threads().submit(self._decode_into, decoded, memoryview(encoded), stored)
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
        return len(runs), sum(_end(run) - run[0][0] for run in runs)

    @property
    def _is_wide(self) -> bool:
        return self.layout.interleaved and self.layout.count > _WIDE

    @property
    def _is_shared(self) -> bool:
        """Whether a block holds several bands, and several are open."""
        return self.layout.interleaved and len(self._bands) > 1

    def _keep(self, number: int, decoded: _Decoded, band: int) -> None:
        """Hold a block of several bands for those of them that are open and have not asked for it
        yet.
        """
        if not self._is_shared:
            return
        given = self._given.setdefault(number, set())
        given.add(band)
        if given >= self._bands:
            del self._given[number]
            self._kept.pop(number, None)
            self._encoded_size -= len(self._encoded.pop(number, b""))
            return
        self._kept[number] = decoded
        self._kept.move_to_end(number)
        most, size = _KEPT_WIDE if self._is_wide else _KEPT, block_bytes(self.layout)
        while len(self._kept) * size > most and len(self._kept) > 1:
            self._kept.popitem(last=False)

    def _keep_encoded(self, stored: Stored, encoded: memoryview) -> None:
        """Hold a block as it is stored, where bands will ask for it and there is room.

        What is held is not given up for other blocks: bands that each read all of a large file find
        a part of it here.
        """
        number = self.layout.number(*stored[2], 1)
        with self._lock:
            room = self._encoded_size + len(encoded) <= _KEPT_ENCODED
            if self._is_shared and room and number in self._given and number not in self._encoded:
                self._encoded[number] = bytes(encoded)
                self._encoded_size += len(encoded)

    def _read_run(self, run: list[Stored], decoded: dict[Block, _Decoded]) -> None:
        """Fetch one run of neighboring blocks and hand each to a decoder."""
        try:
            body = self._read(run[0][0], _end(run))
        except BaseException as error:
            for _, _, block in run:
                decoded[block].settle(error)
            return
        for stored in run:
            part = body[stored[0] - run[0][0] :][: stored[1]]
            cpu_threads().submit(self._decode_into, decoded[stored[2]], part, stored)

    def _read(self, start: int, stop: int) -> memoryview:
        """Bytes of the file. What would make them unreadable for good is believed of a second,
        independent answer.
        """
        layout = self.layout
        for fresh in (False, True):
            try:
                body = read_range(
                    layout.href, start, stop, self.budget, layout.signing, fresh=fresh
                )
            except ReadError as error:
                if fresh or not error.permanent:
                    raise
                continue
            if len(body) == stop - start:
                return memoryview(body)
        raise ReadError(
            f"{redact_url(layout.href)} is truncated: it ends at byte {start + len(body):,}"
        )

    def _decode_into(self, decoded: _Decoded, encoded: memoryview, stored: Stored) -> None:
        try:
            samples = self._samples(encoded, stored[2])
        except Exception as error:
            io_threads().submit(self._read_again, decoded, encoded, stored, str(error))
        else:
            self._keep_encoded(stored, encoded)
            decoded.settle(samples)

    def _samples(self, encoded: memoryview, block: Block) -> Array:
        rows = self._shape(block)[0] if self.layout.strips else None
        if block_bytes(self.layout) < _LARGE:
            return decode(self.layout, encoded, rows)
        with _decoding_large:
            return decode(self.layout, encoded, rows)

    def _read_again(
        self, decoded: _Decoded, encoded: memoryview, stored: Stored, reason: str
    ) -> None:
        """Decide on a block that cannot be decoded: it is corrupt if an independent answer brings
        the same bytes.
        """
        name, (offset, size, block) = redact_url(self.layout.href), stored
        try:
            for _ in range(self.budget.attempts):
                again = memoryview(
                    read_range(
                        self.layout.href,
                        offset,
                        offset + size,
                        self.budget,
                        self.layout.signing,
                        fresh=True,
                    )
                )
                if again == encoded:
                    self._check_header()
                    raise ReadError(f"{name}: block {block} is corrupt: {reason}")
                try:
                    decoded.settle(self._samples(again, block))
                    return
                except Exception as error:
                    encoded, reason = again, str(error)
            raise ReadError(
                f"{name}: block {block} comes differently each time that it is read; run again later",
                permanent=False,
            )
        except BaseException as error:
            decoded.settle(error)

    def _check_header(self) -> None:
        """Raise a ReadError that may pass where the header, too, comes differently the second
        time.
        """
        layout = self.layout
        again = RangeFile(layout.href, self.budget, layout.signing, fresh=True)
        if not self._file.agrees_with(again):
            raise ReadError(
                f"{redact_url(layout.href)} comes differently each time that it is read",
                permanent=False,
            )

    def _pixels(self, block: Block, band: int, samples: Array) -> Array:
        pixels = self._cut(samples[:, :, (band - 1) if self.layout.interleaved else 0], block)
        return pixels.copy() if self._is_wide else pixels

    def _cut(self, full: Array, block: Block) -> Array:
        """A block at the right or lower edge is stored whole; its part outside the image is
        padding.
        """
        height, width = self._shape(block)
        return full[:height, :width]

    def _shape(self, block: Block) -> tuple[int, int]:
        """Rows and columns of a block inside the image."""
        height = min(self.layout.block[0], self.layout.height - block[0] * self.layout.block[0])
        width = min(self.layout.block[1], self.layout.width - block[1] * self.layout.block[1])
        return height, width

    def _empty(self, block: Block) -> Array:
        """A block that was never written: nodata, and 0 where there is none."""
        fill = 0 if self.layout.nodata is None else self.layout.nodata
        return np.full(self._shape(block), fill, self.layout.dtype.newbyteorder("="))


class _Decoded:
    """All samples of one block, (rows, columns, samples).

    Where it `holds_all` they are there as long as a future of one of its bands is held, else until
    it is forgotten.
    """

    def __init__(self, *, holds_all: bool) -> None:
        self._holds_all = holds_all
        self._lock = threading.Lock()
        self._result: Array | BaseException | None = None
        self._waiting: list[tuple[Future[Array], Callable[[Array], Array]]] = []

    def give(self, future: Future[Array], part: Callable[[Array], Array]) -> None:
        """Let `future` have a part of the samples when they are there."""
        if self._holds_all:
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


def _runs(stored: list[Stored]) -> Iterable[list[Stored]]:
    """Blocks in file order → runs of neighbors, each to be read by one request."""
    run: list[Stored] = []
    end = 0
    for offset, size, block in stored:
        if run and (offset - end > _GAP or offset + size - run[0][0] > _LARGEST_REQUEST):
            yield run
            run = []
        end = max(end, offset + size) if run else offset + size
        run.append((offset, size, block))
    if run:
        yield run


def _end(run: list[Stored]) -> int:
    """The byte after the last of a run: of blocks that overlap not always the last block's."""
    return max(offset + size for offset, size, _ in run)
