"""Encode chips and publish them in batches while the next chips are read, with bounded queues.

Chips are encoded on the CPU pool. Their files are published by the batch, because to sync many
small files together takes little longer than to sync one. The items of a batch follow when all its
files are durable, so an item never describes a file that does not exist.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from types import TracebackType
from typing import Generic, TypeVar

from scenebeam.errors import CheckError
from scenebeam.metadata.item_tables import BytesFile
from scenebeam.storage import Store
from scenebeam.transfer.pools import cpu_threads

K = TypeVar("K")
_MAX_PENDING = 32
"""Chips that wait to be encoded; each of them keeps its pixels in memory."""
_BATCH_CHIPS, _BATCH_BYTES = 64, 16 * 2**20
"""A batch is published when it has this many chips, or bytes."""


@dataclass(frozen=True)
class EncodedChip:
    """The files of a chip, by key."""

    files: Mapping[str, bytes]
    """Rasters and thumbnails."""
    items: Mapping[str, bytes] = field(default_factory=dict)
    """STAC items that describe them."""


class PublishQueue(Generic[K]):
    """A queue of chips to be encoded and published. A context manager that waits for all of them.

    A job that raises CheckError has nothing fit to publish, and is in `failed`. Any other error is
    raised by `add` or at the end of the context.
    """

    def __init__(self, store: Store) -> None:
        """Create an empty queue that publishes to a store."""
        self.failed: dict[K, str] = {}
        """Key of a job → why its result is not fit to publish."""
        self._store = store
        self._encoding: deque[tuple[K, Future[EncodedChip]]] = deque()
        self._batch: list[EncodedChip] = []
        self._writer = ThreadPoolExecutor(1)
        self._writing: Future[None] | None = None

    def __enter__(self) -> PublishQueue[K]:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            # Chips that were read before an error are complete. An interrupt does not wait.
            if kind is None or issubclass(kind, Exception):
                self._collect(0)
                if self._batch:
                    self._publish()
                self._wait()
        finally:
            self._writer.shutdown()

    def add(self, key: K, encode: Callable[..., EncodedChip], *arguments: object) -> None:
        """Start to encode a chip. If too many are pending, wait for the oldest.

        Args:
            key: Key of the job in `failed`.
            encode: Called in another thread.
            arguments: Arguments of `encode`.
        """
        self._encoding.append((key, cpu_threads().submit(encode, *arguments)))
        self._collect(_MAX_PENDING)

    def _collect(self, leave: int) -> None:
        """Take encoded chips until no more than `leave` are pending; publish them by the batch."""
        while self._encoding and (len(self._encoding) > leave or self._encoding[0][1].done()):
            key, future = self._encoding.popleft()
            try:
                self._batch.append(future.result())
            except CheckError as error:
                self.failed[key] = str(error)
            if len(self._batch) >= _BATCH_CHIPS or _size(self._batch) >= _BATCH_BYTES:
                self._publish()

    def _publish(self) -> None:
        """Start to publish the batch, after the one before it."""
        self._wait()
        self._writing = self._writer.submit(_write, self._store, self._batch)
        self._batch = []

    def _wait(self) -> None:
        if self._writing is not None:
            self._writing.result()


def _size(chips: Sequence[EncodedChip]) -> int:
    return sum(len(content) for chip in chips for content in chip.files.values())


def _write(store: Store, chips: Sequence[EncodedChip]) -> None:
    files: dict[str, BytesFile] = {}
    items: dict[str, BytesFile] = {}
    for chip in chips:
        files |= {key: BytesFile(content) for key, content in chip.files.items()}
        items |= {key: BytesFile(content) for key, content in chip.items.items()}
    store.write_all(files)
    store.write_all(items)
