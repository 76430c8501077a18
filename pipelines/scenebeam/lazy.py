"""Requests and outputs as lazy xarray Datasets: `scenebeam.load` and `scenebeam.open`."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scenebeam.api import DEFAULTS, RequestLike, read_request
from scenebeam.extras import import_extra
from scenebeam.planning.search import make_plan
from scenebeam.status import RunStatus

if TYPE_CHECKING:
    import xarray


def open(
    output: str | Path | RunStatus,
    bands: Sequence[str] | None = None,
    *,
    decode: bool = False,
    chunks: Mapping[str, int] | str | None = None,
) -> xarray.Dataset:
    """Open whatever an output holds as a lazy xarray Dataset.

    Args:
        output: A folder, a `gs://` prefix, or the status that `run` has returned.
        bands: Bands to open; default: all.
        decode: Convert to float32 in physical units, with NaN where there is no data.
        chunks: Chunks of dask arrays: sizes by dimension, or `auto`. Default: lazy without dask.

    Returns:
        A Dataset with one variable per band, of dimensions (time, y, x); of chips also (chip, …),
        with a variable per label.

    Raises:
        RequestError: The output has no such images, not these bands, or images on several grids.
        MissingExtraError: xarray is not installed.
    """
    outputs = import_cubes("outputs", "scenebeam.open")
    folder = output.output if isinstance(output, RunStatus) else str(output)
    names = [bands] if isinstance(bands, str) else bands
    dataset: xarray.Dataset = outputs.open_output(folder, names, decode=decode, chunks=chunks)
    return dataset


def load(
    request: RequestLike | None = None,
    /,
    *,
    variables: Sequence[str] | None = None,
    decode: bool = False,
    chunks: Mapping[str, int] | str | None = None,
    **fields: Any,
) -> xarray.Dataset:
    """Search, select and plan, and return the result as a lazy cube; nothing is written.

    Pixels are those that `run` would write, and are computed where they are looked at. The request
    needs no `output`.

    Args:
        request: The request: a mosaic, composite or index, or stacks on one grid.
        variables: Bands to load; default: all.
        decode: Convert to float32 in physical units, with NaN where there is no data.
        chunks: Chunks of dask arrays: sizes by dimension, or `auto`. Default: lazy without dask.
        **fields: Fields of the request: see `read_request`.

    Returns:
        A Dataset with one variable per band, of dimensions (time, y, x). `ds.scenebeam.explain()`
        says what loading all of it takes.

    Raises:
        RequestError: No scene is left, or the products are no cube.
        MissingExtraError: xarray is not installed.
    """
    loader = import_cubes("load", "scenebeam.load")
    if isinstance(request, Mapping) and "output" not in request:
        request = {**request, "output": DEFAULTS["output"]}
    planned = make_plan(read_request(request, **fields))
    names = [variables] if isinstance(variables, str) else variables
    dataset: xarray.Dataset = loader.load_plan(planned, names, decode=decode, chunks=chunks)
    return dataset


def open_virtual(output: str | Path) -> Any:
    """Open the references that `scenebeam virtual` has written, as a Zarr store.

    Args:
        output: The folder or `gs://` prefix of the run.

    Returns:
        A store for `xarray.open_zarr(store, group="0", consolidated=False)`.

    Raises:
        MissingExtraError: icechunk is not installed.
    """
    return import_cubes("virtual", "scenebeam.open_virtual").open_virtual(str(output))


def import_cubes(module: str, purpose: str) -> Any:
    """Import a module of `scenebeam.cubes`, all of which need xarray.

    Raises:
        MissingExtraError: xarray is not installed.
    """
    import_extra("xarray", "zarr", purpose)
    return importlib.import_module(f"scenebeam.cubes.{module}")
