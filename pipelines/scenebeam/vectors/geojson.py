"""Read GeoJSON (RFC 7946): one document, or one per line (GeoJSONL and RFC 8142 text sequences)."""

from __future__ import annotations

import codecs
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import shapely
from pyproj import Transformer

from scenebeam.errors import RequestError
from scenebeam.request.document import parse_geojson
from scenebeam.vectors.crs import geojson_transformer
from scenebeam.vectors.features import BATCH, EMPTY, Features, build_features

LARGEST_DOCUMENT = 2**30
"""Maximum size in bytes of a single document, which is loaded whole. One feature per line has no
such limit."""
_LONGEST_LINE = 256 * 2**20
_LINE_SUFFIXES = (".geojsonl", ".geojsons", ".ndjson", ".jsonl", ".ldjson")
_RECORD_SEPARATOR = b"\x1e"
_GEOMETRY_TYPES = (
    "Point",
    "MultiPoint",
    "LineString",
    "MultiLineString",
    "Polygon",
    "MultiPolygon",
)
_OTHER_ENCODINGS = (
    *(b"\xff\xfe", b"\xfe\xff", b"\0\0\xfe\xff"),
    *(b"{\0", b"\0{", b"[\0", b"\0[", b"\0\0\0{"),
)
"""Byte order marks of UTF-16 and UTF-32, and the first bytes of a document without one."""
_SHAPE_ERRORS = (
    KeyError,
    TypeError,
    ValueError,
    AttributeError,
    IndexError,
    OverflowError,
    RecursionError,
    shapely.errors.ShapelyError,
)
"""What shapely raises for a malformed geometry."""


def read_geojson(path: Path, label: str, columns: Sequence[str] = ()) -> Iterator[Features]:
    """Read GeoJSON, up to 20,000 features at a time.

    Args:
        path: The file.
        label: Name of the file in messages.
        columns: Properties to read.

    Yields:
        Features in longitude and latitude. Each member of a geometry collection is a feature.

    Raises:
        RequestError: The file is not GeoJSON in UTF-8, or its `crs` is unknown.
    """
    document = read_document(path, label)
    if document is None:
        yield from _read_lines(path, label, columns)
        return
    to_lonlat = _transformer(document, label)
    features = features_of(document, label)
    for start in range(0, len(features), BATCH):
        yield _parse_features(features[start : start + BATCH], to_lonlat, columns)


def read_document(path: Path, label: str) -> dict[str, Any] | None:
    """Read a file that is a single GeoJSON object.

    Args:
        path: The file.
        label: Name of the file in messages.

    Returns:
        The object; None if the file has one object per line.

    Raises:
        RequestError: The file is neither, or is larger than LARGEST_DOCUMENT.
    """
    try:
        with path.open("rb") as file:
            _refuse_other_encodings(file)
            if path.suffix.lower() in _LINE_SUFFIXES or _has_object_per_line(file):
                return None
            size = file.seek(0, 2)
            if size > LARGEST_DOCUMENT:
                raise ValueError(
                    f"it has {size:,} bytes, more than the maximum of {LARGEST_DOCUMENT:,} for one "
                    "document; write it as GeoParquet, or one feature per line",
                )
            file.seek(0)
            document = _parse(file.read())
    except (OSError, ValueError) as error:
        raise RequestError(f"{label} cannot be read as GeoJSON: {error}") from None
    return document


def features_of(document: Mapping[str, Any], label: str) -> Sequence[Any]:
    """Return the members of a GeoJSON object as features; a bare geometry counts as one.

    Raises:
        RequestError: The object has no GeoJSON type, or no list of members.
    """
    kind = document.get("type")
    if kind == "FeatureCollection":
        members = document.get("features")
    elif kind == "GeometryCollection":
        members = document.get("geometries")
    elif kind == "Feature" or kind in _GEOMETRY_TYPES:
        return [document]
    else:
        raise RequestError(f"{label} cannot be read as GeoJSON: its type is {str(kind)[:80]!r}")
    if not isinstance(members, list):
        raise RequestError(f"{label} cannot be read as GeoJSON: the {kind} has no list of members")
    return members


def _refuse_other_encodings(file: BinaryIO) -> None:
    """Raise ValueError for UTF-16 and UTF-32, which RFC 7946 does not allow."""
    head = file.read(4)
    file.seek(0)
    if head.startswith(_OTHER_ENCODINGS):
        raise ValueError("it is UTF-16 or UTF-32; write it in UTF-8")


def _has_object_per_line(file: BinaryIO) -> bool:
    """Return whether the first line is a complete object, and more lines follow it."""
    first = file.readline(_LONGEST_LINE)
    if first.removeprefix(codecs.BOM_UTF8).startswith(_RECORD_SEPARATOR):
        return True
    following = b"\n"
    while following and not following.strip():
        following = file.readline(1024)
    if not following:
        return False
    try:
        _parse(first)
    except ValueError:
        return False
    return True


def _parse(content: bytes) -> dict[str, Any]:
    return parse_geojson(content.decode("utf-8-sig").strip("\x1e \t\r\n"))


def _transformer(document: Mapping[str, Any], label: str) -> Transformer | None:
    try:
        return geojson_transformer(document)
    except RequestError as error:
        raise RequestError(f"{label}: {error}") from None


def _read_lines(path: Path, label: str, columns: Sequence[str]) -> Iterator[Features]:
    first: dict[str, Any] | None = None
    to_lonlat: Transformer | None = None
    lines = _parse_lines(path, label)
    while batch := list(itertools.islice(lines, BATCH)):
        for number, document in batch:
            if first is None:
                first, to_lonlat = document, _transformer(document, label)
            # Usually only the first line declares a CRS, and it applies to all of them.
            if document.get("crs") not in (None, first.get("crs")):
                raise RequestError(f"{label} line {number}: its CRS is not the first line's")
        members: list[Any] = []
        for _, document in batch:
            members.extend(features_of(document, label))
        yield _parse_features(members, to_lonlat, columns)


def _parse_lines(path: Path, label: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the line number and the object of each line that is not blank."""
    with path.open("rb") as file:
        for number in itertools.count(1):
            line = file.readline(_LONGEST_LINE)
            if not line:
                return
            if not line.strip(codecs.BOM_UTF8 + _RECORD_SEPARATOR + b" \t\r\n"):
                continue
            try:
                document = _parse(line)
            except ValueError as error:
                raise RequestError(
                    f"{label} cannot be read as GeoJSON: line {number}: {error}"
                ) from None
            yield number, document


def _parse_features(
    members: Sequence[Any], to_lonlat: Transformer | None, columns: Sequence[str]
) -> Features:
    written = [geometry_of(member) for member in members]
    texts = [_to_text(geometry) for geometry in written]
    # GEOS parses all geometries in one call, but rejects open rings and other small faults.
    geometries = np.array(shapely.from_geojson(texts, on_invalid="ignore"), object)
    faults = [""] * len(members)
    for index in np.flatnonzero(shapely.is_missing(geometries)).tolist():
        # shapely closes the open rings, and says what is wrong with the rest.
        geometries[index], faults[index] = _to_shape(written[index])
    ids, names = [], []
    for member in members:
        feature_id, name = _id_and_name(member)
        ids.append(feature_id)
        names.append(name)
        values = {name: [_property(member, name) for member in members] for name in columns}
    return build_features(ids, names, geometries, faults, to_lonlat, values)


def geometry_of(member: Any) -> Any:
    """Return the geometry of a feature as it is written; a bare geometry is returned itself."""
    if not isinstance(member, dict):
        return None
    is_bare = "coordinates" in member or "geometries" in member
    return member.get("geometry", member if is_bare else None)


def _id_and_name(member: Any) -> tuple[Any, Any]:
    if not isinstance(member, dict):
        return None, None
    properties = member.get("properties")
    if not isinstance(properties, dict):
        properties = {}
    return member.get("id", properties.get("id")), properties.get("name")


def _property(member: Any, name: str) -> Any:
    properties = member.get("properties") if isinstance(member, dict) else None
    return properties.get(name) if isinstance(properties, dict) else None


def _to_text(geometry: Any) -> str | None:
    if geometry is None:
        return None
    try:
        return json.dumps(geometry)
    except (ValueError, RecursionError):
        return None


@np.errstate(invalid="ignore", over="ignore")
def _to_shape(geometry: Any) -> tuple[Any, str]:
    """Build a geometry with shapely. Returns it and "", or None and the fault."""
    if geometry is None or (isinstance(geometry, dict) and _is_blank(geometry)):
        return None, EMPTY
    try:
        shape = shapely.geometry.shape(geometry)
        shapely.get_coordinates(shape)
        return shape, ""
    except _SHAPE_ERRORS as error:
        return None, f"is not GeoJSON: {error}"[:200]


def _is_blank(geometry: Mapping[str, Any]) -> bool:
    known = geometry.get("type") in (*_GEOMETRY_TYPES, "GeometryCollection")
    return known and not geometry.get("coordinates") and not geometry.get("geometries")
