"""WebDataset: tar files of bounded size with the arrays and the metadata of each chip.

A sample is the members of one id, one after the other: `<id>.json`, `<id>.image.npy`,
`<id>.<label>.npy`. The same chips make the same tar files, byte for byte.
"""

from __future__ import annotations

import io
import itertools
import json
import tarfile
from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np

from scenebeam.products.chips.layouts.base import (
    EncodedSample,
    StoredChip,
    StoredSample,
    encode_mask,
    encode_stack,
)
from scenebeam.products.chips.layouts.sharded import ShardedLayout, ShardFile, shards_of
from scenebeam.products.chips.samples import ChipSample
from scenebeam.raster.memory import read_tiff
from scenebeam.raster.validity import Array
from scenebeam.storage import AtomicFile, Store

_BLOCK = 512
"""Size of the header of a member, and what its content is padded to."""


class TarShard(ShardFile):
    """A tar file that is being written."""

    def __init__(self, file: AtomicFile) -> None:
        super().__init__(file)
        self._archive = tarfile.TarFile(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT)

    def add(self, sample: ChipSample, encoded: EncodedSample) -> None:
        for member, content in encoded.members.items():
            info = tarfile.TarInfo(f"{sample.id}.{member}")
            info.size = len(content)
            self._archive.addfile(info, io.BytesIO(content))
            self.size += padded(len(content))

    def close(self) -> None:
        self._archive.close()


class WebDataset(ShardedLayout):
    """`<split>/<cell>-<number>.tar`."""

    suffix = "tar"
    media_type = "application/x-tar"
    shard = TarShard

    def encode(self, sample: ChipSample) -> EncodedSample:
        members = {"json": (json.dumps(sample.metadata()) + "\n").encode()}
        is_tif = self.task.product.members == "tif"
        for stack in sample.stacks:
            if is_tif:
                members[f"{stack.name}.tif"] = encode_stack(sample, stack)
            else:
                members[f"{stack.name}.npy"] = _npy(stack.pixels)
        for label, mask in sample.masks.items():
            if is_tif:
                members[f"{label}.tif"] = encode_mask(sample, label, mask)
            else:
                members[f"{label}.npy"] = _npy(mask)
        return EncodedSample(members)

    def size_of(self, encoded: EncodedSample) -> int:
        return sum(padded(len(content)) for content in encoded.members.values())

    @staticmethod
    def read(store: Store, splits: Sequence[str], files: Sequence[str]) -> Iterator[StoredSample]:
        for key in shards_of(files, WebDataset.suffix, splits):
            with store.local_copy(key) as path, tarfile.open(path) as archive:
                yield from _samples(archive)


def padded(size: int) -> int:
    """Return what a member takes: its header, and its content up to a whole block."""
    return _BLOCK + -(-size // _BLOCK) * _BLOCK


def _npy(array: Array) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=False)
    return file.getvalue()


def _array(content: bytes) -> Array:
    loaded: Array = np.load(io.BytesIO(content), allow_pickle=False)
    return loaded


def _samples(archive: tarfile.TarFile) -> Iterator[StoredSample]:
    """Yield the samples of a tar file: consecutive members of one name."""
    for _, group in itertools.groupby(archive, lambda info: info.name.partition(".")[0]):
        yield partial(_sample, archive, list(group))


def _sample(archive: tarfile.TarFile, members: Sequence[tarfile.TarInfo]) -> StoredChip:
    contents = {}
    for info in members:
        file = archive.extractfile(info)
        contents[info.name.partition(".")[2]] = file.read() if file is not None else b""
    document = json.loads(contents.pop("json"))
    images, masks = {}, {}
    for member, content in contents.items():
        name, _, kind = member.rpartition(".")
        array = read_tiff(content) if kind == "tif" else _array(content)
        if name in document["images"]:
            bands = len(document["images"][name]["bands"])
            images[name] = array.reshape(-1, bands, *array.shape[-2:])
        else:
            masks[name] = array.reshape(array.shape[-2:])
    return StoredChip(document["id"], images, masks, document)
