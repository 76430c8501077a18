"""Assemble the parts of an image into one COG. Encoded blocks are copied, never decoded.

In the COG, the blocks of a level are ordered from left to right and top to bottom across the whole
image, while each part has the blocks of one window in that order. So a row of blocks of the image
is made of one row of blocks of each part beside another:

    part A: a1 a2      part B: b1       COG: a1 a2 b1
            a3 a4              b2            a3 a4 b2

Sizes, masks and blocks are all merged in that order. The levels that no part has are
encoded from the coarse pixels of all parts.

Where the blocks of the parts are in pieces beside them, the COG is composed of these inside the
store, and no block is read: see `imaging.pieces`. The bytes are the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import wait
from contextlib import ExitStack
from dataclasses import replace
from itertools import chain

import numpy as np

from scenebeam.errors import CheckError, StorageError
from scenebeam.imaging.parts import PartHeader, StoredPart
from scenebeam.imaging.pieces import Integrity, PiecedLevel, compose_cog
from scenebeam.imaging.shards import PARTS_PREFIX
from scenebeam.raster.cog import AnyLevel, CogProfile, Level, lay_out, write_cog
from scenebeam.raster.pyramid import BLOCK_SIZE, Pyramid, concatenate, level_shapes
from scenebeam.raster.validity import Array
from scenebeam.storage import Composer, Piece, Store
from scenebeam.transfer.pools import io_threads

_PartRows = Sequence[Sequence[StoredPart]]
"""Parts by the rows of shards of the grid, each from left to right."""


def assemble(
    store: Store,
    part_keys: Sequence[str],
    key: str,
    profile: CogProfile,
    *,
    average: bool,
    pieces_prefix: str,
) -> tuple[Integrity, list[PartHeader]]:
    """Assemble the parts of one band into one COG, and publish it atomically.

    Args:
        store: Where the parts are, and the COG will be.
        part_keys: Keys of the parts of all shards.
        key: Key of the COG.
        profile: Its grid and tags; dtype and nodata value are those of the parts.
        average: Average pixels for overviews; otherwise use the nearest, as for classes.
        pieces_prefix: Start of the keys of their pieces, if they have any.

    Returns:
        How the published file is verified, and the headers of the parts in the order of
        `part_keys`.

    Raises:
        CheckError: The parts do not fit together.
        StorageError: A part cannot be read, a piece is damaged, or the COG cannot be published.
    """
    with ExitStack() as copies:
        parts = open_parts(store, part_keys, copies)
        headers = [part.header for part in parts]
        first = headers[0]
        profile = replace(profile, dtype=np.dtype(first.dtype), nodata=first.nodata)
        levels, masks = _merge_levels(parts, profile, average=average)
        if first.pieces is not None:
            composer = _composer_of(store, key)
            _check_pieces(store, composer, part_keys, headers, pieces_prefix)
            layout = lay_out(profile, levels, masks)
            return compose_cog(composer, pieces_prefix, key, layout), headers
        with store.open_write(key) as file:
            write_cog(file, profile, levels, masks)
        return {"file:size": file.size, "file:checksum": file.checksum}, headers


def _composer_of(store: Store, key: str) -> Composer:
    if store.composer is None:
        raise CheckError(
            f"{store.uri_for(key)}: its parts were stored in a bucket, and can be assembled only "
            f"there; remove {store.uri_for(PARTS_PREFIX)} and run again"
        )
    return store.composer


def _check_pieces(
    store: Store,
    composer: Composer,
    part_keys: Sequence[str],
    headers: Sequence[PartHeader],
    prefix: str,
) -> None:
    """Check that all pieces are there and intact, before anything is composed of them."""
    part_of: dict[Piece, str] = {}
    for key, header in zip(part_keys, headers, strict=True):
        part_of.update(dict.fromkeys(chain.from_iterable(header.pieces or ()), key))
    damaged = composer.find_damaged(prefix, part_of)
    if damaged:
        # Without its part, a shard is made again.
        store.delete(sorted({part_of[piece] for piece in damaged}))
        raise StorageError(
            f"{store.uri_for(min(damaged).key)}: missing or damaged, like {len(damaged)} of "
            f"{len(part_of)} pieces of the image; run again to make their shards again"
        )


def _merge_levels(
    parts: Sequence[StoredPart], profile: CogProfile, *, average: bool
) -> tuple[list[AnyLevel], list[list[bytes]] | None]:
    """Return all levels of the image, and their masks, if any pixel is masked."""
    part_rows = _sort_by_rows(parts)
    shapes = level_shapes(profile.height, profile.width)
    shared = len(parts[0].header.shapes)
    levels: list[AnyLevel] = []
    for level in range(shared):
        levels.append(_merge_level(part_rows, level, shapes[level]))
    # A TIFF has masks for all of its blocks or for none.
    masks = None
    if any(part.header.masks for part in parts):
        masks = _merge_masks(part_rows, shared)
    if shared < len(shapes):
        pyramid = encode_coarse_levels(
            parts,
            shapes[shared:],
            profile.dtype.str,
            profile.nodata,
            profile.codec,
            average=average,
        )
        levels += pyramid.finish()
        if masks is not None:
            masks += pyramid.masks or _empty_masks([level.sizes for level in pyramid.levels])
    return levels, masks


def _merge_level(part_rows: _PartRows, level: int, shape: tuple[int, int]) -> Level:
    sizes = _merge_sizes(part_rows, level)
    pieces = _merge_pieces(part_rows, level)
    if pieces:
        return PiecedLevel(*shape, sizes, (), pieces)
    # Blocks are read lazily, while the COG is written: no level is in memory as a whole.
    return Level(*shape, sizes, _merge_blocks(part_rows, level))


def open_parts(store: Store, part_keys: Sequence[str], copies: ExitStack) -> list[StoredPart]:
    """Open the parts of all shards of an image.

    Args:
        store: Where they are.
        part_keys: Their keys.
        copies: Closes their local copies.

    Raises:
        CheckError: They do not fit together.
        StorageError: A part cannot be read.
    """
    # Wait for all copies, also if one fails: what is entered later would not be closed.
    entered = [
        io_threads().submit(copies.enter_context, store.local_copy(key)) for key in part_keys
    ]
    wait(entered)
    parts = [StoredPart(copy.result()) for copy in entered]
    _check_equal_encoding(part_keys[0], [part.header for part in parts])
    if len({part.header.pieces is None for part in parts}) > 1:
        raise CheckError(
            f"{store.uri_for(part_keys[0])}: different versions of scenebeam have stored the parts "
            "of its image; remove them and run again"
        )
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


def _merge_pieces(part_rows: _PartRows, level: int) -> list[Piece]:
    """Return the pieces of a level in the order of the whole image; none if it is in the parts."""
    merged: list[Piece] = []
    for row in part_rows:
        pieces_of_parts = [part.pieces(level) for part in row]
        # Each part has one piece per row of blocks, or one in all if it is alone in its row.
        for block_row in zip(*pieces_of_parts, strict=True):
            merged += block_row
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
