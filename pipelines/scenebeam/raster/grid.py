"""The output grid: CRS, transform and shape, chosen from the area and never from the first scene."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import TypeAlias

import numpy as np
import shapely
from affine import Affine
from odc.geo.geobox import GeoBox
from pyproj import CRS, Transformer
from pyproj.exceptions import CRSError
from shapely.geometry import MultiPolygon
from shapely.geometry.base import BaseGeometry

from scenebeam.errors import RequestError
from scenebeam.raster.georeference import crs_text
from scenebeam.request import GridRequest

Grid: TypeAlias = GeoBox
"""CRS, transform and shape of an output."""
Origin: TypeAlias = Callable[[str, float], tuple[float, float]]
_WIDE = 90.0
"""Degrees of longitude that a footprint may span to be drawn in any CRS."""
_WHOLE = 1e-6
"""Part of a pixel by which floating point may miss a whole number of pixels."""


def choose_grid(
    area: MultiPolygon | None,
    asked: GridRequest,
    resolution: float,
    *,
    origin: Origin | None = None,
    max_pixels: int = 10**11,
) -> Grid:
    """Choose the grid of a run: what the request names, and for the rest the area's UTM zone and bounds.

    Args:
        area: In degrees; not needed where the request gives bounds.
        asked: What the request says of the grid. Bounds are taken as they are.
        resolution: Pixel size in metres where the request names none.
        origin: Gives, for a CRS and a pixel size, where pixel edges lie: multiples of the size from there. By default
            they are multiples of the size themselves.
        max_pixels: A grid of more is refused.

    Raises:
        RequestError: The CRS is unknown, or the grid would be empty or too large.
    """
    crs = _crs(asked.crs) if asked.crs else utm_crs(_needed(area))
    if asked.resolution is not None:
        resolution = asked.resolution
    elif crs.is_geographic:
        raise RequestError("grid.crs is in degrees: give grid.resolution in degrees too")
    if asked.bounds is not None:
        left, bottom, right, top = asked.bounds
        columns, rows = (right - left) / resolution, (top - bottom) / resolution
        if abs(columns - round(columns)) > _WHOLE or abs(rows - round(rows)) > _WHOLE:
            raise RequestError(
                f"grid.bounds are {columns:g} x {rows:g} pixels of {resolution:g}: make them whole"
            )
    else:
        left, bottom, right, top = _bounds(_needed(area), crs)
        _check_pixels(
            (right - left) / resolution, (top - bottom) / resolution, resolution, max_pixels
        )
        x, y = (0.0, 0.0) if origin is None else origin(crs_text(crs), resolution)
        left, right = _outward(left, right, x, resolution)
        bottom, top = _outward(bottom, top, y, resolution)
        columns, rows = (right - left) / resolution, (top - bottom) / resolution
    _check_pixels(columns, rows, resolution, max_pixels)
    shape = (max(round(rows), 1), max(round(columns), 1))
    return GeoBox(shape, Affine(resolution, 0, left, 0, -resolution, top), crs_text(crs))


def _outward(low: float, high: float, origin: float, resolution: float) -> tuple[float, float]:
    """The pixel edges at and beyond both ends of a side."""
    first = math.floor((low - origin) / resolution + _WHOLE) * resolution + origin
    return first, math.ceil((high - origin) / resolution - _WHOLE) * resolution + origin


def _check_pixels(columns: float, rows: float, resolution: float, most: int) -> None:
    if columns * rows > most:
        raise RequestError(
            f"the grid would have {columns:,.0f} x {rows:,.0f} pixels of {resolution:g}, more than limits.max_pixels = "
            f"{most:,}; is grid.resolution in units of the grid's CRS? Else narrow the area, or raise the limit"
        )


def _needed(area: MultiPolygon | None) -> MultiPolygon:
    if area is None:
        raise RequestError("an area, or grid.crs and grid.bounds, must say where the grid lies")
    return area


def _crs(text: str) -> CRS:
    try:
        return CRS.from_user_input(text)
    except CRSError as error:
        raise RequestError(f"grid.crs: {text!r} is no CRS: {error}") from None


@lru_cache(maxsize=1024)
def same_crs(one: str, other: CRS | str) -> bool:
    """Whether two CRSs, by code or WKT, are one."""
    return bool(CRS.from_user_input(one) == CRS.from_user_input(other))


def utm_crs(area: MultiPolygon) -> CRS:
    """The UTM zone of the area's centre; the polar stereographic systems beyond 84° N and 80° S."""
    west = min(part.bounds[0] for part in area.geoms)
    over = west < -90 and max(part.bounds[2] for part in area.geoms) > 90
    # Over the antimeridian the western half is moved one turn east, or the centre would lie at 0°.
    boxes = [(b[0] + 360 if over and b[0] < 0 else b[0], b[2] + 360 if over and b[2] < 0 else b[2]) for b in
             (part.bounds for part in area.geoms)]  # fmt: skip
    longitude = (min(b[0] for b in boxes) + max(b[1] for b in boxes)) / 2
    longitude = (longitude + 180) % 360 - 180
    latitude = (area.bounds[1] + area.bounds[3]) / 2
    if latitude > 84 or latitude < -80:
        return CRS.from_epsg(32661 if latitude > 0 else 32761)
    zone = int((longitude + 180) // 6) + 1
    return CRS.from_epsg((32600 if latitude >= 0 else 32700) + min(zone, 60))


def project(geometry: BaseGeometry, crs: CRS | str) -> BaseGeometry:
    """Degrees → `crs`, with points every tenth of a degree so that straight edges follow the ground."""
    return shapely.transform(
        shapely.segmentize(geometry, 0.1), _from_lonlat(crs).transform, interleaved=False
    )


def project_footprint(footprint: BaseGeometry, crs: CRS | str) -> BaseGeometry | None:
    """As `project`, and made valid; None where it is too wide to be drawn in `crs`."""
    west, _, east, _ = shapely.bounds(shapely.get_parts(footprint)).T
    if (east - west > _WIDE).any():
        return None  # beyond a pole a transverse Mercator turns a shape inside out
    found = project(footprint, crs)
    return shapely.make_valid(found) if np.isfinite(shapely.get_coordinates(found)).all() else None


@lru_cache(maxsize=64)
def _from_lonlat(crs: CRS | str) -> Transformer:
    return Transformer.from_crs("EPSG:4326", crs, always_xy=True)


def _bounds(area: MultiPolygon, crs: CRS) -> tuple[float, float, float, float]:
    projected = [project(part, crs).bounds for part in area.geoms]
    bounds = (
        min(b[0] for b in projected),
        min(b[1] for b in projected),
        max(b[2] for b in projected),
        max(b[3] for b in projected),
    )
    if not all(math.isfinite(side) for side in bounds):
        raise RequestError(f"the area cannot be drawn in {crs_text(crs)}: choose another grid.crs")
    return bounds
