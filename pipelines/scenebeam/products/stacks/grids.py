"""The grid of a stack: the pixels of the first of its finest bands, cropped to the area."""

from __future__ import annotations

import math
from collections.abc import Sequence

import shapely
from affine import Affine
from pyproj import CRS

from scenebeam.errors import CheckError
from scenebeam.products.stacks.task import StackBand, StackTask
from scenebeam.raster.grid import Grid, project, same_crs
from scenebeam.raster.source import RasterInfo
from scenebeam.raster.warp import map_to_grid

Opened = Sequence[tuple[StackBand, RasterInfo]]
"""Bands and the headers of their files."""
_TOLERANCE = 1e-6
"""Part of a pixel by which floating point may miss a whole number of pixels."""


def stack_grid(task: StackTask, bands: Opened) -> Grid:
    """Return the grid of one stack.

    Without a grid in the request, the CRS is that of the first band, and the pixels are those of
    the first of the finest bands in that CRS.

    Args:
        task: The task.
        bands: The bands of the stack, in canonical order.

    Raises:
        CheckError: The area, or the extent that all bands cover, does not overlap with the grid.
    """
    if task.grid is not None:
        # The grid of the request covers its area already.
        grid = task.grid.grid
    else:
        grid = _scene_grid(bands)
        if task.area is not None:
            grid = _crop_to_area(grid, task.area, task.scene.id)
    if task.intersect:
        grid = _crop_to_bands(grid, bands, task.scene.id)
    return grid


def _scene_grid(bands: Opened) -> Grid:
    _, first = bands[0]
    in_same_crs = [info for _, info in bands if same_crs(info.crs, first.crs)]
    finest = min(in_same_crs, key=lambda info: abs(info.transform.a))
    return Grid((finest.height, finest.width), finest.transform, finest.crs)


def _crop_to_area(grid: Grid, area: str, scene: str) -> Grid:
    west, south, east, north = project(shapely.from_wkb(area), grid.crs).bounds
    left, top = ~grid.transform @ (west, north)
    right, bottom = ~grid.transform @ (east, south)
    # Outward: every pixel that the area touches.
    return _crop(
        grid,
        math.floor(left + _TOLERANCE),
        math.floor(top + _TOLERANCE),
        math.ceil(right - _TOLERANCE),
        math.ceil(bottom - _TOLERANCE),
        f"the image of {scene} does not overlap with the area",
    )


def _crop_to_bands(grid: Grid, bands: Opened, scene: str) -> Grid:
    for band, info in bands:
        left, top, right, bottom = map_to_grid(info, grid, "nearest", None).outline
        # Inward: only pixels that the band covers completely.
        grid = _crop(
            grid,
            math.ceil(left - _TOLERANCE),
            math.ceil(top - _TOLERANCE),
            math.floor(right + _TOLERANCE),
            math.floor(bottom + _TOLERANCE),
            f"{band.name} of {scene} does not overlap with the bands before it",
        )
    return grid


def _crop(grid: Grid, left: int, top: int, right: int, bottom: int, fault: str) -> Grid:
    """Return the part of a grid inside a window of pixels; CheckError if there is none."""
    row, column = max(top, 0), max(left, 0)
    height, width = min(bottom, grid.shape[0]) - row, min(right, grid.shape[1]) - column
    if height <= 0 or width <= 0:
        raise CheckError(fault)
    return Grid((height, width), grid.transform @ Affine.translation(column, row), grid.crs)


def warnings_of(band: StackBand, info: RasterInfo, grid: Grid) -> list[str]:
    """Return warnings about how a band fits the grid of its stack.

    Args:
        band: The band.
        info: Header of its file.
        grid: Grid of its stack.
    """
    if not same_crs(info.crs, grid.crs):
        band_crs, grid_crs = _crs_name(info.crs), _crs_name(grid.crs)
        return [f"{band.name} is in {band_crs}, the stack in {grid_crs}: warped onto it"]
    left, top, right, bottom = map_to_grid(info, grid, "nearest", None).outline
    uncovered = max(left, top, grid.shape[1] - right, grid.shape[0] - bottom)
    # One source pixel less is usual: 20 m bands of a scene need not end where its 10 m bands do.
    if uncovered > abs(info.transform.a / grid.transform.a) + _TOLERANCE:
        return [f"{band.name} covers less than the stack: the rest of it is nodata"]
    return []


def _crs_name(crs: str) -> str:
    """Return an authority code as it is, and the name of a long WKT."""
    return crs if len(crs) < 40 else CRS.from_user_input(crs).name
