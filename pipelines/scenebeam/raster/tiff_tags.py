"""Decode the tags of a TIFF image: GeoKeys, transform, nodata value, band descriptions.

A tag is only decoded where there is a single way to understand it. For anything else, ValueError is
raised or None returned, and the caller leaves the file to GDAL, whose reading is the reference.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from typing import Any

import numpy as np
import tifffile
from affine import Affine

from scenebeam.raster.georeference import RASTER_TYPE, is_placed

_PIXEL_SCALE, _TIEPOINT, _MATRIX = 33550, 33922, 34264
_GEO_KEYS, _GEO_DOUBLES, _GEO_TEXTS = 34735, 34736, 34737
_GDAL_METADATA, _NODATA = 42112, 42113
_PIXEL_IS_POINT = 2

_TYPE_ASCII, _TYPE_DOUBLE = 2, 12
_WHOLE_NUMBER_TYPES = {3, 4, 16}
"""SHORT, LONG and LONG8, which every reader accepts in the tags of `_WHOLE_NUMBER_TAGS`."""
_WHOLE_NUMBER_TAGS = (
    256,  # ImageWidth
    257,  # ImageLength
    258,  # BitsPerSample
    259,  # Compression
    262,  # PhotometricInterpretation
    266,  # FillOrder
    273,  # StripOffsets
    277,  # SamplesPerPixel
    278,  # RowsPerStrip
    279,  # StripByteCounts
    284,  # PlanarConfiguration
    317,  # Predictor
    322,  # TileWidth
    323,  # TileLength
    324,  # TileOffsets
    325,  # TileByteCounts
    338,  # ExtraSamples
    339,  # SampleFormat
)
_TILE_TAGS = (322, 323, 324, 325)
_STRIP_TAGS = (273, 279)

_PLAIN_NUMBER = re.compile(r" *([+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?|nan) *", re.ASCII)
"""A nodata value that every reader understands alike."""


def has_plain_number_types(page: tifffile.TiffPage) -> bool:
    """Return whether tags that hold whole numbers have one of the types that readers expect."""
    tags = page.tags
    return all(
        tags[code].dtype in _WHOLE_NUMBER_TYPES for code in _WHOLE_NUMBER_TAGS if code in tags
    )


def lists_each_strip(page: tifffile.TiffPage, rows: int) -> bool:
    """Return whether a header describes strips only, and has one offset and one size for each.

    Args:
        page: An image in strips.
        rows: Rows of a strip.
    """
    if any(code in page.tags for code in _TILE_TAGS):
        return False
    strips = -(-page.imagelength // rows) * (1 if page.planarconfig == 1 else page.samplesperpixel)
    for code in _STRIP_TAGS:
        tag = page.tags.get(code)
        if tag is None or tag.count != strips:
            return False
    return True


def geo_keys(page: tifffile.TiffPage) -> dict[int, float]:
    """Decode the GeoKeys of an image (OGC GeoTIFF 1.1, section 7.1).

    Returns:
        Value by key. Keys with text, which are citations, have the value 0.

    Raises:
        ValueError: The GeoKeys do not follow the standard, so readers differ in what they make
            of them.
    """
    numbers = list(_value(page, _GEO_KEYS) or ())
    if not numbers:
        return {}
    # The directory starts with its version (1, 1, minor) and the number of keys. Four numbers per
    # key follow: the key, the tag that holds its value, the count of values, and the value itself
    # or its index in that tag.
    if len(numbers) < 4 or numbers[:2] != [1, 1] or len(numbers) != 4 + 4 * numbers[3]:
        raise ValueError(f"the GeoKey directory starts with {numbers[:4]}")
    doubles = list(np.atleast_1d(_value(page, _GEO_DOUBLES) or ()))
    text_length = _geo_text_length(page)
    keys: dict[int, float] = {}
    for start in range(4, len(numbers), 4):
        key, tag, count, value = numbers[start : start + 4]
        if tag == 0 and count == 1:
            keys[key] = value
        elif tag == _GEO_DOUBLES and count == 1 and value < len(doubles):
            keys[key] = doubles[value]
        elif tag == _GEO_TEXTS and value + count <= text_length:
            keys[key] = 0
        else:
            raise ValueError(f"GeoKey {key} has no value")
    if len(keys) != numbers[3]:
        raise ValueError("a GeoKey occurs twice")
    return keys


def _geo_text_length(page: tifffile.TiffPage) -> int:
    """Characters in the tag of GeoKey texts; 0 if it is missing or not ASCII."""
    tag = page.tags.get(_GEO_TEXTS)
    text = None if tag is None or tag.dtype != _TYPE_ASCII else tag.value
    if not isinstance(text, str) or not text.isascii():
        return 0
    # A text ends at its first NUL, whatever length the header gives.
    return len(text.split("\0")[0]) + 1


def affine_transform(page: tifffile.TiffPage, keys: dict[int, float]) -> Affine | None:
    """Decode the transform from pixel corners to coordinates of the CRS.

    Args:
        page: The image.
        keys: Its GeoKeys.

    Returns:
        A north-up transform; None if the header does not give one by a pixel scale and a single
        tiepoint.
    """
    for code in (_PIXEL_SCALE, _TIEPOINT):
        if code in page.tags and page.tags[code].dtype != _TYPE_DOUBLE:
            return None
    scale, tiepoint = _value(page, _PIXEL_SCALE), _value(page, _TIEPOINT)
    if scale is None or tiepoint is None or len(tiepoint) != 6:
        return None
    if _value(page, _MATRIX) is not None:
        return None
    if len(scale) < 2 or not np.isfinite([*scale, *tiepoint]).all():
        return None
    if scale[0] <= 0 or scale[1] <= 0:
        return None
    column, row, _, x, y, _ = tiepoint
    # With RasterPixelIsPoint, the tiepoint is the center of a pixel instead of its corner.
    half = 0.5 if keys.get(RASTER_TYPE) == _PIXEL_IS_POINT else 0.0
    left, top = x - (column + half) * scale[0], y + (row + half) * scale[1]
    transform = Affine(scale[0], 0, left, 0, -scale[1], top)
    return transform if is_placed(transform) else None


def nodata_value(page: tifffile.TiffPage) -> float | None:
    """Decode GDAL's nodata tag; None if there is none.

    Raises:
        ValueError: The tag is not a plain number.
    """
    value = _value(page, _NODATA)
    if value is None:
        return None
    plain = _PLAIN_NUMBER.fullmatch(value.rstrip("\0")) if isinstance(value, str) else None
    if plain is None:
        raise ValueError(f"the nodata value is {value!r}")
    return float(plain[1])


def band_descriptions(page: tifffile.TiffPage) -> tuple[str, ...]:
    """Decode the band descriptions in GDAL's metadata tag; empty if there are none."""
    xml = _value(page, _GDAL_METADATA)
    if not xml:
        return ()
    names = [""] * page.samplesperpixel
    for node in ET.fromstring(str(xml)).iter("Item"):
        if node.get("role") != "description":
            continue
        band = int(node.get("sample", 0))
        if band < len(names):
            names[band] = node.text or ""
    return tuple(names) if any(names) else ()


def _value(page: tifffile.TiffPage, code: int) -> Any:
    """Value of a tag, None if the image does not have it."""
    tag = page.tags.get(code)
    return None if tag is None else tag.value
