"""Choose the output grid: CRS, transform and shape, from the request and the area.

The grid never depends on which scene happens to be the first: all images of a series share it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

import numpy as np
import shapely
from affine import Affine
from pyproj import CRS, Transformer
from pyproj.exceptions import CRSError
from shapely.geometry import MultiPolygon
from shapely.geometry.base import BaseGeometry

from scenebeam.errors import RequestError
from scenebeam.raster.georeference import crs_text
from scenebeam.request import GridRequest

Origin: TypeAlias = Callable[[str, float], tuple[float, float]]
"""CRS and pixel size → a pixel corner. Pixel edges are multiples of the size from there."""
_Bounds: TypeAlias = tuple[float, float, float, float]
_MAX_SPAN = 90.0
"""Degrees of longitude that a footprint may span to be projected to any CRS."""
_TOLERANCE = 1e-6
"""Fraction of a pixel by which floating-point numbers may miss a whole number of pixels."""
_SEGMENT = 0.1
"""Degrees between the points at which edges are projected."""


@dataclass(frozen=True)
class Grid:
    """The pixels of an image: how many there are, and where."""

    shape: tuple[int, int]
    """Rows and columns."""
    transform: Affine
    """Converts columns and rows to coordinates of the CRS."""
    crs: str
    """`EPSG:<code>` or WKT."""

    def __getitem__(self, window: tuple[slice, slice]) -> Grid:
        """Return the part of the grid that a slice of rows and one of columns select."""
        (top, bottom, _), (left, right, _) = (
            part.indices(size) for part, size in zip(window, self.shape, strict=True)
        )
        moved = self.transform @ Affine.translation(left, top)
        return Grid((bottom - top, right - left), moved, self.crs)

    def pad(self, pixels: int) -> Grid:
        """Return the grid with more pixels on each side."""
        rows, columns = self.shape
        moved = self.transform @ Affine.translation(-pixels, -pixels)
        return Grid((rows + 2 * pixels, columns + 2 * pixels), moved, self.crs)

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """Left, bottom, right and top in units of the CRS."""
        rows, columns = self.shape
        corners = [(0, 0), (columns, 0), (0, rows), (columns, rows)]
        points = [self.transform @ corner for corner in corners]
        xs, ys = [x for x, _ in points], [y for _, y in points]
        return min(xs), min(ys), max(xs), max(ys)


def choose_grid(
    area: MultiPolygon | None,
    request: GridRequest,
    resolution: float,
    *,
    origin: Origin | None = None,
    max_pixels: int = 10**11,
) -> Grid:
    """Choose the grid of a run.

    What the request does not specify follows from the area: its UTM zone, and its bounds.

    Args:
        area: Area in degrees; may be None if the request gives CRS and bounds.
        request: The grid section of the request. Its bounds are used as they are.
        resolution: Pixel size in meters, unless the request gives one.
        origin: Returns where pixel edges lie in a CRS, for a pixel size. By default they lie on
            multiples of the size.
        max_pixels: Largest number of pixels.

    Raises:
        RequestError: The CRS is unknown, or the grid would be empty or too large.
    """
    crs = _parse_crs(request.crs) if request.crs else utm_crs(_required(area))
    if request.resolution is not None:
        resolution = request.resolution
    elif crs.is_geographic:
        raise RequestError("grid.crs is in degrees: give grid.resolution in degrees too")
    if request.bounds is not None:
        left, bottom, right, top = request.bounds
        columns, rows = (right - left) / resolution, (top - bottom) / resolution
        if abs(columns - round(columns)) > _TOLERANCE or abs(rows - round(rows)) > _TOLERANCE:
            raise RequestError(
                f"grid.bounds are {columns:g} x {rows:g} pixels of {resolution:g}: make them whole"
            )
    else:
        left, bottom, right, top = _projected_bounds(_required(area), crs)
        # Before the origin is looked up, which may open a file.
        _check_pixels(
            (right - left) / resolution, (top - bottom) / resolution, resolution, max_pixels
        )
        x, y = (0.0, 0.0) if origin is None else origin(crs_text(crs), resolution)
        left, right = _snap_outward(left, right, x, resolution)
        bottom, top = _snap_outward(bottom, top, y, resolution)
        columns, rows = (right - left) / resolution, (top - bottom) / resolution
    _check_pixels(columns, rows, resolution, max_pixels)
    shape = (max(round(rows), 1), max(round(columns), 1))
    return Grid(shape, Affine(resolution, 0, left, 0, -resolution, top), crs_text(crs))


def _snap_outward(low: float, high: float, origin: float, resolution: float) -> tuple[float, float]:
    """Move both ends of a side outward to pixel edges."""
    first = math.floor((low - origin) / resolution + _TOLERANCE) * resolution + origin
    last = math.ceil((high - origin) / resolution - _TOLERANCE) * resolution + origin
    return first, last


def _check_pixels(columns: float, rows: float, resolution: float, most: int) -> None:
    if columns * rows > most:
        raise RequestError(
            f"the grid would have {columns:,.0f} x {rows:,.0f} pixels of {resolution:g}, more than "
            f"limits.max_pixels = {most:,}; is grid.resolution in units of the grid's CRS? "
            "Otherwise use a smaller area, or raise the limit"
        )


def _required(area: MultiPolygon | None) -> MultiPolygon:
    if area is None:
        raise RequestError("the grid needs an area, or grid.crs and grid.bounds")
    return area


def _parse_crs(text: str) -> CRS:
    try:
        return CRS.from_user_input(text)
    except CRSError as error:
        raise RequestError(f"grid.crs: {text!r} is not a valid CRS: {error}") from None


@lru_cache(maxsize=1024)
def same_crs(one: str, other: CRS | str) -> bool:
    """Return whether two CRSs, given by code or WKT, are the same."""
    return bool(CRS.from_user_input(one) == CRS.from_user_input(other))


def utm_crs(area: MultiPolygon) -> CRS:
    """Return the UTM zone of the center of an area in degrees.

    Beyond 84° N and 80° S it is the polar stereographic system (UPS).
    """
    parts = [part.bounds for part in area.geoms]
    crosses = min(part[0] for part in parts) < -90 and max(part[2] for part in parts) > 90
    wests, easts = [], []
    for west, _, east, _ in parts:
        # Across the antimeridian, move the western hemisphere one turn to the east. Otherwise the
        # center would be at 0°.
        wests.append(west + 360 if crosses and west < 0 else west)
        easts.append(east + 360 if crosses and east < 0 else east)
    longitude = ((min(wests) + max(easts)) / 2 + 180) % 360 - 180
    latitude = (area.bounds[1] + area.bounds[3]) / 2
    if latitude > 84 or latitude < -80:
        return CRS.from_epsg(32661 if latitude > 0 else 32761)
    zone = int((longitude + 180) // 6) + 1
    return CRS.from_epsg((32600 if latitude >= 0 else 32700) + min(zone, 60))


def project(geometry: BaseGeometry, crs: CRS | str) -> BaseGeometry:
    """Project a geometry from degrees to a CRS.

    Points are added every tenth of a degree, so that straight edges stay where they are.
    """
    dense = shapely.segmentize(geometry, _SEGMENT)
    return shapely.transform(dense, _from_lonlat(crs).transform, interleaved=False)


def project_footprint(footprint: BaseGeometry, crs: CRS | str) -> BaseGeometry | None:
    """Project a footprint from degrees to a CRS, and make it valid.

    Returns:
        The geometry; None if the footprint is too wide or too far away for the CRS.
    """
    west, _, east, _ = shapely.bounds(shapely.get_parts(footprint)).T
    # A transverse Mercator projection turns shapes inside out beyond a pole.
    if (east - west > _MAX_SPAN).any():
        return None
    projected = project(footprint, crs)
    if not np.isfinite(shapely.get_coordinates(projected)).all():
        return None
    return shapely.make_valid(projected)


@lru_cache(maxsize=64)
def _from_lonlat(crs: CRS | str) -> Transformer:
    return Transformer.from_crs("EPSG:4326", crs, always_xy=True)


def _projected_bounds(area: MultiPolygon, crs: CRS) -> _Bounds:
    """Bounds of an area in a CRS."""
    projected = [project(part, crs).bounds for part in area.geoms]
    lefts, bottoms, rights, tops = zip(*projected, strict=True)
    bounds = (min(lefts), min(bottoms), max(rights), max(tops))
    if not all(math.isfinite(side) for side in bounds):
        raise RequestError(
            f"the area cannot be projected to {crs_text(crs)}: choose another grid.crs"
        )
    return bounds
