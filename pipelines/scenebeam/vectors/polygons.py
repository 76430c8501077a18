"""Extract valid polygons from features, and say why a feature has none."""

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
"""GEOS geometry type ids."""


@dataclass(frozen=True)
class CheckedPolygons:
    """The polygons of a batch of features."""

    polygons: Geometries
    """Polygons and multipolygons in degrees: valid, with a positive area, and split at the
    antimeridian. None for features that cannot be used.
    """
    faults: list[str]
    """Why a feature cannot be used, as a verb phrase ("has no inside"); "" if it can."""
    repairs: list[str]
    """Why a feature was invalid, for those that were made valid; else ""."""


@np.errstate(invalid="ignore", over="ignore")
def check_polygons(features: Features, widest: float = 180.0) -> CheckedPolygons:
    """Extract the polygons of features, and repair them where possible.

    A ring that crosses the antimeridian may either jump from 180 to -180 (RFC 7946 section 3.1.9)
    or continue beyond ±180. It is split there.

    Args:
        features: In longitude and latitude.
        widest: Maximum extent of a feature in degrees of longitude.

    Returns:
        For each feature its polygons, or why there are none.
    """
    geometries = np.array(features.geometries, object)
    faults, repairs = list(features.faults), [""] * len(geometries)
    for index in np.flatnonzero(shapely.get_type_id(geometries) == _COLLECTION).tolist():
        geometries[index] = _polygons_of(geometries[index])
    usable = np.isin(shapely.get_type_id(geometries), (_POLYGON, _MULTIPOLYGON))
    usable &= ~shapely.is_empty(geometries)
    for index in np.flatnonzero(~usable).tolist():
        kind = getattr(features.geometries[index], "geom_type", "")
        fault = f"is a {kind} with nothing inside: give a polygon" if kind else EMPTY
        faults[index] = faults[index] or fault

    west, south, east, north = extents(geometries)
    width = east - west
    beyond = (west < -180) | (east > 180)
    # Some files use longitudes from 0 to 360, and polygons across the antimeridian may end beyond
    # ±180. Anything farther out is in meters, or in a CRS that was not declared.
    continues = beyond & (west >= -360) & (east <= 360)
    on_earth = (~beyond | continues) & (south >= -90) & (north <= 90) & np.isfinite(width)
    for index in np.flatnonzero(usable & ~on_earth).tolist():
        faults[index] = OUTSIDE
    usable &= on_earth

    # Split before repairing: a ring that jumps from 180 to -180 is a different, often invalid,
    # polygon until it is split. A ring wider than half the Earth is taken for one that jumps.
    for index in np.flatnonzero(usable & ((width > 180) | continues)).tolist():
        geometries[index], faults[index] = _split(geometries[index], widest)
        usable[index] = not faults[index]
    for index in np.flatnonzero(usable & ~shapely.is_valid(geometries)).tolist():
        reason = shapely.is_valid_reason(geometries[index])
        geometries[index] = _make_valid(geometries[index])
        if geometries[index].is_empty:
            faults[index], usable[index] = f"has no inside: {reason}", False
        else:
            repairs[index] = reason
    # Written as "not positive" so that a NaN area is a fault, too.
    for index in np.flatnonzero(usable & ~(shapely.area(geometries) > 0)).tolist():
        faults[index], usable[index] = "has no inside", False
    geometries[~usable] = None
    return CheckedPolygons(geometries, faults, repairs)


def extents(geometries: Geometries) -> np.ndarray[Any, Any]:
    """Compute the extents of geometries from all coordinates, holes included.

    `shapely.bounds` ignores holes, which in malformed files may reach outside of their polygon.

    Args:
        geometries: 1-D array of n geometries; may contain None.

    Returns:
        Array of shape (4, n): west, south, east and north; infinite for geometries without
        coordinates.
    """
    coordinates, owners = shapely.get_coordinates(geometries, return_index=True)
    least = np.full((len(geometries), 2), np.inf)
    most = np.full((len(geometries), 2), -np.inf)
    np.minimum.at(least, owners, coordinates)
    np.maximum.at(most, owners, coordinates)
    return np.hstack([least, most]).T


def _make_valid(geometry: Any) -> Any:
    """Return the polygons of an invalid geometry, made valid; an empty polygon if GEOS fails."""
    try:
        return _polygons_of(shapely.make_valid(geometry))
    except shapely.errors.GEOSException:
        return shapely.Polygon()


def _polygons_of(geometry: Any) -> Any:
    """Return the union of the polygons of a collection; an empty geometry if there are none."""
    parts = shapely.get_parts(geometry)
    while any(part.geom_type == "GeometryCollection" for part in parts):
        parts = shapely.get_parts(parts)
    polygons = [part for part in parts if part.geom_type in ("Polygon", "MultiPolygon")]
    try:
        return shapely.union_all(polygons)
    except shapely.errors.GEOSException:  # some of them are not valid
        return shapely.union_all(shapely.make_valid(polygons))


def _wrap_longitudes(geometry: Any) -> Any:
    """Move polygons that are entirely beyond ±180 by 360 degrees, back into that range."""
    parts = shapely.get_parts(geometry)
    west, _, east, _ = shapely.bounds(parts).T
    moves = np.where(west >= 180, -360.0, np.where(east <= -180, 360.0, 0.0))
    if not moves.any():
        return geometry
    moved = list(map(shapely.affinity.translate, parts, moves))
    return moved[0] if len(moved) == 1 else shapely.MultiPolygon(moved)


def _split(geometry: Any, widest: float) -> tuple[Any, str]:
    """Split polygons at the antimeridian. Returns them and "", or None and the fault."""
    try:
        with warnings.catch_warnings():
            # antimeridian warns when it reverses the winding of a ring.
            warnings.simplefilter("ignore")
            fixed = antimeridian.fix_shape(_wrap_longitudes(geometry), fix_winding=True)
            split = shapely.geometry.shape(fixed)
    except (ValueError, IndexError, ArithmeticError, shapely.errors.ShapelyError) as error:
        return None, f"{NOT_SPLIT}: {error}"[:200]
    bounds = extents(shapely.get_parts(split)).T
    if not (abs(bounds) <= (180, 90, 180, 90)).all():
        return None, f"{NOT_SPLIT}: one of its rings is elsewhere"
    # The width across the antimeridian: from the westernmost part in the eastern hemisphere up to
    # 180, plus from -180 to the easternmost part in the western hemisphere.
    eastern = bounds[bounds[:, 2] > 0]
    western = bounds[bounds[:, 0] < 0]
    width = 0.0
    if len(eastern):
        width += 180 - float(eastern[:, 0].min())
    if len(western):
        width += float(western[:, 2].max()) + 180
    return (None, _WIDE) if width > widest else (split, "")
