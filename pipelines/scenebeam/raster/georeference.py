"""Georeferencing: the CRS and the placement of a file, the same whichever door reads it.

An EPSG code stands for a CRS only where PROJ says that the two are the same. What the header of a
TIFF says in more than the plain way is left to GDAL, whose reading is the field's reference.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache

from affine import Affine
from pyproj import CRS
from pyproj.exceptions import CRSError

MODEL_TYPE, RASTER_TYPE = 1024, 1025
_CITATIONS = {1026, 2049, 3073}
_GEOGRAPHIC_CRS, _ANGULAR_UNITS, _SEMI_MAJOR, _INVERSE_FLATTENING = 2048, 2054, 2057, 2059
_PROJECTED_CRS, _LINEAR_UNITS = 3072, 3076
_DEGREE, _METRE = 9102, 9001
_PROJECTED, _GEOGRAPHIC = 1, 2
_KNOWN = {
    MODEL_TYPE, RASTER_TYPE, *_CITATIONS, _GEOGRAPHIC_CRS, _ANGULAR_UNITS, _SEMI_MAJOR, _INVERSE_FLATTENING,
    _PROJECTED_CRS, _LINEAR_UNITS,
}  # fmt: skip
"""GeoKeys (OGC GeoTIFF 1.1, section 7.5) that the plain way of naming an EPSG code needs."""


def crs_text(crs: CRS) -> str:
    """`EPSG:32634` where that code is this very CRS, else WKT; of a compound CRS its horizontal
    part.
    """
    if crs.is_compound:
        crs = crs.sub_crs_list[0]
    code = crs.to_epsg(min_confidence=100)
    if code is not None and CRS.from_epsg(code).equals(crs, ignore_axis_order=True):
        return f"EPSG:{code}"
    return str(crs.to_wkt())


@lru_cache(maxsize=1024)
def crs_of_wkt(wkt: str) -> str | None:
    """What `crs_text` makes of the WKT that GDAL gives; None where PROJ cannot use it to place
    anything on the Earth.
    """
    try:
        crs = CRS.from_user_input(wkt)
    except CRSError:
        return None
    return crs_text(crs) if crs.is_projected or crs.is_geographic else None


def crs_of_geokeys(keys: Mapping[int, float]) -> str | None:
    """The CRS of a header's GeoKeys where they name an EPSG code and say nothing else; else None,
    and GDAL must tell.
    """
    return _crs_of_geokeys(
        frozenset((key, value) for key, value in keys.items() if key not in _CITATIONS)
    )


@lru_cache(maxsize=1024)
def _crs_of_geokeys(found: frozenset[tuple[int, float]]) -> str | None:
    keys = dict(found)
    projected = keys.get(MODEL_TYPE) == _PROJECTED
    code = keys.get(_PROJECTED_CRS if projected else _GEOGRAPHIC_CRS)
    if not projected and keys.get(MODEL_TYPE) != _GEOGRAPHIC:
        return None
    if not keys.keys() <= _KNOWN or code is None or not 1024 <= code < 32767:
        return None
    if not projected and _PROJECTED_CRS in keys:
        return None
    try:
        crs = CRS.from_epsg(int(code))
    except CRSError:
        return None
    return f"EPSG:{int(code)}" if _agree(crs, keys, projected) else None


def _agree(crs: CRS, keys: Mapping[int, float], projected: bool) -> bool:
    """Whether units, datum and ellipsoid that a header names beside a code are the code's own."""
    if crs.is_projected != projected or crs.is_geographic == projected or crs.geodetic_crs is None:
        return False
    if projected and (
        keys.get(_LINEAR_UNITS, _METRE) != _METRE or crs.axis_info[0].unit_name != "metre"
    ):
        return False
    if keys.get(_ANGULAR_UNITS, _DEGREE) != _DEGREE:
        return False
    if (
        projected
        and _GEOGRAPHIC_CRS in keys
        and crs.geodetic_crs.to_epsg() != keys[_GEOGRAPHIC_CRS]
    ):
        return False
    ellipsoid = crs.ellipsoid
    if ellipsoid is None:
        return False
    axis, flattening = keys.get(_SEMI_MAJOR), keys.get(_INVERSE_FLATTENING)
    return (axis is None or abs(axis - ellipsoid.semi_major_metre) < 1e-3) and (
        flattening is None or abs(flattening - ellipsoid.inverse_flattening) < 1e-6
    )


def is_placed(transform: Affine) -> bool:
    """Whether a transform says where pixels lie.

    A file without one has the identity in GDAL.
    """
    numbers = tuple(transform)[:6]
    return (
        all(math.isfinite(number) for number in numbers)
        and transform != Affine.identity()
        and math.isfinite(transform.determinant)
        and transform.determinant != 0
    )


def north_up(transform: Affine, height: int, width: int) -> tuple[Affine, bool, bool]:
    """A transform whose rows run south and whose columns run east, and whether rows and columns
    must be turned for it.

    A rotated one is left as it is.
    """
    if transform.b or transform.d:
        return transform, False, False
    down, across = transform.e > 0, transform.a < 0
    if down:
        transform = transform @ Affine.translation(0, height) @ Affine.scale(1, -1)
    if across:
        transform = transform @ Affine.translation(width, 0) @ Affine.scale(-1, 1)
    return transform, down, across
