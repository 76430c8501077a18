"""Shapefiles in a ZIP archive, unpacked within bounds."""

from __future__ import annotations

import lzma
import zlib
from pathlib import Path, PurePosixPath
from struct import error as StructError  # noqa: N812
from zipfile import BadZipFile, ZipFile, ZipInfo

from scenebeam.errors import RequestError
from scenebeam.vectors.features import LARGEST_FILE

SIDECARS = (".shx", ".dbf", ".prj", ".cpg")
"""Files of a Shapefile beside its geometries: index, attributes, CRS and encoding."""
_PIECE = 2**20
_FAULTS = (
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
"""What zipfile raises of an archive that is damaged, encrypted or packed in another way."""


def unzip_shapefile(path: Path, place: str, folder: Path) -> None:
    """Unpack the one Shapefile of an archive, as `data.shp` and its like.

    Args:
        path: The archive.
        place: What messages call it.
        folder: Where the files go.

    Raises:
        RequestError: It is not a ZIP archive, does not hold just one Shapefile, or comes to more
            than LARGEST_FILE bytes.
    """
    try:
        with ZipFile(path) as archive:
            chosen = _choose(archive.infolist(), place)
            left = LARGEST_FILE
            for suffix, member in chosen.items():
                left -= _unpack(archive, member, folder / f"data{suffix}", left, place)
    except _FAULTS as error:
        raise RequestError(f"{place} cannot be read as a zipped Shapefile: {error}") from None


def _choose(members: list[ZipInfo], place: str) -> dict[str, ZipInfo]:
    """The files of the one Shapefile, by suffix in lower case."""
    by_name = {}
    for member in members:
        inner = PurePosixPath(member.filename)
        # macOS packs a shadow of each file.
        shadow = inner.name.startswith(".") or "__MACOSX" in inner.parts
        if not shadow and not member.filename.endswith("/"):
            by_name[member.filename.lower()] = member
    shapes = [name for name in by_name if name.endswith(".shp")]
    if len(shapes) != 1:
        told = ", ".join(sorted(shapes)[:5]) or "none"
        raise RequestError(f"{place} must hold one Shapefile (*.shp): it holds {told}")
    stem = shapes[0].removesuffix(".shp")
    found = {suffix: by_name.get(stem + suffix) for suffix in (".shp", *SIDECARS)}
    return {suffix: member for suffix, member in found.items() if member is not None}


def _unpack(archive: ZipFile, member: ZipInfo, target: Path, most: int, place: str) -> int:
    """Unpack one file of at most `most` bytes. Returns its bytes."""
    size = 0
    with archive.open(member) as packed, target.open("wb") as file:
        while piece := packed.read(_PIECE):
            size += len(piece)
            if size > most:
                raise RequestError(f"{place} unpacks to more than {LARGEST_FILE:,} bytes")
            file.write(piece)
    return size
