"""Facts about a dataset that GDAL has opened, and about what went wrong."""

from __future__ import annotations

import numpy as np
from rasterio.io import DatasetReader


def natural_block_bytes(file: DatasetReader) -> int:
    """Return the bytes of a decoded block of the file."""
    rows, columns = file.block_shapes[0]
    # JPEG 2000 tiles hold all bands. Its metadata must not be read: GDAL 3.10 loops forever if a
    # box of length 0 is inside another box.
    holds_all = file.driver == "JP2OpenJPEG" or file.profile.get("interleave") == "pixel"
    bands = file.count if holds_all else 1
    return int(rows * columns * bands * max(np.dtype(dtype).itemsize for dtype in file.dtypes))


def block_count(file: DatasetReader) -> int:
    """Return the number of blocks of one band."""
    rows, columns = file.block_shapes[0]
    return int(-(-file.height // rows) * -(-file.width // columns))


def has_mask(file: DatasetReader) -> bool:
    """Return whether a mask or an alpha band, besides a nodata value, says where there is data."""
    for band_flags in file.mask_flag_enums:
        for flag in band_flags:
            if flag.name in ("per_dataset", "alpha"):
                return True
    return False


def band_descriptions(file: DatasetReader) -> tuple[str, ...]:
    """Return the band descriptions; empty if there are none, or if they are not UTF-8."""
    try:
        texts = file.descriptions
    except UnicodeDecodeError:
        return ()
    return tuple(text or "" for text in texts) if any(texts) else ()


def looks_like(head: bytes) -> str:
    """Describe a file that is not an image by its first bytes, for messages."""
    text = head[:200].lstrip().lower()
    if text.startswith((b"<html", b"<!doctype")):
        return "an HTML page"
    return "XML" if text.startswith(b"<") else "not a GeoTIFF, JPEG 2000, PNG or JPEG"


def innermost_error(error: Exception) -> str:
    """Return type and message of the first error in a chain of GDAL's errors."""
    while error.__cause__ is not None:
        error = error.__cause__  # type: ignore[assignment]
    return f"{type(error).__name__}: {str(error).strip()}"
