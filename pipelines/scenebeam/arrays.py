"""Mosaics or indices as one lazy xarray Dataset."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.parquet as pq
from affine import Affine
from pyproj import CRS

from scenebeam.errors import RequestError
from scenebeam.extras import import_extra
from scenebeam.metadata.item_tables import ITEMS_FILE, SUPERSEDED
from scenebeam.planning.plan import read_product_kind
from scenebeam.products import product_of
from scenebeam.products.base import GriddedProduct
from scenebeam.raster.grid import Grid
from scenebeam.storage import open_store

if TYPE_CHECKING:
    import xarray


def open_mosaics(
    output: str, bands: Sequence[str] | None = None, *, mask_and_scale: bool = True
) -> xarray.Dataset:
    """Open the mosaics or indices of an output. Pixels are read on access. Needs xarray.

    Args:
        output: A folder or `gs://` prefix.
        bands: Bands to open; default: all.
        mask_and_scale: Convert to floats in physical units, with NaN where there is no data.
            Otherwise values are as in the files, with the attributes `_FillValue`, `scale_factor`
            and `add_offset`.

    Returns:
        A Dataset with one variable per band, of dimensions (time, y, x), on one grid. Its
        coordinate `spatial_ref` gives the grid to odc-geo and rioxarray.

    Raises:
        RequestError: The output has no mosaics or indices, or not these bands.
    """
    xarray = import_extra("xarray", "notebook", "open_mosaics")
    items = _items(output)
    first = items[0]
    shape, transform = tuple(first["proj:shape"]), Affine(*first["proj:transform"][:6])
    grid = Grid(shape, transform, first["proj:code"])
    offered: dict[str, None] = {}
    for item in items:
        for name, asset in item["assets"].items():
            if asset is not None and "data" in asset["roles"]:
                offered[name] = None
    unknown = [name for name in bands or () if name not in offered]
    if unknown:
        raise RequestError(f"{output} has no {', '.join(unknown)}; it has {', '.join(offered)}")
    variables = {}
    for name in bands or offered:
        variables[name] = _variable([item["assets"].get(name) for item in items], output, grid)
    times = [np.datetime64(item["datetime"].replace(tzinfo=None), "ns") for item in items]
    coordinates = {
        "time": np.array(times),
        "id": ("time", [item["id"] for item in items]),
        **_coordinates(grid),
    }
    dataset = xarray.Dataset(variables, coordinates)
    return xarray.decode_cf(
        dataset, mask_and_scale=mask_and_scale, decode_coords=False, decode_times=False
    )


def _coordinates(grid: Grid) -> dict[str, Any]:
    """Pixel centers, and the CRS and transform in the conventions of CF and GDAL."""
    import xarray

    transform, wkt = grid.transform, CRS.from_user_input(grid.crs).to_wkt()
    attributes = {
        "crs_wkt": wkt,
        "spatial_ref": wkt,
        "GeoTransform": " ".join(map(str, transform.to_gdal())),
    }
    return {
        "y": transform.f + transform.e * (np.arange(grid.shape[0]) + 0.5),
        "x": transform.c + transform.a * (np.arange(grid.shape[1]) + 0.5),
        "spatial_ref": xarray.Variable((), np.int32(0), attributes),
    }


def _items(output: str) -> list[dict[str, Any]]:
    """The current items of an output, in the order of time."""
    store = open_store(output)
    content = store.read(ITEMS_FILE)
    rows = [] if content is None else pq.read_table(io.BytesIO(content)).to_pylist()
    current = [row for row in rows if not row.get(SUPERSEDED)]
    items = sorted(current, key=lambda row: (row["datetime"], row["id"]))
    kind = read_product_kind(store)
    if not items or kind is None or not isinstance(product_of(kind), GriddedProduct):
        raise RequestError(
            f"{output} has no mosaics or indices: open the output of a run of such a product"
        )
    return items


def _variable(assets: Sequence[Mapping[str, Any] | None], output: str, grid: Grid) -> Any:
    import xarray
    from xarray.core import indexing

    from scenebeam.lazy_images import LazyImages

    described = next(asset["raster:bands"][0] for asset in assets if asset is not None)
    dtype, nodata = np.dtype(described["data_type"]), described.get("nodata")
    if nodata == "nan":
        nodata = np.nan
    hrefs: list[str | None] = []
    for asset in assets:
        name = None if asset is None else asset["href"].removeprefix("./")
        hrefs.append(None if name is None else f"{output.rstrip('/')}/{name}")
    shape = (grid.shape[0], grid.shape[1])
    images = LazyImages(hrefs, dtype, 0 if nodata is None else nodata, shape)
    attributes: dict[str, Any] = {"grid_mapping": "spatial_ref"}
    if nodata is not None:
        attributes["_FillValue"] = dtype.type(nodata)
    if (described.get("scale", 1), described.get("offset", 0)) != (1, 0):
        attributes |= {"scale_factor": described["scale"], "add_offset": described["offset"]}
    return xarray.Variable(("time", "y", "x"), indexing.LazilyIndexedArray(images), attributes)
