"""Layouts that pack many chips into one file of bounded size: a shard of a split."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import ClassVar

from scenebeam.products.chips.layouts.base import (
    Assets,
    EncodedSample,
    FileRecord,
    Layout,
    folder_of,
)
from scenebeam.products.chips.samples import ChipSample
from scenebeam.products.chips.task import ChipsTask
from scenebeam.storage import AtomicFile, Store


class ShardFile(ABC):
    """A file that is being written front to back."""

    def __init__(self, file: AtomicFile) -> None:
        self.size = 0
        """Bytes of the samples in it."""

    @abstractmethod
    def add(self, sample: ChipSample, encoded: EncodedSample) -> None:
        """Append a sample, and count its size."""

    @abstractmethod
    def close(self) -> None:
        """Complete the file."""


@dataclass(frozen=True)
class _OpenShard:
    """A shard, and the file in the store that it is published as."""

    key: str
    shard: ShardFile
    file: AtomicFile
    opened: ExitStack
    """Publishes the file when it is closed."""


class ShardedLayout(Layout):
    """`<split>/<cell>-<number>.<suffix>`: each task writes shards of its own."""

    suffix: ClassVar[str]
    media_type: ClassVar[str]
    shard: ClassVar[type[ShardFile]]

    def __init__(self, task: ChipsTask, store: Store) -> None:
        super().__init__(task, store)
        self._open: dict[str, _OpenShard] = {}
        self._counts: Counter[str] = Counter()

    def append(self, sample: ChipSample, encoded: EncodedSample) -> Assets:
        split, size = folder_of(sample.ref.split), self.size_of(encoded)
        if split in self._open:
            is_full = self._open[split].shard.size + size > self.task.product.shard_size
            if is_full:
                self._publish(split)
        if split not in self._open:
            self._open[split] = self._new(split)
        self._open[split].shard.add(sample, encoded)
        # Its size is known only when it is complete: see the manifest.
        href = f"./{self._open[split].key}"
        return {"shard": {"href": href, "type": self.media_type, "roles": ["data"]}}

    def size_of(self, encoded: EncodedSample) -> int:
        """Return the bytes that a sample takes in a shard."""
        return sum(len(content) for content in encoded.members.values())

    def close(self) -> None:
        for split in sorted(self._open):
            self._publish(split)

    def discard(self) -> None:
        error = InterruptedError("the chips are not complete")
        for shard in self._open.values():
            with suppress(InterruptedError):
                shard.opened.__exit__(InterruptedError, error, None)
        self._open.clear()

    def _new(self, split: str) -> _OpenShard:
        key = f"{split}/{self.task.cell}-{self._counts[split]:04d}.{self.suffix}"
        self._counts[split] += 1
        opened = ExitStack()
        file = opened.enter_context(self.store.open_write(key))
        return _OpenShard(key, self.shard(file), file, opened)

    def _publish(self, split: str) -> None:
        shard = self._open[split]
        shard.shard.close()
        record = FileRecord(key=shard.key, size=shard.file.size, checksum=shard.file.checksum)
        shard.opened.close()
        del self._open[split]
        self.files.append(record)


def shards_of(files: Sequence[str], suffix: str, splits: Sequence[str]) -> list[str]:
    """Return the keys of the shards of some splits."""
    folders = {folder_of(split) for split in splits}
    return [key for key in files if key.endswith(f".{suffix}") and key.partition("/")[0] in folders]
