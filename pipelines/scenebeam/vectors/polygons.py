"""Polygons: what of a file's features can be used as places, and what is wrong with the rest."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import antimeridian
import numpy as np
import shapely
import shapely.affinity

from scenebeam.vectors.features import EMPTY, Features, Geometries

OUTSIDE = "is not in degrees of longitude and latitude (WGS 84)"
NOT_SPLIT = "cannot be split at the antimeridian"
_WIDE = "is wider than half the Earth"
_POLYGON, _MULTIPOLYGON, _COLLECTION = 3, 6, 7
"""GEOS's types of geometries."""


@dataclass(frozen=True)
class Checked:
    """The polygons of some features."""

    polygons: Geometries
    """Polygons and multipolygons in degrees: valid, with an inside, and split at the antimeridian.
    None for features that cannot be used.
    """
    faults: list[str]
    """Why a feature cannot be used, as the rest of a sentence; empty where it can."""
    mended: list[str]
    """Why a feature was not valid, where it has been made valid; else empty."""


@np.errstate(invalid="ignore", over="ignore")
def check_polygons(features: Features, widest: float = 180.0) -> Checked:
    """Take from features what are polygons on the Earth, and mend what can be mended.

    A ring that crosses the antimeridian may jump from 180 to -180 (RFC 7946 section 3.1.9) or run
    on beyond either of them: it is split there.

    Args:
        features: In longitude and latitude.
        widest: Degrees of longitude that a feature may span.

    Returns:
        For each feature its polygons, or why there are none.
    """
    found = np.array(features.geometries, object)
    faults, mended = list(features.faults), [""] * len(found)
    kinds = shapely.get_type_id(found)
    for index in np.flatnonzero(kinds == _COLLECTION).tolist():
        found[index] = _polygons_of(found[index])
    usable = np.isin(shapely.get_type_id(found), (_POLYGON, _MULTIPOLYGON))
    usable &= ~shapely.is_empty(found)
    for index in np.flatnonzero(~usable).tolist():
        kind = getattr(features.geometries[index], "geom_type", "")
        told = f"is a {kind} with nothing inside: give a polygon" if kind else EMPTY
        faults[index] = faults[index] or told
    west, south, east, north = extents(found)
    width = east - west
    beyond = (west < -180) | (east > 180)
    # Some files have longitudes from 0 to 360, and strips across the antimeridian run on beyond it.
    runs_on = beyond & (west >= -360) & (east <= 360)
    inside = (~beyond | runs_on) & (south >= -90) & (north <= 90) & np.isfinite(width)
    for index in np.flatnonzero(usable & ~inside).tolist():
        faults[index] = OUTSIDE
    usable &= inside
    for index in np.flatnonzero(usable & ((width > 180) | runs_on)).tolist():
        found[index], faults[index] = _split(found[index], widest)
        usable[index] = not faults[index]
    for index in np.flatnonzero(usable & ~shapely.is_valid(found)).tolist():
        why = shapely.is_valid_reason(found[index])
        found[index] = _make_valid(found[index])
        if found[index].is_empty:
            faults[index], usable[index] = f"has no inside: {why}", False
        else:
            mended[index] = why
    for index in np.flatnonzero(usable & ~(shapely.area(found) > 0)).tolist():
        faults[index], usable[index] = "has no inside", False
    found[~usable] = None
    return Checked(found, faults, mended)


def extents(geometries: Geometries) -> np.ndarray[Any, Any]:
    """West, south, east and north of all coordinates; GEOS takes no account of those of holes."""
    coordinates, owners = shapely.get_coordinates(geometries, return_index=True)
    least = np.full((len(geometries), 2), np.inf)
    most = np.full((len(geometries), 2), -np.inf)
    np.minimum.at(least, owners, coordinates)
    np.maximum.at(most, owners, coordinates)
    return np.hstack([least, most]).T


def _make_valid(geometry: Any) -> Any:
    """The polygons of an invalid geometry, made valid; an empty one where GEOS cannot."""
    try:
        return _polygons_of(shapely.make_valid(geometry))
    except shapely.errors.GEOSException:
        return shapely.Polygon()


def _polygons_of(geometry: Any) -> Any:
    """The polygons of a collection as one geometry; an empty one where there are none."""
    parts = shapely.get_parts(geometry)
    while any(part.geom_type == "GeometryCollection" for part in parts):
        parts = shapely.get_parts(parts)
    polygons = [part for part in parts if part.geom_type in ("Polygon", "MultiPolygon")]
    try:
        return shapely.union_all(polygons)
    except shapely.errors.GEOSException:  # some of them are not valid
        return shapely.union_all(shapely.make_valid(polygons))


def _turned(geometry: Any) -> Any:
    """Polygons with those that lie beyond the antimeridian as a whole turned around the Earth."""
    parts = shapely.get_parts(geometry)
    west, _, east, _ = shapely.bounds(parts).T
    turns = np.where(west >= 180, -360.0, np.where(east <= -180, 360.0, 0.0))
    if not turns.any():
        return geometry
    turned = list(map(shapely.affinity.translate, parts, turns))
    return turned[0] if len(turned) == 1 else shapely.MultiPolygon(turned)


def _split(geometry: Any, widest: float) -> tuple[Any, str]:
    """Split polygons at the antimeridian, or say why they cannot be split."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of rings that were turned around
            fixed = antimeridian.fix_shape(_turned(geometry), fix_winding=True)
            found = shapely.geometry.shape(fixed)
    except (ValueError, IndexError, ArithmeticError, shapely.errors.ShapelyError) as error:
        return None, f"{NOT_SPLIT}: {error}"[:200]
    bounds = extents(shapely.get_parts(found)).T
    if not (abs(bounds) <= (180, 90, 180, 90)).all():
        return None, f"{NOT_SPLIT}: one of its rings lies elsewhere"
    east_of_it = bounds[bounds[:, 0] < 0]
    west_of_it = bounds[bounds[:, 2] > 0]
    reach = 0.0
    if len(west_of_it):
        reach += 180 - float(west_of_it[:, 0].min())
    if len(east_of_it):
        reach += float(east_of_it[:, 2].max()) + 180
    return (None, _WIDE) if reach > widest else (found, "")
