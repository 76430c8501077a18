"""Read the area of a request from a vector file."""

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

_MAX_NAMED = 3
"""Maximum number of features that a message names."""
_FULL_CIRCLE = 360.0


def read_area(location: str) -> dict[str, Any]:
    """Read the polygons of a vector file as the area of a request.

    Logs a warning for features that are left out, and for polygons that are made valid.

    Args:
        location: A local path or a URL.

    Returns:
        One GeoJSON geometry. For GeoJSON files it is unchanged, including its `crs` member, if
        `area_geometry` can use it that way, because the fingerprint of a request depends on it.
        All others are in degrees of longitude and latitude.

    Raises:
        RequestError: The file cannot be read, contains no polygon, or has coordinates outside of
            the Earth.
    """
    label = redact_url(location)
    with local_file(location) as path:
        content = _read(path, label)
        if not content.polygons:
            raise RequestError(f"{label} holds no polygon: {_name_first(content.faults)}")
        if content.faults:
            log.warning("area.geojson: %s: left out: %s", label, _name_first(content.faults))
        if content.repairs:
            log.warning("area.geojson: %s: made valid: %s", label, _name_first(content.repairs))
        if content.usable_as_written and is_geojson(path):
            document = read_document(path, label)
            if document is not None:
                return _merged_geometry(document, label)
    merged = shapely.geometry.mapping(shapely.GeometryCollection(content.polygons))
    # A round trip through JSON turns the tuples of `mapping` into lists.
    geometry: dict[str, Any] = json.loads(json.dumps(merged))
    return geometry


def _name_first(messages: Sequence[str]) -> str:
    """Join the first few messages, and say how many follow."""
    if not messages:
        return "it has no features"
    omitted = len(messages) - _MAX_NAMED
    suffix = f"; and {omitted} more" if omitted > 0 else ""
    return "; ".join(messages[:_MAX_NAMED]) + suffix


@dataclass
class _AreaContent:
    """The polygons of a file, and messages about its features."""

    polygons: list[Any] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    repairs: list[str] = field(default_factory=list)
    usable_as_written: bool = True
    """Whether the geometries of a GeoJSON file can be used unchanged."""


def _read(path: Path, label: str) -> _AreaContent:
    content, number = _AreaContent(), 0
    for features in read_local(path, label):
        checked = check_polygons(features, _FULL_CIRCLE)
        for name, fault, repair in zip(features.ids, checked.faults, checked.repairs, strict=True):
            number += 1
            feature = f"feature {number}" + ("" if name is None else f" (id {name})")
            if fault == OUTSIDE:
                # Skipping such features would hide that the CRS of the whole file is wrong.
                raise RequestError(
                    f"{label}: {feature} {fault}, not in meters; is its CRS the one declared?"
                )
            if fault:
                content.faults.append(f"{feature} {fault}")
            if repair:
                content.repairs.append(f"{feature}: {repair}")
        content.polygons.extend(polygon for polygon in checked.polygons if polygon is not None)
        split_failed = any(fault.startswith(NOT_SPLIT) for fault in checked.faults)
        content.usable_as_written = (
            content.usable_as_written and not split_failed and _is_plain(features)
        )
    return content


def _is_plain(features: Features) -> bool:
    """Return whether all geometries could be read, and none extends beyond the antimeridian."""
    west, _, east, _ = extents(features.geometries)
    beyond = (west < -180) | (east > 180)
    return not np.any(beyond) and all(fault in ("", EMPTY) for fault in features.faults)


def _merged_geometry(document: dict[str, Any], label: str) -> dict[str, Any]:
    """Return the geometries of a GeoJSON document as one, with its `crs` member if it has one."""
    crs = {"crs": document["crs"]} if document.get("crs") is not None else {}
    if document.get("type") == "FeatureCollection":
        geometries = []
        for feature in features_of(document, label):
            geometry = geometry_of(feature)
            if geometry:
                geometries.append(geometry)
        return {"type": "GeometryCollection", "geometries": geometries, **crs}
    geometry = document.get("geometry") if document.get("type") == "Feature" else document
    if not isinstance(geometry, dict):
        raise RequestError(f"{label} holds a feature without a geometry")
    return {**geometry, **crs}
