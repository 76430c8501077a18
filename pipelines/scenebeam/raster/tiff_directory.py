"""Pack TIFF image directories, and encode the tags that georeference an image.

A directory is a list of entries: tag, type, number of values, and the values. Values that do not
fit into an entry (8 bytes in a BigTIFF, 4 in a classic TIFF) lie behind the directory, and the
entry has their offset.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import tifffile
from affine import Affine
from rasterio.io import MemoryFile

SHORT, LONG, ASCII, DOUBLE, LONG8 = 3, 4, 2, 12, 16
"""TIFF types (TIFF 6.0 section 2, and BigTIFF)."""
_STRUCT_CODES = {SHORT: "H", LONG: "I", DOUBLE: "d", LONG8: "Q"}
_GEO_KEYS_TAGS = (34735, 34736, 34737)
_PIXEL_SCALE, _TIEPOINT, _MATRIX = 33550, 33922, 34264


class Tag(NamedTuple):
    """One entry of a directory."""

    code: int
    type: int
    values: Any
    """Text of an ASCII tag; a sequence of numbers otherwise."""

    def pack(self) -> tuple[int, bytes]:
        """Return the number of values, and the values as bytes."""
        if self.type == ASCII:
            text = self.values.encode("utf-8") + b"\0"
            return len(text), text
        packed = struct.pack(f"<{len(self.values)}{_STRUCT_CODES[self.type]}", *self.values)
        return len(self.values), packed


def pack_directory(tags: list[Tag], start: int, has_next: bool, is_big: bool) -> bytes:
    """Pack a directory, with the values that do not fit into its entries behind it.

    Args:
        tags: The tags, sorted by code.
        start: Offset of the directory in the file.
        has_next: Whether another directory follows immediately.
        is_big: Whether the file is a BigTIFF.
    """
    count_format, entry_format, offset_format = (
        ("<Q", "<HHQ", "<Q") if is_big else ("<H", "<HHI", "<I")
    )
    offset_size = struct.calcsize(offset_format)
    entry_size = struct.calcsize(entry_format) + offset_size
    size = struct.calcsize(count_format) + len(tags) * entry_size + offset_size
    directory = struct.pack(count_format, len(tags))
    behind = b""
    for tag in tags:
        count, values = tag.pack()
        directory += struct.pack(entry_format, tag.code, tag.type, count)
        if len(values) <= offset_size:
            directory += values.ljust(offset_size, b"\0")
        else:
            directory += struct.pack(offset_format, start + size + len(behind))
            behind += _padded(values)
    # Directories, too, begin at a multiple of 8 bytes.
    end = start + size + len(behind)
    padding = b"\0" * (-end % 8)
    next_directory = end + len(padding) if has_next else 0
    return directory + struct.pack(offset_format, next_directory) + behind + padding


def _padded(values: bytes) -> bytes:
    return values + b"\0" * (-len(values) % 8)


@lru_cache(maxsize=64)
def crs_tags(crs: str) -> list[Tag]:
    """Return the GeoKey tags that GDAL writes for a CRS, by having it write a tiny file."""
    profile = {"driver": "GTiff", "width": 1, "height": 1, "count": 1, "dtype": "uint8"}
    with MemoryFile() as memory:
        with memory.open(crs=crs, transform=Affine(2, 0, 1, 0, -2, 1), **profile) as image:
            image.write(np.zeros((1, 1, 1), np.uint8))
        with tifffile.TiffFile(memory) as tiff:
            tags = []
            for code in _GEO_KEYS_TAGS:
                tag = tiff.pages[0].tags.get(code)
                if tag is not None:
                    tags.append(Tag(tag.code, int(tag.dtype), _as_sequence(tag.value)))
            return tags


def _as_sequence(value: Any) -> Any:
    return value if isinstance(value, str) else list(np.atleast_1d(value))


def transform_tags(transform: Affine) -> list[Tag]:
    """Return the tags for a transform: pixel scale and tiepoint if north is up, else a matrix."""
    if transform.b == transform.d == 0 and transform.a > 0 > transform.e:
        scale = [transform.a, -transform.e, 0.0]
        tiepoint = [0.0, 0.0, 0.0, transform.c, transform.f, 0.0]
        return [Tag(_PIXEL_SCALE, DOUBLE, scale), Tag(_TIEPOINT, DOUBLE, tiepoint)]
    rows = [transform.a, transform.b, 0.0, transform.c, transform.d, transform.e, 0.0, transform.f]
    return [Tag(_MATRIX, DOUBLE, [*rows, *[0.0] * 7, 1.0])]
