"""The layout of a tiled GeoTIFF: what its header says, and where each block lies. No pixel is read here."""

from __future__ import annotations

import io
import xml.etree.ElementTree as ET
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import tifffile
from affine import Affine

from scenebeam.errors import ReadError
from scenebeam.transfer.access import shown
from scenebeam.transfer.ranges import Budget, read_range, read_range_and_size

HEADER_BYTES = 32 * 1024
"""First read of a file: holds every IFD of a COG of some 1,500 blocks."""

_CODECS = {1: "none", 5: "lzw", 8: "deflate", 32946: "deflate", 50000: "zstd"}
_PIXEL_SCALE, _TIEPOINT, _GEO_KEYS, _NODATA, _GDAL_METADATA = 33550, 33922, 34735, 42113, 42112
_RASTER_TYPE, _GEOGRAPHIC_CRS, _PROJECTED_CRS = 1025, 2048, 3072


@dataclass(frozen=True)
class TiffLayout:
    """One tiled image of a GeoTIFF: grid, number type, and the place of each block in the file."""

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
    nodata: float | None
    block: tuple[int, int]
    """Rows, columns."""
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
    def blocks_across(self) -> int:
        """Blocks in a row of blocks."""
        return -(-self.width // self.block[1])

    def number(self, row: int, column: int, band: int) -> int:
        """Place of a block in `offsets`, for a band from 1."""
        place = row * self.blocks_across + column
        if self.interleaved:
            return place
        return place + (band - 1) * self.blocks_across * -(-self.height // self.block[0])


class _HeaderFile(io.RawIOBase):
    """A file that tifffile can seek in, which fetches only the pieces of the header that are asked for."""

    def __init__(self, href: str, budget: Budget, signing: str) -> None:
        self.href, self.budget, self.signing, self.position = href, budget, signing, 0
        head, self.size = read_range_and_size(href, 0, HEADER_BYTES, budget, signing)
        if not head:
            raise ReadError(f"{shown(href)} is an empty file")
        self.pieces = {0: head}

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self.position = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self.position, io.SEEK_END: self.size}[whence]
        return self.position

    def readinto(self, buffer: Any) -> int:
        wanted = min(len(buffer), self.size - self.position)
        if wanted <= 0:
            return 0
        body = self._piece(self.position, self.position + wanted)
        buffer[: len(body)] = body
        self.position += len(body)
        return len(body)

    def _piece(self, start: int, stop: int) -> bytes:
        for first, piece in self.pieces.items():
            if first <= start and stop <= first + len(piece):
                return piece[start - first : stop - first]
        self.pieces[start] = read_range(self.href, start, max(stop, start + HEADER_BYTES), self.budget, self.signing)
        return self.pieces[start][: stop - start]


def read_layout(href: str, budget: Budget, signing: str = "none", *, overviews: bool = False) -> TiffLayout | None:
    """The layout of the first image of a file; None for what the block reader does not read (then GDAL does).

    Usually one range request. `overviews` looks at those too, and at whether the file is as long as its header says.
    Raises ReadError where the file cannot be fetched at all, or is empty.
    """
    file = _HeaderFile(href, budget, signing)
    if file.pieces[0][:2] not in (b"II", b"MM"):
        return None
    try:
        with tifffile.TiffFile(file, size=file.size) as tiff:
            page = tiff.pages[0]
            layout = _layout(page, href, signing, _crs(page), _transform(page), _nodata(page))
            return _with_overviews(layout, tiff, file.size) if overviews and layout is not None else layout
    except ReadError:
        raise
    except Exception:  # a broken or exotic header, in whatever way tifffile meets it: GDAL judges it
        return None


def read_grid(href: str, budget: Budget, signing: str = "none") -> tuple[str, Affine, tuple[int, int]] | None:
    """CRS, transform and shape of any north-up TIFF by its header; None for what only GDAL can tell.

    Raises ReadError where the file cannot be fetched at all, or is empty.
    """
    file = _HeaderFile(href, budget, signing)
    try:
        with tifffile.TiffFile(file, size=file.size) as tiff:
            page = tiff.pages[0]
            crs, transform = _crs(page), _transform(page)
            found = None if crs is None or transform is None else (crs, transform, (page.imagelength, page.imagewidth))
    except ReadError:
        raise
    except Exception:  # as above
        return None
    return found


def _with_overviews(layout: TiffLayout, tiff: tifffile.TiffFile, size: int) -> TiffLayout:
    found = []
    for page in tiff.pages[1:]:
        if page.is_reduced and not page.is_mask:
            scale = Affine.scale(layout.width / page.imagewidth, layout.height / page.imagelength)
            smaller = _layout(page, layout.href, layout.signing, layout.crs, layout.transform @ scale, layout.nodata)
            if smaller is not None:
                found.append(smaller)
    end = max(int((one.offsets + one.sizes).max()) for one in (layout, *found))
    return replace(layout, overviews=tuple(sorted(found, key=lambda one: -one.width)), missing=max(0, end - size))


def missing_bytes(path: str) -> int:
    """Bytes that the header of any TIFF on this machine speaks of and the file does not have; 0 for other files."""
    try:
        with tifffile.TiffFile(path) as tiff:
            pages = [page for page in tiff.pages if len(page.dataoffsets)]
            end = max(a + b for page in pages for a, b in zip(page.dataoffsets, page.databytecounts, strict=True))
            return max(0, int(end) - int(tiff.filehandle.size))
    except Exception:  # no TIFF, or one that GDAL must judge
        return 0


def _layout(
    page: tifffile.TiffPage,
    href: str,
    signing: str,
    crs: str | None,
    transform: Affine | None,
    nodata: float | None,
) -> TiffLayout | None:
    codec = _CODECS.get(int(page.compression))
    dtype = page.dtype
    if (
        not page.is_tiled
        or codec is None
        or crs is None
        or transform is None
        or dtype is None
        or dtype.kind not in "uif"
        or page.bitspersample != dtype.itemsize * 8
        or int(page.predictor) not in (1, 2, 3)
        or page.fillorder != 1
        or int(page.photometric) == 6  # YCbCr
        or page.imagedepth != 1
    ):
        return None
    order = ">" if page.parent.byteorder == ">" else "<"
    return TiffLayout(
        href=href,
        signing=signing,
        width=page.imagewidth,
        height=page.imagelength,
        count=page.samplesperpixel,
        dtype=dtype.newbyteorder(order),
        crs=crs,
        transform=transform,
        nodata=nodata,
        block=(page.tilelength, page.tilewidth),
        codec=codec,
        predictor=int(page.predictor),
        interleaved=page.planarconfig == 1,
        offsets=np.asarray(page.dataoffsets, dtype=np.int64),
        sizes=np.asarray(page.databytecounts, dtype=np.int64),
        descriptions=_descriptions(page),
    )


def _tag(page: tifffile.TiffPage, code: int) -> Any:
    tag = page.tags.get(code)
    return None if tag is None else tag.value


def _geo_keys(page: tifffile.TiffPage) -> dict[int, int]:
    """Short-valued GeoKeys (OGC GeoTIFF 1.1, section 7.1.2)."""
    numbers = list(_tag(page, _GEO_KEYS) or ())
    entries = [numbers[start : start + 4] for start in range(4, len(numbers) - 3, 4)]
    return {key: value for key, place, _, value in entries if place == 0}


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


def _crs(page: tifffile.TiffPage) -> str | None:
    """`EPSG:32634` where the header names a code; None for user-defined systems."""
    keys = _geo_keys(page)
    code = keys.get(_PROJECTED_CRS) or keys.get(_GEOGRAPHIC_CRS)
    return f"EPSG:{code}" if code and 1024 <= code < 32767 else None


def _transform(page: tifffile.TiffPage) -> Affine | None:
    """Pixel corner → CRS. None where the header does not give a north-up grid by one tiepoint."""
    scale, tie = _tag(page, _PIXEL_SCALE), _tag(page, _TIEPOINT)
    if scale is None or tie is None or len(tie) != 6:
        return None
    column, row, _, x, y, _ = tie
    # RasterPixelIsPoint (2) ties the centre of a pixel, not its corner.
    half = 0.5 if _geo_keys(page).get(_RASTER_TYPE) == 2 else 0.0
    return Affine(scale[0], 0, x - (column + half) * scale[0], 0, -scale[1], y + (row + half) * scale[1])


def _nodata(page: tifffile.TiffPage) -> float | None:
    value = _tag(page, _NODATA)
    try:
        return None if value is None else float(str(value).strip().rstrip("\0"))
    except ValueError:
        return None
