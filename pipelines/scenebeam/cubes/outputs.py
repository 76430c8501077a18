"""Open: whatever an output holds as one lazy xarray Dataset."""

from __future__ import annotations

import importlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pyarrow.parquet as pq
import xarray
from affine import Affine

from scenebeam.cubes.chips import open_chips
from scenebeam.cubes.dataset import Chunks, TimeSlice, check_known, chunk_dataset, make_dataset
from scenebeam.cubes.lazy import FileBand
from scenebeam.errors import RequestError
from scenebeam.extras import import_extra
from scenebeam.imaging.cube import common_bands
from scenebeam.metadata.item_tables import ITEMS_FILE, SUPERSEDED
from scenebeam.planning.plan import read_product
from scenebeam.products import product_of
from scenebeam.raster.grid import Grid
from scenebeam.storage import open_store
from scenebeam.tasks import CubeBand


@dataclass(frozen=True)
class OutputBand:
    """One band of one product."""

    file: FileBand
    band: CubeBand
    grid: tuple[Any, ...]


@dataclass(frozen=True)
class OutputImage:
    """One product."""

    id: str
    when: datetime
    bands: Mapping[str, OutputBand]
    properties: Mapping[str, Any]


@dataclass(frozen=True)
class OutputImages:
    """The products of an output whose images are files, in the order of time."""

    images: Sequence[OutputImage]
    grid: Grid
    bands: Mapping[str, CubeBand]
    """Of the bands that are asked for, each as it is at all times."""


def open_output(
    output: str,
    bands: Sequence[str] | None = None,
    *,
    decode: bool = False,
    chunks: Chunks = None,
) -> xarray.Dataset:
    """Open the products of an output. Pixels are read on access.

    Args:
        output: A folder or `gs://` prefix.
        bands: Bands to open; default: all.
        decode: Whether to convert to float32 in physical units (reflectance, for optical bands),
            with NaN where there is no data. By default values are as in the files, with the
            attributes `_FillValue`, `scale_factor` and `add_offset`.
        chunks: Chunks of dask arrays; None: lazy without dask.

    Returns:
        A Dataset with one variable per band, on one grid: see `make_dataset`.

    Raises:
        RequestError: The output has no images, not these bands, or images on several grids.
        MissingExtraError: A package that the format needs is not installed.
    """
    product = read_product(open_store(output))
    if product.get("kind") == "chips":
        dataset = open_chips(output)
        check_known(bands or (), [str(name) for name in dataset.data_vars], output)
        chosen = dataset[list(bands or dataset.data_vars)]
        return chosen if chunks is None else chunk_dataset(chosen, chunks)
    form = product.get("format")
    if form in ("zarr", "icechunk"):
        import_extra("zarr", "zarr", "scenebeam.open")
        stores = importlib.import_module("scenebeam.cubes.stores")
        opened: xarray.Dataset = stores.open_store_of(
            output, form, bands, decode=decode, chunks=chunks
        )
        return opened
    return _open_files(output, bands, decode=decode, chunks=chunks)


def _open_files(
    output: str, bands: Sequence[str] | None, *, decode: bool, chunks: Chunks
) -> xarray.Dataset:
    """Open products whose images are files of their own."""
    found = read_images(output, bands)
    slices = []
    for image in found.images:
        readers = {name: one.file for name, one in image.bands.items()}
        slices.append(TimeSlice(image.id, image.when, readers, image.properties))
    variables = list(found.bands.values())
    return make_dataset(found.grid, variables, slices, decode=decode, chunks=chunks)


def read_images(output: str, bands: Sequence[str] | None = None) -> OutputImages:
    """Read which images an output has, from its items.

    Args:
        output: A folder or `gs://` prefix.
        bands: The bands that must be on one grid; default: all.

    Raises:
        RequestError: It has no images, not these bands, or images on several grids.
    """
    images = []
    for item in _items(output):
        images.append(OutputImage(item["id"], item["datetime"], _bands(item, output), item))
    offered = list(dict.fromkeys(name for image in images for name in image.bands))
    check_known(bands or (), offered, output)
    wanted = list(bands or offered)
    grid = _common_grid(images, wanted, output)
    common = common_bands(
        [image.bands[name].band for name in wanted if name in image.bands] for image in images
    )
    return OutputImages(images, grid, {name: common[name] for name in wanted})


def _items(output: str) -> list[dict[str, Any]]:
    """The current items of an output, in the order of time."""
    store = open_store(output)
    kind = read_product(store).get("kind")
    if kind is not None and product_of(kind).page.noun == "chips":
        raise RequestError(
            f"{output} holds {kind}, which are no one array: scenebeam.open reads mosaics, "
            "composites, indices, stacks and the product `chips`. The items name the files, which "
            "rasterio opens"
        )
    content = store.read(ITEMS_FILE)
    rows = [] if content is None else pq.read_table(io.BytesIO(content)).to_pylist()
    current = [row for row in rows if not row.get(SUPERSEDED)]
    if not current:
        found = f"its run of kind {kind} has made nothing" if kind else "there is no run in it"
        raise RequestError(f"{output} cannot be opened: {found}")
    return sorted(current, key=lambda row: (row["datetime"], row["id"]))


def _bands(item: Mapping[str, Any], output: str) -> dict[str, OutputBand]:
    """Return the images of an item by the name of the band."""
    bands = {}
    for name, asset in (item.get("assets") or {}).items():
        if asset is None or not {"data", "visual"} & set(asset["roles"] or ()):
            continue
        raster_bands = asset.get("raster:bands") or ()
        labels = asset.get("bands") or ()
        href = f"{output.rstrip('/')}/{asset['href'].removeprefix('./')}"
        # Assets on a grid of their own say so; others are on that of the item.
        grid = tuple(
            _hashable(asset.get(key) or item.get(key))
            for key in ("proj:shape", "proj:transform", "proj:code")
        )
        for number, described in enumerate(raster_bands):
            has_label = len(raster_bands) > 1 and number < len(labels)
            label = str(labels[number]["name"] if has_label else name)
            bands[label] = OutputBand(FileBand(href, number + 1), _band(label, described), grid)
    return bands


def _band(name: str, described: Mapping[str, Any]) -> CubeBand:
    """Read an object of the STAC raster extension."""
    nodata, scale = described.get("nodata"), described.get("scale")
    return CubeBand(
        name=name,
        dtype=described["data_type"],
        nodata=float("nan") if nodata == "nan" else nodata,
        scale=1.0 if scale is None else scale,
        offset=described.get("offset") or 0.0,
        categorical=False,
    )


def _hashable(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _common_grid(images: Sequence[OutputImage], bands: Sequence[str], output: str) -> Grid:
    grids = {one.grid for image in images for name, one in image.bands.items() if name in bands}
    if not grids or any(None in grid for grid in grids):
        raise RequestError(
            f"{output} has no images on a grid: scenebeam.open reads mosaics, composites, indices "
            "and stacks"
        )
    if len(grids) > 1:
        raise RequestError(
            f"{output} has images on {len(grids)} grids, which are no one array: request one grid "
            "(grid.crs and grid.resolution), or open bands of one resolution"
        )
    shape, transform, code = grids.pop()
    return Grid(shape, Affine(*transform[:6]), code)
