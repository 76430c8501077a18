"""The open files of a gridded task: all bands of all scenes that intersect its window."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future

import numpy as np
import shapely
from shapely.geometry.base import BaseGeometry

from scenebeam.errors import CheckError, ReadError
from scenebeam.imaging.bands import Band, resolve_nodata
from scenebeam.imaging.gridded_task import GriddedTask, Missing
from scenebeam.raster.grid import Grid
from scenebeam.raster.layers import BandLayers, Layer, LayerError
from scenebeam.raster.reader import open_source
from scenebeam.raster.source import Source
from scenebeam.raster.validity import nodata_in_dtype
from scenebeam.transfer.pools import io_threads
from scenebeam.transfer.retry import Budget

OpenFiles = dict[str, dict[str, Source]]
"""Label of a band → id of a scene → its open file."""


def open_files(
    task: GriddedTask, grid: Grid, budgets: Mapping[str, Budget], missing: Missing
) -> OpenFiles:
    """Open every file that intersects the grid.

    Raises:
        LayerError: A file is permanently unusable, and no other error may pass.
        ReadError: A file may be readable later.
    """
    scenes = _scenes_on_grid(task, grid)
    # A header is one round trip: request all of them at once, and wait only then.
    futures: dict[tuple[str, str], Future[Source]] = {}
    for band in task.bands:
        for source in band.sources:
            if source.scene in scenes and source.scene not in missing[band.label]:
                futures[band.label, source.scene] = io_threads().submit(
                    open_source, source.href, source.index, budgets[band.label], source.signing
                )
    opened: OpenFiles = {band.label: {} for band in task.bands}
    error_to_raise: Exception | None = None
    for (label, scene), future in futures.items():
        try:
            opened[label][scene] = future.result()
        except ReadError as error:
            # A transient error wins: the task fails now, so it need not start over without the
            # unusable files. The next run finds those again.
            if not error.permanent:
                error_to_raise = error
            elif error_to_raise is None:
                error_to_raise = LayerError(label, scene, error)
    if error_to_raise is not None:
        close_all(opened)
        raise error_to_raise
    return opened


def close_all(opened: OpenFiles) -> None:
    """Close all files."""
    for sources in opened.values():
        for source in sources.values():
            source.close()


def _scenes_on_grid(task: GriddedTask, grid: Grid) -> set[str]:
    """Return the ids of scenes whose footprint intersects the grid, or is not known."""
    extent = shapely.geometry.box(*grid.bounds)
    scenes = set()
    for ref in task.scenes:
        footprint = ref.geometry
        if footprint is None or footprint.intersects(extent):
            scenes.add(ref.id)
    return scenes


def layers_by_label(task: GriddedTask, opened: OpenFiles) -> dict[str, BandLayers]:
    """Return the open files of each band as layers, by label; a band without a file has none.

    Raises:
        LayerError: The nodata value of a file contradicts its collection's.
    """
    footprints = {ref.id: ref.geometry for ref in task.scenes}
    layers = {}
    for band in task.bands:
        if opened[band.label]:
            layers[band.label] = _build_layers(band, opened[band.label], footprints)
    return layers


def _build_layers(
    band: Band, opened: Mapping[str, Source], footprints: Mapping[str, BaseGeometry | None]
) -> BandLayers:
    """Stack the open files of a band in the order of its sources.

    Raises:
        LayerError: The nodata value of a file contradicts its collection's.
    """
    nodata = band.nodata
    layers = []
    for source in band.sources:
        if source.scene not in opened:
            continue
        file = opened[source.scene]
        try:
            nodata = resolve_nodata(source.href, file.info.nodata, nodata)
        except CheckError as fault:
            raise LayerError(band.label, source.scene, fault) from None
        layers.append(Layer(source.scene, file, source.add_offset, footprints[source.scene]))
    # The dtype of the plan, unless a file has values that it cannot hold.
    dtype = np.result_type(np.dtype(band.dtype), *(layer.source.info.dtype for layer in layers))
    return BandLayers(
        band.label,
        layers,
        dtype,
        nodata_in_dtype(nodata, dtype),
        band.resampling,
        method="first",  # the product replaces it where it merges by another one
        min_std_dev=band.min_std_dev,
    )
