"""The area of a request, read from a vector file."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import shapely

from scenebeam.errors import RequestError
from scenebeam.transfer.signing import redact_url
from scenebeam.vectors.features import EMPTY, Features
from scenebeam.vectors.geojson import features_of, geometry_of, read_document
from scenebeam.vectors.polygons import NOT_SPLIT, OUTSIDE, check_polygons, extents
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
        One GeoJSON geometry. That of a GeoJSON file is as the file has it, with its `crs` member,
        where `area_geometry` can use it so: the fingerprint of a request follows it. All others are
        in degrees of longitude and latitude. Warnings name the features that are left out, and
        those that are made valid.

    Raises:
        RequestError: The file cannot be read, holds no polygon, or lies outside of the Earth.
    """
    called = redact_url(place)
    with local_file(place) as path:
        found = _read(path, called)
        if not found.polygons:
            raise RequestError(f"{called} holds no polygon: {name_few(found.faults)}")
        if found.faults:
            log.warning("area.geojson: %s: left out: %s", called, name_few(found.faults))
        if found.mended:
            log.warning("area.geojson: %s: made valid: %s", called, name_few(found.mended))
        if found.as_written and is_geojson(path):
            document = read_document(path, called)
            if document is not None:
                return _as_written(document, called)
    drawn = shapely.geometry.mapping(shapely.GeometryCollection(found.polygons))
    plain: dict[str, Any] = json.loads(json.dumps(drawn))  # lists instead of tuples
    return plain


def name_few(faults: Sequence[str]) -> str:
    """The first few of some faults, and how many more there are."""
    more = f"; and {len(faults) - _SHOWN} more" if len(faults) > _SHOWN else ""
    return "; ".join(faults[:_SHOWN]) + more if faults else "it has no features"


@dataclass
class _Found:
    """What a file holds."""

    polygons: list[Any] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    mended: list[str] = field(default_factory=list)
    as_written: bool = True
    """Whether the geometry of a GeoJSON file can stay as it is."""


def _read(path: Path, place: str) -> _Found:
    found, number = _Found(), 0
    for features in read_local(path, place):
        checked = check_polygons(features, _ROUND)
        for name, fault, why in zip(features.ids, checked.faults, checked.mended, strict=True):
            number += 1
            called = f"feature {number}" + ("" if name is None else f" (id {name})")
            if fault == OUTSIDE:
                told = f"{fault}, not in meters; is its CRS the one declared?"
                raise RequestError(f"{place}: {called} {told}")
            if fault:
                found.faults.append(f"{called} {fault}")
            if why:
                found.mended.append(f"{called}: {why}")
        found.polygons.extend(one for one in checked.polygons if one is not None)
        split = not any(fault.startswith(NOT_SPLIT) for fault in checked.faults)
        found.as_written = found.as_written and split and _is_plain(features)
    return found


def _is_plain(features: Features) -> bool:
    """Whether each geometry could be read, and none runs on beyond the antimeridian."""
    west, _, east, _ = extents(features.geometries)
    beyond = (west < -180) | (east > 180)
    return not np.any(beyond) and all(fault in ("", EMPTY) for fault in features.faults)


def _as_written(document: dict[str, Any], place: str) -> dict[str, Any]:
    """The geometries of a GeoJSON document as one, with the CRS that it names, if any."""
    crs = {"crs": document["crs"]} if document.get("crs") is not None else {}
    if document.get("type") == "FeatureCollection":
        geometries = [geometry_of(one) for one in features_of(document, place)]
        drawn = [one for one in geometries if one]
        return {"type": "GeometryCollection", "geometries": drawn, **crs}
    found = document.get("geometry") if document.get("type") == "Feature" else document
    if not isinstance(found, dict):
        raise RequestError(f"{place} holds a feature without a geometry")
    return {**found, **crs}
