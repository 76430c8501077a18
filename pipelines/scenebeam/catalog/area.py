"""The area of a request as a geometry in longitude and latitude, split at the antimeridian."""

from __future__ import annotations

import warnings
from typing import Any

import antimeridian
import numpy as np
import shapely
from mgrs import MGRS
from pyproj import Transformer
from shapely.geometry import MultiPolygon, Polygon, box, shape
from shapely.geometry.base import BaseGeometry

from scenebeam.errors import RequestError
from scenebeam.request import Area
from scenebeam.vectors.crs import WGS84, geojson_transformer

TILE_METERS = 109_800
"""Side of a Sentinel-2 tile: its 100 km MGRS square, extended to the east and the south."""
_LARGEST_LONLAT = (540.0, 90.001)
"""Maximum absolute longitude and latitude of a coordinate. Polygons across the antimeridian may
continue beyond 180 degrees.
"""


def area_geometry(area: Area) -> MultiPolygon:
    """Return the polygons of a request's area, in degrees and split at the antimeridian.

    Args:
        area: A bounding box, MGRS tiles or a GeoJSON geometry.

    Raises:
        RequestError: The area is empty, contains no polygon, or is not in degrees.
    """
    polygons = []
    for part in _flatten(_geometry(area)):
        if isinstance(part, Polygon) and not part.is_empty:
            polygons.append(part)
    if not polygons:
        raise RequestError("area holds no polygon: give a Polygon or MultiPolygon with an interior")
    merged = shapely.union_all(polygons)
    west, south, east, north = merged.bounds
    if not (-180 <= west <= east <= 180 and -90 <= south <= north <= 90):
        raise RequestError(
            f"area reaches {merged.bounds}: GeoJSON is in degrees of longitude and latitude "
            "(WGS 84), not in meters; reproject it first"
        )
    return MultiPolygon([part for part in _flatten(merged) if isinstance(part, Polygon)])


def _geometry(area: Area) -> BaseGeometry:
    if area.bbox is not None:
        west, south, east, north = area.bbox
        if west > east:  # across the antimeridian
            return MultiPolygon([box(west, south, 180, north), box(-180, south, east, north)])
        return box(west, south, east, north)
    if area.mgrs is not None:
        return shapely.union_all([_mgrs_tile(tile) for tile in area.mgrs])
    assert area.geometry is not None, "a GeoJSON file is read when the request is loaded"
    try:
        return lonlat_geometry(area.geometry, geojson_transformer(area.geometry))
    except RequestError as error:
        raise RequestError(f"area: {error}") from None


def lonlat_geometry(
    geometry: dict[str, Any],
    to_lonlat: Transformer | None = None,
    *,
    crosses: bool = True,
) -> BaseGeometry:
    """Read a GeoJSON geometry, and split it at the antimeridian (RFC 7946 section 3.1.9).

    Args:
        geometry: A GeoJSON geometry. Z coordinates are dropped; longitudes may be from 0 to 360.
        to_lonlat: Transformation of its coordinates to longitude and latitude; None if they are
            in degrees already.
        crosses: Whether a polygon wider than half the Earth is assumed to cross the antimeridian.

    Returns:
        A valid geometry in degrees.

    Raises:
        RequestError: `geometry` is not a GeoJSON geometry, or its coordinates are not in degrees.
    """
    try:
        lonlat = shape(geometry)
        if to_lonlat is not None:
            lonlat = shapely.transform(lonlat, to_lonlat.transform, interleaved=False)
        lonlat = shapely.force_2d(lonlat)
    except (KeyError, TypeError, ValueError, AttributeError, shapely.errors.ShapelyError) as error:
        raise RequestError(f"not a GeoJSON geometry: {error}") from None
    _check_degrees(lonlat)
    parts = []
    for part in _flatten(lonlat):
        if part.bounds and part.bounds[0] >= 180:  # longitudes from 0 to 360
            part = shapely.transform(part, lambda coordinates: coordinates - (360, 0))
        if crosses and isinstance(part, Polygon) and _is_wide(part):
            part = antimeridian.fix_polygon(part, fix_winding=True)
        parts.append(part if part.is_valid else shapely.make_valid(part))
    return parts[0] if len(parts) == 1 else shapely.union_all(parts)


def _is_wide(geometry: BaseGeometry) -> bool:
    return bool(geometry.bounds) and geometry.bounds[2] - geometry.bounds[0] > 180


def _check_degrees(geometry: BaseGeometry) -> None:
    coordinates = shapely.get_coordinates(geometry)
    if not coordinates.size:
        return
    if not np.isfinite(coordinates).all() or (abs(coordinates) > _LARGEST_LONLAT).any():
        raise RequestError(
            f"it reaches {tuple(geometry.bounds)}: GeoJSON is in degrees of longitude and latitude "
            "(WGS 84), not in meters; reproject it first"
        )


def _flatten(geometry: BaseGeometry) -> list[BaseGeometry]:
    """Return the single-part geometries of a geometry, collections at any depth resolved."""
    parts = getattr(geometry, "geoms", None)
    if parts is None:
        return [geometry]
    flat = []
    for part in parts:
        flat.extend(_flatten(part))
    return flat


def _mgrs_tile(tile: str) -> BaseGeometry:
    """Return the footprint of a Sentinel-2 tile in degrees."""
    try:
        with warnings.catch_warnings():
            # mgrs warns about squares that extend beyond their latitude band.
            warnings.simplefilter("ignore", RuntimeWarning)
            zone, hemisphere, easting, northing = MGRS().MGRSToUTM(f"{tile}0000000000")
    except Exception as error:
        raise RequestError(f"area.mgrs: {tile!r} is not an MGRS tile: {error}") from None
    crs = f"EPSG:{(32600 if hemisphere == 'N' else 32700) + zone}"
    # A tile starts at the north-west corner of its MGRS square, and overlaps the next squares.
    top = northing + 100_000
    square = box(easting, top - TILE_METERS, easting + TILE_METERS, top)
    # Straight edges in UTM are curved in degrees: follow them with a vertex every 10 km.
    to_lonlat = Transformer.from_crs(crs, WGS84, always_xy=True)
    lonlat = shapely.transform(
        shapely.segmentize(square, 10_000), to_lonlat.transform, interleaved=False
    )
    return lonlat_geometry(shapely.geometry.mapping(lonlat))
