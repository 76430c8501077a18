"""The area of a request, read from a vector file."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import shapely

from scenebeam.errors import RequestError
from scenebeam.transfer.access import shown
from scenebeam.vectors.features import EMPTY, Features
from scenebeam.vectors.geojson import features_of, geometry_of, read_document
from scenebeam.vectors.polygons import NOT_SPLIT, OUTSIDE, check_polygons
from scenebeam.vectors.reader import is_geojson, local_file, read_local

log = logging.getLogger(__name__)

_SHOWN = 3
"""Features that a message names."""
_ROUND = 360.0


def read_area(place: str) -> dict[str, Any]:
    """Read the polygons of a vector file as the area of a request.

    Args:
        place: A path on this machine, or an address.

    Returns:
        One GeoJSON geometry. That of a GeoJSON file is as the file has it, with its `crs` member, where
        `area_geometry` can use it so: the fingerprint of a request follows it. All others are in degrees
        of longitude and latitude. Features that are no area are left out, and a warning names them.

    Raises:
        RequestError: The file cannot be read, holds no polygon, or lies outside of the Earth.
    """
    with local_file(place) as path:
        found, faults, as_written = _read(path, place)
        if not found:
            raise RequestError(f"{shown(place)} holds no polygon: {name_few(faults)}")
        if faults:
            log.warning("area.geojson: %s: left out: %s", shown(place), name_few(faults))
        if as_written and is_geojson(path):
            document = read_document(path, shown(place))
            if document is not None:
                return _as_written(document, shown(place))
    drawn = shapely.geometry.mapping(shapely.GeometryCollection(found))
    plain: dict[str, Any] = json.loads(json.dumps(drawn))  # lists instead of tuples
    return plain


def name_few(faults: Sequence[str]) -> str:
    """The first few of some faults, and how many more there are."""
    more = f"; and {len(faults) - _SHOWN} more" if len(faults) > _SHOWN else ""
    return "; ".join(faults[:_SHOWN]) + more if faults else "it has no features"


def _read(path: Path, place: str) -> tuple[list[Any], list[str], bool]:
    """Polygons, what is wrong with other features, and whether a GeoJSON file can stay as it is."""
    found: list[Any] = []
    faults: list[str] = []
    as_written, number = True, 0
    for features in read_local(path, place):
        checked = check_polygons(features, _ROUND)
        for index, fault in enumerate(checked.faults):
            number += 1
            name = features.ids[index]
            called = f"feature {number}" + ("" if name is None else f" (id {name})")
            if fault == OUTSIDE:
                raise RequestError(f"{shown(place)}: {called} {fault}, not in meters; is its CRS the one declared?")
            if fault:
                faults.append(f"{called} {fault}")
        found.extend(one for one in checked.polygons if one is not None)
        split = not any(fault.startswith(NOT_SPLIT) for fault in checked.faults)
        as_written = as_written and split and _is_plain(features)
    return found, faults, as_written


def _is_plain(features: Features) -> bool:
    """Whether each geometry could be read, and none runs on beyond the antimeridian."""
    bounds = shapely.bounds(features.geometries)
    beyond = (bounds[:, 0] < -180) | (bounds[:, 2] > 180)
    return not np.any(beyond) and all(fault in ("", EMPTY) for fault in features.faults)


def _as_written(document: dict[str, Any], place: str) -> dict[str, Any]:
    """The geometries of a GeoJSON document as one, with the CRS that it names, if any."""
    crs = {"crs": document["crs"]} if document.get("crs") is not None else {}
    if document.get("type") == "FeatureCollection":
        geometries = [geometry_of(one) for one in features_of(document, place)]
        return {"type": "GeometryCollection", "geometries": [one for one in geometries if one], **crs}
    found = document.get("geometry") if document.get("type") == "Feature" else document
    if not isinstance(found, dict):
        raise RequestError(f"{place} holds a feature without a geometry")
    return {**found, **crs}
