"""Transform coordinates from the CRS of a file to longitude and latitude, with datum shifts."""

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

    A geographic CRS on another datum is transformed like a projected one: the same degrees in MGI
    and in WGS 84 are about 94 m apart. Where PROJ has a null transformation (ETRS89), coordinates
    do not change.

    Args:
        crs: Anything that pyproj accepts: an authority code, a URN, WKT or PROJJSON.

    Returns:
        A transformation from (x, y), whatever the axis order of the CRS, to (longitude, latitude)
        in degrees; None if the CRS is WGS 84.

    Raises:
        RequestError: `crs` is not a CRS, or PROJ cannot transform it to WGS 84.
    """
    try:
        source_crs = CRS.from_user_input(crs)
        if source_crs.equals(CRS.from_user_input(WGS84), ignore_axis_order=True):
            return None
        transformer = Transformer.from_crs(source_crs, WGS84, always_xy=True, only_best=False)
        with warnings.catch_warnings():
            # pyproj warns if the best transformation needs a grid that is not installed.
            warnings.simplefilter("ignore", UserWarning)
            operations = TransformerGroup(source_crs, WGS84, always_xy=True).transformers
    except ProjError as error:
        raise RequestError(
            f"{str(crs)[:200]!r} is not a CRS that PROJ can transform: {error}"
        ) from None
    # A ballpark transformation ignores the datum: nothing better is known for this CRS.
    if all("Ballpark" in operation.description for operation in operations):
        log.warning(
            "PROJ knows no datum transformation from %s to WGS 84: "
            "coordinates may be off by several hundred meters",
            source_crs.name,
        )
    return transformer


def geojson_transformer(document: Mapping[str, Any]) -> Transformer | None:
    """Build the transformation for the `crs` member of a GeoJSON object.

    RFC 7946 removed this member and allows WGS 84 only, but GDAL and others still write it as
    GeoJSON 2008 defined it.

    Args:
        document: A GeoJSON object: a collection, a feature or a geometry.

    Returns:
        As `lonlat_transformer`; None if no CRS is declared.

    Raises:
        RequestError: The CRS is not given by name or code, or is unknown.
    """
    declared = document.get("crs")
    if not declared:
        return None
    member = declared.get("properties") if isinstance(declared, Mapping) else None
    properties = member if isinstance(member, Mapping) else {}
    if properties.get("name"):
        return lonlat_transformer(properties["name"])
    if properties.get("code"):
        return lonlat_transformer(f"EPSG:{properties['code']}")
    raise RequestError(f"crs {str(declared)[:200]} does not name a CRS; write the file in WGS 84")
