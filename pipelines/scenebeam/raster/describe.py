"""Describe: what the reader sees in a file, for people and machines."""

from __future__ import annotations

from typing import Any

from pyproj import CRS

from scenebeam.raster.band_reader import TiffSource
from scenebeam.raster.reader import open_source
from scenebeam.transfer.retry import Budget


def describe_file(href: str, signing: str = "none") -> dict[str, Any]:
    """Open a file and say what it is: size, bands, numbers, placement, validity, blocks.

    Raises ReadError where it is no image that can be read.
    """
    budget = Budget(private=True)
    first = open_source(href, 1, budget, signing)
    info = first.info
    bands = [
        info,
        *(
            open_source(href, number, budget, signing).info
            for number in range(2, min(info.count, 512) + 1)
        ),
    ]
    transform = info.transform
    corners = [transform @ corner for corner in ((0, 0), (info.width, info.height))]
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
        "transform": list(transform)[:6],
        "bounds": [corners[0][0], corners[1][1], corners[1][0], corners[0][1]],
        "block": list(info.block),
    }
