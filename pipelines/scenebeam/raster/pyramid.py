"""Pyramid: strips of pixels → encoded tiles of every level, as the strips pass. Nothing is decoded again."""

from __future__ import annotations

import os
import tempfile
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from functools import partial
from typing import IO, Any

import imagecodecs
import numpy as np
import tifffile
from affine import Affine
from rasterio.io import MemoryFile

from scenebeam.raster.validity import Array, Mask, all_valid, masked, valid_mask
from scenebeam.transfer.pools import cpu_threads

TILE = 512
"""Side of an output block, in pixels."""
_IN_MEMORY = 24 * 2**20
_PENDING = 2 * max(8, os.cpu_count() or 1)
"""Tiles that wait to be encoded: enough to keep all cores busy while the next strip is made. Each holds its strip."""
_SLAB = 64
"""Rows that are halved together: what they need stays in the cache."""


class Tiles:
    """Encoded tiles of one level, row by row: in memory up to some megabytes, the rest on disk."""

    def __init__(self, height: int, width: int) -> None:
        self.height, self.width = height, width
        self.sizes: list[int] = []
        self._held: list[bytes] = []
        self._room = _IN_MEMORY
        self._file: IO[bytes] | None = None

    def append(self, encoded: bytes) -> None:
        """Add the next tile."""
        self.sizes.append(len(encoded))
        self._room -= len(encoded)
        if self._room >= 0:
            self._held.append(encoded)
            return
        if self._file is None:
            self._file = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the tiles
        self._file.write(encoded)

    def __iter__(self) -> Iterator[bytes]:
        """The tiles in the order they came."""
        yield from self._held
        if self._file is not None:
            self._file.seek(0)
            for size in self.sizes[len(self._held) :]:
                yield self._file.read(size)


def level_shapes(height: int, width: int) -> list[tuple[int, int]]:
    """Height and width of the image and of its overviews, each half of the one before, to within one tile."""
    shapes = [(height, width)]
    while max(shapes[-1]) > TILE:
        shapes.append((-(-shapes[-1][0] // 2), -(-shapes[-1][1] // 2)))
    return shapes


def halve(pixels: Array, nodata: float | None, *, average: bool) -> Array:
    """The next level: each pixel the mean of the valid ones of 2 x 2 (integers rounded), or their upper left."""
    if isinstance(pixels, np.ma.MaskedArray):
        return _halve_masked(np.asarray(pixels), ~np.ma.getmaskarray(pixels), average)
    if not average:
        return np.ascontiguousarray(pixels[::2, ::2])
    height, width = pixels.shape
    if height % 2 or width % 2:
        pixels = np.pad(pixels, ((0, height % 2), (0, width % 2)), mode="edge")
    halved = np.empty((pixels.shape[0] // 2, pixels.shape[1] // 2), pixels.dtype)
    for top in range(0, len(pixels), _SLAB):
        halved[top // 2 : (top + _SLAB) // 2] = _mean_of_four(pixels[top : top + _SLAB], nodata)
    return halved


def _halve_masked(pixels: Array, valid: Mask, average: bool) -> Array:
    if not average:
        return masked(np.ascontiguousarray(pixels[::2, ::2]), valid[::2, ::2])
    odd = ((0, pixels.shape[0] % 2), (0, pixels.shape[1] % 2))
    pixels, valid = np.pad(pixels, odd, mode="edge"), np.pad(valid, odd, mode="edge")
    count = _sum_of_four(valid, np.int32)
    total = _sum_of_four(np.where(valid, pixels, 0), np.float64)
    mean = np.divide(total, count, out=np.zeros(total.shape, np.float64), where=count > 0)
    return masked(round_and_cast(mean, pixels.dtype), count > 0)


def _mean_of_four(pixels: Array, nodata: float | None) -> Array:
    dtype = pixels.dtype
    wide: Any = np.uint32 if dtype in (np.uint8, np.uint16) else np.int64
    if dtype.kind == "f" or dtype.itemsize > 4:
        wide = np.float64
    valid = None if all_valid(pixels, nodata) else valid_mask(pixels, nodata)
    if valid is None:
        total = _sum_of_four(pixels, wide)
        return (
            round_and_cast(total / 4, dtype) if wide is np.float64 else np.asarray((total + 2) >> 2)
        )
    total = _sum_of_four(np.where(valid, pixels, 0), wide)
    count = _sum_of_four(valid, np.int32)
    mean = np.divide(total, count, out=np.zeros(total.shape, np.float64), where=count > 0)
    halved = round_and_cast(mean, dtype)
    if nodata is not None:
        halved[count == 0] = nodata
        hit = (count > 0) & (halved == dtype.type(nodata))
        if hit.any():  # a mean that lands on nodata is data all the same
            halved[hit] = (
                np.nextafter(halved[hit], np.inf) if dtype.kind == "f" else halved[hit] + 1
            )
    return halved


def _sum_of_four(pixels: Array, wide: Any) -> Array:
    if wide is np.uint32 and pixels.dtype != bool and pixels.flags.c_contiguous:
        # Two neighbours as one number of twice the width: sums run over contiguous memory, at four times the speed.
        bits = 8 * pixels.itemsize
        pairs = pixels.view(f"<u{2 * pixels.itemsize}")
        across = (pairs & ((1 << bits) - 1)) + (pairs >> bits)
        return np.add(across[0::2], across[1::2], dtype=wide)
    rows = np.add(pixels[0::2], pixels[1::2], dtype=wide)
    return np.asarray(rows[:, 0::2] + rows[:, 1::2])


def round_and_cast(mean: Array, dtype: np.dtype[Any]) -> Array:
    return (mean if dtype.kind == "f" else np.floor(mean + 0.5)).astype(dtype)


def _lzw_encode(tile: Array) -> bytes:
    """LZW by libtiff, the codec's keeper: it clears its table as soon as entry 4094 is added (TIFF 6.0 section 13), and
    readers that hold on to that cannot read what other encoders write.
    """
    raw = np.frombuffer(np.ascontiguousarray(tile).tobytes(), np.uint8)
    shape = {
        "width": raw.size,
        "height": 1,
        "count": 1,
        "blockysize": 1,
        "transform": Affine(1, 0, 0, 0, -1, 1),
    }
    with MemoryFile() as memory:
        with memory.open(driver="GTiff", dtype="uint8", compress="lzw", **shape) as strip:
            strip.write(raw[None, None])
        with tifffile.TiffFile(memory) as tiff:
            page = tiff.pages[0]
            memory.seek(page.dataoffsets[0])
            return bytes(memory.read(page.databytecounts[0]))


_ENCODE: dict[str, Any] = {
    # Level 1 of libdeflate: a third of level 6's time, and the same bytes on any CPU (benchmarks/README.md).
    "deflate": partial(imagecodecs.deflate_encode, level=1),
    "zstd": partial(imagecodecs.zstd_encode, level=3),
    "lzw": _lzw_encode,
}


def encode(tile: Array, codec: str) -> bytes:
    """A full tile → compressed bytes, after horizontal differencing (3 for floats, else 2)."""
    if tile.dtype.kind == "f":
        tile = imagecodecs.floatpred_encode(np.ascontiguousarray(tile)[:, :, None], axis=-2)
    else:
        tile = imagecodecs.delta_encode(tile, axis=-1)
    return bytes(_ENCODE[codec](tile))


def encode_mask(valid: Mask) -> bytes:
    """A full tile of a mask → bits, 1 where there is data, compressed by DEFLATE."""
    return bytes(imagecodecs.deflate_encode(np.packbits(valid, axis=1).tobytes(), level=1))


class Pyramid:
    """Takes strips of TILE rows, top to bottom, and gives the encoded tiles of `levels` levels.

    What would start the level after the last is kept in `coarse`, when `keep_coarse`: a shard's levels end
    where its tiles would no longer be the whole image's, and the rest is made of the shards' coarse pixels.
    Strips that are masked arrays have a mask beside their tiles.
    """

    def __init__(
        self,
        shapes: list[tuple[int, int]],
        dtype: np.dtype[Any],
        nodata: float | None,
        *,
        codec: str = "deflate",
        average: bool = True,
        keep_coarse: bool = False,
    ) -> None:
        self.levels = [Tiles(height, width) for height, width in shapes]
        self.dtype, self.nodata, self.codec, self.average = dtype, nodata, codec, average
        self.keep_coarse = keep_coarse
        self._waiting: list[list[Array]] = [[] for _ in shapes]
        self._coarse: list[Array] = []
        self._pending: deque[tuple[int, Future[tuple[bytes, bytes]]]] = deque()
        self._masks: list[list[bytes]] = [[] for _ in shapes]
        self._seen = [0] * len(shapes)

    def add(self, strip: Array) -> None:
        """The next rows of the first level: TILE of them, or fewer at the end."""
        self._emit(0, strip)

    def _emit(self, level: int, strip: Array) -> None:
        tiles = self.levels[level]
        for left in range(0, tiles.width, TILE):
            self._pending.append(
                (level, cpu_threads().submit(self._tile, strip[:, left : left + TILE]))
            )
        self._seen[level] += len(strip)
        self._drain(_PENDING)
        last = level + 1 == len(self.levels)
        if last and not self.keep_coarse:
            return
        half = halve(strip, self.nodata, average=self.average)
        if last:
            self._coarse.append(half)
            return
        waiting = self._waiting[level + 1]
        waiting.append(half)
        done = self._seen[level] >= tiles.height
        if done or sum(len(rows) for rows in waiting) >= TILE:
            self._waiting[level + 1] = []
            self._emit(level + 1, waiting[0] if len(waiting) == 1 else joined(waiting))

    def _tile(self, pixels: Array) -> tuple[bytes, bytes]:
        """A tile and its mask, encoded; no mask where all of it is valid."""
        hidden = np.ma.getmaskarray(pixels) if np.ma.is_masked(pixels) else None
        pixels = np.asarray(pixels)
        mask = b""
        if hidden is not None:
            valid = np.zeros((TILE, TILE), bool)
            valid[: pixels.shape[0], : pixels.shape[1]] = ~hidden
            mask = encode_mask(valid)
        if pixels.shape != (TILE, TILE):
            full = np.full((TILE, TILE), 0 if self.nodata is None else self.nodata, self.dtype)
            full[: pixels.shape[0], : pixels.shape[1]] = pixels
            pixels = full
        return encode(pixels, self.codec), mask

    def _drain(self, leave: int) -> None:
        while len(self._pending) > leave:
            level, future = self._pending.popleft()
            tile, mask = future.result()
            self.levels[level].append(tile)
            self._masks[level].append(mask)

    def finish(self) -> list[Tiles]:
        """All levels, complete."""
        self._drain(0)
        return self.levels

    @property
    def masks(self) -> list[list[bytes]] | None:
        """The masks of each level's tiles, empty bytes for a tile that is all valid; None where the image is."""
        return self._masks if any(any(level) for level in self._masks) else None

    @property
    def coarse(self) -> Array:
        """The pixels of the level after the last."""
        return joined(self._coarse)


def joined(parts: Sequence[Array], axis: int = 0) -> Array:
    """Arrays as one, masked where one of them is."""
    if any(isinstance(strip, np.ma.MaskedArray) for strip in parts):
        whole: Array = np.ma.concatenate(parts, axis=axis)  # type: ignore[no-untyped-call]
        return whole
    return np.concatenate(parts, axis=axis)
