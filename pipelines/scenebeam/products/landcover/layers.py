"""Layers: one modality of one date on many small grids, each compressed block fetched and decoded once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
import shapely

from scenebeam.catalog.scene import Asset
from scenebeam.imaging.bands import settled_nodata
from scenebeam.products.landcover.task import Layer, SceneFiles
from scenebeam.raster.grid import Grid, project_footprint
from scenebeam.raster.reader import open_source
from scenebeam.raster.source import Source
from scenebeam.raster.validity import Array, Mask, valid_mask
from scenebeam.raster.windows import Windows
from scenebeam.transfer.ranges import Budget, io_threads

Assets = Callable[[SceneFiles], Sequence[Asset]]
Settle = Callable[[Asset, Array, float | None], tuple[Array, Mask | None]]
"""(asset, numbers as read, their nodata) → numbers as they are wanted, and where they are data (None: everywhere)."""


def as_read(asset: Asset, values: Array, nodata: float | None) -> tuple[Array, Mask | None]:
    """Numbers as they stand in the file: of classes and flags."""
    return values, valid_mask(values, nodata)


def read_layer(
    layer: Layer,
    grids: Sequence[Grid],
    assets: Assets,
    settle: Settle,
    resampling: str,
    budget: Budget,
) -> Iterator[tuple[int, list[tuple[Array, Mask | None]]]]:
    """(number of the grid, for each band its pixels and where they are data), in the order of the files.

    The grids are of one CRS. `assets` gives the bands of each scene to be read, the same number for each; `resampling`
    is for those that are not categorical. Raises ReadError where a file cannot be read, CheckError where one
    contradicts its collection.
    """
    needs = scenes_needed(layer, grids)
    with ExitStack() as files:
        own = [
            [number for number, one in enumerate(needs) if scene in one]
            for scene in range(len(layer.scenes))
        ]
        # All headers at once: over a slow line they would take longer one after another.
        opened = [
            [(asset, io_threads().submit(open_source, asset.href, asset.index, budget, asset.signing))
             for asset in (assets(scene) if numbers else ())]
            for scene, numbers in zip(layer.scenes, own, strict=True)
        ]  # fmt: skip
        readers: list[_Scene] = []
        for bands, numbers in zip(opened, own, strict=True):
            sources = [(asset, future.result()) for asset, future in bands]
            for _, source in sources:
                files.callback(source.close)
            readers.append(
                _Scene(sources, {number: grids[number] for number in numbers}, resampling)
            )
        order = sorted(range(len(grids)), key=lambda number: (needs[number][0],
                                                              *readers[needs[number][0]].place_of(number)))  # fmt: skip
        for number in order:
            yield number, _merged([readers[scene].read(number, settle) for scene in needs[number]])


class _Scene:
    """One scene's bands on the grids that need it."""

    def __init__(
        self, sources: Sequence[tuple[Asset, Source]], grids: Mapping[int, Grid], resampling: str
    ) -> None:
        self._numbers = {number: place for place, number in enumerate(grids)}
        self._bands = []
        for asset, source in sources:
            nodata = settled_nodata(asset.href, source.info.nodata, asset.nodata)
            method = "nearest" if asset.categorical else resampling
            self._bands.append(
                (asset, nodata, Windows(source, list(grids.values()), method, nodata))
            )

    def place_of(self, number: int) -> tuple[int, int]:
        """Where in the file the pixels of a grid begin."""
        return self._bands[0][2].place_of(self._numbers[number])

    def read(self, number: int, settle: Settle) -> list[tuple[Array, Mask | None]]:
        """All bands on a grid."""
        found = []
        for asset, nodata, windows in self._bands:
            values, extent = windows.read_and_extent(self._numbers[number])
            values, valid = settle(asset, values, nodata)
            if extent is not None:
                valid = extent if valid is None else valid & extent
            found.append((values, valid))
        return found


def scenes_needed(layer: Layer, grids: Sequence[Grid]) -> list[list[int]]:
    """For each grid the scenes, by number, that may be needed to fill it: as few as cover it, in their order."""
    left: Any = shapely.box(
        *np.array([grid.extent.boundingbox.bbox for grid in grids]).reshape(-1, 4).T
    )
    needs: list[list[int]] = [[] for _ in grids]
    for number, scene in enumerate(layer.scenes):
        ground = scene.ground
        shape = (
            None if ground is None or not grids else project_footprint(ground, str(grids[0].crs))
        )
        wanted = ~shapely.is_empty(left)
        if shape is not None:
            wanted &= shapely.intersects(shape, left)
        for place in np.flatnonzero(wanted).tolist():
            needs[place].append(number)
        left = np.where(
            wanted, shapely.Polygon() if shape is None else shapely.difference(left, shape), left
        )
    # Where no footprint shows any of it, the pixels have the last word.
    return [found or [0] for found in needs]


def _merged(scenes: Sequence[list[tuple[Array, Mask | None]]]) -> list[tuple[Array, Mask | None]]:
    """Pixels of the first scene, and where it has none those of the next."""
    first, *others = scenes
    if not others:
        return first
    found = []
    for band, (values, valid) in enumerate(first):
        for other in others:
            if valid is None or valid.all():
                break
            more, there = other[band]
            values = np.where(valid, values, more)
            valid = np.ones(values.shape, bool) if there is None else valid | there
        found.append((values, valid))
    return found
