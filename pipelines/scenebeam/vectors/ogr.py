"""GeoPackage, Shapefile and FlatGeobuf, read by GDAL (through pyogrio) as Arrow batches.

GDAL knows some seventy vector formats, and some of them open addresses and other files. So it is
given files of these three alone: their first bytes have been looked at, and they lie in a folder of
their own, under the name that their driver expects.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import pyarrow as pa

from scenebeam.errors import RequestError
from scenebeam.vectors.crs import lonlat_transformer
from scenebeam.vectors.features import BATCH, Features, locate_features
from scenebeam.vectors.geoparquet import read_wkb
from scenebeam.vectors.zipped import SIDECARS, unzip_shapefile

T = TypeVar("T")
_Opened = tuple[dict[str, Any], Iterator[Any]]
"""What pyogrio tells of a layer, and its batches."""
_FAULTS = (
    OSError,
    ValueError,
    LookupError,
    TypeError,
    RuntimeError,
    NameError,  # pyogrio's own, of a CRS that is not UTF-8
    MemoryError,
    pa.ArrowException,
)
"""What pyogrio and pyarrow raise of a file that is damaged."""


def read_geopackage(path: Path, place: str) -> Iterator[Features]:
    """Read the one layer of a GeoPackage that has geometries. As `read_layer`."""
    with _staged({".gpkg": path}) as folder:
        yield from read_layer(folder / "data.gpkg", place, "GeoPackage")


def read_flatgeobuf(path: Path, place: str) -> Iterator[Features]:
    """Read FlatGeobuf. As `read_layer`; where it has a spatial index, in the order of that."""
    with _staged({".fgb": path}) as folder:
        yield from read_layer(folder / "data.fgb", place, "FlatGeobuf")


def read_shapefile(path: Path, place: str) -> Iterator[Features]:
    """Read a Shapefile with the files beside it. As `read_layer`."""
    files = {".shp": path}
    for one in sorted(path.parent.iterdir()):
        if one.stem == path.stem and one.suffix.lower() in SIDECARS:
            files[one.suffix.lower()] = one
    with _staged(files) as folder:
        yield from read_layer(folder / "data.shp", place, "Shapefile")


def read_zipped_shapefile(path: Path, place: str) -> Iterator[Features]:
    """Read the one Shapefile of a ZIP archive. As `read_layer`."""
    with TemporaryDirectory(prefix="scenebeam-vectors-") as name:
        unzip_shapefile(path, place, Path(name))
        yield from read_layer(Path(name) / "data.shp", place, "Shapefile")


def read_layer(path: Path, place: str, form: str) -> Iterator[Features]:
    """Read the one layer of a file that has geometries, up to 20,000 features at a time.

    Args:
        path: The file, under a name that its driver expects.
        place: What messages call it.
        form: The name of its format.

    Yields:
        Features in longitude and latitude. The id is a column of that name, in any case; of a
        GeoPackage without one the primary key. Curves come as GDAL approximates them.

    Raises:
        RequestError: GDAL cannot read it, its CRS is not known, or it has several layers.
    """

    def attempt(call: Callable[[], T]) -> T:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # what GDAL warns of a file is none of ours
                return call()
        except _FAULTS as error:
            raise RequestError(f"{place} cannot be read as {form}: {str(error)[:300]}") from None

    attempt(lambda: _check_length(path))
    layer, columns = attempt(lambda: _describe(path))
    if not isinstance(layer, str):
        told = f"holds the layers {', '.join(layer)}" if layer else "holds no layer with geometries"
        raise RequestError(f"{place} {told}: write the one to be read into a file of its own")
    opened = _open(path, layer, columns)
    facts, batches = attempt(opened.__enter__)
    try:
        crs = facts["crs"]
        try:
            to_lonlat = None if _is_undefined(crs) else lonlat_transformer(crs)
        except RequestError as error:
            raise RequestError(f"{place}: {error}") from None
        while (batch := attempt(lambda: next(batches, None))) is not None:
            ids, names, contents = attempt(partial(_columns, batch, facts, form))
            geometries, faults = read_wkb(contents)
            yield locate_features(ids, names, geometries, faults, to_lonlat)
    finally:
        attempt(lambda: opened.__exit__(None, None, None))


@contextmanager
def _staged(files: dict[str, Path]) -> Iterator[Path]:
    """A folder in which files are called `data`, by their suffix."""
    with TemporaryDirectory(prefix="scenebeam-vectors-") as name:
        for suffix, path in files.items():
            (Path(name) / f"data{suffix}").symlink_to(path.resolve())
        yield Path(name)


def _check_length(path: Path) -> None:
    """Raise ValueError where a Shapefile is cut short: GDAL has empty geometries for the rest."""
    if path.suffix != ".shp":
        return
    with path.open("rb") as file:
        head, size = file.read(28), file.seek(0, 2)
    stated = 2 * int.from_bytes(head[24:28], "big")
    if size < max(stated, 100):
        raise ValueError(f"it has {size:,} bytes of the {stated:,} that its header states")


def _describe(path: Path) -> tuple[str | list[str], list[str]]:
    """The name of the layer with geometries, and its columns; all names where there is not one."""
    import pyogrio

    drivers = {".gpkg": "GPKG", ".fgb": "FlatGeobuf", ".shp": "ESRI Shapefile"}
    layers = [str(name) for name, kind in pyogrio.list_layers(path) if kind is not None]
    if len(layers) != 1:
        return layers, []
    facts = pyogrio.read_info(path, layer=layers[0])
    if facts["driver"] != drivers[path.suffix]:
        raise ValueError(f"GDAL takes it for {facts['driver']}")
    wanted: dict[str, str] = {}
    for column in map(str, facts["fields"]):
        wanted.setdefault(column.lower(), column)
    return layers[0], [wanted[name] for name in ("id", "name") if name in wanted]


def _open(path: Path, layer: str, columns: list[str]) -> AbstractContextManager[_Opened]:
    from pyogrio.raw import open_arrow

    found: AbstractContextManager[_Opened] = open_arrow(
        path,
        layer=layer,
        columns=columns,
        return_fids=True,
        batch_size=BATCH,
        use_pyarrow=True,
    )
    return found


def _columns(
    batch: Any,
    facts: dict[str, Any],
    form: str,
) -> tuple[list[Any], list[Any], list[Any]]:
    """Ids, names and geometries (WKB) of a batch."""
    batch.validate(full=True)  # of a damaged file GDAL may give offsets that lead out of memory
    by_name: dict[str, int] = {}
    for number, column in enumerate(batch.schema.names):
        by_name.setdefault(str(column).lower(), number)
    geometry = (facts["geometry_name"] or "wkb_geometry").lower()
    key = (facts["fid_column"] or "OGC_FID").lower() if form == "GeoPackage" else None
    found = []
    for name in ("id", "name", geometry):
        at = by_name.get(name)
        if at is None and name == "id" and key is not None:
            at = by_name.get(key)
        found.append([None] * len(batch) if at is None else batch.column(at).to_pylist())
    return found[0], found[1], found[2]


def _is_undefined(crs: str | None) -> bool:
    """Whether a file says that it has no CRS: GeoPackage's -1 and 0 are such."""
    return not crs or "undefined" in crs[:80].lower()
