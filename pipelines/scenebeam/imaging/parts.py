"""The file of a part: one band of one shard, encoded, until its COG is assembled.

8 bytes     length of the header, little-endian
header      JSON, see PartHeader
blocks      of the image from left to right and top to bottom, then of each overview;
            none if they are stored in pieces (`imaging.pieces`)
masks       of the same blocks, if any pixel is invalid and there is no nodata value
coarse      pixels of the first level that the shard cannot encode, row by row, not compressed
its mask    one bit a pixel, rows padded to whole bytes, if any of these pixels is invalid
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from scenebeam.imaging.shards import Window
from scenebeam.raster.cog import Level
from scenebeam.raster.pyramid import BLOCK_SIZE, EncodedBlocks, Pyramid
from scenebeam.raster.validity import Array
from scenebeam.storage import AtomicFile, Piece


@dataclass(frozen=True)
class PartHeader:
    """The header of a part."""

    window: Window
    dtype: str
    nodata: float | None
    shapes: list[list[int]]
    """Rows and columns of each level."""
    sizes: list[list[int]]
    """For each level the bytes of each block."""
    coarse: list[int] | None
    """Rows and columns of the coarse pixels; None if the part has all levels of its image."""
    facts: dict[str, Any]
    """What the product needs to know of the shard when its COG is assembled, as JSON."""
    masks: list[list[int]] | None = None
    """For each level the bytes of each block's mask, 0 if all its pixels are valid.

    None if the whole shard is valid.
    """
    coarse_masked: bool = False
    """Whether a mask follows the coarse pixels."""
    pieces: list[list[Piece]] | None = None
    """For each level where its blocks are, see `imaging.pieces`; None if they are in the part."""


def write_part(
    file: AtomicFile,
    pyramid: Pyramid,
    levels: Sequence[EncodedBlocks],
    window: Window,
    facts: dict[str, Any],
    pieces: Sequence[Sequence[Piece]] | None = None,
) -> None:
    """Write a part.

    Args:
        file: Where it is written.
        pyramid: The encoded shard, to which all rows were added.
        levels: Its levels; none if only the coarse pixels are stored.
        window: The shard.
        facts: What the product needs to know when the COG is assembled, as JSON.
        pieces: For each level where its blocks are stored already; None: store them in the part.
    """
    coarse = pyramid.coarse if pyramid.keep_coarse else None
    masks = pyramid.masks if levels else None
    header = json.dumps(
        {
            "window": window,
            "dtype": pyramid.dtype.str,
            "nodata": None if pyramid.nodata is None else repr(pyramid.nodata),
            "shapes": [[level.height, level.width] for level in levels],
            "sizes": [level.sizes for level in levels],
            "coarse": None if coarse is None else list(coarse.shape),
            "facts": facts,
            "masks": None if masks is None else _sizes_of(masks),
            "coarse_masked": np.ma.is_masked(coarse),
            "pieces": pieces,
        }
    ).encode()
    file.write(struct.pack("<Q", len(header)) + header)
    if pieces is None:
        # Blocks are streamed: large levels of a pyramid are on disk, and are not read at once.
        for block in chain.from_iterable(levels):
            file.write(block)
    for mask in chain.from_iterable(masks or ()):
        file.write(mask)
    if coarse is not None:
        # At 1/256 of the image it is not worth compressing, and rows can be read by their offset.
        file.write(np.ascontiguousarray(np.asarray(coarse)).tobytes())
        if np.ma.is_masked(coarse):
            file.write(np.packbits(np.ma.getmaskarray(coarse), axis=1).tobytes())


def _sizes_of(masks: list[list[bytes]]) -> list[list[int]]:
    sizes = []
    for level in masks:
        sizes.append([len(mask) for mask in level])
    return sizes


class StoredPart:
    """The file of a part on this machine.

    The file is open only while something is read from it: an image can have thousands of parts,
    more than a process may have open files.
    """

    def __init__(self, path: Path) -> None:
        """Read the header of a file that `write_part` has written."""
        self._path = path
        with path.open("rb") as file:
            (size,) = struct.unpack("<Q", file.read(8))
            fields = json.loads(file.read(size))
        # JSON has no NaN: `write_part` stores the number as text.
        fields["nodata"] = None if fields["nodata"] is None else float(fields["nodata"])
        if fields.get("pieces") is not None:
            fields["pieces"] = [[Piece(*piece) for piece in level] for level in fields["pieces"]]
        self.header = PartHeader(**fields)
        # Only sizes are stored: the offset of each level is the sum of the sizes before it.
        self._level_offsets = [8 + size]
        for sizes in self.header.sizes if self.header.pieces is None else ():
            self._level_offsets.append(self._level_offsets[-1] + sum(sizes))
        self._masks_offset = self._level_offsets[-1]
        self._coarse_offset = self._masks_offset + sum(map(sum, self.header.masks or ()))

    def blocks_across(self, level: int) -> int:
        """Return the number of blocks in a row of blocks of a level."""
        return -(-self.header.shapes[level][1] // BLOCK_SIZE)

    def block_rows(self, level: int) -> Iterator[list[bytes]]:
        """Yield the blocks of a level, one row of blocks at a time."""
        across = self.blocks_across(level)
        sizes = self.header.sizes[level]
        with self._path.open("rb") as file:
            file.seek(self._level_offsets[level])
            for first in range(0, len(sizes), across):
                yield [file.read(size) for size in sizes[first : first + across]]

    def pieces(self, level: int) -> list[Piece]:
        """Return the pieces of a level from top to bottom; none if its blocks are in the part."""
        return [] if self.header.pieces is None else self.header.pieces[level]

    def levels(self) -> list[Level]:
        """Return all levels; their blocks are read lazily."""
        levels = []
        for level, (height, width) in enumerate(self.header.shapes):
            blocks = chain.from_iterable(self.block_rows(level))
            levels.append(Level(height, width, self.header.sizes[level], blocks))
        return levels

    def masks(self) -> list[list[bytes]] | None:
        """Return the mask of each block by level, empty if all is valid; None without masks."""
        if self.header.masks is None:
            return None
        masks = []
        with self._path.open("rb") as file:
            file.seek(self._masks_offset)
            for sizes in self.header.masks:
                masks.append([file.read(size) for size in sizes])
        return masks

    @property
    def coarse_shape(self) -> tuple[int, int]:
        """Rows and columns of the coarse pixels.

        Raises:
            ValueError: The part has all levels of its image, and no coarse pixels.
        """
        if self.header.coarse is None:
            raise ValueError(f"{self._path} has no coarse pixels: it has all levels of its image")
        rows, columns = self.header.coarse
        return rows, columns

    def coarse(self, first: int, last: int) -> Array:
        """Read rows [first, last) of the first level that the part does not hold encoded.

        Returns:
            Array of shape (last - first, columns); a masked array if any of the part's coarse
            pixels is invalid.
        """
        rows, columns = self.coarse_shape
        dtype = np.dtype(self.header.dtype)
        # Only the requested rows are read: the whole level of a large image has gigabytes.
        row_bytes = columns * dtype.itemsize
        with self._path.open("rb") as file:
            file.seek(self._coarse_offset + first * row_bytes)
            content = file.read((last - first) * row_bytes)
            pixels = np.frombuffer(content, dtype).reshape(-1, columns)
            if not self.header.coarse_masked:
                return pixels
            # One bit a pixel, and whole bytes a row.
            mask_bytes = -(-columns // 8)
            file.seek(self._coarse_offset + rows * row_bytes + first * mask_bytes)
            packed = np.frombuffer(file.read((last - first) * mask_bytes), np.uint8)
        bits = np.unpackbits(packed.reshape(-1, mask_bytes), axis=1, count=columns)
        return np.ma.MaskedArray(pixels, mask=bits.astype(bool))
