"""Read GeoPackage, Shapefile and FlatGeobuf with GDAL (through pyogrio) as Arrow batches.

GDAL supports some seventy vector formats, and some of its drivers open URLs and other files. To
keep untrusted input from reaching those drivers, GDAL only gets files whose first bytes identify
one of these three formats, in a folder of their own, under the name that the driver expects.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa

from scenebeam.errors import RequestError
from scenebeam.extras import import_extra
from scenebeam.vectors.crs import lonlat_transformer
from scenebeam.vectors.features import BATCH, Features, build_features
from scenebeam.vectors.geoparquet import read_wkb
from scenebeam.vectors.zipped import SIDECARS, unzip_shapefile

_OpenLayer = tuple[dict[str, Any], Iterator[Any]]
"""Metadata of a layer as pyogrio reports it, and its record batches."""
_PURPOSE = "reading GeoPackage, FlatGeobuf and Shapefile"
_DRIVERS = {".gpkg": "GPKG", ".fgb": "FlatGeobuf", ".shp": "ESRI Shapefile"}
_READ_ERRORS = (
    OSError,
    ValueError,
    LookupError,
    TypeError,
    RuntimeError,
    NameError,  # a bug in pyogrio, for a CRS that is not UTF-8
    MemoryError,
    pa.ArrowException,
)
"""What pyogrio and pyarrow raise for a damaged file."""


def read_geopackage(path: Path, label: str, columns: Sequence[str] = ()) -> Iterator[Features]:
    """Read the only layer with geometries of a GeoPackage. See `read_layer`."""
    with _staged({".gpkg": path}) as folder:
        yield from read_layer(folder / "data.gpkg", label, "GeoPackage", columns)


def read_flatgeobuf(path: Path, label: str, columns: Sequence[str] = ()) -> Iterator[Features]:
    """Read FlatGeobuf, in the order of its spatial index if it has one. See `read_layer`."""
    with _staged({".fgb": path}) as folder:
        yield from read_layer(folder / "data.fgb", label, "FlatGeobuf", columns)


def read_shapefile(path: Path, label: str, columns: Sequence[str] = ()) -> Iterator[Features]:
    """Read a Shapefile and its sidecar files (.shx, .dbf, .prj, .cpg). See `read_layer`."""
    files = {".shp": path}
    for sibling in sorted(path.parent.iterdir()):
        if sibling.stem == path.stem and sibling.suffix.lower() in SIDECARS:
            files[sibling.suffix.lower()] = sibling
    with _staged(files) as folder:
        yield from read_layer(folder / "data.shp", label, "Shapefile", columns)


def read_zipped_shapefile(
    path: Path, label: str, columns: Sequence[str] = ()
) -> Iterator[Features]:
    """Read the only Shapefile of a ZIP archive. See `read_layer`."""
    with TemporaryDirectory(prefix="scenebeam-vectors-") as name:
        unzip_shapefile(path, label, Path(name))
        yield from read_layer(Path(name) / "data.shp", label, "Shapefile", columns)


def read_layer(
    path: Path, label: str, format_name: str, columns: Sequence[str] = ()
) -> Iterator[Features]:
    """Read the only layer with geometries of a file, up to 20,000 features at a time.

    Args:
        path: The file, under a name that the GDAL driver expects.
        label: Name of the file in messages.
        format_name: Name of the format in messages.
        columns: Attributes to read, in any case.

    Yields:
        Features in longitude and latitude. Ids come from a column named `id` in any case, or from
        the primary key of a GeoPackage without such a column. Curves are linearized by GDAL.

    Raises:
        RequestError: GDAL cannot read the file, its CRS is unknown, or it has no layer or several
            layers with geometries.
    """
    with _read_errors(label, format_name):
        _check_length(path)
        layers = _layers_with_geometries(path)
    if not layers:
        raise RequestError(f"{label} holds no layer with geometries")
    if len(layers) > 1:
        raise RequestError(
            f"{label} holds the layers {', '.join(layers)}: "
            "write the one to be read into a file of its own"
        )
    with _read_errors(label, format_name):
        present = _attribute_columns(path, layers[0], columns)
    opened = _open_layer(path, layers[0], present)
    with _read_errors(label, format_name):
        metadata, batches = opened.__enter__()
    try:
        crs = metadata["crs"]
        try:
            to_lonlat = None if _is_undefined(crs) else lonlat_transformer(crs)
        except RequestError as error:
            raise RequestError(f"{label}: {error}") from None
        while True:
            with _read_errors(label, format_name):
                batch = next(batches, None)
                if batch is None:
                    return
                values = _column_values(batch, metadata, format_name, columns)
                ids, names, contents, attributes = values
            geometries, faults = read_wkb(contents)
            yield build_features(ids, names, geometries, faults, to_lonlat, attributes)
    finally:
        with _read_errors(label, format_name):
            opened.__exit__(None, None, None)


@contextmanager
def _read_errors(label: str, format_name: str) -> Iterator[None]:
    """Turn the exceptions of pyogrio and pyarrow into RequestError, and silence their warnings."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except _READ_ERRORS as error:
        raise RequestError(f"{label} cannot be read as {format_name}: {str(error)[:300]}") from None


@contextmanager
def _staged(files: dict[str, Path]) -> Iterator[Path]:
    """Link files into a temporary folder as `data` plus their suffix."""
    with TemporaryDirectory(prefix="scenebeam-vectors-") as name:
        for suffix, path in files.items():
            (Path(name) / f"data{suffix}").symlink_to(path.resolve())
        yield Path(name)


def _check_length(path: Path) -> None:
    """Raise ValueError for a truncated Shapefile, for which GDAL returns empty geometries."""
    if path.suffix != ".shp":
        return
    with path.open("rb") as file:
        head, size = file.read(28), file.seek(0, 2)
    # Bytes 24 to 27: file length in 16-bit words, big endian. The header itself has 100 bytes.
    stated = 2 * int.from_bytes(head[24:28], "big")
    if size < max(stated, 100):
        raise ValueError(f"it has {size:,} bytes of the {stated:,} that its header states")


def _layers_with_geometries(path: Path) -> list[str]:
    pyogrio = import_extra("pyogrio", "vector", _PURPOSE)
    names = []
    for name, geometry_type in pyogrio.list_layers(path):
        if geometry_type is not None:
            names.append(str(name))
    return names


def _attribute_columns(path: Path, layer: str, columns: Sequence[str]) -> list[str]:
    """Return `id`, `name` and other columns of a layer, in the case that it writes them."""
    pyogrio = import_extra("pyogrio", "vector", _PURPOSE)
    info = pyogrio.read_info(path, layer=layer)
    if info["driver"] != _DRIVERS[path.suffix]:
        raise ValueError(f"GDAL identifies it as {info['driver']}")
    by_name: dict[str, str] = {}
    for column in map(str, info["fields"]):
        by_name.setdefault(column.lower(), column)
    wanted = dict.fromkeys(["id", "name", *(column.lower() for column in columns)])
    return [by_name[name] for name in wanted if name in by_name]


def _open_layer(path: Path, layer: str, columns: list[str]) -> AbstractContextManager[_OpenLayer]:
    raw = import_extra("pyogrio.raw", "vector", _PURPOSE)
    opened: AbstractContextManager[_OpenLayer] = raw.open_arrow(
        path,
        layer=layer,
        columns=columns,
        return_fids=True,
        batch_size=BATCH,
        use_pyarrow=True,
    )
    return opened


def _column_values(
    batch: Any, metadata: dict[str, Any], format_name: str, columns: Sequence[str]
) -> tuple[list[Any], list[Any], list[Any], dict[str, list[Any]]]:
    """Return the ids, names, WKB geometries and other attributes of a record batch."""
    # For a damaged file GDAL may return offsets that point outside of the buffers.
    batch.validate(full=True)
    positions: dict[str, int] = {}
    for position, column in enumerate(batch.schema.names):
        positions.setdefault(str(column).lower(), position)
    geometry = (metadata["geometry_name"] or "wkb_geometry").lower()
    id_column = "id"
    if "id" not in positions and format_name == "GeoPackage":
        # Other formats have no primary key: their fid is just the position in the file.
        id_column = (metadata["fid_column"] or "OGC_FID").lower()
    values = []
    for name in (id_column, "name", geometry, *(column.lower() for column in columns)):
        if name in positions:
            values.append(batch.column(positions[name]).to_pylist())
        else:
            values.append([None] * len(batch))
    return values[0], values[1], values[2], dict(zip(columns, values[3:], strict=True))


def _is_undefined(crs: str | None) -> bool:
    """Return whether a file declares no CRS, or one of GeoPackage's undefined ones (-1 and 0)."""
    return not crs or "undefined" in crs[:80].lower()
