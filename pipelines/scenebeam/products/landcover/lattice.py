"""Lattice: the places where chips of an area of interest may lie, laid from the corner of its Sentinel-2 tile."""

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

_NEAR = 1.0
"""Metres by which a chip may pass the area's edge, whose corners are rounded degrees."""
_Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class ChipLattice:
    """Windows of one size, edge on edge; a chip's number is its place among those inside the area, row by row."""

    task: LandcoverTask
    crs: str
    left: float
    top: float
    cells: _Array
    """(n, 2): row and column, from the corner."""
    columns: range
    """All across, from the first to the last."""

    def corner(self, chip: int) -> tuple[float, float]:
        """Left and top of a chip."""
        row, column = self.cells[chip].tolist()
        return self.left + column * self.task.side, self.top - row * self.task.side

    def grid(self, chip: int, platform: Platform) -> Grid:
        """The grid of a chip's rasters of a modality."""
        return self.task.chip_grid(self.crs, *self.corner(chip), platform)

    def row_grid(self, row: int, platform: Platform) -> Grid:
        """The grid of a whole row of windows."""
        left, top = self.left + self.columns.start * self.task.side, self.top - row * self.task.side
        return self.task.chip_grid(self.crs, left, top, platform, len(self.columns))


def build_grid(task: LandcoverTask, budget: Budget) -> ChipLattice:
    """All windows that lie inside the area that the scenes have in common.

    Raises CheckError where the Sentinel-2 scenes are not of one grid, ReadError where none can be opened.
    """
    if task.grid is not None:
        crs, left, top = task.grid.crs, task.grid.transform[2], task.grid.transform[5]
    else:
        crs, left, top = _tile_corner(task, budget)
    ground = shapely.buffer(project(shapely.from_wkb(task.area), crs), _NEAR)
    if task.grid is not None:
        rows, columns = range(task.grid.shape[0]), range(task.grid.shape[1])
    else:
        west, south, east, north = ground.bounds
        columns = range(math.floor((west - left) / task.side), math.ceil((east - left) / task.side))
        rows = range(math.floor((top - north) / task.side), math.ceil((top - south) / task.side))
    down, across = (mesh.ravel() for mesh in np.meshgrid(rows, columns, indexing="ij"))
    lefts, tops = left + across * task.side, top - down * task.side
    shapely.prepare(ground)
    inside = shapely.contains(ground, shapely.box(lefts, tops - task.side, lefts + task.side, tops))
    cells = np.stack([down, across], axis=-1)[np.asarray(inside, bool)]
    return ChipLattice(task, crs, left, top, cells, columns)


def _tile_corner(task: LandcoverTask, budget: Budget) -> tuple[str, float, float]:
    """CRS and upper left corner of the tile, by the files' own word."""
    files = [layer.scenes[0].bands[0] for layer in task.layers if layer.platform == "s2l2a"]
    infos: list[RasterInfo] = []
    for asset in files:
        source = open_source(asset.href, asset.index, budget, asset.signing)
        infos.append(source.info)
        source.close()
    corners = {(info.crs, info.transform.c, info.transform.f) for info in infos}
    if len(corners) > 1:
        told = "; ".join(
            f"{redact_url(info.href)}: {info.crs} from {info.transform.c:g}, {info.transform.f:g}"
            for info in infos
        )
        raise CheckError(f"the Sentinel-2 scenes of one tile do not lie on one grid: {told}")
    return corners.pop()
