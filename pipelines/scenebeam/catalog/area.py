"""The area of a request as geometry: longitude and latitude, split at the antimeridian."""

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

TILE_METRES = 109_800
"""Side of a Sentinel-2 tile: its 100 km MGRS square and an overlap to the east and the south."""
_FARTHEST = (540.0, 90.001)
"""Degrees of longitude and latitude that a coordinate may have; strips across the antimeridian go
beyond 180.
"""


def area_geometry(area: Area) -> MultiPolygon:
    """All polygons of a request's area, in degrees, none of them over the antimeridian.

    Raises RequestError where the area is empty or holds no polygon.
    """
    if area.bbox is not None:
        west, south, east, north = area.bbox
        parts = (
            [box(west, south, 180, north), box(-180, south, east, north)]
            if west > east
            else [box(*area.bbox)]
        )
        found: BaseGeometry = MultiPolygon(parts)
    elif area.mgrs is not None:
        found = shapely.union_all([_mgrs_tile(tile) for tile in area.mgrs])
    else:
        assert area.geometry is not None, "a GeoJSON file is read when the request is loaded"
        try:
            found = lonlat_geometry(area.geometry, geojson_transformer(area.geometry))
        except RequestError as error:
            raise RequestError(f"area: {error}") from None
    polygons = [part for part in _flatten(found) if isinstance(part, Polygon) and not part.is_empty]
    if not polygons:
        raise RequestError("area holds no polygon: give a Polygon or MultiPolygon with an inside")
    merged = shapely.union_all(polygons)
    west, south, east, north = merged.bounds
    if not (-180 <= west <= east <= 180 and -90 <= south <= north <= 90):
        raise RequestError(
            f"area reaches {merged.bounds}: GeoJSON is in degrees of longitude and latitude (WGS 84), "
            "not in metres; reproject it first"
        )
    return MultiPolygon([part for part in _flatten(merged) if isinstance(part, Polygon)])


def lonlat_geometry(
    geometry: dict[str, Any],
    to_lonlat: Transformer | None = None,
    *,
    crosses: bool = True,
) -> BaseGeometry:
    """Read a GeoJSON geometry, and split it at the antimeridian (RFC 7946 section 3.1.9).

    Args:
        geometry: A GeoJSON geometry; heights are dropped, longitudes may run from 0 to 360.
        to_lonlat: What brings its coordinates to degrees; None where they are longitude and
        latitude.
        crosses: Whether a part wider than half the Earth is taken for one across the antimeridian.

    Returns:
        A valid geometry in degrees.

    Raises:
        RequestError: It is not a GeoJSON geometry, or its coordinates are not in degrees.
    """
    try:
        found = shape(geometry)
        if to_lonlat is not None:
            found = shapely.transform(found, to_lonlat.transform, interleaved=False)
        found = shapely.force_2d(found)
    except (KeyError, TypeError, ValueError, AttributeError, shapely.errors.ShapelyError) as error:
        raise RequestError(f"not a GeoJSON geometry: {error}") from None
    _check_degrees(found)
    parts = []
    for part in _flatten(found):
        if part.bounds and part.bounds[0] >= 180:
            part = shapely.transform(part, lambda lonlat: lonlat - (360, 0))
        if (
            crosses
            and isinstance(part, Polygon)
            and part.bounds
            and part.bounds[2] - part.bounds[0] > 180
        ):
            part = antimeridian.fix_polygon(part, fix_winding=True)
        parts.append(part if part.is_valid else shapely.make_valid(part))
    return parts[0] if len(parts) == 1 else shapely.union_all(parts)


def _check_degrees(geometry: BaseGeometry) -> None:
    coordinates = shapely.get_coordinates(geometry)
    if not coordinates.size:
        return
    if not np.isfinite(coordinates).all() or (abs(coordinates) > _FARTHEST).any():
        raise RequestError(
            f"it reaches {tuple(geometry.bounds)}: GeoJSON is in degrees of longitude and latitude (WGS 84), not in "
            "meters; reproject it first"
        )


def _flatten(geometry: BaseGeometry) -> list[BaseGeometry]:
    parts = getattr(geometry, "geoms", None)
    return [geometry] if parts is None else [flat for part in parts for flat in _flatten(part)]


def _mgrs_tile(tile: str) -> BaseGeometry:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", RuntimeWarning
            )  # a square may reach over its band's edge
            zone, hemisphere, easting, northing = MGRS().MGRSToUTM(f"{tile}0000000000")
    except Exception as error:
        raise RequestError(f"area.mgrs: {tile!r} is not an MGRS tile: {error}") from None
    crs = f"EPSG:{(32600 if hemisphere == 'N' else 32700) + zone}"
    top = northing + 100_000
    square = shapely.segmentize(box(easting, top - TILE_METRES, easting + TILE_METRES, top), 10_000)
    to_lonlat = Transformer.from_crs(crs, WGS84, always_xy=True)
    lonlat = shapely.transform(square, to_lonlat.transform, interleaved=False)
    return lonlat_geometry(shapely.geometry.mapping(lonlat))
