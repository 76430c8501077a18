"""Shards: an area too large for one task, cut along output blocks, and put together again.

A shard encodes the tiles of its own part of every level whose tiles do not reach beyond it, and
keeps the pixels that start the next level. The COG is put together from those encoded tiles; none
is decoded again.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from scenebeam.errors import CheckError
from scenebeam.raster.cog import CogProfile, Level, write_cog
from scenebeam.raster.pyramid import BLOCK_SIZE, EncodedBlocks, Pyramid, concatenate, level_shapes
from scenebeam.raster.validity import Array
from scenebeam.storage import AtomicFile, Store

PARTS_PREFIX = "parts/"
"""Folder of encoded shards, until the whole is put together."""
Window = tuple[int, int, int, int]
"""First row, last row, first column, last column of the grid; the last ones not included."""

_CELL_LEVELS = 4
"""Levels that a shard's tiles make themselves: cuts lie on multiples of 512 x 2^3 pixels."""
_NARROW_SHARD = 2**24
"""Pixels of a shard, about, where memory does not allow the whole width: tall, so that few cuts run
across.
"""
_LARGEST_SHARD = 2**28
"""Pixels of a shard at most, so that the shards of one large mosaic keep many workers busy."""


def shared_levels(shape: tuple[int, int], cell: int) -> int:
    """Levels that shards cut at multiples of `cell` pixels encode themselves."""
    return min((cell // BLOCK_SIZE).bit_length(), len(level_shapes(*shape)))


def cut_windows(shape: tuple[int, int], widest: int) -> tuple[list[Window], int]:
    """Windows that cover a grid, at most `widest` pixels wide, and the cell that cuts are multiples
    of.

    One window where the grid is small enough.
    """
    height, width = shape
    if width <= widest and height * width <= _LARGEST_SHARD:
        return [(0, height, 0, width)], 0
    cell = BLOCK_SIZE << (_CELL_LEVELS - 1)
    if width <= widest:
        across = -(-width // cell) * cell
        down = max(cell, _LARGEST_SHARD // across // cell * cell)
    else:
        # As few columns as memory allows: a source block that lies across a cut is read on both sides of it.
        # Cuts lie on multiples of 1,024 pixels at least where they can: what shards do not encode of a level, the one
        # that puts them together holds.
        unit = max(
            2 * BLOCK_SIZE if widest >= 2 * BLOCK_SIZE else BLOCK_SIZE,
            min(cell, 1 << max((widest // 4).bit_length() - 1, 0)),
        )
        columns = -(-width // max(unit, widest // unit * unit))
        across = -(-width // (columns * unit)) * unit
        while across % cell:
            cell //= 2
        down = max(cell, _NARROW_SHARD // across // cell * cell)
    windows = [
        (top, min(top + down, height), left, min(left + across, width))
        for top in range(0, height, down)
        for left in range(0, width, across)
    ]
    return windows, cell


@dataclass(frozen=True)
class PartHeader:
    """What a shard says of its encoded tiles."""

    window: Window
    dtype: str
    nodata: float | None
    shapes: list[list[int]]
    sizes: list[list[int]]
    coarse: list[int] | None
    facts: dict[str, Any]
    """What the product wants to know of the shard when the whole is put together."""
    masks: list[list[int]] | None = None
    """Bytes of each tile's mask, level by level, 0 for one that is all valid; None where the shard
    is.
    """
    coarse_masked: bool = False
    """Whether a mask follows the coarse pixels."""


def shard_shapes(window: Window, levels: int) -> list[tuple[int, int]]:
    """Height and width of a shard at each of its levels."""
    height, width = window[1] - window[0], window[3] - window[2]
    return [(-(-height >> level), -(-width >> level)) for level in range(levels)]


def write_part(file: AtomicFile, pyramid: Pyramid, window: Window, facts: dict[str, Any]) -> None:
    """Write a shard of one band: a JSON head, the encoded tiles level by level, the coarse
    pixels.
    """
    levels = pyramid.finish()
    coarse = pyramid.coarse if pyramid.keep_coarse else None
    masks = pyramid.masks
    head = json.dumps(
        {
            "window": window,
            "dtype": pyramid.dtype.str,
            "nodata": None if pyramid.nodata is None else repr(pyramid.nodata),
            "shapes": [[level.height, level.width] for level in levels],
            "sizes": [level.sizes for level in levels],
            "coarse": None if coarse is None else list(coarse.shape),
            "facts": facts,
            "masks": None if masks is None else [[len(mask) for mask in level] for level in masks],
            "coarse_masked": np.ma.is_masked(coarse),
        }
    ).encode()
    file.write(struct.pack("<Q", len(head)) + head)
    for level in levels:
        for tile in level:
            file.write(tile)
    for mask in chain.from_iterable(masks or ()):
        file.write(mask)
    if coarse is not None:
        file.write(np.ascontiguousarray(np.asarray(coarse)).tobytes())
        if np.ma.is_masked(coarse):
            file.write(np.packbits(np.ma.getmaskarray(coarse), axis=1).tobytes())


class StoredPart:
    """A shard's file. It is open while its tiles are read, and no longer: a large image has
    thousands of shards.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with path.open("rb") as file:
            (size,) = struct.unpack("<Q", file.read(8))
            head = json.loads(file.read(size))
        head["nodata"] = None if head["nodata"] is None else float(head["nodata"])
        self.part = PartHeader(**head)
        self._starts = [8 + size]
        for sizes in self.part.sizes:
            self._starts.append(self._starts[-1] + sum(sizes))
        self._masks_at = self._starts[-1]
        self._coarse_at = self._masks_at + sum(map(sum, self.part.masks or ()))

    def tile_rows(self, level: int) -> Iterator[list[bytes]]:
        """The level's tiles, a row of them at a time."""
        across = -(-self.part.shapes[level][1] // BLOCK_SIZE)
        sizes = self.part.sizes[level]
        with self._path.open("rb") as file:
            file.seek(self._starts[level])
            for first in range(0, len(sizes), across):
                yield [file.read(size) for size in sizes[first : first + across]]

    def levels(self) -> list[Level]:
        """All its levels, their tiles read when they are wanted."""
        return [
            Level(height, width, self.part.sizes[level], chain.from_iterable(self.tile_rows(level)))
            for level, (height, width) in enumerate(self.part.shapes)
        ]

    def masks(self) -> list[list[bytes]] | None:
        """For each level the mask of each block, empty where all is valid; None without masks."""
        if self.part.masks is None:
            return None
        with self._path.open("rb") as file:
            file.seek(self._masks_at)
            return [[file.read(size) for size in sizes] for sizes in self.part.masks]

    @property
    def coarse_height(self) -> int:
        """Rows of the level after the last."""
        assert self.part.coarse is not None, "its levels are not all of the image's"
        return self.part.coarse[0]

    def coarse(self, first: int, last: int) -> Array:
        """Rows [first, last) of the pixels that start the level after the last."""
        assert self.part.coarse is not None, "its levels are not all of the image's"
        rows, columns = self.part.coarse
        dtype = np.dtype(self.part.dtype)
        with self._path.open("rb") as file:
            row = columns * dtype.itemsize
            file.seek(self._coarse_at + first * row)
            pixels = np.frombuffer(file.read((last - first) * row), dtype).reshape(-1, columns)
            if not self.part.coarse_masked:
                return pixels
            packed = -(-columns // 8)
            file.seek(self._coarse_at + rows * row + first * packed)
            bits = np.frombuffer(file.read((last - first) * packed), np.uint8).reshape(-1, packed)
        hidden = np.unpackbits(bits, axis=1, count=columns).astype(bool)
        return np.ma.MaskedArray(pixels, mask=hidden)


def assemble(
    store: Store, names: Sequence[str], target: str, profile: CogProfile, *, average: bool
) -> tuple[AtomicFile, list[PartHeader]]:
    """Shards of one band → one COG under `target`. Returns the publication and what the shards
    said.

    Raises CheckError where the shards do not hold the same kind of numbers.
    """
    with ExitStack() as stack:
        parts = [StoredPart(stack.enter_context(store.local_copy(name))) for name in names]
        kinds = {(part.part.dtype, repr(part.part.nodata)) for part in parts}
        if len(kinds) > 1:
            raise CheckError(
                f"{target}: its shards hold different numbers {sorted(kinds)}: give dtype and nodata in the record"
            )
        first = parts[0].part
        profile = replace(profile, dtype=np.dtype(first.dtype), nodata=first.nodata)
        grid_rows: dict[int, list[StoredPart]] = {}
        for part in sorted(parts, key=lambda one: (one.part.window[0], one.part.window[2])):
            grid_rows.setdefault(part.part.window[0], []).append(part)
        shapes = level_shapes(profile.height, profile.width)
        shared = len(parts[0].part.shapes)
        levels: list[Level | EncodedBlocks] = [
            Level(*shapes[level], _sizes(grid_rows, level), _tiles(grid_rows, level))
            for level in range(shared)
        ]
        masks = _masks(grid_rows, shared) if any(part.part.masks for part in parts) else None
        if shared < len(shapes):
            pyramid = Pyramid(
                shapes[shared:], profile.dtype, profile.nodata, codec=profile.codec, average=average
            )
            for strip in _coarse_strips(grid_rows):
                pyramid.add(strip)
            levels += pyramid.finish()
            if masks is not None:
                masks += pyramid.masks or [[b""] * len(level.sizes) for level in pyramid.levels]
        with store.open_write(target) as file:
            write_cog(file, profile, levels, masks)
        return file, [part.part for part in parts]


def _coarse_strips(grid_rows: dict[int, list[StoredPart]]) -> Iterator[Array]:
    """The coarse pixels of all shards, TILE rows at a time: two strips in memory, whatever the
    area.
    """
    waiting: Array | None = None
    for row in grid_rows.values():
        height = row[0].coarse_height
        for first in range(0, height, BLOCK_SIZE):
            rows = concatenate(
                [part.coarse(first, min(first + BLOCK_SIZE, height)) for part in row], axis=1
            )
            waiting = rows if waiting is None else concatenate([waiting, rows])
            while len(waiting) > BLOCK_SIZE:
                yield waiting[:BLOCK_SIZE]
                waiting = waiting[BLOCK_SIZE:]
    if waiting is not None and len(waiting):
        yield waiting


def _sizes(grid_rows: dict[int, list[StoredPart]], level: int) -> list[int]:
    sizes: list[int] = []
    for row in grid_rows.values():
        across = [-(-part.part.shapes[level][1] // BLOCK_SIZE) for part in row]
        for tile_row in range(-(-row[0].part.shapes[level][0] // BLOCK_SIZE)):
            for part, count in zip(row, across, strict=True):
                sizes += part.part.sizes[level][tile_row * count : (tile_row + 1) * count]
    return sizes


def _masks(grid_rows: dict[int, list[StoredPart]], levels: int) -> list[list[bytes]]:
    """The masks of all shards' tiles, level by level, in the order of `_tiles`."""
    found: list[list[bytes]] = [[] for _ in range(levels)]
    for row in grid_rows.values():
        own = []
        for part in row:
            empty = [[b""] * len(sizes) for sizes in part.part.sizes]
            own.append(part.masks() or empty)
        for level in range(levels):
            across = [-(-part.part.shapes[level][1] // BLOCK_SIZE) for part in row]
            for tile_row in range(-(-row[0].part.shapes[level][0] // BLOCK_SIZE)):
                for masks, count in zip(own, across, strict=True):
                    found[level] += masks[level][tile_row * count : (tile_row + 1) * count]
    return found


def _tiles(grid_rows: dict[int, list[StoredPart]], level: int) -> Iterator[bytes]:
    for row in grid_rows.values():
        for tile_rows in zip(*(part.tile_rows(level) for part in row), strict=True):
            for tiles in tile_rows:
                yield from tiles
