"""Stacks as a cube: scenes along time, each with its bands, computed on access."""

from __future__ import annotations

import numpy as np

from scenebeam.errors import ReadError, RequestError
from scenebeam.imaging.bands import scale_offset
from scenebeam.imaging.cube import CubeImage, empty_window
from scenebeam.imaging.shards import Window
from scenebeam.imaging.writers.zarr import check_encoding
from scenebeam.products.stacks.content import band_row_chunks, nodata_of
from scenebeam.products.stacks.task import StackBand, StackTask
from scenebeam.raster.layers import LayerError
from scenebeam.raster.merge import cast_nodata
from scenebeam.raster.reader import open_source
from scenebeam.raster.validity import Array
from scenebeam.tasks import CubeBand
from scenebeam.transfer.retry import Budget


def stack_image(task: StackTask) -> CubeImage:
    """Describe the stack of a scene as one time of a cube.

    Raises:
        RequestError: The scenes are on grids of their own.
    """
    if task.grid is None:
        raise RequestError(
            "grid: each scene is on a grid of its own, and many grids are no array; give grid.crs "
            "and grid.resolution"
        )
    bands = {}
    for band in task.bands:
        if isinstance(band, StackBand):
            scale, offset = scale_offset(band.asset, task.values)
            bands[band.name] = CubeBand(
                name=band.name,
                dtype=np.dtype(band.asset.dtype).name,
                nodata=band.asset.nodata,
                scale=scale,
                offset=offset,
                categorical=band.asset.categorical,
            )
    return CubeImage(task.scene.id, task.scene.when, task.grid, bands, task.properties)


def read_stack_window(task: StackTask, band: CubeBand, window: Window, budget: Budget) -> Array:
    """Read a window of one band of a stack.

    Args:
        task: The task, with a grid.
        band: The band.
        window: Rows and columns of the grid.
        budget: Retries and waiting time.

    Returns:
        Array of the window's shape; a masked array if the band has no nodata value.

    Raises:
        ReadError: The file cannot be read.
    """
    found = {one.name: one for one in task.bands if isinstance(one, StackBand)}
    stacked, pixels = found.get(band.name), empty_window(band, window)
    if stacked is None or task.grid is None:
        return pixels
    asset, whole = stacked.asset, task.grid.grid
    top, bottom, left, right = window
    source = open_source(asset.href, asset.index, budget, asset.signing)
    try:
        nodata = nodata_of(stacked, source.info)
        check_encoding(band, source.info.dtype, nodata)
        row, grid = 0, whole[top:bottom, left:right]
        for rows in band_row_chunks(task, stacked, source, grid, nodata, whole):
            part = cast_nodata(rows, nodata, pixels.dtype, band.nodata)
            pixels[row : row + len(rows)] = part
            row += len(rows)
    except LayerError as error:
        raise ReadError(str(error)) from error
    finally:
        source.close()
    return pixels
