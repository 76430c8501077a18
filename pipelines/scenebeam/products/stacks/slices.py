"""Make the stack of a scene as one time of a Zarr store: each band is a variable of its own."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from scenebeam.imaging.cube_layout import CubeLayout
from scenebeam.imaging.encode import ImageEncoder
from scenebeam.imaging.writers.zarr import (
    array_asset,
    band_in,
    check_encoding,
    check_unmasked,
    write_shards,
)
from scenebeam.products.stacks.content import BandContent, band_row_chunks, nodata_of
from scenebeam.products.stacks.item import PublishedStack, StackedBand
from scenebeam.products.stacks.task import StackBand, StackTask
from scenebeam.raster.codecs import CHUNKS
from scenebeam.raster.grid import Grid
from scenebeam.raster.merge import cast_nodata
from scenebeam.raster.pyramid import level_shapes
from scenebeam.raster.source import Source
from scenebeam.storage import Store
from scenebeam.tasks import CubeSlice


@dataclass(frozen=True)
class StackSlice:
    """A band that is encoded for a store."""

    band: StackBand
    image: ImageEncoder
    content: BandContent


def encode_slice(
    task: StackTask, place: CubeSlice, band: StackBand, source: Source, grid: Grid
) -> StackSlice:
    """Read a band onto the grid and encode it.

    Raises:
        CheckError: Its pixels do not fit into the store.
        LayerError: The file is blank or permanently broken.
        ReadError: The file may be readable later.
    """
    stored, nodata = band_in(place, band.name), nodata_of(band, source.info)
    check_encoding(stored, source.info.dtype, nodata)
    dtype = np.dtype(stored.dtype)
    image = ImageEncoder(
        level_shapes(*grid.shape),
        dtype,
        stored.nodata,
        codec=CHUNKS,
        average=not stored.categorical,
    )
    content = BandContent.of(grid)
    for pixels in band_row_chunks(task, band, source, grid, nodata):
        content.add(pixels, nodata)
        image.add(cast_nodata(pixels, nodata, dtype, stored.nodata))
    return StackSlice(band, image, content)


def write_slice(
    task: StackTask, place: CubeSlice, made: StackSlice, grid: Grid, store: Store
) -> PublishedStack:
    """Write the shards of a band.

    Raises:
        CheckError: Some pixels have no data, and there is no nodata value.
    """
    stored = band_in(place, made.band.name)
    layout = CubeLayout((grid.shape[0], grid.shape[1]), place.cuts)
    files = write_shards(store, place, layout, stored, made.image.levels())
    check_unmasked(stored.name, made.image.masks())
    up = "../" * task.files_prefix.count("/")
    valid = made.content.valid / (grid.shape[0] * grid.shape[1])
    stacked = StackedBand(made.band, stored.dtype, stored.nodata, valid)
    return PublishedStack(grid, [stacked], array_asset(place, stored.name, files, up))
