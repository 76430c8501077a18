"""The layout of a GeoTIFF: what its header says, and where each block lies. No pixel is read
here.
"""

from __future__ import annotations

import os
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import tifffile
from affine import Affine

from scenebeam.errors import ReadError
from scenebeam.raster.directories import end_of
from scenebeam.raster.georeference import RASTER_TYPE, crs_of_geokeys, is_placed
from scenebeam.raster.validity import held_nodata
from scenebeam.transfer.rangefile import RangeFile
from scenebeam.transfer.retry import Budget
from scenebeam.transfer.signing import redact_url

MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
"""First bytes of a TIFF and a BigTIFF, in both byte orders."""
LARGEST_BLOCK = 2**28
"""Bytes of a block, decoded, that is read."""
SMALLEST_ENTRY = 2
"""Bytes that a header takes for a block, at least."""
_CODECS = {1: "none", 5: "lzw", 8: "deflate", 32946: "deflate", 50000: "zstd"}
_DTYPES = {
    "uint8",
    "uint16",
    "uint32",
    "uint64",
    "int8",
    "int16",
    "int32",
    "int64",
    "float32",
    "float64",
}
"""Of numbers that GDAL gives as they are stored: of float16 it makes float32."""
_MOST_IMAGES = 1000
"""Images of one file that are looked at: overviews and masks come first."""
_PIXEL_SCALE, _TIEPOINT, _MATRIX = 33550, 33922, 34264
_GEO_KEYS, _GEO_DOUBLES, _GEO_TEXTS = 34735, 34736, 34737
_GDAL_METADATA, _NODATA = 42112, 42113
_PLAIN_NUMBER = re.compile(r" *([+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?|nan) *", re.ASCII)
"""A nodata value that can be read in one way only."""
_ASCII, _DOUBLE = 2, 12
_WHOLE = {3, 4, 16}
"""Types of numbers (SHORT, LONG, LONG8) that every reader takes in the tags that are `_NUMBERS`."""
_NUMBERS = (
    256,
    257,
    258,
    259,
    262,
    266,
    273,
    277,
    278,
    279,
    284,
    317,
    322,
    323,
    324,
    325,
    338,
    339,
)
_TILES = (322, 323, 324, 325)
"""TileWidth, TileLength, TileOffsets, TileByteCounts."""
_STRIPS = (273, 279)
"""StripOffsets, StripByteCounts."""
_YCBCR = 6
_ALPHA = (1, 2)
"""ExtraSamples that say how opaque a pixel is (TIFF 6.0 section 18)."""


@dataclass(frozen=True)
class TiffLayout:
    """One image of a GeoTIFF, in tiles or strips: grid, number type, and the place of each block in the file."""

    href: str
    signing: str
    width: int
    height: int
    count: int
    """Bands in the file."""
    dtype: np.dtype[Any]
    """As stored: may be big-endian."""
    crs: str
    transform: Affine
    declared_nodata: float | None
    """As the header has it, whether the dtype can hold it or not."""
    block: tuple[int, int]
    """Rows, columns. A strip is a block as wide as the image, of which the last may have fewer
    rows.
    """
    strips: bool
    codec: str
    predictor: int
    interleaved: bool
    """Whether a block holds all bands of its pixels."""
    offsets: np.ndarray[Any, np.dtype[np.int64]]
    sizes: np.ndarray[Any, np.dtype[np.int64]]
    """Per block in file order, bytes; size 0 is a block that was never written: all nodata."""
    descriptions: tuple[str, ...] = ()
    """What it calls its bands; empty where it does not say."""
    overviews: tuple[TiffLayout, ...] = ()
    """Smaller images of the same, the largest first."""
    missing: int = 0
    """Bytes that the header speaks of and the file does not have: it is truncated."""

    @property
    def nodata(self) -> float | None:
        """The nodata value as a number of the dtype; None where there is none that it can hold."""
        return held_nodata(self.declared_nodata, self.dtype.newbyteorder("="))

    @property
    def blocks_across(self) -> int:
        """Blocks in a row of blocks."""
        return -(-self.width // self.block[1])

    def number(self, row: int, column: int, band: int) -> int:
        """Place of a block in `offsets`, for a band from 1."""
        place = row * self.blocks_across + column
        if self.interleaved:
            return place
        return place + (band - 1) * self.blocks_across * -(-self.height // self.block[0])


def read_layout(file: RangeFile, *, overviews: bool = False) -> TiffLayout | None:
    """Read the layout of the first image of a file; None for what the block reader does not read
    (then GDAL does).

    That is what is no TIFF of tiles or strips, what has a mask or an alpha band, and what is placed
    in another way than by an EPSG code, one corner and a pixel size.

    Args:
        file: The file; usually its first bytes are enough.
        overviews: Whether to look at the overviews too, and at whether the file is as long as its
        header says.

    Raises:
        ReadError: The file cannot be read, or its header speaks of blocks that no file of its size
        can hold.
    """
    if file.head[:4] not in MAGIC:
        return None
    try:
        with tifffile.TiffFile(file.open(), size=file.size) as tiff:
            layout = _first_layout(tiff, file)
            return (
                _with_overviews(layout, tiff, file) if overviews and layout is not None else layout
            )
    except ReadError:
        raise
    except (
        Exception
    ):  # a broken or exotic header, in whatever way tifffile meets it: GDAL judges it
        if file.fault is not None:
            raise file.fault from None
        return None


def _first_layout(tiff: tifffile.TiffFile, file: RangeFile) -> TiffLayout | None:
    page, *others = _images(tiff)
    if any(other.is_mask for other in others):
        return None
    keys = _geo_keys(page)
    crs, transform = crs_of_geokeys(keys), _transform(page, keys)
    if crs is None or transform is None:
        return None
    layout = _layout(page, file, crs, transform, _nodata(page))
    if layout is None or layout.declared_nodata is None:
        return layout
    if layout.dtype.itemsize == 8 and layout.dtype.kind in "iu":
        return None  # GDAL reads the nodata value of these in a way of its own, and a float does not hold it
    if layout.nodata is None and not layout.sizes.all():
        return None  # a block that was never written holds what GDAL makes of a value too large for the dtype
    return layout


def _images(tiff: tifffile.TiffFile) -> Iterator[tifffile.TiffPage]:
    """The images of a file. A chain of directories that leads back to one of its own ends there."""
    seen = set[int]()
    for number in range(_MOST_IMAGES):
        try:
            page = tiff.pages[number]
        except IndexError:
            return
        if page.offset in seen:
            return
        seen.add(page.offset)
        yield page


def read_grid(
    href: str, budget: Budget, signing: str = "none"
) -> tuple[str, Affine, tuple[int, int]] | None:
    """CRS, transform and shape of any north-up TIFF by its header; None for what only GDAL can
    tell.

    Raises ReadError where the file cannot be fetched at all, or is empty.
    """
    file = RangeFile(href, budget, signing)
    try:
        with tifffile.TiffFile(file.open(), size=file.size) as tiff:
            page = tiff.pages[0]
            keys = _geo_keys(page)
            crs, transform = crs_of_geokeys(keys), _transform(page, keys)
            found = (
                None
                if crs is None or transform is None
                else (crs, transform, (page.imagelength, page.imagewidth))
            )
    except ReadError:
        raise
    except Exception:  # as above
        return None
    return found


def _with_overviews(layout: TiffLayout, tiff: tifffile.TiffFile, file: RangeFile) -> TiffLayout:
    found = []
    for page in _images(tiff):
        if page.is_reduced and page.index != 0:
            scale = Affine.scale(layout.width / page.imagewidth, layout.height / page.imagelength)
            smaller = _layout(
                page, file, layout.crs, layout.transform @ scale, layout.declared_nodata
            )
            if smaller is not None:
                found.append(smaller)
    end = end_of(file.open(), file.size)
    overviews = tuple(sorted(found, key=lambda one: -one.width))
    return replace(layout, overviews=overviews, missing=max(0, end - file.size))


def missing_bytes(path: str) -> int:
    """Bytes that the header of any TIFF on this machine speaks of and the file does not have; 0 for
    other files.
    """
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            return max(0, end_of(file, size) - size)
    except (OSError, ValueError):  # no file, or no TIFF
        return 0


def _layout(
    page: tifffile.TiffPage, file: RangeFile, crs: str, transform: Affine, nodata: float | None
) -> TiffLayout | None:
    codec = _CODECS.get(int(page.compression))
    dtype = page.dtype
    if (
        codec is None
        or dtype is None
        or dtype.name not in _DTYPES
        or page.bitspersample != dtype.itemsize * 8
        or int(page.predictor) not in (1, 2, 3)
        or page.fillorder != 1
        or int(page.photometric) == _YCBCR
        or page.imagedepth != 1
        or any(int(kind) in _ALPHA for kind in page.extrasamples)
        or any(page.tags[code].dtype not in _WHOLE for code in _NUMBERS if code in page.tags)
    ):
        return None
    interleaved = page.planarconfig == 1
    block = (
        (page.tilelength, page.tilewidth) if page.is_tiled else (_strip_rows(page), page.imagewidth)
    )
    size = block[0] * block[1] * dtype.itemsize * (page.samplesperpixel if interleaved else 1)
    if not page.is_tiled and (size > LARGEST_BLOCK or not _lists_each_strip(page, block[0])):
        return None
    _check_sizes(page, file, block, size)
    order = ">" if page.parent.byteorder == ">" else "<"
    return TiffLayout(
        href=file.href,
        signing=file.signing,
        width=page.imagewidth,
        height=page.imagelength,
        count=page.samplesperpixel,
        dtype=dtype.newbyteorder(order),
        crs=crs,
        transform=transform,
        declared_nodata=nodata,
        block=block,
        strips=not page.is_tiled,
        codec=codec,
        # A file that is not compressed has no predictor, whatever its header says (TIFF 6.0 section 14).
        predictor=1 if codec == "none" else int(page.predictor),
        interleaved=interleaved,
        offsets=np.asarray(page.dataoffsets, dtype=np.int64),
        sizes=np.asarray(page.databytecounts, dtype=np.int64),
        descriptions=_descriptions(page),
    )


def _lists_each_strip(page: tifffile.TiffPage, rows: int) -> bool:
    """Whether a header speaks of strips alone, with one place and one size for each.

    GDAL makes something of others, too.
    """
    strips = -(-page.imagelength // rows) * (1 if page.planarconfig == 1 else page.samplesperpixel)
    tags = [page.tags.get(code) for code in _STRIPS]
    if any(code in page.tags for code in _TILES):
        return False
    return all(tag is not None and tag.count == strips for tag in tags)


def _strip_rows(page: tifffile.TiffPage) -> int:
    """Rows of a strip: of the last there may be fewer, and a header may speak of more than there
    are.
    """
    return int(max(1, min(page.rowsperstrip, page.imagelength)))


def _check_sizes(
    page: tifffile.TiffPage, file: RangeFile, block: tuple[int, int], size: int
) -> None:
    """Hold what a header says against the file's length and what a process can bear, before
    anything is allocated.

    Raises ReadError.
    """
    if min(*block, page.imagewidth, page.imagelength) < 1:
        raise ReadError(
            f"{redact_url(file.href)}: its header speaks of an image of {page.imagewidth} x {page.imagelength} pixels"
        )
    across, down = -(-page.imagewidth // block[1]), -(-page.imagelength // block[0])
    blocks = across * down * (1 if page.planarconfig == 1 else page.samplesperpixel)
    name = redact_url(file.href)
    if size > LARGEST_BLOCK:
        raise ReadError(
            f"{name}: its blocks of {size:,} bytes are larger than the {LARGEST_BLOCK:,} that can be decoded"
        )
    if (
        not blocks == len(page.dataoffsets) == len(page.databytecounts)
        or SMALLEST_ENTRY * blocks > file.size
    ):
        raise ReadError(
            f"{name}: its header lists {len(page.dataoffsets):,} blocks, and its image has {blocks:,}"
        )
    if min(page.dataoffsets) < 0 or min(page.databytecounts) < 0:
        raise ReadError(f"{name}: its header places blocks before the file's first byte")


def _tag(page: tifffile.TiffPage, code: int) -> Any:
    tag = page.tags.get(code)
    return None if tag is None else tag.value


def _geo_keys(page: tifffile.TiffPage) -> dict[int, float]:
    """GeoKeys with a number (OGC GeoTIFF 1.1, section 7.1); those with text, which cite, are given
    as 0.

    Raises ValueError where they are not written as the standard has it: readers differ in what they
    make of those.
    """
    numbers = list(_tag(page, _GEO_KEYS) or ())
    if not numbers:
        return {}
    if len(numbers) < 4 or numbers[:2] != [1, 1] or len(numbers) != 4 + 4 * numbers[3]:
        raise ValueError(f"the GeoKeys begin with {numbers[:4]}")
    doubles = list(np.atleast_1d(_tag(page, _GEO_DOUBLES) or ()))
    texts = page.tags.get(_GEO_TEXTS)
    # A text ends at its first zero, whatever the header says of its length.
    text = None if texts is None or texts.dtype != _ASCII else texts.value
    length = len(text.split("\0")[0]) + 1 if isinstance(text, str) and text.isascii() else 0
    keys: dict[int, float] = {}
    for start in range(4, len(numbers), 4):
        key, place, count, value = numbers[start : start + 4]
        if place == 0 and count == 1:
            keys[key] = value
        elif place == _GEO_DOUBLES and count == 1 and value < len(doubles):
            keys[key] = doubles[value]
        elif place == _GEO_TEXTS and value + count <= length:
            keys[key] = 0
        else:
            raise ValueError(f"GeoKey {key} has no value")
    if len(keys) != numbers[3]:
        raise ValueError("a GeoKey is there twice")
    return keys


def _descriptions(page: tifffile.TiffPage) -> tuple[str, ...]:
    """Those that GDAL keeps in its own tag."""
    text = _tag(page, _GDAL_METADATA)
    if not text:
        return ()
    names = [""] * page.samplesperpixel
    for node in ET.fromstring(str(text)).iter("Item"):
        if node.get("role") == "description" and int(node.get("sample", 0)) < len(names):
            names[int(node.get("sample", 0))] = node.text or ""
    return tuple(names) if any(names) else ()


def _transform(page: tifffile.TiffPage, keys: dict[int, float]) -> Affine | None:
    """Pixel corner → CRS. None where the header does not give a north-up grid by one tiepoint."""
    if any(
        code in page.tags and page.tags[code].dtype != _DOUBLE for code in (_PIXEL_SCALE, _TIEPOINT)
    ):
        return None
    scale, tie = _tag(page, _PIXEL_SCALE), _tag(page, _TIEPOINT)
    if scale is None or tie is None or len(tie) != 6 or _tag(page, _MATRIX) is not None:
        return None
    if len(scale) < 2 or not np.isfinite([*scale, *tie]).all() or scale[0] <= 0 or scale[1] <= 0:
        return None
    column, row, _, x, y, _ = tie
    # RasterPixelIsPoint (2) ties the centre of a pixel, not its corner.
    half = 0.5 if keys.get(RASTER_TYPE) == 2 else 0.0
    transform = Affine(
        scale[0], 0, x - (column + half) * scale[0], 0, -scale[1], y + (row + half) * scale[1]
    )
    return transform if is_placed(transform) else None


def _nodata(page: tifffile.TiffPage) -> float | None:
    """The nodata value. Raises ValueError where it is no plain number: GDAL tells what it makes of
    it.
    """
    value = _tag(page, _NODATA)
    if value is None:
        return None
    plain = _PLAIN_NUMBER.fullmatch(value.rstrip("\0")) if isinstance(value, str) else None
    if plain is None:
        raise ValueError(f"the nodata value is {value!r}")
    return float(plain[1])
