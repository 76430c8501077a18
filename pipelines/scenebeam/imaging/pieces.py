"""Compose large COGs inside the store: the blocks of a shard, stored as they are in the COG.

The worker that assembles a COG of a thousand shards must not download them. In the COG, each block
is between its size and its last four bytes, and a row of blocks of the image is one row of blocks
of each shard beside another. So a shard stores the bytes of each of its rows of blocks as a
*piece*, or of a whole level if no other shard is beside it. Its part has the sizes of the blocks,
masks and coarse pixels, which are small, and names the pieces:

    header, coarse levels, their masks    encoded and stored by the worker that assembles
    mask of level 1                       the same, if any pixel is masked
    level 1: pieces of all shards         stored by the shards
    mask of level 0
    level 0: pieces of all shards

The store joins them in this order (`Composer.compose`), to the bytes that `write_cog` writes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

from scenebeam.raster.cog import AnyLevel, CogLayout, Level, frame
from scenebeam.raster.pyramid import BLOCK_SIZE
from scenebeam.storage import Composer, Piece
from scenebeam.transfer.pools import io_threads

COMPOSED_PIXELS = 2**30
"""Pixels of a grid from which COGs are composed: a gigabyte or more to download.

A smaller COG is downloaded and hashed, so that its item has a SHA-256.
"""
_CONCURRENT_UPLOADS = 8
"""Pieces that are uploaded at the same time, and the rows of blocks that are in memory for it."""
Integrity = dict[str, Any]
"""Fields of a STAC asset that its file is verified by: `file:size`, and `file:checksum` or, of a
composed file, `scenebeam:crc32c`."""


@dataclass(frozen=True)
class PiecedLevel(Level):
    """A level whose blocks are in pieces, and not read."""

    pieces: Sequence[Piece]
    """Its pieces, in order."""


def is_composed(shape: tuple[int, int]) -> bool:
    """Return whether the COGs of an image are composed, where the store can.

    Only the grid decides, so that all workers of a plan come to the same answer.

    Args:
        shape: Rows and columns of the whole image.
    """
    return shape[0] * shape[1] >= COMPOSED_PIXELS


def write_pieces(
    composer: Composer, stem: str, levels: Sequence[AnyLevel], *, alone: bool
) -> list[list[Piece]]:
    """Store the blocks of a shard as pieces.

    Args:
        composer: Of the output.
        stem: Start of their keys.
        levels: The encoded levels of the shard.
        alone: Whether the shard has the width of the grid. Then each level is one piece.

    Returns:
        The pieces of each level, from top to bottom.
    """
    pieces: list[list[Piece]] = [[] for _ in levels]
    jobs = _split(levels, alone)

    def write(job: tuple[int, int, Iterable[bytes]]) -> Piece:
        level, row, blocks = job
        return composer.write_piece(f"{stem}.{level}-{row}", map(frame, blocks))

    while batch := list(islice(jobs, _CONCURRENT_UPLOADS)):
        for (level, _, _), piece in zip(batch, io_threads().map(write, batch), strict=True):
            pieces[level].append(piece)
    return pieces


def _split(levels: Sequence[AnyLevel], alone: bool) -> Iterator[tuple[int, int, Iterable[bytes]]]:
    """Yield (level, row of blocks, blocks) of each piece."""
    for number, level in enumerate(levels):
        if alone:
            # Not read yet: a level can be large.
            yield number, 0, level
            continue
        across, blocks = -(-level.width // BLOCK_SIZE), iter(level)
        for row in range(len(level.sizes) // across):
            yield number, row, list(islice(blocks, across))


def compose_cog(composer: Composer, prefix: str, key: str, layout: CogLayout) -> Integrity:
    """Publish a COG that is composed of pieces.

    Args:
        composer: Of the output.
        prefix: Start of the keys of its pieces, and of what is stored meanwhile.
        key: Key of the COG.
        layout: The COG. The pieces of its `PiecedLevel`s are stored; everything else is encoded.
    """
    pieces: list[Piece] = []
    waiting: list[Iterable[bytes]] = [[layout.header]]
    for level in layout.levels:
        if not isinstance(level, PiecedLevel):
            waiting.append(map(frame, level))
            continue
        if waiting:
            pieces.append(composer.write_piece(f"{prefix}assembled", chain.from_iterable(waiting)))
            waiting = []
        pieces += level.pieces
    # The full-size image comes last in the file, and its blocks are in pieces: nothing is waiting.
    cog = composer.compose(pieces, key, f"{prefix}joined-")
    return {"file:size": cog.size, "scenebeam:crc32c": f"{cog.crc32c:08x}"}
