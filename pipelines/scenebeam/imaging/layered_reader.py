"""Read scenes that fill each other's gaps on many small grids, each compressed block once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from typing import Any

import numpy as np
import shapely

from scenebeam.catalog.scene import Asset
from scenebeam.imaging.chip_reader import ChipReader, open_sources
from scenebeam.imaging.refs import SceneFiles, SceneRef
from scenebeam.raster.grid import Grid, project_footprint
from scenebeam.raster.source import Source
from scenebeam.raster.validity import Array, Mask, valid_mask
from scenebeam.transfer.retry import Budget

Pixels = tuple[Array, Mask | None]
"""The pixels of a band on a grid, and where they are valid (None: everywhere)."""
BandSelector = Callable[[SceneFiles], Sequence[Asset]]
"""Scene → the bands to read, as many of every scene."""
PixelEncoder = Callable[[Asset, Array, float | None], Pixels]
"""(band, stored values, their nodata value) → pixels as the caller needs them."""


def all_bands(scene: SceneFiles) -> Sequence[Asset]:
    """Select all bands of the raster: a `BandSelector`."""
    return scene.bands


def keep_stored(asset: Asset, values: Array, nodata: float | None) -> Pixels:
    """Keep stored values unchanged, for classes and flags: a `PixelEncoder`."""
    return values, valid_mask(values, nodata)


def read_layer(
    scenes: Sequence[SceneFiles],
    grids: Sequence[Grid],
    select_bands: BandSelector,
    encode: PixelEncoder,
    resampling: Callable[[Asset], str],
    budget: Budget,
) -> Iterator[tuple[int, list[Pixels]]]:
    """Read a layer of scenes on many grids.

    Args:
        scenes: The scenes of the layer, best first. Later ones fill gaps of earlier ones.
        grids: Grids of one CRS.
        select_bands: Selects the bands of each scene to read.
        encode: Converts the pixels of each scene before scenes are merged.
        resampling: The method of a band that is not categorical; those use nearest.
        budget: Retries of the task's reads.

    Yields:
        (index of the grid, pixels of each band). Grids come in the order of their blocks in the
        files, so each block is fetched and decoded once, and released after the last grid on it.

    Raises:
        ReadError: A file cannot be read.
        CheckError: The nodata value of a file contradicts its collection's.
    """
    needed = required_scenes(scenes, grids)
    grids_of_scene: list[dict[int, Grid]] = [{} for _ in scenes]
    for number, scene_indices in enumerate(needed):
        for index in scene_indices:
            grids_of_scene[index][number] = grids[number]
    # Request the headers of all scenes at once. One scene after another would wait for the network.
    opened: list[tuple[Sequence[Asset], list[Future[Source]]]] = []
    for scene, scene_grids in zip(scenes, grids_of_scene, strict=True):
        bands = select_bands(scene) if scene_grids else ()
        opened.append((bands, open_sources(bands, budget)))
    with ExitStack() as stack:
        readers: list[ChipReader] = []
        for (bands, sources), scene_grids in zip(opened, grids_of_scene, strict=True):
            reader = ChipReader(bands, sources, scene_grids, resampling)
            readers.append(stack.enter_context(reader))

        def file_order(number: int) -> tuple[int, ...]:
            first = needed[number][0]
            return first, *readers[first].first_block(number)

        for number in sorted(range(len(grids)), key=file_order):
            parts = []
            for index in needed[number]:
                parts.append(_encode_scene(opened[index][0], readers[index], number, encode))
            yield number, _merge_scenes(parts)


def _encode_scene(
    assets: Sequence[Asset], reader: ChipReader, number: int, encode: PixelEncoder
) -> list[Pixels]:
    """Read and encode the bands of one scene on one grid."""
    bands = []
    pixels_read = reader.read(number)
    for asset, nodata, (values, extent) in zip(assets, reader.nodata, pixels_read, strict=True):
        pixels, valid = encode(asset, values, nodata)
        # A file without a nodata value can still end within the grid.
        if extent is not None:
            valid = extent if valid is None else valid & extent
        bands.append((pixels, valid))
    return bands


def required_scenes(scenes: Sequence[SceneRef], grids: Sequence[Grid]) -> list[list[int]]:
    """Return the scenes that may be needed to fill each grid, judged by footprint.

    Args:
        scenes: The scenes of a layer, best first.
        grids: Grids of one CRS.

    Returns:
        For each grid, indices of scenes in ascending order: those that show a part of it that no
        scene before them shows.
    """
    bounds = np.array([grid.bounds for grid in grids]).reshape(-1, 4)
    # What no scene shows yet, of all grids at once: each step is one vectorized operation.
    uncovered: Any = shapely.box(*bounds.T)
    needed: list[list[int]] = [[] for _ in grids]
    for index, scene in enumerate(scenes):
        footprint = scene.geometry
        if footprint is not None and grids:
            footprint = project_footprint(footprint, grids[0].crs)
        wanted = ~shapely.is_empty(uncovered)
        if footprint is None:
            # An unknown footprint may cover everything.
            remaining: Any = shapely.Polygon()
        else:
            wanted &= shapely.intersects(footprint, uncovered)
            remaining = shapely.difference(uncovered, footprint)
        for number in np.flatnonzero(wanted).tolist():
            needed[number].append(index)
        uncovered = np.where(wanted, remaining, uncovered)
    # Footprints can be drawn too small. Where none reaches, the first scene's pixels decide.
    return [indices or [0] for indices in needed]


def _merge_scenes(scenes: Sequence[list[Pixels]]) -> list[Pixels]:
    """Merge scenes band by band: the gaps of the first are filled by the next."""
    first, *others = scenes
    if not others:
        return first
    merged = []
    for band, (values, valid) in enumerate(first):
        for other in others:
            if valid is None or valid.all():
                break
            fill, fill_valid = other[band]
            values = np.where(valid, values, fill)
            valid = np.ones(values.shape, bool) if fill_valid is None else valid | fill_valid
        merged.append((values, valid))
    return merged
