"""Virtual cubes: the COGs of a run as a Zarr store of references in Icechunk. No pixel is copied.

A chunk of the store is a block of a COG: a range of bytes of its file. The references know when
the file was written, and refuse to read one that has been replaced since.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from scenebeam.cubes.outputs import read_images
from scenebeam.cubes.tiff_codecs import FLOATING_POINT, HORIZONTAL
from scenebeam.errors import RequestError, StorageError
from scenebeam.extras import import_extra
from scenebeam.imaging.cube_layout import array_path
from scenebeam.imaging.writers.geozarr import level_attributes
from scenebeam.imaging.writers.icechunk import BRANCH, open_folder, write_documents
from scenebeam.imaging.writers.zarr_format import (
    METADATA,
    array_document,
    group_document,
    json_file,
)
from scenebeam.imaging.writers.zarr_store import CubeStore, StoredImage, band_attributes
from scenebeam.raster.codecs import PREDICTOR_FLOAT, PREDICTOR_HORIZONTAL, PREDICTOR_NONE
from scenebeam.raster.layout import TiffLayout
from scenebeam.raster.tiff import read_layout
from scenebeam.storage import Store, open_store
from scenebeam.tasks import CubeBand
from scenebeam.transfer.pools import io_threads
from scenebeam.transfer.rangefile import RangeFile
from scenebeam.transfer.retry import Budget

VIRTUAL = "virtual.icechunk"
"""Folder of the repository in the output."""


@dataclass(frozen=True)
class VirtualCube:
    """What was written."""

    repository: str
    snapshot: str
    times: int
    bands: Sequence[str]
    references: int


def write_virtual(output: str) -> VirtualCube:
    """Write references to the COGs of an output, as a repository in the output.

    Args:
        output: A folder or `gs://` prefix of mosaics, composites, indices or stacks on one grid.

    Returns:
        What was written.

    Raises:
        RequestError: The images are not on one grid, or a file cannot be referred to; the message
            says why.
        StorageError: The repository cannot be written.
        MissingExtraError: icechunk is not installed.
    """
    icechunk = import_extra("icechunk", "icechunk", "scenebeam virtual")
    sync = import_extra("zarr.core.sync", "icechunk", "scenebeam virtual").sync
    store = open_store(output)
    found = read_images(store.uri)
    stored = []
    for index, image in enumerate(found.images):
        bands = [one.band for one in image.bands.values()]
        stored.append(StoredImage(index, image.id, image.when, bands, image.properties))
    cube = CubeStore(found.grid, (0, 0), stored)
    files = [
        (index, name, one.file.href, one.file.index)
        for index, image in enumerate(found.images)
        for name, one in image.bands.items()
    ]
    layouts = list(io_threads().map(lambda file: _layout(file[2]), files))
    by_band: dict[str, list[tuple[int, int, TiffLayout]]] = {}
    for (index, name, _, band), layout in zip(files, layouts, strict=True):
        by_band.setdefault(name, []).append((index, band, layout))
    documents = _documents(cube, by_band)
    prefix = _url(f"{store.uri.rstrip('/')}/")
    config = icechunk.RepositoryConfig.default()
    config.set_virtual_chunk_container(_container(icechunk, prefix))
    try:
        repository = icechunk.Repository.open_or_create(
            open_folder(store.uri, VIRTUAL),
            config=config,
            authorize_virtual_chunk_access=credentials([prefix]),
        )
        repository.save_config()
        session = repository.writable_session(BRANCH)
        sync(write_documents(session.store, documents))
        count = 0
        for name, members in by_band.items():
            references = _references(icechunk, members, store)
            refused = session.store.set_virtual_refs(
                array_path(0, name), references, validate_containers=True
            )
            if refused:
                raise StorageError(f"{name}: {len(refused)} blocks are in no known place")
            count += len(references)
        message = f"{len(stored)} times of {len(by_band)} bands, by reference"
        snapshot = session.commit(message)
    except icechunk.IcechunkError as error:
        raise StorageError(f"{store.uri_for(VIRTUAL)} cannot be written: {error}") from error
    return VirtualCube(store.uri_for(VIRTUAL), str(snapshot), len(stored), list(by_band), count)


def open_virtual(output: str) -> Any:
    """Open the virtual cube of an output, as a Zarr store for `xarray.open_zarr(…, group="0")`.

    Args:
        output: The output.
    """
    icechunk = import_extra("icechunk", "icechunk", "a virtual cube")
    storage = open_folder(open_store(output).uri, VIRTUAL)
    config = icechunk.Repository.fetch_config(storage)
    known = list(config.virtual_chunk_containers or ()) if config is not None else []
    repository = icechunk.Repository.open(
        storage, authorize_virtual_chunk_access=credentials(known)
    )
    return repository.readonly_session(BRANCH).store


def credentials(prefixes: Sequence[str]) -> Any:
    """Return the credentials for reading the files that references point to."""
    icechunk = import_extra("icechunk", "icechunk", "a virtual cube")
    allowed: dict[str, Any] = {}
    for prefix in prefixes:
        is_bucket = prefix.startswith("gs://")
        allowed[prefix] = icechunk.gcs_credentials(from_env=True) if is_bucket else None
    return icechunk.containers_credentials(allowed)


def _layout(href: str) -> TiffLayout:
    layout = read_layout(RangeFile(href, Budget(private=True)))
    if layout is None:
        raise RequestError(f"{href} has a mask or a form that references cannot express")
    if layout.strips or (layout.interleaved and layout.count > 1):
        raise RequestError(f"{href} has strips or interleaved bands, which are no chunks")
    if layout.codec not in ("none", "deflate", "zstd"):
        raise RequestError(f"{href} is compressed by {layout.codec}, which Zarr does not know")
    return layout


def _documents(
    cube: CubeStore, by_band: Mapping[str, Sequence[tuple[int, int, TiffLayout]]]
) -> dict[str, bytes]:
    documents: dict[str, bytes] = {}
    for path, file in cube.coordinate_files(0).items():
        documents[path] = file.to_bytes()
    bands = {band.name: band for band in cube.bands}
    others = cube.other_coordinates(0)
    for name, members in by_band.items():
        layouts = [layout for _, _, layout in members]
        document = _array(cube, bands[name], layouts, others)
        documents[f"{array_path(0, name)}/{METADATA}"] = json_file(document).to_bytes()
    group = group_document(level_attributes(cube.grid))
    documents[f"0/{METADATA}"] = json_file(group).to_bytes()
    documents[METADATA] = json_file(group_document({})).to_bytes()
    return documents


def _array(
    cube: CubeStore, band: CubeBand, layouts: Sequence[TiffLayout], coordinates: Sequence[str]
) -> dict[str, Any]:
    forms = {
        (one.dtype.str, one.block, one.codec, one.predictor, (one.height, one.width))
        for one in layouts
    }
    if len(forms) > 1:
        raise RequestError(
            f"{band.name}: its files differ in dtype, blocks or compression between times, and an "
            "array has one of each"
        )
    first = layouts[0]
    return array_document(
        (cube.length, first.height, first.width),
        (1, *first.block),
        band.dtype,
        band.fill,
        ("time", "y", "x"),
        band_attributes(band, coordinates),
        _codecs(first),
    )


def _codecs(layout: TiffLayout) -> list[dict[str, Any]]:
    """Return the codecs of Zarr that decode the blocks of a file."""
    codecs: list[dict[str, Any]] = []
    if layout.predictor == PREDICTOR_HORIZONTAL:
        settings = {"shape": None, "dtype": None, "axis": -1, "dist": 1}
        codecs.append({"name": HORIZONTAL, "configuration": settings})
    elif layout.predictor == PREDICTOR_FLOAT:
        native = layout.dtype.newbyteorder("=")
        floating = {"shape": list(layout.block), "dtype": native.str, "axis": -1}
        codecs.append({"name": FLOATING_POINT, "configuration": floating})
    else:
        assert layout.predictor == PREDICTOR_NONE, "the layout knows no other predictor"
    # A decoder of predictor 3 puts the bytes into the order of the machine.
    is_big = layout.dtype.byteorder == ">" and layout.predictor != PREDICTOR_FLOAT
    endian = {"configuration": {"endian": "big" if is_big else "little"}}
    codecs.append({"name": "bytes", **(endian if layout.dtype.itemsize > 1 else {})})
    if layout.codec == "deflate":
        codecs.append({"name": "numcodecs.zlib", "configuration": {"level": 1}})
    elif layout.codec == "zstd":
        codecs.append({"name": "zstd", "configuration": {"level": 0, "checksum": False}})
    return codecs


def _references(
    icechunk: Any, members: Sequence[tuple[int, int, TiffLayout]], store: Store
) -> list[Any]:
    """Return a reference for each block that was written; sparse ones stay fill."""
    references = []
    for index, band, layout in members:
        key = layout.href.removeprefix(f"{store.uri.rstrip('/')}/")
        written = store.modified(key)
        if written is None:
            raise RequestError(f"{layout.href} is not in {store.uri}, or was removed")
        # To the second, rounded up: stores do not keep more.
        unchanged = datetime.fromtimestamp(int(written) + 1, UTC) + timedelta(seconds=1)
        for row in range(layout.blocks_down):
            for column in range(layout.blocks_across):
                number = layout.number(row, column, band)
                size = int(layout.sizes[number])
                if size:
                    references.append(
                        icechunk.VirtualChunkSpec(
                            [index, row, column],
                            _url(layout.href),
                            int(layout.offsets[number]),
                            size,
                            last_updated_at_checksum=unchanged,
                        )
                    )
    return references


def _container(icechunk: Any, prefix: str) -> Any:
    if prefix.startswith("gs://"):
        return icechunk.VirtualChunkContainer(prefix, icechunk.gcs_store({}))
    folder = prefix.removeprefix("file://")
    return icechunk.VirtualChunkContainer(prefix, icechunk.local_filesystem_store(folder))


def _url(path: str) -> str:
    return path if path.startswith("gs://") else f"file://{path}"
