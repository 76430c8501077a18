"""The grid of a stack: that of the first of its finest bands, cut to the area."""

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

_WHOLE = 1e-6
"""Part of a pixel by which floating point may miss a whole number of pixels."""
Opened = Sequence[tuple[StackBand, RasterInfo]]


def own_grid(task: StackTask, bands: Opened) -> Grid:
    """The grid of a stack of `bands`, which are in canonical order.

    The CRS is that of the first band, the pixels are those of the first of the finest bands in it. Raises CheckError
    where the area, or what all bands show, has nothing in common with it.
    """
    if task.grid is not None:
        grid = task.grid.grid
    else:
        same = [info for _, info in bands if same_crs(info.crs, bands[0][1].crs)]
        finest = min(same, key=lambda info: abs(info.transform.a))
        grid = Grid((finest.height, finest.width), finest.transform, finest.crs)
    if task.area is not None and task.grid is None:
        left, bottom, right, top = project(shapely.from_wkb(task.area), str(grid.crs)).bounds
        corners = [~grid.transform @ corner for corner in ((left, top), (right, bottom))]
        (first, upper), (last, lower) = corners
        grid = _cut(
            grid,
            math.floor(first + _WHOLE),
            math.floor(upper + _WHOLE),
            math.ceil(last - _WHOLE),
            math.ceil(lower - _WHOLE),
            f"{task.scene.id} shows nothing of the area: its image ends before it",
        )
    if task.intersect:
        for band, info in bands:
            left, top, right, bottom = map_to_grid(info, grid, "nearest", None).outline
            grid = _cut(
                grid,
                math.ceil(left - _WHOLE),
                math.ceil(top - _WHOLE),
                math.floor(right + _WHOLE),
                math.floor(bottom + _WHOLE),
                f"{band.name} of {task.scene.id} has no ground in common with the bands before it",
            )
    return grid


def _cut(grid: Grid, left: int, top: int, right: int, bottom: int, fault: str) -> Grid:
    """The part of a grid inside whole pixels; CheckError where there is none."""
    rows, columns = max(top, 0), max(left, 0)
    height, width = min(bottom, grid.shape[0]) - rows, min(right, grid.shape[1]) - columns
    if height <= 0 or width <= 0:
        raise CheckError(fault)
    return Grid((height, width), grid.transform @ Affine.translation(columns, rows), str(grid.crs))


def warnings_of(band: StackBand, info: RasterInfo, grid: Grid) -> list[str]:
    """What a user should know of how a band lies on the grid of its stack."""
    if not same_crs(info.crs, str(grid.crs)):
        return [
            f"{band.name} is in {_short(info.crs)}, the stack in {_short(str(grid.crs))}: warped onto it"
        ]
    left, top, right, bottom = map_to_grid(info, grid, "nearest", None).outline
    short = max(left, top, grid.shape[1] - right, grid.shape[0] - bottom)
    if short > abs(info.transform.a / grid.transform.a) + _WHOLE:
        return [f"{band.name} covers less than the stack: the rest of it is nodata"]
    return []


def _short(crs: str) -> str:
    return crs if len(crs) < 40 else CRS.from_user_input(crs).name
