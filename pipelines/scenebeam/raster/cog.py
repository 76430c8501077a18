"""COG: encoded tiles of all levels → one Cloud-Optimized GeoTIFF, written front to back in one pass.

Layout as GDAL's COG driver has it (https://gdal.org/drivers/raster/cog.html): header, image directories,
then the tiles, smallest overview first, each with its size before and its last four bytes again behind.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from io import BytesIO
from itertools import chain, product
from typing import Any, Protocol
from xml.sax.saxutils import escape, quoteattr

import numpy as np
import tifffile
from affine import Affine
from rasterio.io import MemoryFile

from scenebeam.raster.grid import Grid
from scenebeam.raster.pyramid import TILE, Tiles, encode, encode_mask, halve, level_shapes

_CODECS = {"deflate": 8, "zstd": 50000, "lzw": 5}
_KINDS = {"u": 1, "i": 2, "f": 3}
_SHORT, _LONG, _ASCII, _DOUBLE, _LONG8 = 3, 4, 2, 12, 16
_FORMATS = {_SHORT: "H", _LONG: "I", _DOUBLE: "d", _LONG8: "Q"}
_CRS_TAGS = (34735, 34736, 34737)
_LAYOUT = (
    "LAYOUT=IFDS_BEFORE_DATA\nBLOCK_ORDER=ROW_MAJOR\nBLOCK_LEADER=SIZE_AS_UINT4\n"
    "BLOCK_TRAILER=LAST_4_BYTES_REPEATED\nKNOWN_INCOMPATIBLE_EDITION=NO\n "
)
_AROUND = 8
"""Bytes around a tile: its size in front, its last four bytes again behind."""
_CLASSIC_LIMIT = 2**32 - 2**20


@dataclass(frozen=True)
class CogBand:
    """What a COG says of one of its bands."""

    description: str = ""
    scale: float = 1.0
    offset: float = 0.0


@dataclass(frozen=True)
class CogProfile:
    """What a COG says of itself. Its bands lie one after another (planar), so that each can be read alone."""

    height: int
    width: int
    dtype: np.dtype[Any]
    nodata: float | None
    crs: str
    transform: Affine
    codec: str = "deflate"
    bands: Sequence[CogBand] = (CogBand(),)
    tags: dict[str, str] = field(default_factory=dict)
    tile: int = TILE
    """Side of a tile."""

    @classmethod
    def on(cls, grid: Grid, dtype: np.dtype[Any], nodata: float | None, **more: Any) -> CogProfile:
        """Of an image that is all of a grid; `more` are the other fields, by name."""
        height, width = grid.shape
        return cls(height, width, dtype, nodata, str(grid.crs), grid.transform, **more)


@dataclass(frozen=True)
class Level:
    """One level's tiles, row by row: their sizes, and the bytes when they are wanted."""

    height: int
    width: int
    sizes: Sequence[int]
    tiles: Iterable[bytes]

    def __iter__(self) -> Iterator[bytes]:
        """The tiles in order."""
        return iter(self.tiles)


def stacked(bands: Sequence[Sequence[Level | Tiles]]) -> list[Level]:
    """The levels of several bands of one shape → the levels of one image, band after band."""
    return [
        Level(
            same[0].height,
            same[0].width,
            [size for level in same for size in level.sizes],
            chain.from_iterable(same),
        )
        for same in zip(*bands, strict=True)
    ]


class Sink(Protocol):
    """What a COG is written to: a file, or an upload."""

    def write(self, data: bytes, /) -> int:
        """The next bytes."""
        ...


@dataclass(frozen=True)
class _Image:
    """One image directory: a level, or the mask of one."""

    level: Level | Tiles
    reduced: bool
    mask: bool


def write_cog(
    file: Sink,
    profile: CogProfile,
    levels: Sequence[Level | Tiles],
    masks: Sequence[Sequence[bytes]] | None = None,
) -> None:
    """Write one COG. BigTIFF where the file would pass 4 GiB. The same input gives the same bytes.

    Args:
        file: What it is written to, front to back.
        profile: What it says of itself.
        levels: The image and its overviews, largest first.
        masks: For each level the mask of each tile, as `Pyramid.masks` has them; None: all is valid, or nodata tells.
    """
    images = []
    for number, level in enumerate(levels):
        images.append(_Image(level, reduced=number > 0, mask=False))
        if masks is not None:
            images.append(
                _Image(
                    _mask_level(level, masks[number], profile.tile), reduced=number > 0, mask=True
                )
            )
    total = sum(sum(image.level.sizes) + _AROUND * len(image.level.sizes) for image in images)
    big = total + 64 * sum(len(image.level.sizes) for image in images) > _CLASSIC_LIMIT
    blank = [[0] * len(image.level.sizes) for image in images]
    start = len(_head(profile, images, blank, big))
    offsets: list[list[int]] = [[] for _ in images]
    position = start
    for number in reversed(range(len(images))):
        for size in images[number].level.sizes:
            offsets[number].append(position + 4)
            position += size + _AROUND
    file.write(_head(profile, images, offsets, big))
    for image in reversed(images):
        for tile in image.level:
            file.write(struct.pack("<I", len(tile)) + tile + tile[-4:])


def _mask_level(level: Level | Tiles, masks: Sequence[bytes], tile: int) -> Level:
    """The mask of a level whose bands share it."""
    full = encode_mask(np.ones((tile, tile), bool))
    tiles = [mask or full for mask in masks]
    return Level(level.height, level.width, [len(mask) for mask in tiles], tiles)


def small_cog(pixels: np.ndarray[Any, Any], profile: CogProfile, *, average: bool = True) -> bytes:
    """A whole image in memory, (bands, rows, columns) → its COG; made in this thread, for one of very many.

    An image smaller than a tile has tiles of its own size, so that nothing is padded but to the next 16 pixels.
    """
    profile = replace(profile, tile=min(TILE, -(-max(pixels.shape[1:]) // 16) * 16))
    levels: list[Level] = []
    for shape in level_shapes(*pixels.shape[1:]):
        if levels:
            pixels = np.stack([halve(band, profile.nodata, average=average) for band in pixels])
        tiles = [
            _encoded(band, profile, row, column)
            for band in pixels
            for row, column in _corners(shape, profile)
        ]
        levels.append(Level(*shape, [len(tile) for tile in tiles], tiles))
    file = BytesIO()
    write_cog(file, profile, levels)
    return file.getvalue()


def _corners(shape: tuple[int, int], profile: CogProfile) -> Iterator[tuple[int, int]]:
    return product(range(0, shape[0], profile.tile), range(0, shape[1], profile.tile))


def _encoded(band: np.ndarray[Any, Any], profile: CogProfile, row: int, column: int) -> bytes:
    return encode(
        _padded(band[row : row + profile.tile, column : column + profile.tile], profile),
        profile.codec,
    )


def _padded(pixels: np.ndarray[Any, Any], profile: CogProfile) -> np.ndarray[Any, Any]:
    """A tile at the image's edge, filled up with nodata."""
    if pixels.shape == (profile.tile, profile.tile):
        return pixels
    full = np.full(
        (profile.tile, profile.tile), 0 if profile.nodata is None else profile.nodata, profile.dtype
    )
    full[: pixels.shape[0], : pixels.shape[1]] = pixels
    return full


def _head(
    profile: CogProfile, images: Sequence[_Image], offsets: Sequence[Sequence[int]], big: bool
) -> bytes:
    """Everything before the first tile."""
    ghost = f"GDAL_STRUCTURAL_METADATA_SIZE={len(_LAYOUT):06d} bytes\n{_LAYOUT}".encode()
    ghost += b"\0" * (-len(ghost) % 8)
    header_size = 16 if big else 8
    first = header_size + len(ghost)
    header = (
        struct.pack("<2sHHHQ", b"II", 43, 8, 0, first)
        if big
        else struct.pack("<2sHI", b"II", 42, first)
    )
    body = b""
    for number, image in enumerate(images):
        entries = (_mask_entries if image.mask else _entries)(profile, image, offsets[number], big)
        body += _directory(entries, first + len(body), number + 1 < len(images), big)
    return header + ghost + body


Entry = tuple[int, int, Any]
"""Tag, type, values."""


def _mask_entries(
    profile: CogProfile, image: _Image, offsets: Sequence[int], big: bool
) -> list[Entry]:
    """One bit a pixel, for all bands (https://gdal.org/drivers/raster/gtiff.html#internal-nodata-masks)."""
    return [
        (254, _LONG, [5 if image.reduced else 4]),  # NewSubfileType: a transparency mask
        (256, _LONG, [image.level.width]),
        (257, _LONG, [image.level.height]),
        (258, _SHORT, [1]),
        (259, _SHORT, [_CODECS["deflate"]]),
        (262, _SHORT, [4]),  # PhotometricInterpretation: transparency mask
        (277, _SHORT, [1]),
        (284, _SHORT, [1]),
        (322, _SHORT, [profile.tile]),
        (323, _SHORT, [profile.tile]),
        (324, _LONG8 if big else _LONG, offsets),
        (325, _LONG, image.level.sizes),
        (339, _SHORT, [1]),
    ]


def _entries(profile: CogProfile, image: _Image, offsets: Sequence[int], big: bool) -> list[Entry]:
    level = image.level
    floating = profile.dtype.kind == "f"
    count = len(profile.bands)
    entries: list[Entry] = [
        (254, _LONG, [1 if image.reduced else 0]),  # NewSubfileType: a reduced image
        (256, _LONG, [level.width]),
        (257, _LONG, [level.height]),
        (258, _SHORT, [profile.dtype.itemsize * 8] * count),
        (259, _SHORT, [_CODECS[profile.codec]]),
        (262, _SHORT, [1]),  # MinIsBlack
        (277, _SHORT, [count]),
        (284, _SHORT, [1 if count == 1 else 2]),
        (317, _SHORT, [3 if floating else 2]),
        (322, _SHORT, [profile.tile]),
        (323, _SHORT, [profile.tile]),
        (324, _LONG8 if big else _LONG, offsets),
        (325, _LONG, level.sizes),
        (339, _SHORT, [_KINDS[profile.dtype.kind]] * count),
    ]
    if count > 1:
        entries.append((338, _SHORT, [0] * (count - 1)))  # ExtraSamples: of no special meaning
    if not image.reduced:
        entries += [*_crs_entries(profile.crs), *_transform_entries(profile.transform)]
        entries.append((42112, _ASCII, _gdal_metadata(profile)))
    if profile.nodata is not None:
        entries.append((42113, _ASCII, _number(profile.nodata)))
    return sorted(entries, key=lambda entry: entry[0])


def _directory(entries: list[Entry], at: int, more: bool, big: bool) -> bytes:
    """One image directory at byte `at`, with the values that do not fit in their entries behind it."""
    count_format, entry_format, inline = ("<Q", "<HHQ", 8) if big else ("<H", "<HHI", 4)
    size = struct.calcsize(count_format) + len(entries) * (20 if big else 12) + inline
    directory = struct.pack(count_format, len(entries))
    behind = b""
    for tag, kind, values in entries:
        if kind == _ASCII:
            payload = values.encode("utf-8") + b"\0"
            count = len(payload)
        else:
            payload = struct.pack(f"<{len(values)}{_FORMATS[kind]}", *values)
            count = len(values)
        directory += struct.pack(entry_format, tag, kind, count)
        if len(payload) <= inline:
            directory += payload.ljust(inline, b"\0")
        else:
            directory += struct.pack("<Q" if big else "<I", at + size + len(behind))
            behind += payload + b"\0" * (-len(payload) % 8)
    following = at + size + len(behind)
    padding = b"\0" * (-following % 8)
    following_at = following + len(padding) if more else 0
    return directory + struct.pack("<Q" if big else "<I", following_at) + behind + padding


@lru_cache(maxsize=64)
def _crs_entries(crs: str) -> list[Entry]:
    """The tags that GDAL writes for a CRS."""
    with MemoryFile() as memory:
        with memory.open(
            driver="GTiff",
            width=1,
            height=1,
            count=1,
            dtype="uint8",
            crs=crs,
            transform=Affine(2, 0, 1, 0, -2, 1),
        ) as image:
            image.write(np.zeros((1, 1, 1), np.uint8))
        with tifffile.TiffFile(memory) as tiff:
            tags = [tag for code in _CRS_TAGS if (tag := tiff.pages[0].tags.get(code)) is not None]
            return [(tag.code, int(tag.dtype), _values(tag.value)) for tag in tags]


def _transform_entries(transform: Affine) -> list[Entry]:
    """The tags that place an image: scale and a corner where north is up, else the whole matrix."""
    if transform.b == transform.d == 0 and transform.a > 0 > transform.e:
        corner = [0.0, 0.0, 0.0, transform.c, transform.f, 0.0]
        return [(33550, _DOUBLE, [transform.a, -transform.e, 0.0]), (33922, _DOUBLE, corner)]
    rows = [transform.a, transform.b, 0.0, transform.c, transform.d, transform.e, 0.0, transform.f]
    return [(34264, _DOUBLE, [*rows, *[0.0] * 7, 1.0])]


def _values(value: Any) -> Any:
    return value if isinstance(value, str) else list(np.atleast_1d(value))


def _gdal_metadata(profile: CogProfile) -> str:
    items = []
    for number, band in enumerate(profile.bands):
        items.append(
            f'<Item name="DESCRIPTION" sample="{number}" role="description">{escape(band.description)}</Item>'
        )
        items.append(f'<Item name="OFFSET" sample="{number}" role="offset">{band.offset!r}</Item>')
        items.append(f'<Item name="SCALE" sample="{number}" role="scale">{band.scale!r}</Item>')
    # Values are escaped twice: GDAL unescapes once as XML, and once more as it takes them for metadata.
    items += [
        f"<Item name={quoteattr(key)}>{escape(escape(value))}</Item>"
        for key, value in sorted(profile.tags.items())
    ]
    return "<GDALMetadata>\n  " + "\n  ".join(items) + "\n</GDALMetadata>\n"


def _number(value: float) -> str:
    return (
        str(int(value)) if float(value).is_integer() and abs(value) < 2**53 else repr(float(value))
    )
