"""Assemble the parts of an image into one COG. Encoded blocks are copied, never decoded.

In the COG, the blocks of a level are ordered from left to right and top to bottom across the whole
image, while each part has the blocks of one window in that order. So a row of blocks of the image
is made of one row of blocks of each part beside another:

    part A: a1 a2      part B: b1       COG: a1 a2 b1
            a3 a4              b2            a3 a4 b2

Sizes, masks and blocks are all merged in that order. The levels that no part has are
encoded from the coarse pixels of all parts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace

import numpy as np

from scenebeam.errors import CheckError
from scenebeam.imaging.parts import PartHeader, StoredPart
from scenebeam.raster.cog import CogProfile, Level, write_cog
from scenebeam.raster.pyramid import BLOCK_SIZE, EncodedBlocks, Pyramid, concatenate, level_shapes
from scenebeam.raster.validity import Array
from scenebeam.storage import AtomicFile, Store

_PartRows = Sequence[Sequence[StoredPart]]
"""Parts by the rows of shards of the grid, each from left to right."""


def assemble(
    store: Store, part_keys: Sequence[str], key: str, profile: CogProfile, *, average: bool
) -> tuple[AtomicFile, list[PartHeader]]:
    """Assemble the parts of one band into one COG, and publish it atomically.

    Args:
        store: Where the parts are, and the COG will be.
        part_keys: Keys of the parts of all shards.
        key: Key of the COG.
        profile: Its grid and tags; dtype and nodata value are those of the parts.
        average: Average pixels for overviews; otherwise use the nearest, as for classes.

    Returns:
        The published file, and the headers of the parts in the order of `part_keys`.

    Raises:
        CheckError: The dtypes or the nodata values of the parts differ.
        StorageError: A part cannot be read, or the COG cannot be published.
    """
    with ExitStack() as copies:
        parts = open_parts(store, part_keys, copies)
        headers = [part.header for part in parts]
        first = headers[0]
        profile = replace(profile, dtype=np.dtype(first.dtype), nodata=first.nodata)
        part_rows = _sort_by_rows(parts)
        shapes = level_shapes(profile.height, profile.width)
        shared = len(first.shapes)
        levels: list[Level | EncodedBlocks] = []
        # Blocks are read lazily, while the COG is written: no level is in memory as a whole.
        for level in range(shared):
            sizes = _merge_sizes(part_rows, level)
            levels.append(Level(*shapes[level], sizes, _merge_blocks(part_rows, level)))
        # A TIFF has masks for all of its blocks or for none.
        masks = None
        if any(header.masks for header in headers):
            masks = _merge_masks(part_rows, shared)
        if shared < len(shapes):
            pyramid = encode_coarse_levels(
                parts,
                shapes[shared:],
                first.dtype,
                first.nodata,
                profile.codec,
                average=average,
            )
            levels += pyramid.finish()
            if masks is not None:
                masks += pyramid.masks or _empty_masks([level.sizes for level in pyramid.levels])
        with store.open_write(key) as file:
            write_cog(file, profile, levels, masks)
        return file, headers


def open_parts(store: Store, part_keys: Sequence[str], copies: ExitStack) -> list[StoredPart]:
    """Open the parts of all shards of an image.

    Args:
        store: Where they are.
        part_keys: Their keys.
        copies: Closes their local copies.

    Raises:
        CheckError: Their dtypes or nodata values differ.
        StorageError: A part cannot be read.
    """
    parts = [StoredPart(copies.enter_context(store.local_copy(key))) for key in part_keys]
    _check_equal_encoding(part_keys[0], [part.header for part in parts])
    return parts


def _check_equal_encoding(key: str, headers: Sequence[PartHeader]) -> None:
    # Without a declared dtype, that of a shard is decided by the files that it has opened.
    # `repr`, because NaN is not equal to itself.
    encodings = {(header.dtype, repr(header.nodata)) for header in headers}
    if len(encodings) > 1:
        raise CheckError(
            f"{key}: its shards have different dtypes or nodata values {sorted(encodings)}; "
            "declare dtype and nodata in the collection record"
        )


def _sort_by_rows(parts: Sequence[StoredPart]) -> list[list[StoredPart]]:
    rows: dict[int, list[StoredPart]] = {}
    for part in sorted(parts, key=_upper_left):
        top, _ = _upper_left(part)
        rows.setdefault(top, []).append(part)
    return list(rows.values())


def _upper_left(part: StoredPart) -> tuple[int, int]:
    top, _, left, _ = part.header.window
    return top, left


def encode_coarse_levels(
    parts: Sequence[StoredPart],
    shapes: Sequence[tuple[int, int]],
    dtype: str,
    nodata: float | None,
    codec: str,
    *,
    average: bool,
) -> Pyramid:
    """Encode the levels that reach beyond the shards.

    Args:
        parts: The parts of all shards.
        shapes: Rows and columns of these levels.
        dtype: Dtype of the image.
        nodata: Nodata value.
        codec: Codec of the blocks.
        average: Average pixels; otherwise use the nearest, as for classes.
    """
    pyramid = Pyramid(shapes, np.dtype(dtype), nodata, codec=codec, average=average)
    for rows in _coarse_row_chunks(_sort_by_rows(parts)):
        pyramid.add(rows)
    return pyramid


def _coarse_row_chunks(part_rows: _PartRows) -> Iterator[Array]:
    """Yield the coarse pixels of the whole image, BLOCK_SIZE rows at a time.

    No more than two chunks are in memory, whatever the size of the image.
    """
    waiting: Array | None = None
    for row in part_rows:
        height, _ = row[0].coarse_shape
        for first in range(0, height, BLOCK_SIZE):
            last = min(first + BLOCK_SIZE, height)
            rows = concatenate([part.coarse(first, last) for part in row], axis=1)
            # The coarse rows of a shard need not be a multiple of BLOCK_SIZE, but a pyramid takes
            # whole rows of blocks: what is left over is joined with the next row of shards.
            waiting = rows if waiting is None else concatenate([waiting, rows])
            while len(waiting) > BLOCK_SIZE:
                yield waiting[:BLOCK_SIZE]
                waiting = waiting[BLOCK_SIZE:]
    if waiting is not None and len(waiting):
        yield waiting


def _merge_sizes(part_rows: _PartRows, level: int) -> list[int]:
    """Return the sizes of a level's blocks in the order of the whole image."""
    merged: list[int] = []
    for row in part_rows:
        for first, last, part in _block_row_slices(row, level):
            merged += part.header.sizes[level][first:last]
    return merged


def _merge_masks(part_rows: _PartRows, levels: int) -> list[list[bytes]]:
    """Return the masks of all blocks, level by level, in the order of the whole image."""
    merged: list[list[bytes]] = [[] for _ in range(levels)]
    for row in part_rows:
        # Read the masks of a row of shards only: together, those of a large image are many.
        masks_of: dict[StoredPart, list[list[bytes]]] = {}
        for part in row:
            masks_of[part] = part.masks() or _empty_masks(part.header.sizes)
        for level in range(levels):
            for first, last, part in _block_row_slices(row, level):
                merged[level] += masks_of[part][level][first:last]
    return merged


def _empty_masks(sizes: Sequence[Sequence[int]]) -> list[list[bytes]]:
    """Return masks that say that all pixels are valid, for blocks of these sizes by level."""
    return [[b""] * len(level) for level in sizes]


def _block_row_slices(
    row: Sequence[StoredPart], level: int
) -> Iterator[tuple[int, int, StoredPart]]:
    """Yield (first, last, part): the slices of the parts' blocks in the order of the image."""
    block_rows = -(-row[0].header.shapes[level][0] // BLOCK_SIZE)
    for block_row in range(block_rows):
        for part in row:
            across = part.blocks_across(level)
            yield block_row * across, (block_row + 1) * across, part


def _merge_blocks(part_rows: _PartRows, level: int) -> Iterator[bytes]:
    """Yield a level's blocks in the order of the whole image."""
    for row in part_rows:
        rows_of_parts = [part.block_rows(level) for part in row]
        # All parts of a row have the same height, and so the same number of rows of blocks.
        for block_row in zip(*rows_of_parts, strict=True):
            for blocks in block_row:
                yield from blocks
