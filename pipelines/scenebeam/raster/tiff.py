"""Read the layout of GeoTIFFs from their headers. No pixel is read here.

Only plain files are described: those for which our block reader and GDAL are known to agree. For
all others `read_layout` returns None, and GDAL reads them. Headers are not trusted: sizes are
checked against the length of the file before anything is allocated.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import tifffile
from affine import Affine

from scenebeam.errors import ReadError
from scenebeam.raster.codecs import CODEC_OF_TAG, CODECS, PREDICTOR_NONE
from scenebeam.raster.directories import end_of, header_end
from scenebeam.raster.georeference import crs_of_geokeys
from scenebeam.raster.layout import TiffLayout
from scenebeam.raster.tiff_tags import (
    affine_transform,
    band_descriptions,
    geo_keys,
    has_plain_number_types,
    lists_each_strip,
    nodata_value,
)
from scenebeam.transfer.rangefile import RangeFile
from scenebeam.transfer.retry import Budget
from scenebeam.transfer.signing import redact_url

MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
"""First bytes of a TIFF and a BigTIFF, in both byte orders."""
LARGEST_BLOCK = 2**28
"""Largest decoded block that is read, in bytes."""
SMALLEST_ENTRY = 2
"""Fewest bytes that a header needs to describe one block."""
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
"""Dtypes that GDAL returns as they are stored. It converts float16 to float32, for example."""
_LARGEST_HEADER = 2**20
"""Bytes of a header that are read at once; of a larger one, only what is needed."""
_MAX_IMAGES = 1000
"""Images of one file that are looked at. Overviews and masks come first."""
_YCBCR = 6
"""PhotometricInterpretation of color-transformed JPEG."""
_ALPHA = (1, 2)
"""Values of ExtraSamples for alpha bands (TIFF 6.0 section 18)."""


def read_layout(file: RangeFile, *, overviews: bool = False) -> TiffLayout | None:
    """Read the layout of the first image of a file.

    Args:
        file: The file. Its first bytes are usually all that is read.
        overviews: Whether to read the layouts of the overviews too, and to check whether the file
            is as long as its header says.

    Returns:
        The layout; None if the block reader does not support the file, and GDAL has to read it.
        That is: anything but a TIFF in tiles or strips, files with a mask or an alpha band, and
        files that are not georeferenced by an EPSG code, one tiepoint and a pixel size.

    Raises:
        ReadError: The file cannot be read, or its header describes blocks that no file of its size
            can hold.
    """
    if file.head[:4] not in MAGIC:
        return None
    try:
        # Values of tags beyond the first bytes take one request, however many there are.
        end = header_end(file.head, file.size)
        if end <= _LARGEST_HEADER:
            file.read_header_to(end)
        with tifffile.TiffFile(file.open(), size=file.size) as tiff:
            layout = _first_layout(tiff, file)
            if layout is None or not overviews:
                return layout
            return _with_overviews(layout, tiff, file)
    except ReadError:
        raise
    except Exception:
        # tifffile raises exceptions of many types for broken and exotic headers. If the bytes could
        # be read, GDAL decides what to make of them.
        if file.fault is not None:
            raise file.fault from None
        return None


def read_grid(
    href: str, budget: Budget, signing: str = "none"
) -> tuple[str, Affine, tuple[int, int]] | None:
    """Read the CRS, transform and shape of a north-up TIFF of any codec from its header.

    Args:
        href: Unsigned address of the file, or a path on this machine.
        budget: Limits of the task that reads.
        signing: How requests are signed, as its collection record says.

    Returns:
        CRS, transform and (rows, columns); None if only GDAL can tell.

    Raises:
        ReadError: The file cannot be fetched, or is empty.
    """
    file = RangeFile(href, budget, signing)
    try:
        with tifffile.TiffFile(file.open(), size=file.size) as tiff:
            page = tiff.pages[0]
            keys = geo_keys(page)
            crs, transform = crs_of_geokeys(keys), affine_transform(page, keys)
            if crs is None or transform is None:
                return None
            return crs, transform, (page.imagelength, page.imagewidth)
    except ReadError:
        raise
    except Exception:  # see read_layout
        return None


def missing_bytes(path: str) -> int:
    """Return how many bytes a TIFF on this machine is short of what its header refers to.

    Returns:
        0 for a complete file, for a file that is not a TIFF, and for a path that is not a file.
    """
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            return max(0, end_of(file, size) - size)
    except (OSError, ValueError):
        return 0


def _first_layout(tiff: tifffile.TiffFile, file: RangeFile) -> TiffLayout | None:
    page, *others = _images(tiff)
    # A mask decides validity pixel by pixel, which GDAL implements.
    if any(other.is_mask for other in others):
        return None
    keys = geo_keys(page)
    crs, transform = crs_of_geokeys(keys), affine_transform(page, keys)
    if crs is None or transform is None:
        return None
    layout = _layout(page, file, crs, transform, nodata_value(page))
    if layout is None or layout.declared_nodata is None:
        return layout
    if layout.dtype.itemsize == 8 and layout.dtype.kind in "iu":
        # GDAL parses the nodata value of 64-bit integers by rules of its own, and a float cannot
        # hold all of them.
        return None
    if layout.nodata is None and not layout.sizes.all():
        # Sparse blocks hold whatever GDAL makes of a value that does not fit the dtype.
        return None
    return layout


def _images(tiff: tifffile.TiffFile) -> Iterator[tifffile.TiffPage]:
    """Yield the images of a file; stops where the chain of directories leads back into itself."""
    seen = set[int]()
    for number in range(_MAX_IMAGES):
        try:
            page = tiff.pages[number]
        except IndexError:
            return
        if page.offset in seen:
            return
        seen.add(page.offset)
        yield page


def _with_overviews(layout: TiffLayout, tiff: tifffile.TiffFile, file: RangeFile) -> TiffLayout:
    overviews = []
    for page in _images(tiff):
        if not page.is_reduced or page.index == 0:
            continue
        # An overview covers the same ground with fewer, larger pixels.
        scale = Affine.scale(layout.width / page.imagewidth, layout.height / page.imagelength)
        transform = layout.transform @ scale
        overview = _layout(page, file, layout.crs, transform, layout.declared_nodata)
        if overview is not None:
            overviews.append(overview)
    overviews.sort(key=lambda overview: -overview.width)
    missing = max(0, end_of(file.open(), file.size) - file.size)
    return replace(layout, overviews=tuple(overviews), missing=missing)


def _layout(
    page: tifffile.TiffPage, file: RangeFile, crs: str, transform: Affine, nodata: float | None
) -> TiffLayout | None:
    """Describe one image; None if the block reader does not support it."""
    if not _is_supported(page):
        return None
    codec = CODEC_OF_TAG[int(page.compression)]
    interleaved = page.planarconfig == 1
    if page.is_tiled:
        block = (page.tilelength, page.tilewidth)
    else:
        block = (_strip_rows(page), page.imagewidth)
    samples = page.samplesperpixel if interleaved else 1
    size = block[0] * block[1] * page.dtype.itemsize * samples
    if not page.is_tiled and (size > LARGEST_BLOCK or not lists_each_strip(page, block[0])):
        return None
    _check_sizes(page, file, block, size)
    return TiffLayout(
        href=file.href,
        signing=file.signing,
        width=page.imagewidth,
        height=page.imagelength,
        count=page.samplesperpixel,
        dtype=page.dtype.newbyteorder(">" if page.parent.byteorder == ">" else "<"),
        crs=crs,
        transform=transform,
        declared_nodata=nodata,
        block=block,
        strips=not page.is_tiled,
        codec=codec,
        # Without compression there is no predictor, whatever the header says (TIFF 6.0 section 14).
        predictor=int(page.predictor) if CODECS[codec].has_predictor else PREDICTOR_NONE,
        interleaved=interleaved,
        offsets=np.asarray(page.dataoffsets, dtype=np.int64),
        sizes=np.asarray(page.databytecounts, dtype=np.int64),
        descriptions=band_descriptions(page),
    )


def _is_supported(page: tifffile.TiffPage) -> bool:
    """Return whether the block reader reads an image exactly as GDAL does."""
    dtype = page.dtype
    if int(page.compression) not in CODEC_OF_TAG or dtype is None or dtype.name not in _DTYPES:
        return False
    for kind in page.extrasamples:
        if int(kind) in _ALPHA:
            return False
    return bool(
        page.bitspersample == dtype.itemsize * 8
        and int(page.predictor) in (1, 2, 3)
        and page.fillorder == 1
        and int(page.photometric) != _YCBCR
        and page.imagedepth == 1
        and has_plain_number_types(page)
    )


def _strip_rows(page: tifffile.TiffPage) -> int:
    """Rows of a strip. A header may declare more than the image has."""
    return int(max(1, min(page.rowsperstrip, page.imagelength)))


def _check_sizes(
    page: tifffile.TiffPage, file: RangeFile, block: tuple[int, int], size: int
) -> None:
    """Check an image's sizes against the length of the file and `LARGEST_BLOCK`.

    Raises:
        ReadError: The header is damaged or forged.
    """
    name = redact_url(file.href)
    if min(*block, page.imagewidth, page.imagelength) < 1:
        sides = f"{page.imagewidth} x {page.imagelength} pixels"
        raise ReadError(f"{name}: the header describes an image of {sides}")
    across, down = -(-page.imagewidth // block[1]), -(-page.imagelength // block[0])
    blocks = across * down * (1 if page.planarconfig == 1 else page.samplesperpixel)
    if size > LARGEST_BLOCK:
        raise ReadError(
            f"{name}: blocks of {size:,} bytes exceed the {LARGEST_BLOCK:,} that can be decoded"
        )
    listed = len(page.dataoffsets)
    # Each block takes some bytes of the header: more blocks than the file has room for are forged.
    is_consistent = blocks == listed == len(page.databytecounts)
    if not is_consistent or SMALLEST_ENTRY * blocks > file.size:
        raise ReadError(f"{name}: the header lists {listed:,} blocks, but the image has {blocks:,}")
    if min(page.dataoffsets) < 0 or min(page.databytecounts) < 0:
        raise ReadError(f"{name}: the header places blocks before the start of the file")
