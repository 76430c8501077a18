"""The one way into a vector file: from its address to batches of features."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from scenebeam.errors import ReadError, RequestError
from scenebeam.request import is_url
from scenebeam.transfer.ranges import Budget, local_copy
from scenebeam.transfer.signing import redact_url
from scenebeam.vectors.features import LARGEST_FILE, Features
from scenebeam.vectors.geojson import LARGEST_DOCUMENT, read_geojson
from scenebeam.vectors.geoparquet import read_geoparquet
from scenebeam.vectors.ogr import (
    read_flatgeobuf,
    read_geopackage,
    read_shapefile,
    read_zipped_shapefile,
)

_Reader = Callable[[Path, str], Iterator[Features]]
_BY_CONTENT: tuple[tuple[bytes, _Reader], ...] = (
    (b"PAR1", read_geoparquet),
    (b"SQLite format 3\0", read_geopackage),
    (b"fgb", read_flatgeobuf),
    (b"\x00\x00\x27\x0a", read_shapefile),
    (b"PK\x03\x04", read_zipped_shapefile),
)
"""What a file of each format begins with."""
_BY_NAME: dict[str, _Reader] = {
    ".parquet": read_geoparquet,
    ".geoparquet": read_geoparquet,
    ".gpkg": read_geopackage,
    ".fgb": read_flatgeobuf,
    ".shp": read_shapefile,
    ".zip": read_zipped_shapefile,
}
"""Who says what is wrong with a file that begins with nothing known."""


def read_features(place: str) -> Iterator[Features]:
    """Read a vector file, up to 20,000 features at a time.

    The format is told by the first bytes: GeoParquet (WKB), GeoJSON (a collection, a feature, a
    geometry, or one of them a line), GeoPackage, Shapefile (beside its .shx, .dbf and .prj, or all
    of them zipped) and FlatGeobuf.

    Args:
        place: A path on this machine, or an address: http(s), gs or s3.

    Yields:
        Features in the order of the file, in longitude and latitude.

    Raises:
        RequestError: The file cannot be had or read, is too large, or its CRS is not known.
    """
    with local_file(place) as path:
        yield from read_local(path, place)


def read_local(path: Path, place: str) -> Iterator[Features]:
    """As `read_features`, of a file that `local_file` has opened for a place."""
    reader = _reader_of(path)
    if reader is read_shapefile and path != _local_path(place):
        told = "is one of the files of a Shapefile: zip them, to read them from an address"
        raise RequestError(f"{redact_url(place)} {told}")
    return reader(path, redact_url(place))


def is_geojson(path: Path) -> bool:
    """Whether a file would be read as GeoJSON."""
    return _reader_of(path) is read_geojson


def local_file(place: str) -> AbstractContextManager[Path]:
    """Open a file of this machine, or fetch one for as long as the context lasts.

    Raises:
        RequestError: It cannot be had, or is larger than LARGEST_FILE.
    """
    if is_url(place) and not place.startswith("file://"):
        return _Fetched(place)
    path = _local_path(place)
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise RequestError(f"cannot read {place}: {why}") from None
    if size > LARGEST_FILE:
        raise RequestError(f"cannot read {place}: {_too_large(size)}")
    return nullcontext(path)


class _Fetched:
    """A file of the network, as a file of this machine."""

    def __init__(self, place: str) -> None:
        self._place = place
        self._file = local_copy(place, Budget(private=True), LARGEST_FILE)

    def __enter__(self) -> Path:
        try:
            return self._file.__enter__()
        except ReadError as error:
            told = str(error).removeprefix(f"{redact_url(self._place)} ")
            raise RequestError(f"cannot read {redact_url(self._place)}: it {told}") from None

    def __exit__(self, *fault: object) -> None:
        self._file.__exit__(None, None, None)


def _local_path(place: str) -> Path:
    return Path(place.removeprefix("file://"))


def _too_large(size: int) -> str:
    return (
        f"it has {size:,} bytes, more than the {LARGEST_FILE:,} of a vector file "
        f"({LARGEST_DOCUMENT:,} of a GeoJSON document)"
    )


def _reader_of(path: Path) -> _Reader:
    with path.open("rb") as file:
        head = file.read(16)
    for magic, reader in _BY_CONTENT:
        if head.startswith(magic):
            return reader
    return _BY_NAME.get(path.suffix.lower(), read_geojson)
