"""Open: the images of an output as one lazy xarray Dataset."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
from scenebeam.raster.grid import Grid
from scenebeam.storage import open_store

if TYPE_CHECKING:
    import xarray

_LONG_NAMES = {
    "coastal": "coastal aerosol",
    "nir": "near infrared",
    "nir08": "narrow near infrared",
    "swir16": "short-wave infrared at 1.6 micrometers",
    "swir22": "short-wave infrared at 2.2 micrometers",
    "scl": "scene classification",
    "vv": "backscatter, VV polarization",
    "vh": "backscatter, VH polarization",
}
_MEASURES = {"eo:cloud_cover": ("cloud_cover", {"units": "%", "long_name": "cloud cover"})}
"""Property of an item → coordinate along time, and its attributes."""


@dataclass(frozen=True)
class _Image:
    """One band of one product."""

    href: str
    index: int
    described: Mapping[str, Any]
    """Object of the STAC raster extension."""
    grid: tuple[Any, ...]


def open_products(
    output: str, bands: Sequence[str] | None = None, *, mask_and_scale: bool = False
) -> xarray.Dataset:
    """Open the mosaics, composites, indices or stacks of an output. Pixels are read on access.

    Needs xarray, of the extra `notebook`.

    Args:
        output: A folder or `gs://` prefix.
        bands: Bands to open; default: all.
        mask_and_scale: Convert to float32 in physical units (reflectance, for optical bands), with
            NaN where there is no data. By default values are as in the files, with the attributes
            `_FillValue`, `scale_factor` and `add_offset`.

    Returns:
        A Dataset with one variable per band, of dimensions (time, y, x), on one grid. `id`, and
        `cloud_cover` where it is known, are coordinates along `time`; `spatial_ref` gives the grid
        to odc-geo and rioxarray.

    Raises:
        RequestError: The output has no such images, not these bands, or images on several grids.
        MissingExtraError: xarray is not installed.
    """
    import_extra("xarray", "notebook", "scenebeam.open")
    import xarray

    items = _items(output)
    images = [_images(item, output) for item in items]
    offered = list(dict.fromkeys(name for found in images for name in found))
    unknown = [name for name in bands or () if name not in offered]
    if unknown:
        raise RequestError(f"{output} has no {', '.join(unknown)}; it has {', '.join(offered)}")
    wanted = list(bands or offered)
    grid = _common_grid(images, wanted, output)
    variables = {}
    for name in wanted:
        layers = [found.get(name) for found in images]
        variables[name] = _variable(name, layers, grid, mask_and_scale)
    times = [np.datetime64(item["datetime"].replace(tzinfo=None), "ns") for item in items]
    coordinates = {
        "time": np.array(times),
        "id": ("time", [item["id"] for item in items]),
        **_coordinates(grid),
    }
    for column, (name, attributes) in _MEASURES.items():
        values = [item.get(column) for item in items]
        if any(value is not None for value in values):
            coordinates[name] = ("time", np.array(values, np.float64), attributes)
    return xarray.Dataset(variables, coordinates)


def _coordinates(grid: Grid) -> dict[str, Any]:
    """Pixel centers, and the CRS and transform in the conventions of CF and GDAL."""
    import xarray

    crs = CRS.from_user_input(grid.crs)
    transform, wkt = grid.transform, crs.to_wkt()
    attributes = {
        "crs_wkt": wkt,
        "spatial_ref": wkt,
        "GeoTransform": " ".join(map(str, transform.to_gdal())),
    }
    units = "degrees" if crs.is_geographic else "m"
    y = transform.f + transform.e * (np.arange(grid.shape[0]) + 0.5)
    x = transform.c + transform.a * (np.arange(grid.shape[1]) + 0.5)
    return {
        "y": ("y", y, {"units": units, "long_name": "y of pixel centers"}),
        "x": ("x", x, {"units": units, "long_name": "x of pixel centers"}),
        "spatial_ref": xarray.Variable((), np.int32(0), attributes),
    }


def _items(output: str) -> list[dict[str, Any]]:
    """The current items of an output, in the order of time."""
    store = open_store(output)
    kind = read_product_kind(store)
    if kind == "chips":
        raise RequestError(f"{output} holds chips: read them with scenebeam.chips.open")
    if kind is not None and product_of(kind).page.noun == "chips":
        raise RequestError(
            f"{output} holds {kind}, which are no one array: scenebeam.open reads mosaics, "
            "composites, indices and stacks. The items name the files, which rasterio opens"
        )
    content = store.read(ITEMS_FILE)
    rows = [] if content is None else pq.read_table(io.BytesIO(content)).to_pylist()
    current = [row for row in rows if not row.get(SUPERSEDED)]
    if not current:
        found = f"its run of kind {kind} has made nothing" if kind else "there is no run in it"
        raise RequestError(f"{output} cannot be opened: {found}")
    return sorted(current, key=lambda row: (row["datetime"], row["id"]))


def _images(item: Mapping[str, Any], output: str) -> dict[str, _Image]:
    """Return the images of an item by band."""
    images = {}
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
            label = labels[number]["name"] if has_label else name
            images[str(label)] = _Image(href, number + 1, described, grid)
    return images


def _hashable(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _common_grid(images: Sequence[Mapping[str, _Image]], bands: Sequence[str], output: str) -> Grid:
    grids = {found[name].grid for found in images for name in bands if name in found}
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


def _variable(name: str, layers: Sequence[_Image | None], grid: Grid, mask_and_scale: bool) -> Any:
    import xarray
    from xarray.core import indexing

    from scenebeam.lazy_images import Decoding, LazyImages

    described = next(layer.described for layer in layers if layer is not None)
    dtype, nodata = np.dtype(described["data_type"]), described.get("nodata")
    if nodata == "nan":
        nodata = np.nan
    scale, offset = described.get("scale"), described.get("offset")
    scale, offset = 1.0 if scale is None else scale, offset or 0.0
    is_scaled = (scale, offset) != (1, 0)
    attributes: dict[str, Any] = {
        "grid_mapping": "spatial_ref",
        "long_name": _LONG_NAMES.get(name, name),
    }
    if is_scaled:
        attributes["units"] = "1"
    decoding = None
    if mask_and_scale:
        decoding = Decoding(nodata, scale, offset)
    else:
        if nodata is not None:
            attributes["_FillValue"] = dtype.type(nodata)
        if is_scaled:
            attributes |= {"scale_factor": scale, "add_offset": offset}
    files = [None if layer is None else (layer.href, layer.index) for layer in layers]
    fill = 0 if nodata is None else nodata
    images = LazyImages(files, dtype, fill, grid.shape, decoding)
    return xarray.Variable(("time", "y", "x"), indexing.LazilyIndexedArray(images), attributes)
