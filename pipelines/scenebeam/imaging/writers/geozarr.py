"""The GeoZarr conventions `multiscales`, `proj` and `spatial`, version 0.1, for a pyramid.

Each level is a child group with the same variables. `proj` is inherited by the direct children of
a group only, so every level says where it is itself. Scales have an entry per dimension, time
included: GDAL ignores overviews that have fewer.

https://github.com/zarr-conventions/multiscales, https://github.com/zarr-conventions/proj and
https://github.com/zarr-conventions/spatial
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pyproj import CRS

from scenebeam.raster.grid import Grid


def _convention(name: str, uuid: str, description: str) -> dict[str, str]:
    repository = f"zarr-conventions/{name}"
    return {
        "schema_url": f"https://raw.githubusercontent.com/{repository}/refs/tags/v0.1/schema.json",
        "spec_url": f"https://github.com/{repository}/blob/v0.1/README.md",
        "uuid": uuid,
        "name": name,
        "description": description,
    }


_MULTISCALES = _convention(
    "multiscales", "d35379db-88df-4056-af3a-620245f8e347", "Multiscale layout of zarr datasets"
)
_PROJ = _convention(
    "proj",
    "f17cb550-5864-4468-aeb7-f3180cfb622f",
    "Coordinate reference system information for geospatial data",
)
_SPATIAL = _convention(
    "spatial", "689b58e2-cf7b-45e0-9fff-9cfc0883d6b4", "Spatial coordinate information"
)


def level_attributes(grid: Grid) -> dict[str, Any]:
    """Return the attributes of the group of one level: its grid."""
    return {"zarr_conventions": [_PROJ, _SPATIAL], **_place(grid)}


def root_attributes(grids: Sequence[Grid]) -> dict[str, Any]:
    """Return the attributes of the root of a store: its levels, and the grid of the first.

    Args:
        grids: The grid of each level; each has half the rows and columns of the one before it.
    """
    layout: list[dict[str, Any]] = []
    for level, grid in enumerate(grids):
        entry: dict[str, Any] = {"asset": str(level)}
        factor = 1.0
        if level:
            entry["derived_from"] = str(level - 1)
            factor = 2.0
        entry["transform"] = {"scale": [1.0, factor, factor], "translation": [0.0, 0.0, 0.0]}
        layout.append({**entry, **_pixels(grid)})
    return {
        "zarr_conventions": [_MULTISCALES, _PROJ, _SPATIAL],
        "multiscales": {"layout": layout},
        **_place(grids[0]),
    }


def _place(grid: Grid) -> dict[str, Any]:
    crs = CRS.from_user_input(grid.crs)
    authority = crs.to_authority()
    code = {} if authority is None else {"proj:code": ":".join(authority)}
    return {
        **code,
        "proj:wkt2": crs.to_wkt(),
        "spatial:dimensions": ["y", "x"],
        "spatial:registration": "pixel",
        "spatial:bbox": list(grid.bounds),
        **_pixels(grid),
    }


def _pixels(grid: Grid) -> dict[str, Any]:
    return {
        "spatial:shape": [grid.shape[0], grid.shape[1]],
        "spatial:transform": list(grid.transform)[:6],
    }
