"""Read blocks of GeoTIFFs straight from the file: each is fetched once and decoded once.

A block travels through two thread pools. The I/O pool fetches a run of neighboring blocks in one
range request; the CPU pool decodes each of them. Callers hold futures, and never wait here.

In pixel-interleaved files a block holds the pixels of all bands, but bands are read one at a time.
So that the other bands do not fetch and decode it again, a block is kept for them in three places,
from cheap to expensive:

- `_decoded`: weak references to blocks whose pixels somebody still holds. Costs nothing.
- `_kept`: decoded blocks that an open band has not asked for yet; limited, least recent dropped.
- `_encoded`: the compressed bytes of such blocks; limited, for when `_kept` has no room for them.

`_prefetched` holds the compressed bytes of blocks that were read ahead, until they are fetched. How
many that may be is up to the caller: see `read_ahead`.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from functools import partial
from typing import NamedTuple
from weakref import WeakValueDictionary

import numpy as np

from scenebeam.errors import ReadError
from scenebeam.raster.block_runs import StoredBlock, end_of_run, group_into_runs
from scenebeam.raster.codecs import decode
from scenebeam.raster.decoded_block import DecodedBlock
from scenebeam.raster.layout import TiffLayout
from scenebeam.raster.source import Block
from scenebeam.raster.tiff import read_layout
from scenebeam.raster.validity import Array
from scenebeam.transfer.pools import cpu_threads, io_threads
from scenebeam.transfer.rangefile import RangeFile
from scenebeam.transfer.retry import Budget
from scenebeam.transfer.signing import redact_url

_MANY_BANDS = 8
"""A file with more bands has many. Then each band gets a copy of its own pixels, so that it does
not keep the samples of all bands in memory.
"""
_MAX_KEPT, _MAX_KEPT_MANY_BANDS = 64 * 2**20, 256 * 2**20
"""Bytes of decoded blocks that a file keeps for its other bands. More if it has many bands:
decoding such a block again would cost as many times the work.
"""
_MAX_ENCODED = 128 * 2**20
"""Bytes of compressed blocks that a file keeps for its other bands."""
_LARGE_BLOCK = 2**26
"""Bytes of a decoded block from which only one is decoded at a time, to bound memory."""
_decoding_large = threading.Lock()


class _Prefetched(NamedTuple):
    """The compressed bytes of a block that nobody has fetched yet."""

    body: Future[memoryview]
    release: Callable[[int], None]
    """Called with the size of the block once it has arrived and has been fetched."""


class TiffFile:
    """One open TIFF, shared by the sources of its bands. Safe to share between threads."""

    def __init__(self, layout: TiffLayout, file: RangeFile, budget: Budget) -> None:
        self.layout, self.budget = layout, budget
        self._file = file
        self._lock, self._reading_header = threading.Lock(), threading.Lock()
        # All of these are keyed by the number of the block: see TiffLayout.number.
        self._decoded: WeakValueDictionary[int, DecodedBlock] = WeakValueDictionary()
        self._kept: OrderedDict[int, DecodedBlock] = OrderedDict()
        self._encoded: dict[int, bytes] = {}
        self._encoded_size = 0
        self._prefetched: dict[int, _Prefetched] = {}
        self._asked: dict[int, set[int]] = {}
        """Bands that have asked for a block, until all open bands have."""
        self._open_bands: set[int] = set()
        self._complete: tuple[TiffLayout, list[TiffFile]] | None = None

    def register_band(self, band: int) -> None:
        """Note that a band, from 1, is open, so that blocks are kept for it."""
        with self._lock:
            self._open_bands.add(band)

    def with_overviews(self) -> tuple[TiffLayout, list[TiffFile]]:
        """Return the layout with its overviews, and the overviews as open files, largest first.

        The headers are read once for all bands.

        Raises:
            ReadError: The file is truncated, or was replaced since it was opened.
        """
        with self._reading_header:
            if self._complete is None:
                layout, name = read_layout(self._file, overviews=True), redact_url(self.layout.href)
                if layout is None:
                    raise ReadError(f"{name} changed while it was being read", permanent=False)
                if layout.missing:
                    raise ReadError(f"{name} is truncated: {layout.missing:,} bytes are missing")
                overviews = []
                for overview in layout.overviews:
                    file = TiffFile(overview, self._file, self.budget)
                    file._open_bands = self._open_bands  # shared, not copied
                    overviews.append(file)
                self._complete = layout, overviews
            return self._complete

    def fetch(self, blocks: Iterable[Block], band: int) -> dict[Block, Future[Array]]:
        """Start to read blocks of a band.

        Args:
            blocks: The blocks.
            band: The band, from 1.

        Returns:
            A future for each block: a 2-D array, cut off at the edge of the image. It raises
            ReadError if the block cannot be read or decoded.
        """
        futures: dict[Block, Future[Array]] = {}
        to_read: list[StoredBlock] = []
        to_decode: list[tuple[DecodedBlock, bytes, StoredBlock]] = []
        to_await: list[tuple[DecodedBlock, _Prefetched, StoredBlock]] = []
        pending: dict[Block, DecodedBlock] = {}
        for stored in self.stored(blocks, band):
            block = stored.block
            futures[block] = Future()
            if stored.size == 0:
                futures[block].set_result(self._sparse(block))
                continue
            number = self.layout.number(*block, band)
            with self._lock:
                # Does another band, or another caller, have the block, or is it being read?
                decoded = self._decoded.get(number)
                if decoded is None:
                    decoded = DecodedBlock(is_held_by_futures=not self._has_many_bands)
                    self._decoded[number] = decoded
                    if number in self._encoded:
                        to_decode.append((decoded, self._encoded[number], stored))
                    elif number in self._prefetched:
                        to_await.append((decoded, self._prefetched.pop(number), stored))
                    else:
                        to_read.append(stored)
                self._keep(number, decoded, band)
            pending[block] = decoded
        # Submit the work outside of the lock, and deliver to the futures last: a block may be ready
        # already, or at any time from now on.
        for decoded, encoded, stored in to_decode:
            cpu_threads().submit(self._decode_into, decoded, memoryview(encoded), stored)
        for decoded, prefetched, stored in to_await:
            prefetched.body.add_done_callback(
                partial(self._decode_prefetched, decoded, prefetched.release, stored)
            )
        for run in group_into_runs(to_read):
            targets = {stored.block: pending[stored.block] for stored in run}
            io_threads().submit(self._read_run, run, targets)
        for block, decoded in pending.items():
            decoded.deliver(futures[block], partial(self._band_pixels, block, band))
        return futures

    def prefetch(self, blocks: Iterable[Block], band: int, release: Callable[[int], None]) -> int:
        """Start to read the compressed bytes of blocks of a band: see `Source.prefetch`."""
        to_read: list[StoredBlock] = []
        bodies: dict[Block, Future[memoryview]] = {}
        for stored in self.stored(blocks, band):
            number = self.layout.number(*stored.block, band)
            with self._lock:
                is_known = (
                    number in self._decoded or number in self._encoded or number in self._prefetched
                )
                if stored.size == 0 or is_known:
                    continue
                body: Future[memoryview] = Future()
                self._prefetched[number] = _Prefetched(body, release)
            bodies[stored.block] = body
            to_read.append(stored)
        for run in group_into_runs(to_read):
            io_threads().submit(self._read_encoded, run, bodies)
        return sum(stored.size for stored in to_read)

    def fetch_encoded(self, blocks: Iterable[Block], band: int) -> dict[Block, Future[memoryview]]:
        """Start to read the compressed bytes of blocks of a band.

        Returns:
            A future for each block, in the given order; no bytes for a block that was never
            written. It raises ReadError if the block cannot be read.
        """
        bodies: dict[Block, Future[memoryview]] = {block: Future() for block in blocks}
        to_read: list[StoredBlock] = []
        for stored in self.stored(bodies, band):
            if stored.size:
                to_read.append(stored)
            else:
                bodies[stored.block].set_result(memoryview(b""))
        for run in group_into_runs(to_read):
            io_threads().submit(self._read_encoded, run, bodies)
        return bodies

    def stored(self, blocks: Iterable[Block], band: int) -> list[StoredBlock]:
        """Return where blocks of a band (from 1) lie, in file order."""
        layout = self.layout
        stored = []
        for block in blocks:
            number = layout.number(*block, band)
            stored.append(
                StoredBlock(int(layout.offsets[number]), int(layout.sizes[number]), block)
            )
        return sorted(stored)

    def cost(self, blocks: Iterable[Block], band: int) -> tuple[int, int]:
        """Return the requests and bytes that fetching blocks of a band (from 1) takes."""
        written = [stored for stored in self.stored(blocks, band) if stored.size]
        runs = list(group_into_runs(written))
        return len(runs), sum(end_of_run(run) - run[0].offset for run in runs)

    @property
    def _has_many_bands(self) -> bool:
        return self.layout.interleaved and self.layout.count > _MANY_BANDS

    @property
    def _is_shared(self) -> bool:
        """Whether a block holds several bands, and several of them are open."""
        return self.layout.interleaved and len(self._open_bands) > 1

    def _keep(self, number: int, decoded: DecodedBlock, band: int) -> None:
        """Keep a block for open bands that have not asked for it yet. Called under the lock."""
        if not self._is_shared:
            return
        asked = self._asked.setdefault(number, set())
        asked.add(band)
        # All open bands have asked: nothing has to be kept any longer.
        if asked >= self._open_bands:
            del self._asked[number]
            self._kept.pop(number, None)
            self._encoded_size -= len(self._encoded.pop(number, b""))
            return
        self._kept[number] = decoded
        self._kept.move_to_end(number)
        most = _MAX_KEPT_MANY_BANDS if self._has_many_bands else _MAX_KEPT
        while len(self._kept) * self.layout.block_bytes > most and len(self._kept) > 1:
            self._kept.popitem(last=False)

    def _keep_encoded(self, stored: StoredBlock, encoded: memoryview) -> None:
        """Keep the compressed bytes of a block, if bands will ask for it and there is room.

        They are not dropped for other blocks: if each band reads all of a large file in turn, the
        least recent block is always the next one to be needed, and dropping it would leave nothing.
        """
        number = self.layout.number(*stored.block, 1)
        with self._lock:
            has_room = self._encoded_size + len(encoded) <= _MAX_ENCODED
            is_wanted = self._is_shared and number in self._asked and number not in self._encoded
            if has_room and is_wanted:
                self._encoded[number] = bytes(encoded)
                self._encoded_size += len(encoded)

    def _read_run(self, run: list[StoredBlock], decoded: dict[Block, DecodedBlock]) -> None:
        """Fetch a run of neighboring blocks, and submit each for decoding."""
        start = run[0].offset
        try:
            body = self._read(start, end_of_run(run))
        except BaseException as error:  # whatever it is, somebody waits for these blocks
            for stored in run:
                decoded[stored.block].settle(error)
            return
        for stored in run:
            part = body[stored.offset - start :][: stored.size]
            cpu_threads().submit(self._decode_into, decoded[stored.block], part, stored)

    def _read_encoded(
        self, run: list[StoredBlock], bodies: dict[Block, Future[memoryview]]
    ) -> None:
        """Fetch the compressed bytes of a run of neighboring blocks."""
        start = run[0].offset
        try:
            body = self._read(start, end_of_run(run))
        except BaseException as error:  # whatever it is, somebody will wait for these blocks
            for stored in run:
                bodies[stored.block].set_exception(error)
            return
        for stored in run:
            bodies[stored.block].set_result(body[stored.offset - start :][: stored.size])

    def _decode_prefetched(
        self,
        decoded: DecodedBlock,
        release: Callable[[int], None],
        stored: StoredBlock,
        body: Future[memoryview],
    ) -> None:
        """Submit a block for decoding whose compressed bytes have arrived."""
        error = body.exception()
        if error is not None:
            decoded.settle(error)
        else:
            cpu_threads().submit(self._decode_into, decoded, body.result(), stored)
        release(stored.size)

    def _read(self, start: int, stop: int) -> memoryview:
        """Read bytes of the file. A permanent error has to be confirmed by a second request."""
        # A short answer may be the end of the file, or a broken connection: it is confirmed, too.
        for fresh in (False, True):
            try:
                body = self._file.read_range(start, stop, fresh=fresh)
            except ReadError as error:
                if fresh or not error.permanent:
                    raise
                continue
            if len(body) == stop - start:
                return memoryview(body)
        raise ReadError(
            f"{redact_url(self.layout.href)} is truncated: it ends at byte {start + len(body):,}"
        )

    def _decode_into(self, decoded: DecodedBlock, encoded: memoryview, stored: StoredBlock) -> None:
        try:
            samples = self._decode(encoded, stored.block)
        except Exception as error:
            # The server may have sent wrong bytes: ask it again, on the pool that may wait.
            io_threads().submit(self._read_again, decoded, encoded, stored, str(error))
        else:
            self._keep_encoded(stored, encoded)
            decoded.settle(samples)

    def _decode(self, encoded: memoryview, block: Block) -> Array:
        # The last strip has fewer rows; tiles at the edge of the image are padded to full size.
        rows = self._shape(block)[0] if self.layout.strips else None
        if self.layout.block_bytes < _LARGE_BLOCK:
            return decode(self.layout, encoded, rows)
        with _decoding_large:
            return decode(self.layout, encoded, rows)

    def _read_again(
        self, decoded: DecodedBlock, encoded: memoryview, stored: StoredBlock, reason: str
    ) -> None:
        """Settle a block that cannot be decoded.

        It is corrupt if an independent request returns the same bytes. If every request returns
        other ones, the server is at fault, and the error is transient.
        """
        name, block = redact_url(self.layout.href), stored.block
        try:
            for _ in range(self.budget.attempts):
                again = self._read_fresh(stored)
                if again == encoded:
                    self._check_header()
                    raise ReadError(f"{name}: block {block} is corrupt: {reason}")
                try:
                    decoded.settle(self._decode(again, block))
                    return
                except Exception as error:
                    encoded, reason = again, str(error)
            raise ReadError(
                f"{name}: block {block} differs each time it is read; run again later",
                permanent=False,
            )
        except BaseException as error:
            decoded.settle(error)

    def _read_fresh(self, stored: StoredBlock) -> memoryview:
        """Read a block independently of earlier requests."""
        return memoryview(self._file.read_range(stored.offset, stored.end, fresh=True))

    def _check_header(self) -> None:
        """Raise a transient ReadError if a second request returns another header.

        Then blocks may only look corrupt because they were read from wrong places.
        """
        layout = self.layout
        again = RangeFile(layout.href, self.budget, layout.signing, fresh=True)
        if not self._file.agrees_with(again):
            raise ReadError(
                f"{redact_url(layout.href)} differs each time it is read; run again later",
                permanent=False,
            )

    def _band_pixels(self, block: Block, band: int, samples: Array) -> Array:
        """Pixels of one band, without the padding of a block that reaches beyond the image."""
        height, width = self._shape(block)
        pixels = samples[:height, :width, (band - 1) if self.layout.interleaved else 0]
        return pixels.copy() if self._has_many_bands else pixels

    def _shape(self, block: Block) -> tuple[int, int]:
        """Rows and columns of a block inside the image."""
        height = min(self.layout.block[0], self.layout.height - block[0] * self.layout.block[0])
        width = min(self.layout.block[1], self.layout.width - block[1] * self.layout.block[1])
        return height, width

    def _sparse(self, block: Block) -> Array:
        """Pixels of a block that was never written: nodata, or 0 without a nodata value."""
        fill = 0 if self.layout.nodata is None else self.layout.nodata
        return np.full(self._shape(block), fill, self.layout.dtype.newbyteorder("="))
