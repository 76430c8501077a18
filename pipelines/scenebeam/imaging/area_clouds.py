"""Clouds: how much of the area each scene hides, by its classification or its quality band."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
from affine import Affine
from shapely.geometry.base import BaseGeometry

from scenebeam.catalog.bands import record_of
from scenebeam.catalog.scene import Scene
from scenebeam.errors import ReadError
from scenebeam.raster.grid import Grid, project
from scenebeam.raster.indices import obscured
from scenebeam.raster.rasterize import inside
from scenebeam.raster.reader import open_source
from scenebeam.raster.source import RasterInfo
from scenebeam.raster.validity import valid_mask
from scenebeam.raster.windows import Windows
from scenebeam.request import RunRequest
from scenebeam.transfer.retry import Budget
from scenebeam.transfer.signing import effective_limits

log = logging.getLogger(__name__)
_AT_ONCE = 8
_MOST_PIXELS = 25_000_000
"""Of the area in one scene: beyond that every second pixel is looked at, or every fourth, …"""


def measure_clouds(
    scenes: Sequence[Scene], request: RunRequest, area: BaseGeometry | None
) -> list[Scene]:
    """Scenes with the percentage of the area that is cloud in each.

    It is counted among the pixels that hold data; None where a scene has no band that tells, or
    nothing of the area.

    Args:
        scenes: Of the request's collections.
        request: What is asked for.
        area: In degrees; None: all of each scene.

    Raises:
        ReadError: A band may be read later. One that is broken for good leaves its scene unmeasured.
    """
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        found = threads.map(lambda scene: _measured(scene, request, area), scenes)
        return [replace(scene, aoi_cloud=cloud) for scene, cloud in zip(scenes, found, strict=True)]


def _measured(scene: Scene, request: RunRequest, area: BaseGeometry | None) -> float | None:
    record = record_of(scene, request)
    band = next(
        (name for name in (*record.mask_classes, *record.mask_bits) if name in scene.assets), None
    )
    if band is None:
        return None
    asset = scene.assets[band]
    try:
        source = open_source(
            asset.href, asset.index, Budget.of(effective_limits(request)), asset.signing
        )
    except ReadError as error:
        if not error.permanent:
            raise
        log.warning("the clouds of %s are not known: %s", scene.id, error)
        return None
    try:
        ground = None if area is None else project(area, source.info.crs)
        grid = _grid(source.info, ground)
        if grid is None:
            return None
        nodata = asset.nodata if asset.nodata is not None else source.info.nodata
        values = Windows(source, [grid], "nearest", nodata).read(0)
    finally:
        source.close()
    known = valid_mask(values, nodata)
    seen = np.ones(grid.shape, bool) if known is None else known.copy()
    if ground is not None:
        seen &= inside(ground, grid)
    hidden = obscured(
        values,
        None,
        tuple(record.mask_classes.get(band, ())),
        tuple(record.mask_bits.get(band, ())),
    )
    count = int(np.count_nonzero(seen))
    return round(100 * int(np.count_nonzero(hidden & seen)) / count, 4) if count else None


def _grid(info: RasterInfo, ground: BaseGeometry | None) -> Grid | None:
    """The file's own pixels over the area, or every so many-th of them; None where it has none there."""
    left, right, top, bottom = 0, info.width, 0, info.height
    if ground is not None:
        west, south, east, north = ground.bounds
        corners = [~info.transform @ (x, y) for x in (west, east) for y in (south, north)]
        columns, rows = [corner[0] for corner in corners], [corner[1] for corner in corners]
        left, right = (
            max(int(np.floor(min(columns))), 0),
            min(int(np.ceil(max(columns))), info.width),
        )
        top, bottom = max(int(np.floor(min(rows))), 0), min(int(np.ceil(max(rows))), info.height)
    if left >= right or top >= bottom:
        return None
    step = 1
    while (right - left) * (bottom - top) > _MOST_PIXELS * step * step:
        step *= 2
    shape = max((bottom - top) // step, 1), max((right - left) // step, 1)
    return Grid(
        shape, info.transform @ Affine.translation(left, top) @ Affine.scale(step), info.crs
    )
