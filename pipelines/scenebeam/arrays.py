"""Arrays: the mosaics or indices of an output as one xarray Dataset, whose pixels are read when they are asked for."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.parquet as pq
from affine import Affine

from scenebeam.errors import RequestError
from scenebeam.imaging.gridded_task import item_path
from scenebeam.metadata.item_tables import ITEMS_FILE, SUPERSEDED
from scenebeam.raster.grid import Grid
from scenebeam.raster.reader import open_source
from scenebeam.raster.source import Source, read_window
from scenebeam.raster.validity import Array
from scenebeam.storage import open_store
from scenebeam.transfer.retry import Budget

if TYPE_CHECKING:
    import xarray

_FOLDERS = ("mosaics", "indices")


class _Images:
    """A band of all images, (time, rows, columns): each window is read as it is asked for."""

    def __init__(
        self,
        hrefs: Sequence[str | None],
        dtype: np.dtype[Any],
        nodata: float,
        shape: tuple[int, int],
    ) -> None:
        self.shape, self.dtype = (len(hrefs), *shape), dtype
        self._hrefs, self._nodata = hrefs, nodata
        self._open = cache(self._source)

    def _source(self, number: int) -> Source | None:
        href = self._hrefs[number]
        return None if href is None else open_source(href, 1, Budget(private=True))

    def read(self, key: tuple[int | slice, ...]) -> Array:
        """The part that integers and slices name."""
        times, rows, columns = (
            range(size)[one] if isinstance(one, slice) else range(one, one + 1)
            for one, size in zip(key, self.shape, strict=True)
        )
        found = np.full((len(times), len(rows), len(columns)), self._nodata, self.dtype)
        if found.size:
            (top, bottom), (left, right) = ((min(span), max(span) + 1) for span in (rows, columns))
            for place, number in enumerate(times):
                source = self._open(number)
                if source is not None:
                    window = read_window(source, top, left, bottom - top, right - left)
                    found[place] = window[
                        np.ix_(np.asarray(rows) - top, np.asarray(columns) - left)
                    ]
        return found[tuple(slice(None) if isinstance(one, slice) else 0 for one in key)]


def open_mosaics(
    output: str, bands: Sequence[str] | None = None, *, mask_and_scale: bool = True
) -> xarray.Dataset:
    """The mosaics or indices of an output, a folder or `gs://` prefix: a variable a band, (time, y, x), on one grid.

    `mask_and_scale` gives floats, NaN where there is no data, in physical units; else numbers as the files hold them,
    `_FillValue`, `scale_factor` and `add_offset` among their attributes. Pixels are read when they are asked for, and
    `spatial_ref` tells the grid to odc-geo and rioxarray. Needs xarray. Raises RequestError where the output has none.
    """
    import xarray

    items = _items(output)
    first = items[0]
    grid = Grid(
        tuple(first["proj:shape"]), Affine(*first["proj:transform"][:6]), first["proj:code"]
    )
    offered = list(
        dict.fromkeys(
            name for item in items for name, asset in item["assets"].items() if _is_band(asset)
        )
    )
    unknown = [name for name in bands or () if name not in offered]
    if unknown:
        raise RequestError(f"{output} has no {', '.join(unknown)}; it has {', '.join(offered)}")
    variables = {
        name: _variable([item["assets"].get(name) for item in items], output, grid)
        for name in bands or offered
    }
    times = np.array([np.datetime64(item["datetime"].replace(tzinfo=None), "ns") for item in items])
    coordinates = {
        "time": times,
        "id": ("time", [item["id"] for item in items]),
        **_coordinates(grid),
    }
    dataset = xarray.Dataset(variables, coordinates)
    return xarray.decode_cf(
        dataset, mask_and_scale=mask_and_scale, decode_coords=False, decode_times=False
    )


def _coordinates(grid: Grid) -> dict[str, Any]:
    """Middles of pixels, and the CRS and the transform as CF and GDAL write them."""
    import xarray

    transform, wkt = grid.transform, grid.crs.to_wkt()
    told = {
        "crs_wkt": wkt,
        "spatial_ref": wkt,
        "GeoTransform": " ".join(map(str, transform.to_gdal())),
    }
    return {
        "y": transform.f + transform.e * (np.arange(grid.shape[0]) + 0.5),
        "x": transform.c + transform.a * (np.arange(grid.shape[1]) + 0.5),
        "spatial_ref": xarray.Variable((), np.int32(0), told),
    }


def _items(output: str) -> list[dict[str, Any]]:
    """The items of an output's products, by time."""
    store = open_store(output)
    content = store.read(ITEMS_FILE)
    rows = [] if content is None else pq.read_table(io.BytesIO(content)).to_pylist()
    current = [row for row in rows if not row.get(SUPERSEDED)]
    found = sorted(current, key=lambda row: (row["datetime"], row["id"]))
    for folder in _FOLDERS if found else ():
        if store.size(item_path(folder, found[0]["id"])) is not None:
            return found
    raise RequestError(
        f"{output} holds no mosaics or indices: open what a run of such a product has made"
    )


def _is_band(asset: Mapping[str, Any] | None) -> bool:
    return asset is not None and "data" in asset["roles"]


def _variable(assets: Sequence[Mapping[str, Any] | None], output: str, grid: Grid) -> Any:
    import xarray
    from xarray.backends import BackendArray
    from xarray.core import indexing

    told = next(asset["raster:bands"][0] for asset in assets if asset is not None)
    dtype, nodata = np.dtype(told["data_type"]), told.get("nodata")
    hrefs = [
        None if asset is None else f"{output.rstrip('/')}/{asset['href'].removeprefix('./')}"
        for asset in assets
    ]
    images = _Images(
        hrefs, dtype, np.nan if nodata == "nan" else nodata or 0, (grid.shape[0], grid.shape[1])
    )

    class Lazy(BackendArray):
        shape, dtype = images.shape, images.dtype

        def __getitem__(self, key: Any) -> Any:
            return indexing.explicit_indexing_adapter(
                key, self.shape, indexing.IndexingSupport.BASIC, images.read
            )

    attributes: dict[str, Any] = {"grid_mapping": "spatial_ref"}
    if nodata is not None:
        attributes["_FillValue"] = dtype.type(np.nan if nodata == "nan" else nodata)
    if (told.get("scale", 1), told.get("offset", 0)) != (1, 0):
        attributes |= {"scale_factor": told["scale"], "add_offset": told["offset"]}
    return xarray.Variable(("time", "y", "x"), indexing.LazilyIndexedArray(Lazy()), attributes)
