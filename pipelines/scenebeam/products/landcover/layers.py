"""Layers: one modality of one date on many small grids, each compressed block fetched and decoded once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from typing import Any

import numpy as np
import shapely

from scenebeam.catalog.scene import Asset
from scenebeam.imaging.chip_reader import ChipReader, open_sources
from scenebeam.products.landcover.task import Layer, SceneFiles
from scenebeam.raster.grid import Grid, project_footprint
from scenebeam.raster.source import Source
from scenebeam.raster.validity import Array, Mask, valid_mask
from scenebeam.transfer.retry import Budget

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
    numbers = []
    for index in range(len(layer.scenes)):
        numbers.append([number for number, needed in enumerate(needs) if index in needed])
    # The headers of all scenes at once: one scene after another, each would wait for the network.
    opened: list[tuple[Sequence[Asset], list[Future[Source]]]] = []
    for scene, own_numbers in zip(layer.scenes, numbers, strict=True):
        bands = assets(scene) if own_numbers else ()
        opened.append((bands, open_sources(bands, budget)))
    with ExitStack() as stack:
        readers: list[ChipReader] = []
        for (bands, sources), own_numbers in zip(opened, numbers, strict=True):
            own_grids = {number: grids[number] for number in own_numbers}
            reader = ChipReader(bands, sources, own_grids, lambda asset: resampling)
            readers.append(stack.enter_context(reader))

        def file_order(number: int) -> tuple[int, ...]:
            first = needs[number][0]
            return first, *readers[first].first_block(number)

        for number in sorted(range(len(grids)), key=file_order):
            scenes = []
            for index in needs[number]:
                scenes.append(_settled(opened[index][0], readers[index], number, settle))
            yield number, _merged(scenes)


def _settled(
    assets: Sequence[Asset], reader: ChipReader, number: int, settle: Settle
) -> list[tuple[Array, Mask | None]]:
    """The bands of one scene on a grid, as they are wanted, and where they are data."""
    bands = []
    for asset, nodata, (values, extent) in zip(
        assets, reader.nodata, reader.read(number), strict=True
    ):
        pixels, valid = settle(asset, values, nodata)
        if extent is not None:
            valid = extent if valid is None else valid & extent
        bands.append((pixels, valid))
    return bands


def scenes_needed(layer: Layer, grids: Sequence[Grid]) -> list[list[int]]:
    """For each grid the scenes, by number, that may be needed to fill it: as few as cover it, in their order."""
    left: Any = shapely.box(
        *np.array([grid.extent.boundingbox.bbox for grid in grids]).reshape(-1, 4).T
    )
    needs: list[list[int]] = [[] for _ in grids]
    for number, scene in enumerate(layer.scenes):
        ground = scene.geometry
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
