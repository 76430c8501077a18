"""Open the Zarr store or the Icechunk repository of an output."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy as np
import xarray
import zarr
from affine import Affine
from zarr.abc.store import (
    ByteRequest,
    OffsetByteRequest,
    RangeByteRequest,
    Store,
    SuffixByteRequest,
)
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import LocalStore

from scenebeam.cubes.dataset import Chunks, TimeSlice, check_known, make_dataset
from scenebeam.errors import ReadError, RequestError
from scenebeam.extras import import_extra
from scenebeam.imaging.cube_layout import ZARR_ROOT
from scenebeam.imaging.shards import Window
from scenebeam.imaging.writers.icechunk import BRANCH, open_storage
from scenebeam.imaging.writers.zarr_store import EPOCH
from scenebeam.raster.grid import Grid
from scenebeam.raster.validity import Array
from scenebeam.request.product import StoreFormat
from scenebeam.storage import open_store
from scenebeam.tasks import CubeBand
from scenebeam.transfer.rangefile import RangeFile
from scenebeam.transfer.retry import Budget


@dataclass(frozen=True)
class ZarrBand:
    """One time of an array of a store."""

    array: zarr.Array[Any]
    index: int

    def read(self, window: Window) -> Array:
        top, bottom, left, right = window
        return np.asarray(self.array[self.index, top:bottom, left:right])


def open_store_of(
    output: str,
    form: StoreFormat,
    bands: Sequence[str] | None,
    *,
    decode: bool,
    chunks: Chunks,
) -> xarray.Dataset:
    """Open the images of full size of an output's store.

    Args:
        output: A folder or `gs://` prefix.
        form: Its format.
        bands: Bands to open; default: all.
        decode: Whether to convert to physical units, with NaN where there is no data.
        chunks: Chunks of dask arrays; None: lazy without dask.

    Returns:
        A lazy Dataset in the order of time, with the times that are made: see `make_dataset`.

    Raises:
        RequestError: There is no store yet, or no such band.
    """
    target = _zarr_store(output) if form == "zarr" else _session_store(output)
    try:
        group = zarr.open_group(target, path="0", mode="r", zarr_format=3)
    except FileNotFoundError as error:
        raise RequestError(
            f"{output} has no cube: its run has not ended, or has made nothing"
        ) from error
    arrays = {name: array for name, array in group.arrays() if array.ndim == 3}
    check_known(bands or (), list(arrays), output)
    grid = _grid(group.attrs.asdict())
    along_time = {name: np.asarray(array[:]) for name, array in group.arrays() if array.ndim == 1}
    ids = [str(name) for name in along_time["id"]]
    times, clouds = along_time["time"], along_time.get("cloud_cover")
    slices = []
    for index, name in enumerate(ids):
        if name:
            readers = {band: ZarrBand(array, index) for band, array in arrays.items()}
            when = EPOCH + timedelta(microseconds=int(times[index]))
            cloud = None if clouds is None or np.isnan(clouds[index]) else float(clouds[index])
            slices.append(TimeSlice(name, when, readers, {"eo:cloud_cover": cloud}))
    slices.sort(key=lambda one: (one.when, one.id))
    wanted = [_band(name, arrays[name]) for name in bands or arrays]
    return make_dataset(grid, wanted, slices, decode=decode, chunks=chunks)


def _grid(attributes: Mapping[str, Any]) -> Grid:
    """Read the grid of a level, as the conventions `spatial` and `proj` have it."""
    rows, columns = attributes["spatial:shape"]
    crs = attributes.get("proj:code") or attributes["proj:wkt2"]
    return Grid((rows, columns), Affine(*attributes["spatial:transform"]), crs)


def _band(name: str, array: zarr.Array[Any]) -> CubeBand:
    attributes = array.attrs.asdict()
    return CubeBand(
        name=name,
        dtype=array.dtype.name,
        nodata=float(array.fill_value) if "_FillValue" in attributes else None,
        scale=attributes.get("scale_factor", 1.0),
        offset=attributes.get("add_offset", 0.0),
        categorical=False,
    )


def _zarr_store(output: str) -> Store:
    root = f"{output.rstrip('/')}/{ZARR_ROOT}"
    if output.startswith("gs://"):
        return BucketStore(root)
    return LocalStore(root, read_only=True)


def _session_store(output: str) -> Any:
    icechunk = import_extra("icechunk", "icechunk", "scenebeam.open")
    try:
        repository = icechunk.Repository.open(open_storage(output))
    except icechunk.IcechunkError as error:
        raise RequestError(f"{output} has no cube that can be opened: {error}") from error
    return repository.readonly_session(BRANCH).store


_MAX_FILES = 16
"""Objects that a store keeps open; each has some megabytes of what was read of it."""


class BucketStore(Store):
    """A Zarr store under a `gs://` prefix, read by range requests."""

    supports_writes = False
    supports_deletes = False
    supports_listing = False

    def __init__(self, root: str) -> None:
        """Describe the store at a prefix that ends with a slash."""
        super().__init__(read_only=True)
        self._root = root
        self._files: dict[str, RangeFile] = {}
        """The objects that have been opened, by key."""

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_files": {}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)

    def __eq__(self, other: object) -> bool:
        """Whether both are the same prefix."""
        return isinstance(other, BucketStore) and other._root == self._root

    async def get(
        self,
        key: str,
        prototype: BufferPrototype,
        byte_range: ByteRequest | None = None,
    ) -> Buffer | None:
        content = await asyncio.to_thread(self._read, key, byte_range)
        return None if content is None else prototype.buffer.from_bytes(content)

    def _read(self, key: str, byte_range: ByteRequest | None) -> bytes | None:
        try:
            return self._read_once(key, byte_range)
        except ReadError as error:
            self._files.pop(key, None)
            if error.permanent:
                if not self._exists(key):
                    return None
                raise
        # The object was replaced since this store has opened it.
        return self._read_once(key, byte_range)

    def _exists(self, key: str) -> bool:
        """Whether there is such an object. What must not be read raises an error here."""
        folder, _, name = f"{self._root}{key}".rpartition("/")
        return open_store(folder).size(name) is not None

    def _read_once(self, key: str, byte_range: ByteRequest | None) -> bytes:
        file = self._files.get(key)
        if file is None or byte_range is None:
            # Not as this process remembers it: another one may have added to the store.
            file = RangeFile(f"{self._root}{key}", Budget(private=True), fresh=True)
            self._files[key] = file
            while len(self._files) > _MAX_FILES:
                self._files.pop(next(iter(self._files)), None)
        start, stop = 0, file.size
        if isinstance(byte_range, RangeByteRequest):
            start, stop = byte_range.start, byte_range.end
        elif isinstance(byte_range, OffsetByteRequest):
            start = byte_range.offset
        elif isinstance(byte_range, SuffixByteRequest):
            start = max(0, file.size - byte_range.suffix)
        return file.read_at(start, stop - start)

    async def get_partial_values(
        self,
        prototype: BufferPrototype,
        key_ranges: Iterable[tuple[str, ByteRequest | None]],
    ) -> list[Buffer | None]:
        reads = [self.get(key, prototype, byte_range) for key, byte_range in key_ranges]
        return list(await asyncio.gather(*reads))

    async def exists(self, key: str) -> bool:
        return await asyncio.to_thread(self._read, key, RangeByteRequest(0, 1)) is not None

    async def set(self, key: str, value: Buffer) -> None:
        raise NotImplementedError("the store is read-only")

    async def delete(self, key: str) -> None:
        raise NotImplementedError("the store is read-only")

    def list(self) -> AsyncIterator[str]:
        raise NotImplementedError("the store cannot be listed")

    def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        raise NotImplementedError("the store cannot be listed")

    def list_dir(self, prefix: str) -> AsyncIterator[str]:
        raise NotImplementedError("the store cannot be listed")
