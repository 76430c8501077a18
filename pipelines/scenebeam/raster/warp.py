"""Map a source onto the output grid: the cheapest way that gives the pixels of GDAL's warper.

There are three ways, from cheap to expensive:

1. The source's pixels lie on pixels of the grid: copy them. Same grid in, same numbers out.
2. The source is coarser by a whole factor, edges on edges: repeat (nearest) or interpolate
   (bilinear) its pixels with integer arithmetic.
3. Anything else goes through GDAL's warper: another CRS, another resolution, a shift by part of a
   pixel, another kernel. It warps arrays in memory, and never reads from the network itself.
"""

from __future__ import annotations

from affine import Affine

from scenebeam.raster.aligned import AlignedCopy, IntegerUpsample
from scenebeam.raster.gdal_warp import GdalWarp
from scenebeam.raster.grid import Grid, same_crs
from scenebeam.raster.mapping import GridMapping
from scenebeam.raster.source import RasterInfo

_TOLERANCE = 1e-3
"""Largest distance, in pixels, between grids that count as the same (1 cm at 10 m)."""
_LARGEST_FACTOR = 64
"""Largest factor of `IntegerUpsample`: weighted sums of uint16 stay within 32 bits."""


def map_to_grid(
    info: RasterInfo,
    grid: Grid,
    resampling: str,
    nodata: float | None,
    whole: Grid | None = None,
) -> GridMapping:
    """Choose the cheapest mapping that gives the same pixels as GDAL's warper.

    Args:
        info: The source.
        grid: The output grid.
        resampling: Name of a member of `rasterio.enums.Resampling`.
        nodata: Nodata value of the source; None if none marks its pixels.
        whole: The output, if `grid` is only a window of it: pixels do not depend on the window.
    """
    whole = grid if whole is None else whole
    if same_crs(info.crs, grid.crs):
        to_grid = ~grid.transform @ info.transform
        factor = round(to_grid.a)
        if _lies_on_pixels(to_grid, factor, info):
            top, left = round(to_grid.f), round(to_grid.c)
            if factor == 1 or (factor > 1 and resampling == "nearest"):
                return AlignedCopy(info, grid, nodata, factor, top, left)
            if 1 < factor <= _LARGEST_FACTOR and resampling == "bilinear":
                fallback = GdalWarp(info, grid, nodata, resampling, whole)
                return IntegerUpsample(info, grid, nodata, factor, top, left, fallback)
    return GdalWarp(info, grid, nodata, resampling, whole)


def _lies_on_pixels(to_grid: Affine, factor: int, info: RasterInfo) -> bool:
    """Return whether all source pixels are `factor` x `factor` pixels of the grid, edges on edges.

    Args:
        to_grid: Transform from source pixels to pixels of the grid.
        factor: Pixels of the grid per source pixel.
        info: The source.
    """
    if to_grid.b != 0 or to_grid.d != 0:
        return False
    # The deviation is largest at the far edges of the image, where it has added up.
    for side in (to_grid.c, to_grid.f, to_grid.a * info.width, to_grid.e * info.height):
        if not abs(side - round(side)) < _TOLERANCE:
            return False
    return (
        abs(to_grid.a - factor) * info.width < _TOLERANCE
        and abs(to_grid.e - factor) * info.height < _TOLERANCE
    )
