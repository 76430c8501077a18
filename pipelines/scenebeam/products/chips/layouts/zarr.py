"""Zarr: one Zarr v3 store with a group for each split, and a chunk for each chip.

Each task writes the chunks of its own chips, so tasks never write the same object. The metadata
come last: before that, readers find no store. (https://zarr-specs.readthedocs.io/en/latest/v3/)
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from scenebeam.errors import StorageError
from scenebeam.imaging.writers.zarr_format import (
    array_document,
    encode_small,
    group_document,
    json_file,
)
from scenebeam.metadata.item_tables import BytesFile, read_required
from scenebeam.products.chips.layouts.base import (
    Assets,
    EncodedSample,
    FilesLayout,
    StoredChip,
    StoredSample,
    folder_of,
)
from scenebeam.products.chips.request import IMAGE
from scenebeam.products.chips.samples import ChipSample
from scenebeam.products.chips.task import ChipsTask
from scenebeam.raster.validity import Array
from scenebeam.storage import Store

ROOT = "chips.zarr"
_METADATA = "metadata"
_TIME, _COUNT = "time", "image_count"
"""Metadata of a chip are JSON in an array of bytes, which all readers of Zarr can read."""
_IMAGE_METADATA = 320
"""Bytes of the metadata of one image at the most."""
_CHIP, _DATE, _Y, _X = "chip", "date", "y", "x"


class ZarrStore(FilesLayout):
    """`chips.zarr/<split>/<array>/c/<index>/…`."""

    def encode(self, sample: ChipSample) -> EncodedSample:
        arrays: dict[str, Array] = {}
        dates = _dates(self.task)
        for stack in sample.stacks:
            length = dates if stack.times else 1
            shape = (length, *stack.pixels.shape[1:])
            arrays[stack.name] = np.full(shape, stack.spec.fill, stack.spec.dtype)
            arrays[stack.name][: len(stack.pixels)] = stack.pixels
        arrays |= sample.masks
        times = np.full(dates, np.iinfo(np.int64).min)
        times[: len(sample.image.times)] = [int(when.timestamp()) for when in sample.image.times]
        arrays[_TIME] = times
        arrays[_COUNT] = np.array(len(sample.image.pixels), np.int32)
        document, most = json.dumps(sample.metadata()).encode(), _metadata_bytes(self.task)
        if len(document) > most:
            raise StorageError(
                f"chip {sample.id}: its metadata have {len(document):,} bytes, more than the "
                f"{most:,} that this store has for each chip; use another layout"
            )
        arrays[_METADATA] = np.frombuffer(document.ljust(most), np.uint8)
        members = {}
        for name, array in arrays.items():
            zeros = "/0" * array.ndim
            members[f"{name}/c/{sample.ref.number}{zeros}"] = encode_small(array)
        return EncodedSample(members)

    def append(self, sample: ChipSample, encoded: EncodedSample) -> Assets:
        folder = f"{ROOT}/{folder_of(sample.ref.split)}"
        for name, content in encoded.members.items():
            self.publish(f"{folder}/{name}", content)
        href = f"./{folder}"
        return {"store": {"href": href, "type": "application/vnd.zarr", "roles": ["data"]}}

    @staticmethod
    def finish(tasks: Sequence[ChipsTask]) -> dict[str, BytesFile]:
        files = {}
        task = tasks[0]
        for split, count in task.split_counts.items():
            folder = f"{ROOT}/{folder_of(split)}"
            for name, document in _arrays(task, count).items():
                files[f"{folder}/{name}/zarr.json"] = json_file(document)
            attributes = {"split": split, "arrays": sorted(_arrays(task, count))}
            files[f"{folder}/zarr.json"] = json_file(group_document(attributes))
        # The root comes last, and makes it a store.
        files[f"{ROOT}/zarr.json"] = json_file(group_document({}))
        return files

    @staticmethod
    def read(store: Store, splits: Sequence[str], files: Sequence[str]) -> Iterator[StoredSample]:
        for split in splits:
            folder = f"{ROOT}/{folder_of(split)}"
            group = json.loads(read_required(store, f"{folder}/zarr.json"))
            names = {}
            for name in group["attributes"]["arrays"]:
                names[name] = json.loads(read_required(store, f"{folder}/{name}/zarr.json"))
            made = {key for key in files if key.startswith(f"{folder}/{_METADATA}/c/")}
            for index in range(names[_COUNT]["shape"][0]):
                if f"{folder}/{_METADATA}/c/{index}/0" in made:
                    yield partial(_read_chip, store, folder, names, index)


def _dates(task: ChipsTask) -> int:
    """Return the largest number of images of a chip."""
    return max(len(task.periods), 1) * (task.product.image_count or 1)


def _arrays(task: ChipsTask, count: int) -> dict[str, dict[str, Any]]:
    """Return the metadata of the arrays of a split."""
    dates, side = _dates(task), task.side
    undated = {other.name for other in task.others if other.within_days is None}
    nat = int(np.iinfo(np.int64).min)
    time = {"units": "seconds since 1970-01-01", "calendar": "proleptic_gregorian"}
    metadata = (count, _metadata_bytes(task))
    arrays = {
        _TIME: _array((count, dates), "int64", nat, (_CHIP, _DATE), time),
        _COUNT: _array((count,), "int32", 0, (_CHIP,), {}),
        _METADATA: _array(metadata, "uint8", ord(" "), (_CHIP, "character"), {}),
    }
    for spec in task.stacks:
        own = "" if spec.name == IMAGE else f"{spec.name}_"
        length, date = (1, f"{own}date") if spec.name in undated else (dates, _DATE)
        bands = [
            {"name": name, "scale": scale, "offset": offset} for name, scale, offset in spec.bands
        ]
        arrays[spec.name] = _array(
            (count, length, len(spec.bands), side, side),
            spec.dtype,
            spec.fill,
            (_CHIP, date, f"{own}band", _Y, _X),
            {"bands": bands},
        )
    for label in task.labels:
        classes = {str(value): name for value, name in label.classes.items()}
        arrays[label.name] = _array(
            (count, side, side),
            label.dtype,
            label.background if label.nodata is None else label.nodata,
            (_CHIP, _Y, _X),
            {"classes": classes} if classes and not label.instances else {},
        )
    return arrays


def _metadata_bytes(task: ChipsTask) -> int:
    """Return the size of the metadata of a chip, which have some texts for each image."""
    images = _dates(task) * len(task.stacks)
    return 4096 + _IMAGE_METADATA * images


def _array(
    shape: tuple[int, ...],
    dtype: str,
    fill: float,
    dimensions: Sequence[str],
    attributes: dict[str, Any],
) -> dict[str, Any]:
    """Return the metadata of an array with one chunk for each chip."""
    return array_document(shape, (1, *shape[1:]), dtype, fill, dimensions, attributes)


def _read_chip(
    store: Store, folder: str, names: Mapping[str, dict[str, Any]], index: int
) -> StoredChip:
    """Read the chunks of a chip."""
    document = json.loads(_read_chunk(store, folder, names, _METADATA, index).tobytes())
    images, masks = {}, {}
    for name in names.keys() - {_METADATA, _TIME, _COUNT}:
        array = _read_chunk(store, folder, names, name, index)
        if name in document["images"]:
            images[name] = array[: max(len(document["images"][name]["times"]), 1)]
        else:
            masks[name] = array
    return StoredChip(document["id"], images, masks, document)


def _read_chunk(
    store: Store, folder: str, names: Mapping[str, dict[str, Any]], name: str, index: int
) -> Array:
    shape = names[name]["shape"][1:]
    content = read_required(store, f"{folder}/{name}/c/{index}{'/0' * len(shape)}")
    dtype = np.dtype(names[name]["data_type"]).newbyteorder("<")
    size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    stored = pa.Codec("zstd").decompress(content, size, asbytes=True)
    return np.frombuffer(stored, dtype).reshape(shape).copy()
