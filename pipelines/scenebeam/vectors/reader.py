"""Open a vector file by path or URL, detect its format, and read it in batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from scenebeam.errors import ReadError, RequestError
from scenebeam.request import is_url
from scenebeam.transfer.ranges import local_copy
from scenebeam.transfer.retry import Budget
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

_Reader = Callable[[Path, str, Sequence[str]], Iterator[Features]]
_READERS_BY_MAGIC: tuple[tuple[bytes, _Reader], ...] = (
    (b"PAR1", read_geoparquet),
    (b"SQLite format 3\0", read_geopackage),
    (b"fgb", read_flatgeobuf),
    (b"\x00\x00\x27\x0a", read_shapefile),
    (b"PK\x03\x04", read_zipped_shapefile),
)
"""The first bytes of a file of each format."""
_READERS_BY_SUFFIX: dict[str, _Reader] = {
    ".parquet": read_geoparquet,
    ".geoparquet": read_geoparquet,
    ".gpkg": read_geopackage,
    ".fgb": read_flatgeobuf,
    ".shp": read_shapefile,
    ".zip": read_zipped_shapefile,
}
"""Used for files with unknown first bytes, so that the error message names the expected format."""


def read_features(location: str, columns: Sequence[str] = ()) -> Iterator[Features]:
    """Read a vector file, up to 20,000 features at a time.

    The format is detected from the first bytes: GeoParquet (WKB), GeoJSON (a collection, a feature
    or a geometry, or one of them per line), GeoPackage, Shapefile (with its .shx, .dbf and .prj, or
    all of them zipped) and FlatGeobuf.

    Args:
        location: A local path, or an http(s), gs or s3 URL.
        columns: Attributes to read beside `id` and `name`.

    Yields:
        Features in file order, in longitude and latitude.

    Raises:
        RequestError: The file cannot be opened, fetched or read, is too large, or its CRS is
            unknown.
    """
    with local_file(location) as path:
        yield from read_local(path, location, columns)


def read_local(path: Path, location: str, columns: Sequence[str] = ()) -> Iterator[Features]:
    """Read a file that `local_file` opened for `location`. See `read_features`."""
    reader = _detect_reader(path)
    # A fetched .shp is alone: its sidecar files stayed at the URL.
    if reader is read_shapefile and path != _local_path(location):
        raise RequestError(
            f"{redact_url(location)} is one of the files of a Shapefile: "
            "zip them to read them from a URL"
        )
    return reader(path, redact_url(location), columns)


def is_geojson(path: Path) -> bool:
    """Return whether a file would be read as GeoJSON."""
    return _detect_reader(path) is read_geojson


def local_file(location: str) -> AbstractContextManager[Path]:
    """Open a local file, or download a remote one for the lifetime of the context.

    Args:
        location: A local path, or an http(s), gs or s3 URL.

    Returns:
        A context manager that gives the path of the file.

    Raises:
        RequestError: The file cannot be opened or fetched, or is larger than LARGEST_FILE.
    """
    if is_url(location) and not location.startswith("file://"):
        return _DownloadedFile(location)
    path = _local_path(location)
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise RequestError(f"cannot read {location}: {reason}") from None
    if size > LARGEST_FILE:
        raise RequestError(f"cannot read {location}: {_too_large(size)}")
    return nullcontext(path)


class _DownloadedFile:
    """Context manager: a temporary local copy of a remote file."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._file = local_copy(url, Budget(private=True), LARGEST_FILE)

    def __enter__(self) -> Path:
        try:
            return self._file.__enter__()
        except ReadError as error:
            # ReadError messages start with the URL; say it once.
            reason = str(error).removeprefix(f"{redact_url(self._url)} ")
            raise RequestError(f"cannot read {redact_url(self._url)}: it {reason}") from None

    def __exit__(self, *exception: object) -> None:
        self._file.__exit__(None, None, None)


def _local_path(location: str) -> Path:
    return Path(location.removeprefix("file://"))


def _too_large(size: int) -> str:
    return (
        f"it has {size:,} bytes, more than the maximum of {LARGEST_FILE:,} for a vector file "
        f"({LARGEST_DOCUMENT:,} of a GeoJSON document)"
    )


def _detect_reader(path: Path) -> _Reader:
    with path.open("rb") as file:
        head = file.read(16)
    for magic, reader in _READERS_BY_MAGIC:
        if head.startswith(magic):
            return reader
    return _READERS_BY_SUFFIX.get(path.suffix.lower(), read_geojson)
