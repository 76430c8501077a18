"""Georeferencing: the CRS and the transform of a file, the same whichever reader opens it.

An EPSG code is only used for a CRS if PROJ confirms that both are the same. TIFF headers that say
more than a plain EPSG code are left to GDAL, whose reading is the reference.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache

from affine import Affine
from pyproj import CRS
from pyproj.exceptions import CRSError

# GeoKeys (OGC GeoTIFF 1.1, section 7.5).
MODEL_TYPE, RASTER_TYPE = 1024, 1025
_CITATIONS = {1026, 2049, 3073}
_GEODETIC_CRS, _ANGULAR_UNITS, _SEMI_MAJOR, _INVERSE_FLATTENING = 2048, 2054, 2057, 2059
_PROJECTED_CRS, _LINEAR_UNITS = 3072, 3076
_PLAIN_KEYS = {
    MODEL_TYPE,
    RASTER_TYPE,
    *_CITATIONS,
    _GEODETIC_CRS,
    _ANGULAR_UNITS,
    _SEMI_MAJOR,
    _INVERSE_FLATTENING,
    _PROJECTED_CRS,
    _LINEAR_UNITS,
}
"""GeoKeys that do not change the meaning of an EPSG code."""
_PROJECTED, _GEOGRAPHIC = 1, 2
"""Values of the model type."""
_DEGREE, _METER = 9102, 9001
"""EPSG codes of units."""


def crs_text(crs: CRS) -> str:
    """Return a CRS as text.

    Returns:
        `EPSG:<code>` if that code means exactly this CRS, otherwise WKT. Of a compound CRS only the
        horizontal part counts.
    """
    if crs.is_compound:
        crs = crs.sub_crs_list[0]
    code = crs.to_epsg(min_confidence=100)
    if code is not None and CRS.from_epsg(code).equals(crs, ignore_axis_order=True):
        return f"EPSG:{code}"
    return str(crs.to_wkt())


@lru_cache(maxsize=1024)
def crs_of_wkt(wkt: str) -> str | None:
    """Return the `crs_text` of WKT from GDAL; None if PROJ cannot relate the CRS to the Earth."""
    try:
        crs = CRS.from_user_input(wkt)
    except CRSError:
        return None
    return crs_text(crs) if crs.is_projected or crs.is_geographic else None


def crs_of_geokeys(keys: Mapping[int, float]) -> str | None:
    """Return the CRS of a TIFF header's GeoKeys.

    Args:
        keys: Value by GeoKey: see `tiff_tags.geo_keys`.

    Returns:
        `EPSG:<code>`; None if the keys do not just name a code, so that only GDAL can tell.
    """
    relevant = {key: value for key, value in keys.items() if key not in _CITATIONS}
    return _crs_of_geokeys(frozenset(relevant.items()))


@lru_cache(maxsize=1024)
def _crs_of_geokeys(items: frozenset[tuple[int, float]]) -> str | None:
    keys = dict(items)
    is_projected = keys.get(MODEL_TYPE) == _PROJECTED
    if not is_projected and keys.get(MODEL_TYPE) != _GEOGRAPHIC:
        return None
    code = keys.get(_PROJECTED_CRS if is_projected else _GEODETIC_CRS)
    # 32767 means "user-defined", and codes below 1024 are reserved.
    if not keys.keys() <= _PLAIN_KEYS or code is None or not 1024 <= code < 32767:
        return None
    if not is_projected and _PROJECTED_CRS in keys:
        return None
    try:
        crs = CRS.from_epsg(int(code))
    except CRSError:
        return None
    return f"EPSG:{int(code)}" if _agree(crs, keys, is_projected) else None


def _agree(crs: CRS, keys: Mapping[int, float], is_projected: bool) -> bool:
    """Return whether the units, datum and ellipsoid in a header are those of its EPSG code."""
    if crs.is_projected != is_projected or crs.is_geographic == is_projected:
        return False
    if crs.geodetic_crs is None or crs.ellipsoid is None:
        return False
    if keys.get(_ANGULAR_UNITS, _DEGREE) != _DEGREE:
        return False
    if is_projected:
        if keys.get(_LINEAR_UNITS, _METER) != _METER or crs.axis_info[0].unit_name != "metre":
            return False
        if _GEODETIC_CRS in keys and crs.geodetic_crs.to_epsg() != keys[_GEODETIC_CRS]:
            return False
    axis, flattening = keys.get(_SEMI_MAJOR), keys.get(_INVERSE_FLATTENING)
    return (axis is None or abs(axis - crs.ellipsoid.semi_major_metre) < 1e-3) and (
        flattening is None or abs(flattening - crs.ellipsoid.inverse_flattening) < 1e-6
    )


def is_placed(transform: Affine) -> bool:
    """Return whether a transform georeferences an image.

    GDAL gives the identity for a file without a transform.
    """
    numbers = tuple(transform)[:6]
    return (
        all(math.isfinite(number) for number in numbers)
        and transform != Affine.identity()
        and math.isfinite(transform.determinant)
        and transform.determinant != 0
    )


def north_up(transform: Affine, height: int, width: int) -> tuple[Affine, bool, bool]:
    """Find out how to flip an image so that its rows run south and its columns run east.

    Args:
        transform: Transform of the image.
        height: Rows of the image.
        width: Columns of the image.

    Returns:
        Transform of the flipped image, whether to flip rows, and whether to flip columns. A rotated
        image is not flipped.
    """
    if transform.b or transform.d:
        return transform, False, False
    flip_rows, flip_columns = transform.e > 0, transform.a < 0
    if flip_rows:
        transform = transform @ Affine.translation(0, height) @ Affine.scale(1, -1)
    if flip_columns:
        transform = transform @ Affine.translation(width, 0) @ Affine.scale(-1, 1)
    return transform, flip_rows, flip_columns
