"""Cubes: images of several times on one grid, as variables of dimensions (time, y, x)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np

from scenebeam.errors import ReadError, RequestError
from scenebeam.imaging.gridded import GriddedRecipe, RowSink, compute, missing_in_plan
from scenebeam.imaging.gridded_task import GriddedTask, Output
from scenebeam.imaging.shards import Window
from scenebeam.imaging.writers.zarr import check_encoding
from scenebeam.raster.validity import Array, same_nodata
from scenebeam.tasks import CubeBand, GridSpec
from scenebeam.transfer.retry import Budget


def band_of(output: Output) -> CubeBand:
    """Describe an output of a gridded product as a variable of a cube."""
    return CubeBand(
        name=output.name,
        dtype=output.dtype.name,
        nodata=output.nodata,
        scale=output.scale,
        offset=output.offset,
        categorical=output.categorical,
    )


@dataclass(frozen=True)
class CubeImage:
    """One time of a cube."""

    id: str
    """Id of the item."""
    when: datetime
    grid: GridSpec
    bands: Mapping[str, CubeBand]
    properties: Mapping[str, Any]
    """Properties of the item that are known when the task is planned."""


def common_bands(images: Iterable[Sequence[CubeBand]]) -> dict[str, CubeBand]:
    """Return the variables of a cube: a band has one encoding at all times.

    Args:
        images: The bands of each time; a time may lack some.

    Returns:
        Name → band, with a dtype that holds the pixels of all times.

    Raises:
        RequestError: The nodata values or the scales of a band differ between times.
    """
    common: dict[str, CubeBand] = {}
    for bands in images:
        for band in bands:
            known = common.setdefault(band.name, band)
            scaled = (known.scale, known.offset) == (band.scale, band.offset)
            if not (scaled and same_nodata(known.nodata, band.nodata)):
                raise RequestError(
                    f"{band.name} has different nodata values or scales at different times, and "
                    "cannot be one array: use product.values: harmonized, and one collection"
                )
            dtype = np.result_type(known.dtype, band.dtype)
            common[band.name] = known.model_copy(update={"dtype": dtype.name})
    return common


def read_gridded(
    task: GriddedTask,
    recipe: GriddedRecipe[Any],
    band: CubeBand,
    window: Window,
    budget: Budget,
) -> Array:
    """Compute one output of a gridded product in a window, without writing it.

    Args:
        task: The task; of a product that is cut into shards, any of them.
        recipe: What is computed.
        band: The output.
        window: Rows and columns of the whole grid.
        budget: Retries and waiting time.

    Returns:
        Array of the window's shape in the dtype of the band; nodata where there is no data, or a
        masked array if the band has no nodata value.

    Raises:
        ReadError: A file cannot be read, or nothing can be made of those that can.
    """
    whole = task.model_copy(update={"window": window, "shard": 0, "shards": 1})
    part = recipe.only(whole, band.name)
    sink = _WindowSink(band, window)
    outcome = compute(part, recipe, budget, missing_in_plan(part), sink)
    if outcome.state == "failed":
        raise ReadError(f"{task.name}: {outcome.reason}")
    return sink.pixels


class _WindowSink(RowSink):
    """Keeps the pixels of one output."""

    def __init__(self, band: CubeBand, window: Window) -> None:
        self._band = band
        self.pixels = empty_window(band, window)
        self._index = -1

    def start(self, outputs: list[Output]) -> None:
        self._index = [output.name for output in outputs].index(self._band.name)
        output = outputs[self._index]
        check_encoding(self._band, output.dtype, output.nodata)

    def add(self, index: int, first: int, pixels: Array) -> None:
        if index == self._index:
            self.pixels[first : first + len(pixels)] = pixels


def empty_window(band: CubeBand, window: Window) -> Array:
    """Return a window without data; a masked array if the band has no nodata value."""
    top, bottom, left, right = window
    shape = bottom - top, right - left
    if band.nodata is not None:
        return np.full(shape, band.nodata, band.dtype)
    return np.ma.MaskedArray(np.zeros(shape, band.dtype), mask=True)
