"""From the CRS of a file to longitude and latitude, datum shifts included."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping
from typing import Any

from pyproj import CRS, Transformer
from pyproj.exceptions import ProjError
from pyproj.transformer import TransformerGroup

from scenebeam.errors import RequestError

log = logging.getLogger(__name__)

WGS84 = "EPSG:4326"


def lonlat_transformer(crs: Any) -> Transformer | None:
    """Build the transformation from a CRS to WGS 84 longitude and latitude.

    A geographic CRS of another datum is transformed as a projected one is: degrees of MGI lie 94 m
    beside those of WGS 84. Where PROJ has a null transformation (ETRS89), coordinates stay as they
    are.

    Args:
        crs: What pyproj reads: an authority's code, a URN, WKT, PROJJSON.

    Returns:
        A transformation of x and y, whatever the axis order of the CRS, to degrees of longitude and
        latitude; None where the CRS is WGS 84 itself.

    Raises:
        RequestError: It is not a CRS, or PROJ knows no way from it to WGS 84.
    """
    try:
        known = CRS.from_user_input(crs)
        if known.equals(CRS.from_user_input(WGS84), ignore_axis_order=True):
            return None
        found = Transformer.from_crs(known, WGS84, always_xy=True, only_best=False)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # a better grid is not on this machine
            ways = TransformerGroup(known, WGS84, always_xy=True).transformers
    except ProjError as error:
        raise RequestError(
            f"{str(crs)[:200]!r} is not a CRS that PROJ can transform: {error}"
        ) from None
    if all("Ballpark" in way.description for way in ways):
        log.warning(
            "PROJ knows no datum transformation from %s to WGS 84: what is drawn in it may lie some hundred meters off",
            known.name,
        )
    return found


def geojson_transformer(document: Mapping[str, Any]) -> Transformer | None:
    """Build the transformation that the `crs` member of a GeoJSON object calls for.

    RFC 7946 has no such member, and WGS 84 alone; GDAL and others write it as GeoJSON 2008 had it.

    Args:
        document: A GeoJSON object: a collection, a feature or a geometry.

    Returns:
        As `lonlat_transformer`; None where no CRS is declared.

    Raises:
        RequestError: The CRS is not given by name, or not known.
    """
    declared = document.get("crs")
    if not declared:
        return None
    told = declared.get("properties") if isinstance(declared, Mapping) else None
    properties = told if isinstance(told, Mapping) else {}
    if properties.get("name"):
        return lonlat_transformer(properties["name"])
    if properties.get("code"):
        return lonlat_transformer(f"EPSG:{properties['code']}")
    raise RequestError(f"crs {str(declared)[:200]} names no CRS; write the file in WGS 84")
