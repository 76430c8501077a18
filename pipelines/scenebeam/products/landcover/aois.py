"""AOIs: the areas of interest of a GeoJSON file, by their place in it; one that cannot be used says why."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import shapely
from pyproj import Transformer
from shapely.geometry import MultiPolygon, Polygon
from shapely.validation import explain_validity

from scenebeam.catalog.area import geojson_transformer, lonlat_geometry
from scenebeam.errors import ReadError, RequestError
from scenebeam.request import LandcoverRequest
from scenebeam.transfer.ranges import Budget, read_range

_LARGEST_FILE = 256 * 2**20


@dataclass(frozen=True)
class Aoi:
    """One area of interest."""

    index: int
    """Its place in the file, from 0."""
    name: str
    """Its feature's id or name; empty where it has none."""
    area: MultiPolygon | None
    """In degrees, split at the antimeridian; None where it cannot be used."""
    fault: str = ""
    """Why it cannot."""

    @property
    def id(self) -> str:
        """`00007`: of folders and tables."""
        return f"{self.index:05}"


def read_aois(request: LandcoverRequest) -> list[Aoi]:
    """The areas that are asked for, in the order of the file.

    Raises RequestError where the file cannot be read, an index is not in it, or no area of it can be used.
    """
    try:
        document = json.loads(read_range(request.aois, 0, _LARGEST_FILE, Budget(private=True)))
        features: list[Any] = document["features"] if document["type"] == "FeatureCollection" else [document]
    except (ReadError, ValueError, KeyError, TypeError) as error:
        raise RequestError(f"product.aois: cannot read {request.aois} as GeoJSON: {error}") from None
    try:
        to_lonlat = geojson_transformer(document)
    except RequestError as error:
        raise RequestError(f"product.aois: {request.aois}: {error}") from None
    every = range(len(features))
    for name, indices in (("include", request.include or []), ("exclude", request.exclude)):
        unknown = sorted(set(indices) - set(every))
        if unknown:
            raise RequestError(f"product.{name}: {request.aois} has areas 0 to {len(features) - 1}, not {unknown}")
    wanted = sorted(set(every if request.include is None else request.include) - set(request.exclude))
    if not wanted:
        raise RequestError(f"product.aois: no area of {request.aois} is left by include and exclude")
    found = [_aoi(index, features[index], to_lonlat) for index in wanted]
    if all(aoi.fault for aoi in found):
        raise RequestError(f"product.aois: none of {len(found)} areas can be used; the first: {found[0].fault}")
    return found


def _aoi(index: int, feature: Any, to_lonlat: Transformer | None) -> Aoi:
    feature = feature if isinstance(feature, dict) else {}
    geometry = feature.get("geometry", feature if "coordinates" in feature else None)
    properties = feature.get("properties") or {}
    name = str(next((one for one in (feature.get("id"), properties.get("id"), properties.get("name")) if one), ""))
    try:
        return Aoi(index, name, _checked(geometry, to_lonlat))
    except RequestError as error:
        return Aoi(index, name, None, str(error))


def _checked(geometry: Any, to_lonlat: Transformer | None) -> MultiPolygon:
    """The area in degrees. Raises RequestError where it is empty, crosses itself or is elsewhere."""
    if not geometry or not geometry.get("coordinates"):
        raise RequestError("its geometry is empty")
    try:
        drawn = shapely.geometry.shape(geometry)
        if to_lonlat is not None:
            drawn = shapely.transform(drawn, to_lonlat.transform, interleaved=False)
    except (KeyError, TypeError, ValueError, AttributeError, shapely.errors.ShapelyError) as error:
        raise RequestError(f"its geometry is not GeoJSON: {error}") from None
    west, south, east, north = drawn.bounds or (0, 0, 0, 0)
    if not (-180 <= west <= east <= 180 and -90 <= south <= north <= 90):
        raise RequestError("its geometry is not in degrees of longitude and latitude (WGS 84)")
    if not drawn.is_valid:
        raise RequestError(f"its geometry is not valid: {explain_validity(drawn)}; mend it")
    whole = lonlat_geometry(geometry, to_lonlat)
    polygons = [part for part in getattr(whole, "geoms", [whole]) if isinstance(part, Polygon) and part.area > 0]
    if not polygons:
        raise RequestError(f"its geometry is a {drawn.geom_type} with nothing inside: give a polygon")
    return MultiPolygon(polygons)
