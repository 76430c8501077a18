"""Describe a file as the reader sees it, for people and machines."""

from __future__ import annotations

from typing import Any

from pyproj import CRS

from scenebeam.raster.band_reader import TiffSource
from scenebeam.raster.reader import open_source
from scenebeam.transfer.retry import Budget

_MAX_BANDS = 512
"""Bands whose dtype and nodata value are listed."""


def describe_file(href: str, signing: str = "none") -> dict[str, Any]:
    """Open a file, and describe its size, bands, dtype, georeferencing, validity and blocks.

    Args:
        href: Unsigned address of the file, or a path on this machine.
        signing: How requests are signed: see `transfer.signing`.

    Returns:
        A dictionary that can be written as JSON.

    Raises:
        ReadError: The file is not an image that can be read.
    """
    budget = Budget(private=True)
    first = open_source(href, 1, budget, signing)
    info = first.info
    bands = [info]
    for number in range(2, min(info.count, _MAX_BANDS) + 1):
        bands.append(open_source(href, number, budget, signing).info)
    left, top = info.transform @ (0, 0)
    right, bottom = info.transform @ (info.width, info.height)
    return {
        "file": href,
        "driver": info.driver,
        "read": "by blocks" if isinstance(first, TiffSource) else "through GDAL",
        "width": info.width,
        "height": info.height,
        "count": info.count,
        "bands": list(info.descriptions),
        "dtype": sorted({band.dtype.name for band in bands}),
        "nodata": sorted({repr(band.nodata) for band in bands}),
        "mask": info.masked,
        "crs": info.crs if info.crs.startswith("EPSG:") else CRS.from_user_input(info.crs).name,
        "transform": list(info.transform)[:6],
        "bounds": [left, bottom, right, top],
        "block": list(info.block),
    }
