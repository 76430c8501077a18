"""The lattice of chips: windows of one size, edge to edge, from the corner of the Sentinel-2 tile.

The 10, 20 and 60 m bands of a tile share its corner, and the side of a chip is a whole number of
pixels of every modality. So Sentinel-2 bands of the rasters' resolution are copied, not resampled,
and the rasters of all modalities of a chip cover exactly the same ground. Because the lattice
belongs to the tile and not to the area, areas of one tile that overlap have the same windows in
common.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import shapely

from scenebeam.errors import CheckError
from scenebeam.products.landcover.request import Platform
from scenebeam.products.landcover.task import LandcoverTask
from scenebeam.raster.grid import Grid, project
from scenebeam.raster.reader import open_source
from scenebeam.raster.source import RasterInfo
from scenebeam.transfer.retry import Budget
from scenebeam.transfer.signing import redact_url

_TOLERANCE = 1.0
"""Meters by which a chip may cross the edge of the area, whose corners are rounded degrees."""
_Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class ChipLattice:
    """The windows of an area. Those inside the area are numbered from 0, row by row."""

    task: LandcoverTask
    crs: str
    left: float
    """Western edge of column 0, in units of the CRS."""
    top: float
    """Northern edge of row 0, in units of the CRS."""
    cells: _Array
    """Row and column of each window inside the area, by number: integers of shape (windows, 2)."""
    columns: range
    """All columns of the area's bounds; `row_grid` covers them."""

    def corner(self, chip: int) -> tuple[float, float]:
        """Return (left, top) of a window by its number, in units of the CRS."""
        row, column = self.cells[chip].tolist()
        return self.left + column * self.task.side, self.top - row * self.task.side

    def grid(self, chip: int, platform: Platform) -> Grid:
        """Return the grid of one modality's rasters of a window."""
        return self.task.chip_grid(self.crs, *self.corner(chip), platform)

    def row_grid(self, row: int, platform: Platform) -> Grid:
        """Return the grid of one modality over all windows of a row, inside the area or not."""
        left = self.left + self.columns.start * self.task.side
        top = self.top - row * self.task.side
        return self.task.chip_grid(self.crs, left, top, platform, len(self.columns))


def build_grid(task: LandcoverTask, budget: Budget) -> ChipLattice:
    """Find all windows inside the area that the scenes of all modalities show.

    Without a grid in the request, one header per Sentinel-2 date is read.

    Args:
        task: The task.
        budget: Retries of the task's reads.

    Raises:
        CheckError: The Sentinel-2 files of the dates have different corners or CRSs.
        ReadError: A Sentinel-2 file cannot be opened.
    """
    if task.grid is not None:
        crs, left, top = task.grid.crs, task.grid.transform[2], task.grid.transform[5]
    else:
        crs, left, top = _tile_corner(task, budget)
    # Project the area, not the windows: windows are exact in the CRS of the lattice.
    ground = shapely.buffer(project(shapely.from_wkb(task.area), crs), _TOLERANCE)
    if task.grid is not None:
        # Windows must also lie inside the bounds of the request, of which the grid is made.
        rows, columns = range(task.grid.shape[0]), range(task.grid.shape[1])
    else:
        # Indices can be negative or beyond the tile. `ground` excludes what no scene shows.
        west, south, east, north = ground.bounds
        columns = range(math.floor((west - left) / task.side), math.ceil((east - left) / task.side))
        rows = range(math.floor((top - north) / task.side), math.ceil((top - south) / task.side))
    # All windows of the bounds at once, in row-major order, which is the order of chip numbers.
    row_mesh, column_mesh = np.meshgrid(rows, columns, indexing="ij")
    down, across = row_mesh.ravel(), column_mesh.ravel()
    lefts, tops = left + across * task.side, top - down * task.side
    windows = shapely.box(lefts, tops - task.side, lefts + task.side, tops)
    # An area can have thousands of vertices and windows; preparing indexes its edges.
    shapely.prepare(ground)
    inside = np.asarray(shapely.contains(ground, windows), bool)
    cells = np.stack([down, across], axis=-1)[inside]
    return ChipLattice(task, crs, left, top, cells, columns)


def _tile_corner(task: LandcoverTask, budget: Budget) -> tuple[str, float, float]:
    """Return (CRS, left, top) of the Sentinel-2 tile.

    Headers are read, because a catalog need not state `proj:transform`. All dates are compared: one
    with another corner could be shifted against the others by a part of a pixel.
    """
    infos: list[RasterInfo] = []
    for layer in task.layers:
        if layer.platform == "s2l2a":
            asset = layer.scenes[0].bands[0]
            source = open_source(asset.href, asset.index, budget, asset.signing)
            infos.append(source.info)
            source.close()
    corners = {(info.crs, info.transform.c, info.transform.f) for info in infos}
    if len(corners) > 1:
        described = []
        for info in infos:
            corner = f"{info.transform.c:g}, {info.transform.f:g}"
            described.append(f"{redact_url(info.href)}: {info.crs} from {corner}")
        raise CheckError(
            f"the Sentinel-2 scenes of one tile are not on one grid: {'; '.join(described)}"
        )
    return corners.pop()
