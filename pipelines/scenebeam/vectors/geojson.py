"""GeoJSON (RFC 7946): one document, or one a line (GeoJSONL, and RFC 8142 with its separators)."""

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
from scenebeam.vectors.features import BATCH, EMPTY, Features, locate_features

LARGEST_DOCUMENT = 2**30
"""Bytes of a document, which is in memory as a whole; features a line have no such limit."""
_LONGEST_LINE = 256 * 2**20
_LINES = (".geojsonl", ".geojsons", ".ndjson", ".jsonl", ".ldjson")
_SEPARATOR = b"\x1e"
_FORMS = ("Point", "MultiPoint", "LineString", "MultiLineString", "Polygon", "MultiPolygon")
_OTHER_ENCODINGS = (
    *(b"\xff\xfe", b"\xfe\xff", b"\0\0\xfe\xff"),
    *(b"{\0", b"\0{", b"[\0", b"\0[", b"\0\0\0{"),
)
"""Byte order marks of UTF-16 and UTF-32, and how an object begins without one."""
_SHAPE_FAULTS = (
    KeyError,
    TypeError,
    ValueError,
    AttributeError,
    IndexError,
    OverflowError,
    RecursionError,
    shapely.errors.ShapelyError,
)
"""What shapely raises of a geometry that is none."""


def read_geojson(path: Path, place: str) -> Iterator[Features]:
    """Read GeoJSON, up to 20,000 features at a time.

    Args:
        path: The file.
        place: What messages call it.

    Yields:
        Features in longitude and latitude. The members of a geometry collection are features.

    Raises:
        RequestError: It is not GeoJSON in UTF-8, or its `crs` is not known.
    """
    document = read_document(path, place)
    if document is None:
        yield from _read_lines(path, place)
        return
    to_lonlat = _transformer(document, place)
    features = features_of(document, place)
    for start in range(0, len(features), BATCH):
        yield _features(features[start : start + BATCH], to_lonlat)


def read_document(path: Path, place: str) -> dict[str, Any] | None:
    """Read a file that is one GeoJSON object; None where each line of it is one.

    Raises:
        RequestError: It is neither.
    """
    try:
        with path.open("rb") as file:
            _refuse_other_encodings(file)
            if path.suffix.lower() in _LINES or _is_lines(file):
                return None
            size = file.seek(0, 2)
            if size > LARGEST_DOCUMENT:
                raise ValueError(
                    f"it has {size:,} bytes, more than the {LARGEST_DOCUMENT:,} of one document; "
                    "write it as GeoParquet, or one feature a line",
                )
            file.seek(0)
            document = _parse(file.read())
    except (OSError, ValueError) as error:
        raise RequestError(f"{place} cannot be read as GeoJSON: {error}") from None
    return document


def features_of(document: Mapping[str, Any], place: str) -> Sequence[Any]:
    """The features of a GeoJSON object: geometries stand for themselves.

    Raises:
        RequestError: It is of a type that GeoJSON has not.
    """
    kind = document.get("type")
    if kind == "FeatureCollection":
        found = document.get("features")
    elif kind == "GeometryCollection":
        found = document.get("geometries")
    elif kind == "Feature" or kind in _FORMS:
        return [document]
    else:
        raise RequestError(f"{place} cannot be read as GeoJSON: its type is {str(kind)[:80]!r}")
    if not isinstance(found, list):
        raise RequestError(f"{place} cannot be read as GeoJSON: the {kind} has no list of members")
    return found


def _refuse_other_encodings(file: BinaryIO) -> None:
    """Raise ValueError where a file is in an encoding that GeoJSON may not have."""
    head = file.read(4)
    file.seek(0)
    if head.startswith(_OTHER_ENCODINGS):
        raise ValueError("it is UTF-16 or UTF-32; write it in UTF-8")


def _is_lines(file: BinaryIO) -> bool:
    """Whether the first line is a whole object, and others follow."""
    first = file.readline(_LONGEST_LINE)
    if first.removeprefix(codecs.BOM_UTF8).startswith(_SEPARATOR):
        return True
    rest = b"\n"
    while rest and not rest.strip():
        rest = file.readline(1024)
    if not rest:
        return False
    try:
        _parse(first)
    except ValueError:
        return False
    return True


def _parse(content: bytes) -> dict[str, Any]:
    return parse_geojson(content.decode("utf-8-sig").strip("\x1e \t\r\n"))


def _transformer(document: Mapping[str, Any], place: str) -> Transformer | None:
    try:
        return geojson_transformer(document)
    except RequestError as error:
        raise RequestError(f"{place}: {error}") from None


def _read_lines(path: Path, place: str) -> Iterator[Features]:
    first: Any = None
    to_lonlat: Transformer | None = None
    lines = _parse_lines(path, place)
    while some := list(itertools.islice(lines, BATCH)):
        for number, one in some:
            if first is None:
                first, to_lonlat = one, _transformer(one, place)
            if one.get("crs") not in (None, first.get("crs")):
                raise RequestError(f"{place} line {number}: its CRS is not the first line's")
        features = itertools.chain.from_iterable(features_of(one, place) for _, one in some)
        yield _features(list(features), to_lonlat)


def _parse_lines(path: Path, place: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """The number and the object of each line that is not blank."""
    with path.open("rb") as file:
        for number in itertools.count(1):
            line = file.readline(_LONGEST_LINE)
            if not line:
                return
            if not line.strip(codecs.BOM_UTF8 + _SEPARATOR + b" \t\r\n"):
                continue
            try:
                found = _parse(line)
            except ValueError as error:
                told = f"line {number}: {error}"
                raise RequestError(f"{place} cannot be read as GeoJSON: {told}") from None
            yield number, found


def _features(members: Sequence[Any], to_lonlat: Transformer | None) -> Features:
    geometries = [geometry_of(one) for one in members]
    texts = [_to_text(one) for one in geometries]
    found = np.array(shapely.from_geojson(texts, on_invalid="ignore"), object)
    faults = [""] * len(members)
    for index in np.flatnonzero(shapely.is_missing(found)).tolist():
        # GEOS is strict: shapely closes a ring that is open, and says what is wrong with the rest.
        found[index], faults[index] = _to_shape(geometries[index])
    described = list(map(_describe, members))
    ids, names = [one for one, _ in described], [name for _, name in described]
    return locate_features(ids, names, found, faults, to_lonlat)


def geometry_of(member: Any) -> Any:
    """The geometry of a feature, as it is written; a bare geometry is its own."""
    if not isinstance(member, dict):
        return None
    bare = "coordinates" in member or "geometries" in member
    return member.get("geometry", member if bare else None)


def _describe(member: Any) -> tuple[Any, Any]:
    """Id and name of a feature."""
    if not isinstance(member, dict):
        return None, None
    properties = member.get("properties")
    if not isinstance(properties, dict):
        properties = {}
    return member.get("id", properties.get("id")), properties.get("name")


def _to_text(geometry: Any) -> str | None:
    if geometry is None:
        return None
    try:
        return json.dumps(geometry)
    except (ValueError, RecursionError):
        return None


@np.errstate(invalid="ignore", over="ignore")
def _to_shape(geometry: Any) -> tuple[Any, str]:
    """A geometry as shapely reads it, or None and why."""
    if geometry is None or (isinstance(geometry, dict) and _is_blank(geometry)):
        return None, EMPTY
    try:
        found = shapely.geometry.shape(geometry)
        shapely.get_coordinates(found)
        return found, ""
    except _SHAPE_FAULTS as error:
        return None, f"is not GeoJSON: {error}"[:200]


def _is_blank(geometry: Mapping[str, Any]) -> bool:
    known = geometry.get("type") in (*_FORMS, "GeometryCollection")
    return known and not geometry.get("coordinates") and not geometry.get("geometries")
