"""Layout: what each way to pack chips does."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict

from scenebeam.metadata import stac_items
from scenebeam.metadata.item_tables import BytesFile
from scenebeam.multihash import content_multihash
from scenebeam.products.chips.samples import ChipSample, ImageStack
from scenebeam.products.chips.task import ChipsTask
from scenebeam.raster.cog import CogBand, CogProfile, small_cog
from scenebeam.raster.validity import Array
from scenebeam.storage import Store

CHIPS_FILE = "chips.parquet"
"""Table of all chips of a run."""
_BATCH_BYTES = 16 * 2**20
Assets = dict[str, dict[str, Any]]
"""STAC assets of a chip, with hrefs relative to the folder of the output."""


class FileRecord(BaseModel):
    """A file of a layout."""

    model_config = ConfigDict(frozen=True)

    key: str
    size: int
    checksum: str


@dataclass(frozen=True)
class EncodedSample:
    """A sample as bytes."""

    members: Mapping[str, bytes]
    """Name → content."""
    assets: Assets = field(default_factory=dict)


@dataclass(frozen=True)
class StoredChip:
    """A chip that is read back."""

    id: str
    images: Mapping[str, Array]
    """Name of the collection → array of shape (time, bands, rows, columns)."""
    masks: Mapping[str, Array]
    metadata: Mapping[str, Any]
    """As `ChipSample.metadata` has it."""


StoredSample = Callable[[], StoredChip]


class Layout(ABC):
    """Packs the chips of one task, in their order.

    `encode` is called in several threads, `append` in order, and `close` at the end.
    """

    def __init__(self, task: ChipsTask, store: Store) -> None:
        self.task, self.store = task, store
        self.files: list[FileRecord] = []
        """The files that have been published."""

    @abstractmethod
    def encode(self, sample: ChipSample) -> EncodedSample:
        """Encode the arrays of a sample."""

    @abstractmethod
    def append(self, sample: ChipSample, encoded: EncodedSample) -> Assets:
        """Publish an encoded sample, or add it to a file. Returns its STAC assets."""

    @abstractmethod
    def close(self) -> None:
        """Publish what has not been published yet."""

    def discard(self) -> None:
        """Give up what has not been published yet, after an error."""
        return

    @staticmethod
    def finish(tasks: Sequence[ChipsTask]) -> dict[str, BytesFile]:
        """Return the files that complete the layout when all tasks are done, by their key."""
        return {}

    @staticmethod
    @abstractmethod
    def read(store: Store, splits: Sequence[str], files: Sequence[str]) -> Iterator[StoredSample]:
        """Find chips to be read back.

        Args:
            store: The output.
            splits: Names of the splits to read.
            files: Keys of the files of the layout, sorted.

        Yields:
            What reads a chip, in an order that is always the same. It is called before the next
            one is asked for, or never.
        """


class FilesLayout(Layout):
    """A layout of many small files, which are published by the batch."""

    def __init__(self, task: ChipsTask, store: Store) -> None:
        super().__init__(task, store)
        self._batch: dict[str, BytesFile] = {}
        self._size = 0

    def publish(self, key: str, content: bytes) -> FileRecord:
        """Publish a file, at the latest when the layout is closed."""
        record = FileRecord(key=key, size=len(content), checksum=content_multihash(content))
        self.files.append(record)
        self._batch[key] = BytesFile(content)
        self._size += len(content)
        if self._size >= _BATCH_BYTES:
            self.close()
        return record

    def close(self) -> None:
        if self._batch:
            self.store.write_all(self._batch)
        self._batch, self._size = {}, 0


def chips_of(store: Store, splits: Sequence[str]) -> list[str]:
    """Return the ids of the chips of some splits that were made, sorted."""
    with store.local_copy(CHIPS_FILE) as path:
        table = pq.ParquetFile(path).read(columns=["id", "split", "images"])
    is_made = pc.and_(
        pc.greater(table.column("images"), 0),
        pc.is_in(table.column("split"), pa.array(list(splits), pa.string())),
    )
    return sorted(table.filter(is_made).column("id").to_pylist())


def folder_of(split: str) -> str:
    """Return the folder of a split."""
    return split or "all"


def encode_image(sample: ChipSample, stack: ImageStack, image: int) -> bytes:
    """Encode one image of a stack as a COG."""
    pixels = stack.pixels[image]
    tags: dict[str, str] = {"SCENEBEAM_VALUES": sample.task.product.values}
    if stack.times:
        tags["SCENEBEAM_ACQUIRED"] = stac_items.rfc3339(stack.times[image])
    return encode_bands(sample, pixels, stack.nodata, stack.bands, tags)


def encode_stack(sample: ChipSample, stack: ImageStack) -> bytes:
    """Encode all images of a stack as one COG, with a band for each image and band."""
    bands = []
    for label in stack.labels:
        for band in stack.bands:
            bands.append(CogBand(f"{label} {band.description}".strip(), band.scale, band.offset))
    pixels = stack.pixels.reshape(-1, *stack.pixels.shape[-2:])
    return encode_bands(sample, pixels, stack.nodata, bands)


def encode_mask(sample: ChipSample, label: str, mask: Array) -> bytes:
    """Encode a mask as a COG."""
    return encode_bands(sample, mask[None], None, [CogBand(label)], average=False)


def encode_bands(
    sample: ChipSample,
    pixels: Array,
    nodata: float | None,
    bands: Sequence[CogBand],
    tags: Mapping[str, str] | None = None,
    *,
    average: bool = True,
) -> bytes:
    """Encode pixels on the grid of a sample as a COG, compressed as the request asks.

    Args:
        sample: The chip.
        pixels: Shape (bands, rows, columns).
        nodata: Value of pixels without data.
        bands: What each band is.
        tags: Metadata of the file.
        average: Whether overviews are averages; otherwise, each pixel is one of the image.
    """
    profile = CogProfile.for_grid(
        sample.grid,
        pixels.dtype,
        nodata,
        codec=sample.task.product.compression,
        bands=tuple(bands),
        tags=tags or {},
    )
    return small_cog(pixels, profile, average=average)


def file_fields(record: FileRecord) -> dict[str, Any]:
    """Return the fields of an asset that describe its file."""
    return {
        "href": f"./{record.key}",
        "file:size": record.size,
        "file:checksum": record.checksum,
    }
