"""A cube as an xarray Dataset: variables of dimensions (time, y, x), and where and when they are.

The grid is described in the conventions of CF (`grid_mapping`, `crs_wkt`) and of GDAL
(`GeoTransform`), which odc-geo, rioxarray, xproj and rasterix read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np
import xarray
from xarray.core import indexing

from scenebeam.cubes.lazy import Decoding, LazyCube, WindowReader
from scenebeam.errors import RequestError
from scenebeam.extras import import_extra
from scenebeam.imaging.writers.zarr_store import (
    CLOUD_COVER,
    LONG_NAMES,
    SPATIAL_REF,
    grid_mapping,
    pixel_centers,
    scale_attributes,
)
from scenebeam.raster.grid import Grid
from scenebeam.tasks import CubeBand

Chunks = Mapping[str, int] | str | None
"""Chunks of dask arrays: sizes by dimension, `auto`, or None for no dask."""
CHUNK = 2048
"""Rows and columns of a chunk, unless others are asked for: a multiple of the blocks of files."""
TIMES = 4
"""Times of a chunk: they are read together, so that none waits for the answer of another."""
_MEASURES = {"eo:cloud_cover": ("cloud_cover", CLOUD_COVER)}
"""Property of an item → coordinate along time, and its attributes."""


@dataclass(frozen=True)
class TimeSlice:
    """One time of a cube: what it is, and how its bands are read."""

    id: str
    when: datetime
    readers: Mapping[str, WindowReader]
    properties: Mapping[str, Any] = field(default_factory=dict)


def make_dataset(
    grid: Grid,
    bands: Sequence[CubeBand],
    slices: Sequence[TimeSlice],
    *,
    decode: bool,
    chunks: Chunks,
) -> xarray.Dataset:
    """Make a lazy Dataset.

    Args:
        grid: The grid of all bands.
        bands: The variables.
        slices: The times.
        decode: Whether to convert to float32 in physical units, with NaN where there is no data.
        chunks: Chunks of dask arrays; None: lazy without dask.

    Returns:
        One variable of dimensions (time, y, x) per band. `id`, and `cloud_cover` where it is known,
        are coordinates along `time`; `spatial_ref` describes the grid.
    """
    variables = {}
    for band in bands:
        readers = [one.readers.get(band.name) for one in slices]
        variables[band.name] = _variable(band, readers, grid, decode)
    times = [utc_time(one.when) for one in slices]
    coordinates: dict[str, Any] = {
        "time": ("time", np.array(times, "datetime64[ns]"), {"standard_name": "time"}),
        "id": ("time", [one.id for one in slices]),
        **grid_coordinates(grid),
    }
    for name, (coordinate, attributes) in _MEASURES.items():
        values = [one.properties.get(name) for one in slices]
        if any(value is not None for value in values):
            coordinates[coordinate] = ("time", np.array(values, np.float64), attributes)
    dataset = xarray.Dataset(variables, coordinates, {"Conventions": "CF-1.11"})
    return dataset if chunks is None else chunk_dataset(dataset, chunks)


def utc_time(moment: datetime) -> np.datetime64:
    """Return a time as xarray has it: in UTC, without a zone."""
    return np.datetime64(moment.astimezone(UTC).replace(tzinfo=None), "ns")


def check_known(bands: Sequence[str], offered: Sequence[str], output: str) -> None:
    """Check that an output has the bands that are asked for.

    Raises:
        RequestError: It lacks some.
    """
    unknown = [name for name in bands if name not in offered]
    if unknown:
        raise RequestError(f"{output} has no {', '.join(unknown)}; it has {', '.join(offered)}")


def chunk_dataset(dataset: xarray.Dataset, chunks: Mapping[str, int] | str) -> xarray.Dataset:
    """Convert the variables to dask arrays.

    Args:
        dataset: A lazy Dataset.
        chunks: Sizes by dimension; `auto`, or what is left out, is TIMES times of CHUNK x CHUNK
            pixels.

    Raises:
        RequestError: There is no such dimension.
        MissingExtraError: dask is not installed.
    """
    import_extra("dask.array", "zarr", "chunks")
    sizes = {"time": TIMES, "chip": 1, "y": CHUNK, "x": CHUNK}
    if isinstance(chunks, Mapping):
        unknown = sorted(set(chunks) - set(dataset.dims))
        if unknown:
            known = ", ".join(map(str, dataset.dims))
            raise RequestError(f"chunks: there is no dimension {unknown[0]}; there are {known}")
        sizes |= dict(chunks)
    elif chunks != "auto":
        raise RequestError(f"chunks: {chunks!r} is neither 'auto' nor sizes by dimension")
    return dataset.chunk({name: size for name, size in sizes.items() if name in dataset.dims})


def _variable(
    band: CubeBand, readers: Sequence[WindowReader | None], grid: Grid, decode: bool
) -> xarray.Variable:
    dtype = np.dtype(band.dtype)
    scaling = scale_attributes(band)
    attributes: dict[str, Any] = {
        "grid_mapping": SPATIAL_REF,
        "long_name": LONG_NAMES.get(band.name, band.name),
    }
    if "units" in scaling:
        attributes["units"] = scaling["units"]
    decoding = None
    if decode:
        decoding = Decoding(band.nodata, band.scale, band.offset)
    else:
        if band.nodata is not None:
            attributes["_FillValue"] = dtype.type(band.nodata)
        attributes |= scaling
    cube = LazyCube(readers, dtype, band.fill, grid.shape, decoding)
    lazy = indexing.LazilyIndexedArray(cube)
    return xarray.Variable(("time", "y", "x"), lazy, attributes)


def grid_coordinates(grid: Grid) -> dict[str, Any]:
    """Return pixel centers, and the CRS and transform in the conventions of CF and GDAL."""
    attributes = grid_mapping(grid)
    coordinates: dict[str, Any] = {SPATIAL_REF: xarray.Variable((), np.int32(0), attributes)}
    for name, values, about in pixel_centers(grid):
        coordinates[name] = (name, values, about)
    return coordinates
