"""Layouts that pack many chips into one file of bounded size: a shard of a split."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import ClassVar

from scenebeam.multihash import file_multihash
from scenebeam.products.chips.layouts.base import (
    Assets,
    EncodedSample,
    FileRecord,
    Layout,
    folder_of,
)
from scenebeam.products.chips.samples import ChipSample
from scenebeam.products.chips.task import ChipsTask
from scenebeam.storage import Store


class ShardFile(ABC):
    """A file that is being written on this machine."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = 0
        """Bytes of the samples in it."""

    @abstractmethod
    def add(self, sample: ChipSample, encoded: EncodedSample) -> None:
        """Append a sample, and count its size."""

    @abstractmethod
    def close(self) -> None:
        """Complete the file."""


class ShardedLayout(Layout):
    """`<split>/<cell>-<number>.<suffix>`: each task writes shards of its own."""

    suffix: ClassVar[str]
    media_type: ClassVar[str]
    shard: ClassVar[type[ShardFile]]

    def __init__(self, task: ChipsTask, store: Store) -> None:
        super().__init__(task, store)
        self._holder: TemporaryDirectory[str] = TemporaryDirectory(prefix="scenebeam-shards-")
        self._open: dict[str, ShardFile] = {}
        self._counts: dict[str, int] = {}

    def append(self, sample: ChipSample, encoded: EncodedSample) -> Assets:
        split = folder_of(sample.ref.split)
        size = self.size_of(encoded)
        if split in self._open and self._open[split].size + size > self.task.product.shard_size:
            self._publish(split)
        if split not in self._open:
            self._counts[split] = self._counts.get(split, 0) + 1
            self._open[split] = self.shard(Path(self._holder.name) / f"{split}.{self.suffix}")
        self._open[split].add(sample, encoded)
        # Its size is known only when it is complete: see the manifest.
        href = f"./{self._key(split)}"
        return {"shard": {"href": href, "type": self.media_type, "roles": ["data"]}}

    def size_of(self, encoded: EncodedSample) -> int:
        """Return the bytes that a sample takes in a shard."""
        return sum(len(content) for content in encoded.members.values())

    def close(self) -> None:
        for split in sorted(self._open):
            self._publish(split)
        self._holder.cleanup()

    def _key(self, split: str) -> str:
        return f"{split}/{self.task.cell}-{self._counts[split] - 1:04d}.{self.suffix}"

    def _publish(self, split: str) -> None:
        shard, key = self._open.pop(split), self._key(split)
        shard.close()
        size, checksum = shard.path.stat().st_size, file_multihash(shard.path)
        self.store.upload(key, shard.path)
        self.files.append(FileRecord(key=key, size=size, checksum=checksum))


def shards_of(files: Sequence[str], suffix: str, splits: Sequence[str]) -> list[str]:
    """Return the keys of the shards of some splits."""
    folders = {folder_of(split) for split in splits}
    return [key for key in files if key.endswith(f".{suffix}") and key.partition("/")[0] in folders]
