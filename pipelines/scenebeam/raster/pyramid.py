"""Encode an image and its overviews while chunks of its rows pass by. Nothing is decoded again.

Each chunk is one row of blocks of the image. Its blocks are encoded on the CPU pool; meanwhile it
is halved, and the half waits until there is enough for a row of blocks of the first overview. That
is encoded and halved in turn, and so on: the pyramid grows from top to bottom on all levels at
once.
"""

from __future__ import annotations

import os
import tempfile
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from typing import IO, Any

import numpy as np

from scenebeam.raster.codecs import encode, encode_mask
from scenebeam.raster.source import OVERVIEW_PIXELS
from scenebeam.raster.validity import Array, Mask, all_valid, as_masked, valid_mask
from scenebeam.transfer.pools import cpu_threads

BLOCK_SIZE = 512
"""Side of a block of the output, in pixels."""
_MAX_IN_MEMORY = 24 * 2**20
"""Bytes of encoded blocks of one level that stay in memory; the rest goes to a temporary file."""
_MAX_PENDING = 2 * max(8, os.cpu_count() or 1)
"""Blocks that wait to be encoded: enough to keep all cores busy while the next chunk of rows is
composed. Each of them keeps its chunk in memory.
"""
_ROWS_AT_ONCE = 64
"""Rows that are halved together: their intermediate results stay in the CPU's cache."""


class EncodedBlocks:
    """Encoded blocks of one level, row by row: some megabytes in memory, the rest on disk."""

    def __init__(self, height: int, width: int) -> None:
        """Create an empty level of `height` x `width` pixels."""
        self.height, self.width = height, width
        self.sizes: list[int] = []
        """Bytes of each block."""
        self._in_memory: list[bytes] = []
        self._free = _MAX_IN_MEMORY
        self._file: IO[bytes] | None = None

    def append(self, encoded: bytes) -> None:
        """Add the next block."""
        self.sizes.append(len(encoded))
        self._free -= len(encoded)
        if self._free >= 0:
            self._in_memory.append(encoded)
            return
        if self._file is None:
            self._file = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the blocks
        self._file.write(encoded)

    def __iter__(self) -> Iterator[bytes]:
        """Yield the blocks in the order in which they were added."""
        yield from self._in_memory
        if self._file is not None:
            self._file.seek(0)
            for size in self.sizes[len(self._in_memory) :]:
                yield self._file.read(size)


def level_shapes(height: int, width: int) -> list[tuple[int, int]]:
    """Return the shapes of an image and its overviews.

    Each overview has half the size of the level before it, until one fits into a block.

    Args:
        height: Rows of the image.
        width: Columns of the image.
    """
    shapes = [(height, width)]
    while max(shapes[-1]) > BLOCK_SIZE:
        shapes.append((-(-shapes[-1][0] // 2), -(-shapes[-1][1] // 2)))
    return shapes


def halve(pixels: Array, nodata: float | None, *, average: bool) -> Array:
    """Compute the next level of an image.

    Args:
        pixels: 2-D array. An odd last row or column is repeated.
        nodata: Nodata value.
        average: Whether a pixel is the mean of the valid ones of 2 x 2, with integers rounded half
            up. Otherwise it is the upper left one of them.

    Returns:
        Array of shape (ceil(rows / 2), ceil(cols / 2)), same dtype; a masked array if `pixels` is.
    """
    if isinstance(pixels, np.ma.MaskedArray):
        return _halve_masked(np.asarray(pixels), ~np.ma.getmaskarray(pixels), average)
    if not average:
        return np.ascontiguousarray(pixels[::2, ::2])
    height, width = pixels.shape
    if height % 2 or width % 2:
        pixels = np.pad(pixels, ((0, height % 2), (0, width % 2)), mode="edge")
    halved = np.empty((pixels.shape[0] // 2, pixels.shape[1] // 2), pixels.dtype)
    for top in range(0, len(pixels), _ROWS_AT_ONCE):
        bottom = top + _ROWS_AT_ONCE
        halved[top // 2 : bottom // 2] = _mean_of_four(pixels[top:bottom], nodata)
    return halved


def _halve_masked(pixels: Array, valid: Mask, average: bool) -> Array:
    if not average:
        return as_masked(np.ascontiguousarray(pixels[::2, ::2]), valid[::2, ::2])
    odd = ((0, pixels.shape[0] % 2), (0, pixels.shape[1] % 2))
    pixels, valid = np.pad(pixels, odd, mode="edge"), np.pad(valid, odd, mode="edge")
    mean, has_data = _mean_of_valid(pixels, valid, np.float64)
    return as_masked(_round_and_cast(mean, pixels.dtype), has_data)


def _mean_of_four(pixels: Array, nodata: float | None) -> Array:
    """Halve an array of even shape whose invalid pixels are marked by nodata."""
    dtype = pixels.dtype
    sum_dtype = _sum_dtype(dtype)
    valid = None if all_valid(pixels, nodata) else valid_mask(pixels, nodata)
    if valid is None:
        total = _sum_of_four(pixels, sum_dtype)
        if sum_dtype is np.float64:
            return _round_and_cast(total / 4, dtype)
        return np.asarray((total + 2) >> 2)  # divides by 4, rounded half up
    mean, has_data = _mean_of_valid(pixels, valid, sum_dtype)
    halved = _round_and_cast(mean, dtype)
    if nodata is not None:
        halved[~has_data] = nodata
        # The mean of numbers below and above nodata can equal nodata: move it to the next number.
        hit = has_data & (halved == dtype.type(nodata))
        if hit.any():
            is_float = dtype.kind == "f"
            halved[hit] = np.nextafter(halved[hit], np.inf) if is_float else halved[hit] + 1
    return halved


def _mean_of_valid(pixels: Array, valid: Mask, sum_dtype: Any) -> tuple[Array, Mask]:
    """Mean of the valid pixels of 2 x 2 as float64, and where there are any."""
    total = _sum_of_four(np.where(valid, pixels, 0), sum_dtype)
    count = _sum_of_four(valid, np.int32)
    has_data = count > 0
    mean = np.divide(total, count, out=np.zeros(total.shape, np.float64), where=has_data)
    return mean, has_data


def _sum_dtype(dtype: np.dtype[Any]) -> Any:
    """Dtype that holds the sum of four pixels; 32 bits are the fastest."""
    if dtype in (np.uint8, np.uint16):
        return np.uint32
    return np.float64 if dtype.kind == "f" or dtype.itemsize > 4 else np.int64


def _sum_of_four(pixels: Array, sum_dtype: Any) -> Array:
    if sum_dtype is np.uint32 and pixels.dtype != bool and pixels.flags.c_contiguous:
        # View two neighboring pixels as one number of twice the width. Its low and high half are
        # added by a mask and a shift, over contiguous memory: four times as fast as with strides.
        bits = 8 * pixels.itemsize
        pairs = pixels.view(f"<u{2 * pixels.itemsize}")
        across = (pairs & ((1 << bits) - 1)) + (pairs >> bits)
        return np.add(across[0::2], across[1::2], dtype=sum_dtype)
    rows = np.add(pixels[0::2], pixels[1::2], dtype=sum_dtype)
    return np.asarray(rows[:, 0::2] + rows[:, 1::2])


def _round_and_cast(mean: Array, dtype: np.dtype[Any]) -> Array:
    return (mean if dtype.kind == "f" else np.floor(mean + 0.5)).astype(dtype)


class Pyramid:
    """Takes chunks of rows from top to bottom, and gives the encoded blocks of all levels.

    A shard of an image cannot make all levels itself: its blocks must be blocks of the whole image,
    and at some level they would reach beyond the shard. With `keep_coarse`, the pixels of the first
    level that it does not encode are kept. Those of all shards together give the other levels.
    """

    def __init__(
        self,
        shapes: Sequence[tuple[int, int]],
        dtype: np.dtype[Any],
        nodata: float | None,
        *,
        codec: str = "deflate",
        average: bool = True,
        keep_coarse: bool = False,
        block_size: int = BLOCK_SIZE,
    ) -> None:
        """Create an empty pyramid.

        Args:
            shapes: Rows and columns of each level, largest first: see `level_shapes`.
            dtype: Dtype of the image.
            nodata: Nodata value.
            codec: A codec of `codecs.CODECS`.
            average: How overviews are made: see `halve`.
            keep_coarse: Whether to keep the pixels of the level after the last one.
            block_size: Side of a block in pixels.
        """
        self.levels = [EncodedBlocks(height, width) for height, width in shapes]
        self.dtype, self.nodata, self.codec, self.average = dtype, nodata, codec, average
        self.keep_coarse, self.block_size = keep_coarse, block_size
        # Rows of each level that do not make a row of blocks yet.
        self._waiting: list[list[Array]] = [[] for _ in shapes]
        self._coarse: list[Array] = []
        # Blocks that are being encoded, in the order in which they are written: level, and block
        # with mask.
        self._pending: deque[tuple[int, Future[tuple[bytes, bytes]]]] = deque()
        self._masks: list[list[bytes]] = [[] for _ in shapes]
        # Pixels of the largest level that is small enough to judge the image by.
        small = [
            level
            for level, (rows, columns) in enumerate(shapes)
            if rows * columns <= OVERVIEW_PIXELS
        ]
        self._overview_level = small[0] if small else len(shapes)
        self._overview: list[Array] = []
        self._rows_seen = [0] * len(shapes)

    def add(self, rows: Array) -> None:
        """Add the next rows of the image.

        Args:
            rows: Array of shape (block_size, width), with fewer rows at the end only; a masked
                array if some pixels are invalid and there is no nodata value.
        """
        self._add(0, rows)

    def set_level(self, level: int, blocks: EncodedBlocks) -> None:
        """Set all blocks of a level that is encoded already. All its pixels are valid or nodata."""
        self.levels[level] = blocks
        self._masks[level] = [b""] * len(blocks.sizes)

    def add_below(self, level: int, rows: Array) -> None:
        """Add the next rows of a level that is set, to make the levels below it."""
        self._pass_on(level, rows)

    def _add(self, level: int, rows: Array) -> None:
        """Encode a row of blocks of one level, and pass its half on to the next level."""
        for left in range(0, self.levels[level].width, self.block_size):
            part = rows[:, left : left + self.block_size]
            self._pending.append((level, cpu_threads().submit(self._encode, part)))
        self._pass_on(level, rows)

    def _pass_on(self, level: int, rows: Array) -> None:
        """Pass the half of a row of blocks on to the next level."""
        if level == self._overview_level:
            self._overview.append(rows)
        self._rows_seen[level] += len(rows)
        self._collect(_MAX_PENDING)
        is_last = level + 1 == len(self.levels)
        if is_last and not self.keep_coarse:
            return
        half = halve(rows, self.nodata, average=self.average)
        if is_last:
            self._coarse.append(half)
            return
        waiting = self._waiting[level + 1]
        waiting.append(half)
        is_complete = self._rows_seen[level] >= self.levels[level].height
        if is_complete or sum(len(part) for part in waiting) >= self.block_size:
            self._waiting[level + 1] = []
            self._add(level + 1, waiting[0] if len(waiting) == 1 else concatenate(waiting))

    def _encode(self, pixels: Array) -> tuple[bytes, bytes]:
        """Encode a block and its mask; the mask is empty if all pixels are valid."""
        hidden = np.ma.getmaskarray(pixels) if np.ma.is_masked(pixels) else None
        pixels = np.asarray(pixels)
        mask = b""
        if hidden is not None:
            valid = np.zeros((self.block_size, self.block_size), bool)
            valid[: pixels.shape[0], : pixels.shape[1]] = ~hidden
            mask = encode_mask(valid)
        padded = pad_block(pixels, self.block_size, self.nodata, self.dtype)
        return encode(padded, self.codec), mask

    def _collect(self, leave: int) -> None:
        """Collect encoded blocks until no more than `leave` are pending."""
        while len(self._pending) > leave:
            level, future = self._pending.popleft()
            block, mask = future.result()
            self.levels[level].append(block)
            self._masks[level].append(mask)

    def finish(self) -> list[EncodedBlocks]:
        """Return all levels, after waiting for their last blocks."""
        self._collect(0)
        return self.levels

    @property
    def masks(self) -> list[list[bytes]] | None:
        """Encoded masks of the blocks of each level; None if the whole image is valid.

        They are empty bytes for blocks that are all valid.
        """
        return self._masks if any(any(level) for level in self._masks) else None

    @property
    def overview(self) -> Array:
        """Pixels of the largest level with at most OVERVIEW_PIXELS, once all rows are added."""
        return concatenate(self._overview)

    @property
    def coarse(self) -> Array:
        """Pixels of the level after the last one, with `keep_coarse`."""
        return concatenate(self._coarse)


def pad_block(pixels: Array, size: int, nodata: float | None, dtype: np.dtype[Any]) -> Array:
    """Pad a block at the edge of an image to its full size, with nodata or 0.

    Args:
        pixels: 2-D array of at most `size` rows and columns.
        size: Side of a block.
        nodata: Nodata value.
        dtype: Dtype of the result, if it has to be padded.
    """
    if pixels.shape == (size, size):
        return pixels
    padded = np.full((size, size), 0 if nodata is None else nodata, dtype)
    padded[: pixels.shape[0], : pixels.shape[1]] = pixels
    return padded


def concatenate(parts: Sequence[Array], axis: int = 0) -> Array:
    """Concatenate arrays; the result is a masked array if one of them is."""
    if any(isinstance(part, np.ma.MaskedArray) for part in parts):
        whole: Array = np.ma.concatenate(parts, axis=axis)  # type: ignore[no-untyped-call]
        return whole
    return np.concatenate(parts, axis=axis)
