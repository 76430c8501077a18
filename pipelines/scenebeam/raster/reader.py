"""Reader: blocks of raster files by range request, each fetched once and decoded once.

Two doors, one room. Tiled GeoTIFFs go through our own block reader; all else that GDAL opens goes
through rasterio. Both give the same blocks of the same numbers; `open_source` alone chooses.
"""

from __future__ import annotations

import re
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import imagecodecs
import numpy as np
import rasterio
from affine import Affine
from rasterio.windows import Window

from scenebeam.errors import ReadError
from scenebeam.raster.tiff import TiffLayout, missing_bytes, read_layout
from scenebeam.transfer.access import access, shown
from scenebeam.transfer.ranges import Budget, cpu_threads, io_threads, read_range

Block = tuple[int, int]
"""Row and column of a block in its image."""
Array = np.ndarray[Any, np.dtype[Any]]

_GAP = 64 * 1024
"""Bytes between two blocks that cost less to read than another request."""
_LARGEST_REQUEST = 8 * 2**20
_LOOK = 2**20
"""Pixels of an overview that are enough to see the image by."""
_LEAST_LOOKS = 3
"""Where there is no overview: blocks across and down, more of them where they are small."""


@dataclass(frozen=True)
class RasterInfo:
    """What a file says of itself."""

    href: str
    crs: str
    transform: Affine
    width: int
    height: int
    count: int
    dtype: np.dtype[Any]
    """In the order of this machine."""
    nodata: float | None
    block: tuple[int, int]
    """Rows and columns that are read together."""
    descriptions: tuple[str, ...] = ()
    """What the file calls its bands; empty where it does not say."""


class Source(ABC):
    """One band of one open file. Threads may share it."""

    info: RasterInfo

    @abstractmethod
    def fetch(self, blocks: Iterable[Block]) -> dict[Block, Future[Array]]:
        """Start reading blocks; each future gives a 2-D array, cut at the image's edge.

        A future raises ReadError: a failed read is never a blank block.
        """

    @abstractmethod
    def look(self, *, at_full_size: bool = False) -> list[Array]:
        """2-D pieces that show all of the image at little cost: an overview, or blocks from all over it.

        `at_full_size`: no overview, whose means hide how pixels differ. Also looks at both ends of the image.
        Raises ReadError where the file is truncated or cannot be decoded.
        """

    def cost(self, blocks: Iterable[Block]) -> tuple[int, int] | None:
        """Requests and bytes that fetching some blocks takes; None where only GDAL knows."""
        return None

    def close(self) -> None:
        """Let go of the file."""
        return


def open_source(href: str, band: int, budget: Budget, signing: str = "none") -> Source:
    """Open band `band` (from 1) of a file by its unsigned href; `signing` is its record's (see `access`).

    Raises ReadError where it is no georeferenced image or has no such band.
    """
    layout = read_layout(href, budget, signing)
    source: Source = (
        _TiffSource(layout, band, budget) if layout is not None else _GdalSource(href, band, budget, signing)
    )
    if not 1 <= band <= source.info.count:
        source.close()
        raise ReadError(f"{shown(href)} has {source.info.count} bands, not a band {band}")
    return source


def read_window(source: Source, row: int, column: int, height: int, width: int) -> Array:
    """An (height, width) array of a source's own pixels; the window must lie inside the image."""
    info = source.info
    blocks = blocks_meeting(info, row, column, height, width)
    found = np.empty((height, width), info.dtype)
    for (block_row, block_column), future in source.fetch(blocks).items():
        top, left = block_row * info.block[0], block_column * info.block[1]
        block = future.result()
        rows = slice(max(top, row), min(top + block.shape[0], row + height))
        columns = slice(max(left, column), min(left + block.shape[1], column + width))
        found[rows.start - row : rows.stop - row, columns.start - column : columns.stop - column] = block[
            rows.start - top : rows.stop - top, columns.start - left : columns.stop - left
        ]
    return found


def blocks_meeting(info: RasterInfo, row: int, column: int, height: int, width: int) -> list[Block]:
    """Blocks of an image that meet a window of it, in file order."""
    rows = range(max(row, 0) // info.block[0], -(-min(row + height, info.height) // info.block[0]))
    columns = range(max(column, 0) // info.block[1], -(-min(column + width, info.width) // info.block[1]))
    return [(r, c) for r in rows for c in columns]


class _TiffSource(Source):
    """Blocks straight out of a tiled GeoTIFF."""

    def __init__(self, layout: TiffLayout, band: int, budget: Budget) -> None:
        self._layout, self._band, self._budget = layout, band, budget
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
        )

    def fetch(self, blocks: Iterable[Block]) -> dict[Block, Future[Array]]:
        futures: dict[Block, Future[Array]] = {}
        stored = []
        for offset, size, block in self._stored(blocks):
            futures[block] = Future()
            if size == 0:
                futures[block].set_result(self._empty(block))
            else:
                stored.append((offset, size, block))
        for run in _runs(stored):
            io_threads().submit(self._read_run, run, futures)
        return futures

    def _stored(self, blocks: Iterable[Block]) -> list[tuple[int, int, Block]]:
        """(offset, size, block) in file order."""
        numbers = [(self._layout.number(*block, self._band), block) for block in blocks]
        return sorted((int(self._layout.offsets[n]), int(self._layout.sizes[n]), block) for n, block in numbers)

    def cost(self, blocks: Iterable[Block]) -> tuple[int, int] | None:
        runs = list(_runs([one for one in self._stored(blocks) if one[1]]))
        return len(runs), sum(run[-1][0] + run[-1][1] - run[0][0] for run in runs)

    def look(self, *, at_full_size: bool = False) -> list[Array]:
        layout = read_layout(self._layout.href, self._budget, self._layout.signing, overviews=True)
        assert layout is not None, "it has been read before"
        if layout.missing:
            raise ReadError(f"{shown(layout.href)} is truncated: {layout.missing:,} bytes of it are not there")
        rows, columns = -(-layout.height // layout.block[0]), -(-layout.width // layout.block[1])
        ends = self.fetch({(0, 0), (rows - 1, columns - 1)})
        small = [one for one in (layout, *layout.overviews) if one.width * one.height <= _LOOK]
        if small and (small[0] is layout or not at_full_size):
            source = _TiffSource(small[0], self._band, self._budget)
            pieces = [read_window(source, 0, 0, small[0].height, small[0].width)]
        else:
            most = max(_LEAST_LOOKS, round((4 * _LOOK / (layout.block[0] * layout.block[1])) ** 0.5))
            spread = {(row, column) for row in _spread(rows, most) for column in _spread(columns, most)}
            pieces = [future.result() for _, future in sorted(self.fetch(spread).items())]
        for future in ends.values():
            future.result()
        return pieces

    def _read_run(self, run: list[tuple[int, int, Block]], futures: dict[Block, Future[Array]]) -> None:
        """Fetch one run of neighbouring blocks and hand each to a decoder."""
        try:
            start, stop = run[0][0], run[-1][0] + run[-1][1]
            layout = self._layout
            body = memoryview(read_range(layout.href, start, stop, self._budget, layout.signing))
            if len(body) < stop - start:
                raise ReadError(f"{shown(layout.href)} is truncated: it ends at byte {start + len(body):,}")
        except BaseException as error:
            for _, _, block in run:
                futures[block].set_exception(error)
            return
        for offset, size, block in run:
            cpu_threads().submit(self._decode_into, futures[block], body[offset - start :][:size], block)

    def _decode_into(self, future: Future[Array], encoded: memoryview, block: Block) -> None:
        try:
            future.set_result(self._cut(_decode(self._layout, self._band, encoded), block))
        except Exception as error:
            future.set_exception(ReadError(f"{shown(self._layout.href)}: block {block} is corrupt: {error}"))

    def _cut(self, full: Array, block: Block) -> Array:
        """A block at the right or lower edge is stored whole; its part outside the image is padding."""
        height = min(full.shape[0], self._layout.height - block[0] * self._layout.block[0])
        width = min(full.shape[1], self._layout.width - block[1] * self._layout.block[1])
        return full[:height, :width]

    def _empty(self, block: Block) -> Array:
        fill = 0 if self._layout.nodata is None else self._layout.nodata
        return self._cut(np.full(self._layout.block, fill, self.info.dtype), block)


def _spread(count: int, most: int) -> list[int]:
    """At most `most` of `count` places, evenly from the first to the last."""
    if count <= most:
        return list(range(count))
    return [round(number * (count - 1) / (most - 1)) for number in range(most)]


def _runs(stored: list[tuple[int, int, Block]]) -> Iterable[list[tuple[int, int, Block]]]:
    """Blocks in file order → runs of neighbours, each to be read by one request."""
    run: list[tuple[int, int, Block]] = []
    for offset, size, block in stored:
        if run and (offset - (run[-1][0] + run[-1][1]) > _GAP or offset + size - run[0][0] > _LARGEST_REQUEST):
            yield run
            run = []
        run.append((offset, size, block))
    if run:
        yield run


_DECODE: dict[str, Any] = {"deflate": imagecodecs.deflate_decode, "zstd": imagecodecs.zstd_decode}


def _decode(layout: TiffLayout, band: int, encoded: memoryview) -> Array:
    """Compressed bytes → (rows, columns) of one band, in this machine's byte order."""
    samples = layout.count if layout.interleaved else 1
    shape = (*layout.block, samples)
    size = int(np.prod(shape)) * layout.dtype.itemsize
    raw = np.empty(size, np.uint8)
    if layout.codec == "none":
        raw[:] = np.frombuffer(encoded, np.uint8, size)
    elif layout.codec == "lzw":
        raw = np.frombuffer(imagecodecs.lzw_decode(bytes(encoded), out=size), np.uint8)
    else:
        if len(_DECODE[layout.codec](encoded, out=raw)) != size:
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
    return pixels[:, :, (band - 1) if layout.interleaved else 0]


_GDAL_OPTIONS = {
    # Side-car files are not asked for: two thirds of GDAL's requests are 404s without this.
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "GDAL_HTTP_MULTIPLEX": "YES",
    "GDAL_HTTP_MERGE_CONSECUTIVE_RANGES": "YES",
    "GDAL_INGESTED_BYTES_AT_OPEN": str(32 * 1024),
    "GDAL_HTTP_MAX_RETRY": "5",
    "GDAL_HTTP_RETRY_DELAY": "0.5",
    "GDAL_HTTP_TIMEOUT": "60",
    "CPL_VSIL_CURL_CACHE_SIZE": str(64 * 2**20),
    "GDAL_CACHEMAX": 64 * 2**20,  # in bytes: rasterio does not take it for megabytes, as GDAL would
    # A signature is good for GET alone.
    "CPL_VSIL_CURL_USE_HEAD": "NO",
}


class _GdalSource(Source):
    """Blocks by rasterio, for JPEG 2000, strips, exotic codecs and projections."""

    def __init__(self, href: str, band: int, budget: Budget, signing: str) -> None:
        self._band, self._budget, self._signing, self._lock = band, budget, signing, threading.Lock()
        path, options = gdal_access(href, signing)
        try:
            with rasterio.Env(**options):
                self._file = rasterio.open(path, sharing=False)
        except rasterio.errors.RasterioIOError as error:
            why = str(error).replace(path, shown(href)).replace(path.removeprefix("/vsicurl/"), shown(href))
            raise ReadError(
                f"{shown(href)} cannot be opened as an image: {why}", permanent=not _passing(error)
            ) from None
        if self._file.crs is None:
            self._file.close()
            raise ReadError(f"{shown(href)} has no CRS: its pixels cannot be placed")
        if self._file.count < band:
            band = 1  # `open_source` names the fault
        natural = self._file.block_shapes[band - 1]
        # Whole natural blocks, enough of them together to make a call into GDAL worth its while.
        block = tuple(side * max(1, 1024 // side) for side in natural)
        self.info = RasterInfo(
            href,
            _crs_text(self._file.crs),
            self._file.transform,
            self._file.width,
            self._file.height,
            self._file.count,
            np.dtype(self._file.dtypes[band - 1]),
            self._file.nodatavals[band - 1],
            (block[0], block[1]),
            tuple(text or "" for text in self._file.descriptions) if any(self._file.descriptions) else (),
        )

    def fetch(self, blocks: Iterable[Block]) -> dict[Block, Future[Array]]:
        return {block: io_threads().submit(self._read, block) for block in blocks}

    def _read(self, block: Block) -> Array:
        height, width = self.info.block
        row, column = block[0] * height, block[1] * width
        window = Window(column, row, min(width, self.info.width - column), min(height, self.info.height - row))
        return self._pixels(window, f"block {block}")

    def _pixels(self, window: Window | None, what: str, shape: tuple[int, int] | None = None) -> Array:
        """A window, or all; with a `shape` every so many-th pixel of it."""
        options = gdal_access(self.info.href, self._signing)[1]
        try:
            with self._lock, rasterio.Env(**options):  # a GDAL dataset is for one thread at a time
                pixels: Array = self._file.read(self._band, window=window, out_shape=shape)
        except (rasterio.errors.RasterioError, OSError) as error:
            raise ReadError(
                f"{shown(self.info.href)}: {what} cannot be read: {type(error).__name__}",
                permanent=not _passing(error),
            ) from None
        self._budget.count(pixels.nbytes)
        return pixels

    def look(self, *, at_full_size: bool = False) -> list[Array]:
        missing = 0 if access(self.info.href, self._signing) is not None else missing_bytes(self.info.href)
        if missing:
            raise ReadError(f"{self.info.href} is truncated: {missing:,} bytes of it are not there")
        step = max(1, round((self.info.width * self.info.height / _LOOK) ** 0.5))
        shape = (-(-self.info.height // step), -(-self.info.width // step))
        last = Window(self.info.width - 1, self.info.height - 1, 1, 1)
        self._pixels(last, "its last pixel")
        return [self._pixels(None, "it", shape)]

    def close(self) -> None:
        with self._lock:  # reads that nobody waits for any more may still be under way
            self._file.close()


def gdal_access(href: str, signing: str) -> tuple[str, dict[str, Any]]:
    """The path under which GDAL opens a file, and the options that it needs for that."""
    where = access(href, signing)
    if where is None:
        return href.removeprefix("file://"), _GDAL_OPTIONS
    headers = "".join(f"{name}: {value}\r\n" for name, value in where.headers.items())
    return f"/vsicurl/{where.url}", {**_GDAL_OPTIONS, **({"GDAL_HTTP_HEADERS": headers} if headers else {})}


def _passing(error: BaseException) -> bool:
    """Whether GDAL's message speaks of the network rather than of the file."""
    text = f"{error} {error.__cause__ or ''}".lower()
    return re.search(r"timed out|timeout|could not resolve|connection|\b(?:429|50[0234])\b", text) is not None


def _crs_text(crs: Any) -> str:
    code = crs.to_epsg()
    return f"EPSG:{code}" if code else str(crs.to_wkt())
