"""Copy the compressed blocks of a whole GeoTIFF into a COG, instead of decoding and encoding them.

That takes a fraction of the time, and gives the same pixels, where each block of the output is a
block of the source: same grid, dtype, nodata value, codec, predictor and block size. Overviews are
copied too, as far as they are what `pyramid.halve` would make of the level before them. How a file
made its overviews is not written anywhere. So some blocks are decoded and compared, and from the
first level that differs on, all levels are made from the pixels of the one before it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from functools import partial
from itertools import chain, islice
from typing import Any, NamedTuple

import numpy as np

from scenebeam.errors import ReadError
from scenebeam.raster.aligned import AlignedCopy
from scenebeam.raster.band_reader import TiffSource
from scenebeam.raster.blocks import TiffFile
from scenebeam.raster.codecs import decode, encode, predictor_for
from scenebeam.raster.cog import SIDE_MULTIPLE
from scenebeam.raster.grid import Grid
from scenebeam.raster.layout import TiffLayout
from scenebeam.raster.pyramid import EncodedBlocks, Pyramid, halve
from scenebeam.raster.source import Block, Source
from scenebeam.raster.validity import Array, valid_count
from scenebeam.raster.warp import map_to_grid
from scenebeam.transfer.pools import cpu_threads
from scenebeam.transfer.signing import redact_url

_SAMPLED = 12
"""Blocks of the image that are decoded for its sample."""
_COMPARED = 3
"""Blocks of an overview that are compared, besides the last one: those with the most content."""


def as_copyable(source: Source, grid: Grid, dtype: np.dtype[Any], codec: str) -> TiffSource | None:
    """Find out whether a COG of the same block size can have the compressed blocks of a source.

    Args:
        source: The source.
        grid: The grid of the COG.
        dtype: Its dtype.
        codec: Its codec.

    Returns:
        The source, whose blocks are square; None if it has to be decoded and encoded.
    """
    if not isinstance(source, TiffSource):
        return None
    layout = source.tiff.layout
    side = layout.block[0]
    is_alike = (
        not layout.strips
        and layout.samples_per_block == 1
        and layout.block == (side, side)
        and side % SIDE_MULTIPLE == 0
        and layout.dtype == dtype.newbyteorder("<")
        and layout.codec == codec
        and layout.predictor == predictor_for(codec, dtype)
        and (layout.height, layout.width) == grid.shape
    )
    if not is_alike:
        return None
    mapping = map_to_grid(source.info, grid, "nearest", None)
    is_same_grid = isinstance(mapping, AlignedCopy) and mapping.outline[:2] == (0, 0)
    return source if is_same_grid else None


def copy_blocks(
    source: TiffSource,
    pyramid: Pyramid,
    max_in_flight: int,
    on_sample: Callable[[Array], None],
) -> float:
    """Copy all blocks of a source, and of its overviews where they fit.

    Args:
        source: The source, from `as_copyable`, with the block size of the pyramid.
        pyramid: The empty pyramid of the COG. It has all levels of its image afterwards.
        max_in_flight: Bytes of blocks that are requested at a time, besides one row of blocks.
        on_sample: Called with the pixels of some blocks from all over the image.

    Returns:
        Fraction of pixels that are valid, in the last level that was copied.

    Raises:
        ReadError: A block cannot be read, or one of those that are decoded is corrupt.
    """
    _, overviews = source.tiff.with_overviews()
    by_shape = {(file.layout.height, file.layout.width): file for file in overviews}
    layout = source.tiff.layout
    count = layout.blocks_across * layout.blocks_down
    sampled = {*range(0, count, max(1, count // _SAMPLED)), count - 1}
    blocks = EncodedBlocks(layout.height, layout.width)
    for number, encoded in enumerate(_read_blocks(source.tiff, source.band, max_in_flight)):
        blocks.append(encoded)
        if number in sampled:
            block = divmod(number, layout.blocks_across)
            on_sample(_decode_checked(source, encoded, block))
    pyramid.set_level(0, blocks)
    copied = _Copied(layout, blocks)
    last = 0
    for level, empty in enumerate(pyramid.levels[1:], start=1):
        file = by_shape.get((empty.height, empty.width))
        if file is None or not _is_alike(file.layout, layout):
            break
        blocks = EncodedBlocks(empty.height, empty.width)
        for encoded in _read_blocks(file, source.band, max_in_flight):
            blocks.append(encoded)
        overview = _Copied(file.layout, blocks)
        if not _is_halved(copied, overview, pyramid.nodata, average=pyramid.average):
            break
        pyramid.set_level(level, blocks)
        copied, last = overview, level
    valid = 0
    for pixels in _decoded_rows(copied):
        pyramid.add_below(last, pixels)
        valid += valid_count(pixels, pyramid.nodata)
    return valid / (copied.layout.height * copied.layout.width)


class _Copied(NamedTuple):
    """One level of a file: its layout, and its compressed blocks."""

    layout: TiffLayout
    blocks: EncodedBlocks

    def decode(self, numbers: Iterable[int]) -> dict[int, Array]:
        """Decode some blocks, given by their numbers."""
        wanted = set(numbers)
        pixels = {}
        for number, encoded in enumerate(self.blocks):
            if number in wanted:
                block = divmod(number, self.layout.blocks_across)
                pixels[number] = _decode_block(self.layout, encoded, block)
        return pixels


def _is_alike(overview: TiffLayout, image: TiffLayout) -> bool:
    """Return whether an overview is encoded as its image is."""
    return (
        overview.block == image.block
        and overview.strips == image.strips
        and overview.interleaved == image.interleaved
        and overview.dtype == image.dtype
        and overview.codec == image.codec
        and overview.predictor == image.predictor
    )


def _read_blocks(file: TiffFile, band: int, max_in_flight: int) -> Iterator[bytes]:
    """Yield the compressed blocks of a band, row by row, requesting the next ones ahead."""
    layout = file.layout
    rows = deque(range(layout.blocks_down))
    requested: deque[tuple[int, dict[Block, Future[memoryview]]]] = deque()
    in_flight = 0
    fill = 0 if layout.nodata is None else layout.nodata
    unwritten = b""
    while rows or requested:
        while rows and (not requested or in_flight < max_in_flight):
            row = rows.popleft()
            blocks = [(row, column) for column in range(layout.blocks_across)]
            size = sum(stored.size for stored in file.stored(blocks, band))
            requested.append((size, file.fetch_encoded(blocks, band)))
            in_flight += size
        size, bodies = requested.popleft()
        for body in bodies.values():
            encoded = bytes(body.result())
            if not encoded:
                unwritten = unwritten or encode(
                    np.full(layout.block, fill, layout.dtype), layout.codec
                )
            yield encoded or unwritten
        in_flight -= size


def _decode_block(layout: TiffLayout, encoded: bytes, block: Block) -> Array:
    """Decode a block, and cut off its padding."""
    side = layout.block[0]
    pixels = decode(layout, memoryview(encoded))[:, :, 0]
    return pixels[: layout.height - block[0] * side, : layout.width - block[1] * side]


def _decode_checked(source: TiffSource, encoded: bytes, block: Block) -> Array:
    """Decode a block of the image.

    Raises:
        ReadError: Permanent if it is corrupt whenever it is read.
    """
    try:
        return _decode_block(source.tiff.layout, encoded, block)
    except Exception as error:
        # This reads it again, and finds out whether the file or the server is at fault.
        source.fetch([block])[block].result()
        name = redact_url(source.info.href)
        raise ReadError(
            f"{name}: block {block} differs each time it is read: {error}; run again later",
            permanent=False,
        ) from error


def _decoded_rows(copied: _Copied) -> Iterator[Array]:
    """Yield the pixels of a level, one row of blocks at a time."""
    layout, encoded = copied.layout, iter(copied.blocks)
    for row in range(layout.blocks_down):
        blocks = [(row, column) for column in range(layout.blocks_across)]
        bodies = list(islice(encoded, len(blocks)))
        decoded = cpu_threads().map(partial(_decode_block, layout), bodies, blocks)
        yield np.concatenate(list(decoded), axis=1)


def _is_halved(image: _Copied, overview: _Copied, nodata: float | None, *, average: bool) -> bool:
    """Return whether some blocks of an overview are what we would make of the level before it."""
    sizes = overview.blocks.sizes
    largest = sorted(range(len(sizes)), key=lambda number: sizes[number])[-_COMPARED:]
    compared = {*largest, len(sizes) - 1}
    across = overview.layout.blocks_across
    parents = {number: _parents(image.layout, divmod(number, across)) for number in compared}
    parts = image.decode(chain.from_iterable(parents.values()))
    for number, found in overview.decode(compared).items():
        rows: dict[int, list[Array]] = {}
        for parent in parents[number]:
            rows.setdefault(parent // image.layout.blocks_across, []).append(parts[parent])
        pixels = np.concatenate([np.concatenate(row, axis=1) for row in rows.values()])
        expected = halve(pixels, nodata, average=average)
        if not np.array_equal(found, expected, equal_nan=found.dtype.kind == "f"):
            return False
    return True


def _parents(layout: TiffLayout, block: Block) -> list[int]:
    """Return the numbers of the blocks that a block of the next level is made of: up to four."""
    row, column = block
    numbers = []
    for parent_row in range(2 * row, min(2 * row + 2, layout.blocks_down)):
        for parent_column in range(2 * column, min(2 * column + 2, layout.blocks_across)):
            numbers.append(parent_row * layout.blocks_across + parent_column)
    return numbers
