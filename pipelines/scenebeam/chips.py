"""Read chips back, for training: the samples of a run of `kind: chips`, whatever their layout.

    import scenebeam.chips

    chips = scenebeam.chips.open("out/crops", split="train")
    for sample in chips:
        sample["image"]  # (time, bands, rows, columns)
        sample["mask"]["crops"]  # (rows, columns)

`to_torch` makes a `torch.utils.data.IterableDataset` of them, which shares the chips among the
workers of a DataLoader.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq

from scenebeam.errors import RequestError
from scenebeam.extras import import_extra
from scenebeam.planning.plan import RUN_FILE
from scenebeam.products.chips.layouts import LAYOUTS, StoredChip
from scenebeam.products.chips.layouts.base import CHIPS_FILE
from scenebeam.products.chips.report import STATISTICS_FILE, manifest_keys
from scenebeam.products.chips.request import IMAGE
from scenebeam.storage import Store, open_store

Sample = dict[str, Any]
"""`id`, `image` and the images of other collections as arrays of shape (time, bands, rows,
columns), `mask` (label → array), `label` (column → value), `bbox` in degrees, `time` (when each
image was taken) and `metadata`."""


@dataclass(frozen=True)
class ChipDataset:
    """The chips of one split. Iterating yields samples in an order that is always the same."""

    store: Store
    layout: str
    splits: tuple[str, ...]
    count: int
    part: tuple[int, int] = (0, 1)
    """Number of this part, from 0, and number of parts."""

    def __len__(self) -> int:
        """Return the number of chips in this part."""
        number, parts = self.part
        return len(range(number, self.count, parts))

    def __iter__(self) -> Iterator[Sample]:
        """Read the chips."""
        number, parts = self.part
        files = sorted(manifest_keys(self.store))
        for index, read in enumerate(LAYOUTS[self.layout].read(self.store, self.splits, files)):
            if index % parts == number:
                yield _sample(read())

    def shard(self, number: int, parts: int) -> ChipDataset:
        """Return one of several parts: those of the workers of a DataLoader.

        Args:
            number: Number of the part, from 0.
            parts: Number of parts.
        """
        return ChipDataset(self.store, self.layout, self.splits, self.count, (number, parts))

    def statistics(self) -> Mapping[str, Any]:
        """Return the statistics of each band over the training split, and the counts of classes."""
        content = self.store.read(STATISTICS_FILE)
        document: Mapping[str, Any] = json.loads(content or b"{}")
        return document


def open(output: str, split: str | None = None) -> ChipDataset:
    """Open the chips of an output.

    Args:
        output: Folder or `gs://` prefix of a run of `kind: chips`.
        split: Name of a split; None: all chips, those between splits included.

    Raises:
        RequestError: The output has no chips, or no such split.
    """
    store = open_store(output)
    content = store.read(RUN_FILE)
    product = json.loads(content)["request"]["product"] if content is not None else {}
    if product.get("kind") != "chips" or store.size(CHIPS_FILE) is None:
        raise RequestError(f"{output} has no chips; run a request of kind chips there first")
    with store.local_copy(CHIPS_FILE) as path:
        table = pq.ParquetFile(path).read(columns=["split", "images"])
    made = table.filter(pc.greater(table.column("images"), 0)).column("split").to_pylist()
    known = sorted(set(made))
    if split is not None and split not in known:
        raise RequestError(
            f"{output} has no chips of the split {split!r}; it has {', '.join(known)}"
        )
    splits = tuple(known) if split is None else (split,)
    count = sum(name in splits for name in made)
    return ChipDataset(store, product["layout"], splits, count)


def to_torch(chips: ChipDataset, transform: Callable[[Sample], Any] | None = None) -> Any:
    """Make a `torch.utils.data.IterableDataset` of chips.

    Arrays become tensors; unsigned integers of 16 bits become int32, which torch can compute with.

    Args:
        chips: The chips.
        transform: Called with each sample.

    Raises:
        MissingExtraError: torch is not installed.
    """
    torch = import_extra("torch", "torch", "scenebeam.chips.to_torch")
    data = import_extra("torch.utils.data", "torch", "scenebeam.chips.to_torch")

    def tensors(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: tensors(one) for name, one in value.items()}
        if not hasattr(value, "dtype"):
            return value
        wide = {"uint16": "int32", "uint32": "int64"}.get(value.dtype.name, value.dtype.name)
        return torch.from_numpy(value.astype(wide))

    class Chips(data.IterableDataset):  # type: ignore[misc, name-defined]
        def __len__(self) -> int:
            return len(chips)

        def __iter__(self) -> Iterator[Any]:
            worker = data.get_worker_info()
            part = chips if worker is None else chips.shard(worker.id, worker.num_workers)
            for sample in part:
                found = {name: tensors(value) for name, value in sample.items()}
                yield found if transform is None else transform(found)

    return Chips()


def _sample(chip: StoredChip) -> Sample:
    metadata = chip.metadata
    times = [datetime.fromisoformat(text) for text in metadata["images"][IMAGE]["times"]]
    return {
        "id": chip.id,
        **chip.images,
        "mask": dict(chip.masks),
        "label": dict(metadata.get("labels", {})),
        "bbox": metadata["bbox"],
        "time": times,
        "metadata": dict(metadata),
    }
