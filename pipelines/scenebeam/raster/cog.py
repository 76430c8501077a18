"""Write a Cloud-Optimized GeoTIFF from encoded blocks, front to back in a single pass.

The layout is that of GDAL's COG driver (https://gdal.org/drivers/raster/cog.html):

    TIFF header
    "ghost area": text that tells readers what they can rely on
    image directories: full size, its mask, first overview, its mask, ...
    blocks of the smallest overview, ..., blocks of the full-size image

Each block has its size in front of it and its last four bytes repeated behind it, so that a reader
can fetch it by its offset alone, and notice a damaged file.

A pass from front to back means that the offsets of all blocks must be known before the first one is
written. The directories contain the offsets, but their length depends only on how many there are.
So they are built twice: with zeros, to learn where the first block begins, and then with the
offsets.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from io import BytesIO
from itertools import chain, product
from typing import Any, Protocol
from xml.sax.saxutils import escape, quoteattr

import numpy as np
from affine import Affine

from scenebeam.raster.codecs import CODECS, MASK_CODEC, encode, encode_mask, predictor_for
from scenebeam.raster.grid import Grid
from scenebeam.raster.pyramid import BLOCK_SIZE, EncodedBlocks, halve, level_shapes, pad_block
from scenebeam.raster.text import number_text
from scenebeam.raster.tiff_directory import (
    ASCII,
    LONG,
    LONG8,
    SHORT,
    Tag,
    crs_tags,
    pack_directory,
    transform_tags,
)
from scenebeam.raster.validity import Array

_GHOST_LAYOUT = (
    "LAYOUT=IFDS_BEFORE_DATA\nBLOCK_ORDER=ROW_MAJOR\nBLOCK_LEADER=SIZE_AS_UINT4\n"
    "BLOCK_TRAILER=LAST_4_BYTES_REPEATED\nKNOWN_INCOMPATIBLE_EDITION=NO\n "
)
_LEADER = 4
"""Bytes in front of a block: its size."""
_AROUND = _LEADER + 4
"""Bytes around a block: its leader, and its trailer of four bytes."""
_HEADER_PER_BLOCK = 64
"""Generous estimate of the bytes that directories need per block."""
_CLASSIC_LIMIT = 2**32 - 2**20
"""Largest classic TIFF, which has 32-bit offsets, with some reserve. Larger files are BigTIFFs."""
_SAMPLE_FORMATS = {"u": 1, "i": 2, "f": 3}
"""NumPy kind of dtype → TIFF tag SampleFormat."""
SIDE_MULTIPLE = 16
"""Sides of TIFF tiles must be multiples of this (TIFF 6.0 section 15)."""


@dataclass(frozen=True)
class CogBand:
    """Metadata of one band of a COG."""

    description: str = ""
    scale: float = 1.0
    offset: float = 0.0


@dataclass(frozen=True)
class CogProfile:
    """Metadata of a COG. Its bands are planar: each can be read on its own."""

    height: int
    width: int
    dtype: np.dtype[Any]
    nodata: float | None
    crs: str
    transform: Affine
    codec: str = "deflate"
    """A codec of `codecs.CODECS`."""
    bands: Sequence[CogBand] = (CogBand(),)
    tags: dict[str, str] = field(default_factory=dict)
    """Metadata of the dataset."""
    block_size: int = BLOCK_SIZE
    """Side of a block in pixels."""

    @classmethod
    def for_grid(
        cls, grid: Grid, dtype: np.dtype[Any], nodata: float | None, **fields: Any
    ) -> CogProfile:
        """Create the profile of an image that covers a grid.

        Args:
            grid: The grid.
            dtype: Dtype of the image.
            nodata: Nodata value.
            fields: Other fields of the profile, by name.
        """
        height, width = grid.shape
        return cls(height, width, dtype, nodata, grid.crs, grid.transform, **fields)


@dataclass(frozen=True)
class Level:
    """Encoded blocks of one level, row by row: their sizes, and where their bytes come from."""

    height: int
    width: int
    sizes: Sequence[int]
    blocks: Iterable[bytes]

    def __iter__(self) -> Iterator[bytes]:
        """Yield the blocks in order."""
        return iter(self.blocks)


AnyLevel = Level | EncodedBlocks


def stack_levels(bands: Sequence[Sequence[AnyLevel]]) -> list[Level]:
    """Combine the levels of several bands into the levels of one planar image.

    Args:
        bands: The levels of each band, all of the same shapes.
    """
    stacked = []
    for levels in zip(*bands, strict=True):
        sizes: list[int] = []
        for level in levels:
            sizes += level.sizes
        blocks = chain.from_iterable(levels)
        stacked.append(Level(levels[0].height, levels[0].width, sizes, blocks))
    return stacked


class Sink(Protocol):
    """What a COG is written to: a file, or an upload."""

    def write(self, data: bytes, /) -> int:
        """Write the next bytes."""
        ...


@dataclass(frozen=True)
class CogLayout:
    """A COG from front to back."""

    header: bytes
    """Everything before the first block."""
    levels: Sequence[AnyLevel]
    """Levels and masks in the order of the file: smallest first, the mask before its level."""


@dataclass(frozen=True)
class _Image:
    """One image of a file: a level, or its mask."""

    level: AnyLevel
    tags: Sequence[Tag]
    """All its tags but the offsets of its blocks."""


def write_cog(
    file: Sink,
    profile: CogProfile,
    levels: Sequence[AnyLevel],
    masks: Sequence[Sequence[bytes]] | None = None,
) -> None:
    """Write a COG; a BigTIFF if the file would exceed 4 GiB. The same input gives the same bytes.

    Args:
        file: Where to write, from front to back.
        profile: Metadata.
        levels: The image and its overviews, largest first.
        masks: Encoded masks of the blocks of each level, as in `Pyramid.masks`; None if all pixels
            are valid, or a nodata value marks those that are not.
    """
    layout = lay_out(profile, levels, masks)
    file.write(layout.header)
    for level in layout.levels:
        for block in level:
            file.write(frame(block))


def lay_out(
    profile: CogProfile,
    levels: Sequence[AnyLevel],
    masks: Sequence[Sequence[bytes]] | None = None,
) -> CogLayout:
    """Decide where everything is in a COG. Only the sizes of blocks are needed, not their bytes.

    Args:
        profile: Metadata.
        levels: As for `write_cog`.
        masks: As for `write_cog`.
    """
    images = []
    for number, level in enumerate(levels):
        is_overview = number > 0
        images.append(_Image(level, _tags(profile, level, is_overview, is_mask=False)))
        if masks is not None:
            mask = _mask_level(level, masks[number], profile.block_size)
            images.append(_Image(mask, _tags(profile, mask, is_overview, is_mask=True)))
    blocks = sum(len(image.level.sizes) for image in images)
    data_size = sum(sum(image.level.sizes) for image in images) + _AROUND * blocks
    is_big = data_size + _HEADER_PER_BLOCK * blocks > _CLASSIC_LIMIT
    # First with zeros for offsets, to learn the length.
    zeros = [[0] * len(image.level.sizes) for image in images]
    first_block = len(_header(images, zeros, is_big))
    header = _header(images, _offsets(images, first_block), is_big)
    return CogLayout(header, [image.level for image in reversed(images)])


def frame(block: bytes) -> bytes:
    """Return a block as it is in the file, between its leader and its trailer."""
    return struct.pack("<I", len(block)) + block + block[-4:]


def _offsets(images: Sequence[_Image], first_block: int) -> list[list[int]]:
    """Offsets of the blocks of each image; the last image comes first in the file."""
    offsets: list[list[int]] = []
    position = first_block
    for image in reversed(images):
        image_offsets = []
        for size in image.level.sizes:
            image_offsets.append(position + _LEADER)
            position += size + _AROUND
        offsets.append(image_offsets)
    return offsets[::-1]


def _mask_level(level: AnyLevel, masks: Sequence[bytes], block_size: int) -> Level:
    """The mask of a level, which its bands share."""
    all_valid = encode_mask(np.ones((block_size, block_size), bool))
    blocks = [mask or all_valid for mask in masks]
    return Level(level.height, level.width, [len(block) for block in blocks], blocks)


def small_cog(pixels: Array, profile: CogProfile, *, average: bool = True) -> bytes:
    """Write a whole image to a COG in memory, in this thread: for one of many small images.

    An image smaller than a block has blocks of its own size, padded to a multiple of 16 pixels.

    Args:
        pixels: Array of shape (bands, rows, columns).
        profile: Metadata.
        average: How overviews are made: see `halve`.
    """
    longest = max(pixels.shape[1:])
    rounded = -(-longest // SIDE_MULTIPLE) * SIDE_MULTIPLE
    profile = replace(profile, block_size=min(BLOCK_SIZE, rounded))
    levels: list[Level] = []
    for shape in level_shapes(*pixels.shape[1:]):
        if levels:
            pixels = np.stack([halve(band, profile.nodata, average=average) for band in pixels])
        blocks: list[bytes] = []
        for band in pixels:
            blocks += _encode_blocks(band, profile)
        levels.append(Level(*shape, [len(block) for block in blocks], blocks))
    file = BytesIO()
    write_cog(file, profile, levels)
    return file.getvalue()


def _encode_blocks(band: Array, profile: CogProfile) -> list[bytes]:
    """Encode all blocks of one band, row by row."""
    side = profile.block_size
    encoded = []
    for row, column in product(range(0, band.shape[0], side), range(0, band.shape[1], side)):
        block = band[row : row + side, column : column + side]
        padded = pad_block(block, side, profile.nodata, profile.dtype)
        encoded.append(encode(padded, profile.codec))
    return encoded


def _header(images: Sequence[_Image], offsets: Sequence[Sequence[int]], is_big: bool) -> bytes:
    """Everything before the first block: TIFF header, ghost area, and directories."""
    size_line = f"GDAL_STRUCTURAL_METADATA_SIZE={len(_GHOST_LAYOUT):06d} bytes\n"
    ghost = (size_line + _GHOST_LAYOUT).encode()
    ghost += b"\0" * (-len(ghost) % 8)
    if is_big:
        first = 16 + len(ghost)
        header = struct.pack("<2sHHHQ", b"II", 43, 8, 0, first)
    else:
        first = 8 + len(ghost)
        header = struct.pack("<2sHI", b"II", 42, first)
    directories = b""
    for number, image in enumerate(images):
        offset_tag = Tag(324, LONG8 if is_big else LONG, offsets[number])  # TileOffsets
        tags = sorted([*image.tags, offset_tag], key=lambda tag: tag.code)
        has_next = number + 1 < len(images)
        directories += pack_directory(tags, first + len(directories), has_next, is_big)
    return header + ghost + directories


def _tags(profile: CogProfile, level: AnyLevel, is_overview: bool, is_mask: bool) -> list[Tag]:
    """Tags of one image, without the offsets of its blocks."""
    tags = [
        # NewSubfileType is a bit field: 1 is an overview, 4 a transparency mask.
        Tag(254, LONG, [(1 if is_overview else 0) + (4 if is_mask else 0)]),
        Tag(256, LONG, [level.width]),  # ImageWidth
        Tag(257, LONG, [level.height]),  # ImageLength
        Tag(322, SHORT, [profile.block_size]),  # TileWidth
        Tag(323, SHORT, [profile.block_size]),  # TileLength
        Tag(325, LONG, level.sizes),  # TileByteCounts
    ]
    tags += _mask_tags() if is_mask else _sample_tags(profile)
    if not is_mask and not is_overview:
        tags += [*crs_tags(profile.crs), *transform_tags(profile.transform)]
        tags.append(Tag(42112, ASCII, _gdal_metadata(profile)))  # GDAL_METADATA
    if not is_mask and profile.nodata is not None:
        tags.append(Tag(42113, ASCII, number_text(profile.nodata)))  # GDAL_NODATA
    return tags


def _mask_tags() -> list[Tag]:
    """Tags of a mask of one bit per pixel, for all bands.

    See https://gdal.org/drivers/raster/gtiff.html#internal-nodata-masks.
    """
    return [
        Tag(258, SHORT, [1]),  # BitsPerSample
        Tag(259, SHORT, [CODECS[MASK_CODEC].tags[0]]),  # Compression
        Tag(262, SHORT, [4]),  # PhotometricInterpretation: transparency mask
        Tag(277, SHORT, [1]),  # SamplesPerPixel
        Tag(284, SHORT, [1]),  # PlanarConfiguration
        Tag(339, SHORT, [1]),  # SampleFormat: unsigned
    ]


def _sample_tags(profile: CogProfile) -> list[Tag]:
    """Tags of an image that say what its numbers are, and how they are compressed."""
    count = len(profile.bands)
    tags = [
        Tag(258, SHORT, [profile.dtype.itemsize * 8] * count),  # BitsPerSample
        Tag(259, SHORT, [CODECS[profile.codec].tags[0]]),  # Compression
        Tag(262, SHORT, [1]),  # PhotometricInterpretation: black is zero
        Tag(277, SHORT, [count]),  # SamplesPerPixel
        Tag(284, SHORT, [1 if count == 1 else 2]),  # PlanarConfiguration: 2 is planar
        Tag(317, SHORT, [predictor_for(profile.codec, profile.dtype)]),  # Predictor
        Tag(339, SHORT, [_SAMPLE_FORMATS[profile.dtype.kind]] * count),  # SampleFormat
    ]
    if count > 1:
        tags.append(Tag(338, SHORT, [0] * (count - 1)))  # ExtraSamples: unspecified
    return tags


def _gdal_metadata(profile: CogProfile) -> str:
    """Text of GDAL's metadata tag, for the bands and the dataset."""
    items = []
    for number, band in enumerate(profile.bands):
        items += [
            _band_item("DESCRIPTION", number, "description", escape(band.description)),
            _band_item("OFFSET", number, "offset", repr(band.offset)),
            _band_item("SCALE", number, "scale", repr(band.scale)),
        ]
    for name, value in sorted(profile.tags.items()):
        # Values are escaped twice: GDAL unescapes them as XML, and then once more as metadata.
        items.append(f"<Item name={quoteattr(name)}>{escape(escape(value))}</Item>")
    return "<GDALMetadata>\n  " + "\n  ".join(items) + "\n</GDALMetadata>\n"


def _band_item(name: str, number: int, role: str, text: str) -> str:
    return f'<Item name="{name}" sample="{number}" role="{role}">{text}</Item>'
