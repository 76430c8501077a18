"""Zarr: one Zarr v3 store with a group for each split, and a chunk for each chip.

Each task writes the chunks of its own chips, so tasks never write the same object. The metadata
come last: before that, readers find no store. (https://zarr-specs.readthedocs.io/en/latest/v3/)
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from scenebeam.errors import StorageError
from scenebeam.metadata.item_tables import BytesFile, read_required
from scenebeam.products.chips.layouts.base import (
    Assets,
    EncodedSample,
    FilePublisher,
    Layout,
    StoredChip,
    array_bytes,
    folder_of,
)
from scenebeam.products.chips.request import IMAGE
from scenebeam.products.chips.samples import ChipSample
from scenebeam.products.chips.task import ChipsTask
from scenebeam.raster.validity import Array
from scenebeam.storage import Store

ROOT = "chips.zarr"
_LEVEL = 3
_METADATA = "metadata"
_TIME, _COUNT = "time", "image_count"
_METADATA_BYTES = 16_384
"""Metadata of a chip are JSON in an array of bytes, which all readers of Zarr can read."""
_CHIP, _DATE, _BAND, _Y, _X = "chip", "date", "band", "y", "x"


class ZarrStore(Layout):
    """`chips.zarr/<split>/<array>/c/<index>/…`."""

    def __init__(self, task: ChipsTask, store: Store) -> None:
        super().__init__(task, store)
        self._publisher = FilePublisher(store)
        self.files = self._publisher.files

    def encode(self, sample: ChipSample) -> EncodedSample:
        arrays: dict[str, Array] = {}
        dates = _dates(self.task)
        for stack in sample.stacks:
            length = dates if stack.times else 1
            shape = (length, *stack.pixels.shape[1:])
            fill = 0 if stack.nodata is None else stack.nodata
            arrays[stack.name] = np.full(shape, fill, stack.pixels.dtype)
            arrays[stack.name][: len(stack.pixels)] = stack.pixels
        arrays |= sample.masks
        times = np.full(dates, np.datetime64("NaT", "s").astype(np.int64))
        times[: len(sample.image.times)] = [int(when.timestamp()) for when in sample.image.times]
        arrays[_TIME] = times
        arrays[_COUNT] = np.array(len(sample.image.pixels), np.int32)
        document = json.dumps(sample.metadata()).encode()
        if len(document) > _METADATA_BYTES:
            raise StorageError(
                f"chip {sample.id}: its metadata have {len(document):,} bytes, more than the "
                f"{_METADATA_BYTES:,} that a Zarr store of chips holds"
            )
        arrays[_METADATA] = np.frombuffer(document.ljust(_METADATA_BYTES), np.uint8)
        members = {}
        for name, array in arrays.items():
            zeros = "/0" * array.ndim
            members[f"{name}/c/{sample.ref.number}{zeros}"] = _compress(array_bytes(array))
        return EncodedSample(members)

    def append(self, sample: ChipSample, encoded: EncodedSample) -> Assets:
        folder = f"{ROOT}/{folder_of(sample.ref.split)}"
        for name, content in encoded.members.items():
            self._publisher.add(f"{folder}/{name}", content)
        href = f"./{folder}"
        return {"store": {"href": href, "type": "application/vnd.zarr", "roles": ["data"]}}

    def close(self) -> None:
        self._publisher.flush()

    @staticmethod
    def finish(tasks: Sequence[ChipsTask]) -> dict[str, BytesFile]:
        files = {}
        task = tasks[0]
        for split, count in task.split_counts.items():
            folder = f"{ROOT}/{folder_of(split)}"
            for name, document in _arrays(task, count).items():
                files[f"{folder}/{name}/zarr.json"] = _json(document)
            files[f"{folder}/zarr.json"] = _json(_group(attributes={"split": split}))
        # The root comes last, and makes it a store.
        files[f"{ROOT}/zarr.json"] = _json(_group(attributes={}))
        return files

    @staticmethod
    def read(
        store: Store, splits: Sequence[str], files: Sequence[str]
    ) -> Iterator[tuple[str, StoredChip]]:
        for split in splits:
            folder = f"{ROOT}/{folder_of(split)}"
            names = {}
            for key in store.list(f"{folder}/"):
                if key.endswith("/zarr.json") and key.count("/") == folder.count("/") + 2:
                    names[key.split("/")[-2]] = json.loads(read_required(store, key))
            if not names:
                continue
            for index in range(names[_COUNT]["shape"][0]):
                found = _read_chip(store, folder, names, index)
                if found is not None:
                    yield found


def _dates(task: ChipsTask) -> int:
    """Return the largest number of images of a chip."""
    return max(len(task.periods), 1) * (task.product.image_count or 1)


def _arrays(task: ChipsTask, count: int) -> dict[str, dict[str, Any]]:
    """Return the metadata of the arrays of a split."""
    dates, side = _dates(task), task.side
    fill = 0 if task.nodata is None else task.nodata
    bands = task.band_names
    arrays = {
        IMAGE: _array(
            (count, dates, len(bands), side, side),
            task.dtype,
            fill,
            (_CHIP, _DATE, _BAND, _Y, _X),
            {"bands": bands},
        ),
        _TIME: _array(
            (count, dates),
            "int64",
            int(np.iinfo(np.int64).min),
            (_CHIP, _DATE),
            {"units": "seconds since 1970-01-01", "calendar": "proleptic_gregorian"},
        ),
        _COUNT: _array((count,), "int32", 0, (_CHIP,), {}),
        _METADATA: _array((count, _METADATA_BYTES), "uint8", 32, (_CHIP, "character"), {}),
    }
    for other in task.others:
        shown = other.scenes or other.layer
        if not shown:
            continue
        dtype = np.result_type(*(np.dtype(asset.dtype) for asset in shown[0].bands)).name
        nodata = next((one.nodata for one in shown[0].bands if one.nodata is not None), 0)
        length, date = (
            (dates, _DATE) if other.within_days is not None else (1, f"{other.name}_date")
        )
        names = [asset.band for asset in shown[0].bands]
        arrays[other.name] = _array(
            (count, length, len(names), side, side),
            dtype,
            nodata,
            (_CHIP, date, f"{other.name}_{_BAND}", _Y, _X),
            {"bands": names},
        )
    for label in task.labels:
        classes = {str(value): name for value, name in label.classes.items()}
        arrays[label.name] = _array(
            (count, side, side),
            label.dtype,
            label.background,
            (_CHIP, _Y, _X),
            {"classes": classes} if classes and not label.instances else {},
        )
    return arrays


def _array(
    shape: tuple[int, ...],
    dtype: str,
    fill: float,
    dimensions: Sequence[str],
    attributes: dict[str, Any],
) -> dict[str, Any]:
    """Return the metadata of an array with one chunk for each chip."""
    codecs: list[dict[str, Any]] = [{"name": "bytes"}]
    if np.dtype(dtype).itemsize > 1:
        codecs = [{"name": "bytes", "configuration": {"endian": "little"}}]
    codecs.append({"name": "zstd", "configuration": {"level": _LEVEL, "checksum": False}})
    value: Any = fill if np.dtype(dtype).kind != "f" else _float_text(fill)
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": list(shape),
        "data_type": dtype,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [1, *shape[1:]]}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": value
        if isinstance(value, str) or np.dtype(dtype).kind == "f"
        else int(value),
        "codecs": codecs,
        "attributes": attributes,
        "dimension_names": list(dimensions),
    }


def _float_text(value: float) -> float | str:
    if np.isnan(value):
        return "NaN"
    return float(value) if np.isfinite(value) else f"{'-' if value < 0 else ''}Infinity"


def _group(attributes: dict[str, Any]) -> dict[str, Any]:
    return {"zarr_format": 3, "node_type": "group", "attributes": attributes}


def _json(document: dict[str, Any]) -> BytesFile:
    return BytesFile((json.dumps(document, indent=1) + "\n").encode())


def _compress(content: bytes) -> bytes:
    return bytes(pa.Codec("zstd", compression_level=_LEVEL).compress(content, asbytes=True))


def _read_chip(
    store: Store, folder: str, names: dict[str, dict[str, Any]], index: int
) -> tuple[str, StoredChip] | None:
    """Read the chunks of a chip; None if it was not made."""
    content = _read_chunk(store, folder, names, _METADATA, index)
    if content is None:
        return None
    document = json.loads(content.tobytes())
    images, masks = {}, {}
    for name in names:
        if name in (_METADATA, _TIME, _COUNT):
            continue
        array = _read_chunk(store, folder, names, name, index)
        if array is None:
            continue
        if name in document["images"]:
            images[name] = array[: max(len(document["images"][name]["times"]), 1)]
        else:
            masks[name] = array
    return document["id"], StoredChip(images, masks, document)


def _read_chunk(
    store: Store, folder: str, names: dict[str, dict[str, Any]], name: str, index: int
) -> Array | None:
    shape = names[name]["shape"][1:]
    content = store.read(f"{folder}/{name}/c/{index}{'/0' * len(shape)}")
    if content is None:
        return None
    dtype = np.dtype(names[name]["data_type"]).newbyteorder("<")
    size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    return np.frombuffer(pa.Codec("zstd").decompress(content, size, asbytes=True), dtype).reshape(
        shape
    )
