"""Measure how much of an area is cloud in each scene, by its classification or quality band."""

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
from scenebeam.raster.masks import PixelTest
from scenebeam.raster.rasterize import inside
from scenebeam.raster.reader import open_source
from scenebeam.raster.source import RasterInfo
from scenebeam.raster.validity import valid_mask
from scenebeam.raster.windows import Windows
from scenebeam.request import RunRequest
from scenebeam.transfer.retry import Budget
from scenebeam.transfer.signing import effective_limits

log = logging.getLogger(__name__)

_SCENES_AT_ONCE = 8
_MAX_PIXELS = 25_000_000
"""Pixels that are read of the area in one scene; of a larger area every second pixel, or fourth, …
"""


def measure_clouds(
    scenes: Sequence[Scene], request: RunRequest, area: BaseGeometry | None
) -> list[Scene]:
    """Measure the cloud cover of an area in each scene.

    Args:
        scenes: Scenes of the request's collections.
        request: The request.
        area: The area in degrees; None for the whole of each scene.

    Returns:
        The scenes with `aoi_cloud`, the percentage of valid pixels of the area that are cloud. It
        is None if a scene has no classification or quality band, or no valid pixel in the area.

    Raises:
        ReadError: A band cannot be read now. Permanent errors leave the scene without a value.
    """
    with ThreadPoolExecutor(_SCENES_AT_ONCE) as threads:
        covers = threads.map(lambda scene: _measure_scene(scene, request, area), scenes)
        measured = []
        for scene, cover in zip(scenes, covers, strict=True):
            measured.append(replace(scene, aoi_cloud=cover))
        return measured


def _measure_scene(scene: Scene, request: RunRequest, area: BaseGeometry | None) -> float | None:
    record = record_of(scene, request)
    candidates = (*record.mask_classes, *record.mask_bits)
    band = next((name for name in candidates if name in scene.assets), None)
    if band is None:
        return None
    asset = scene.assets[band]
    budget = Budget.of(effective_limits(request))
    try:
        source = open_source(asset.href, asset.index, budget, asset.signing)
    except ReadError as error:
        if not error.permanent:
            raise
        log.warning("the cloud cover of the area in %s is unknown: %s", scene.id, error)
        return None
    try:
        projected = None if area is None else project(area, source.info.crs)
        grid = _grid_over(source.info, projected)
        if grid is None:
            return None
        nodata = asset.nodata if asset.nodata is not None else source.info.nodata
        values = Windows(source, [grid], "nearest", nodata).read(0)
    finally:
        source.close()
    valid = valid_mask(values, nodata)
    counted = np.ones(grid.shape, bool) if valid is None else valid.copy()
    if projected is not None:
        counted &= inside(projected, grid)
    classes = tuple(record.mask_classes.get(band, ()))
    bits = tuple(record.mask_bits.get(band, ()))
    hidden = PixelTest(drop=classes, bits=bits).hidden(values, None)
    total = int(np.count_nonzero(counted))
    cloudy = int(np.count_nonzero(hidden & counted))
    return round(100 * cloudy / total, 4) if total else None


def _grid_over(info: RasterInfo, area: BaseGeometry | None) -> Grid | None:
    """Return the file's own pixels over an area, or every n-th of them; None without any."""
    left, right, top, bottom = 0, info.width, 0, info.height
    if area is not None:
        west, south, east, north = area.bounds
        # The transform may be rotated: the window is that of all four corners.
        corners = [(west, south), (west, north), (east, south), (east, north)]
        pixels = [~info.transform @ corner for corner in corners]
        columns, rows = [pixel[0] for pixel in pixels], [pixel[1] for pixel in pixels]
        left = max(int(np.floor(min(columns))), 0)
        right = min(int(np.ceil(max(columns))), info.width)
        top = max(int(np.floor(min(rows))), 0)
        bottom = min(int(np.ceil(max(rows))), info.height)
    if left >= right or top >= bottom:
        return None
    step = 1
    while (right - left) * (bottom - top) > _MAX_PIXELS * step * step:
        step *= 2
    shape = max((bottom - top) // step, 1), max((right - left) // step, 1)
    transform = info.transform @ Affine.translation(left, top) @ Affine.scale(step)
    return Grid(shape, transform, info.crs)
