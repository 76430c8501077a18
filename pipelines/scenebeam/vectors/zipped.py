"""Unpack zipped Shapefiles, with a limit on the unpacked size."""

from __future__ import annotations

import lzma
import zlib
from pathlib import Path, PurePosixPath
from struct import error as StructError  # noqa: N812
from zipfile import BadZipFile, ZipFile, ZipInfo

from scenebeam.errors import RequestError
from scenebeam.vectors.features import LARGEST_FILE

SIDECARS = (".shx", ".dbf", ".prj", ".cpg")
"""Files of a Shapefile besides its geometries: index, attributes, CRS and text encoding."""
_READ_SIZE = 2**20
_ZIP_ERRORS = (
    BadZipFile,
    NotImplementedError,
    RuntimeError,
    EOFError,
    OSError,
    ValueError,
    LookupError,
    StructError,
    zlib.error,
    lzma.LZMAError,
)
"""What zipfile raises for archives that are damaged, encrypted or use another compression."""


def unzip_shapefile(path: Path, label: str, folder: Path) -> None:
    """Unpack the only Shapefile of an archive as `data.shp`, `data.shx` and so on.

    Args:
        path: The archive.
        label: Name of the archive in messages.
        folder: Folder for the unpacked files.

    Raises:
        RequestError: The file is not a ZIP archive, does not contain exactly one Shapefile, or
            unpacks to more than LARGEST_FILE bytes.
    """
    try:
        with ZipFile(path) as archive:
            members = _shapefile_members(archive.infolist(), label)
            budget = LARGEST_FILE
            for suffix, member in members.items():
                budget -= _unpack(archive, member, folder / f"data{suffix}", budget, label)
    except _ZIP_ERRORS as error:
        raise RequestError(f"{label} cannot be read as a zipped Shapefile: {error}") from None


def _shapefile_members(members: list[ZipInfo], label: str) -> dict[str, ZipInfo]:
    """Find the files of the only Shapefile, by suffix in lower case."""
    by_name = {}
    for member in members:
        inner = PurePosixPath(member.filename)
        # macOS adds a metadata file for each file: `__MACOSX/._fields.shp`.
        is_metadata = inner.name.startswith(".") or "__MACOSX" in inner.parts
        if not is_metadata and not member.filename.endswith("/"):
            by_name[member.filename.lower()] = member
    shapes = [name for name in by_name if name.endswith(".shp")]
    if len(shapes) != 1:
        listing = ", ".join(sorted(shapes)[:5]) or "none"
        raise RequestError(
            f"{label} must hold one Shapefile (*.shp), but the archive contains {listing}"
        )
    stem = shapes[0].removesuffix(".shp")
    found = {}
    for suffix in (".shp", *SIDECARS):
        if stem + suffix in by_name:
            found[suffix] = by_name[stem + suffix]
    return found


def _unpack(archive: ZipFile, member: ZipInfo, target: Path, budget: int, label: str) -> int:
    """Unpack one file of at most `budget` bytes. Returns its size in bytes."""
    # Count while unpacking: the size in the archive's directory may be wrong.
    size = 0
    with archive.open(member) as packed, target.open("wb") as file:
        while content := packed.read(_READ_SIZE):
            size += len(content)
            if size > budget:
                raise RequestError(f"{label} unpacks to more than {LARGEST_FILE:,} bytes")
            file.write(content)
    return size
