"""Make the chips of a cell: choose and read their images, draw their labels, and pack them.

A cell may be interrupted at any time. What it makes follows from the plan and the pixels alone, so
the next attempt makes the same files again. The record comes last, and marks the cell done.
"""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Container, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq

from scenebeam.imaging.spool import parquet_bytes
from scenebeam.products.chips.choose import ImageChooser
from scenebeam.products.chips.image_spool import ImageSpool
from scenebeam.products.chips.images import CellImages, read_undated
from scenebeam.products.chips.labels import make_masks
from scenebeam.products.chips.layouts import LAYOUTS, Layout
from scenebeam.products.chips.layouts.base import EncodedSample
from scenebeam.products.chips.record import CellRecord, statistics_key
from scenebeam.products.chips.request import IMAGE
from scenebeam.products.chips.samples import ChipSample, ImageStack, chip_item
from scenebeam.products.chips.statistics import ChipStatistics
from scenebeam.products.chips.task import ChipRef, ChipsTask, LabelSource
from scenebeam.stac_geoparquet import write_items
from scenebeam.storage import Store
from scenebeam.tasks import Outcome
from scenebeam.transfer.pools import cpu_threads
from scenebeam.transfer.retry import Budget

log = logging.getLogger(__name__)
_AHEAD = 16
"""Chips that are encoded while one is published."""
TRAIN = "train"
MAX_CLASSES = 1000
"""A label with more values is not counted."""


def make_cell(task: ChipsTask, store: Store, budget: Budget) -> Outcome:
    """Make the chips of a cell.

    Args:
        task: The task of the cell.
        store: Where files are published.
        budget: Retries of the task's reads.

    Returns:
        The outcome: `failed` if a chip is missing and the request wants that to fail.

    Raises:
        ReadError: A file cannot be read at the moment, and a later attempt may succeed.
        StorageError: A file cannot be published, or the disk is too small.
    """
    chips = read_chips(task, store)
    chooser = ImageChooser(task, chips, budget)
    chooser.choose(range(len(chips)))
    with ImageSpool(_spool_bytes(task, chooser)) as spool:
        images = CellImages(task, chips, spool, budget)
        images.read(chooser)
        maker = _CellMaker(task, chips, chooser, images, spool, store, budget)
        if maker.missing and task.product.on_missing == "fail":
            return _failed(task, chips, maker.missing)
        record = maker.publish()
    log.info("%s: %d of %d chips, %d images", task.id, record.chips, len(chips), record.images)
    return Outcome(
        task=task.id, state="done", detail={"chips": record.chips, "images": record.images}
    )


def read_chips(task: ChipsTask, store: Store) -> list[ChipRef]:
    """Read the chips of a cell from the table that the plan has written."""
    with store.local_copy(task.chips_key) as path:
        rows = pq.ParquetFile(path).read().to_pylist()
    return [ChipRef(**row) for row in rows]


def _spool_bytes(task: ChipsTask, chooser: ImageChooser) -> int:
    """Return what the spool will hold: all images and masks of the cell."""
    images = sum(len(choice.images) for choice in chooser.choices)
    size = 0
    for spec in task.stacks:
        undated = any(one.name == spec.name and one.within_days is None for one in task.others)
        size += (len(chooser.choices) if undated else images) * spec.item_bytes
    for label in task.labels:
        size += len(chooser.choices) * np.dtype(label.dtype).itemsize
    return size * task.side**2


def _failed(task: ChipsTask, chips: Sequence[ChipRef], missing: Mapping[int, str]) -> Outcome:
    number, reason = next(iter(missing.items()))
    others = f", and {len(missing) - 1} others" if len(missing) > 1 else ""
    return Outcome(
        task=task.id,
        state="failed",
        kind="failed_missing_chips",
        reason=f"{len(missing)} of {len(chips)} chips: {chips[number].id}: {reason}{others}",
        detail={"chips": {chips[index].id: text for index, text in missing.items()}},
    )


class _CellMaker:
    """Packs the chips of a cell whose images have been read."""

    def __init__(
        self,
        task: ChipsTask,
        chips: Sequence[ChipRef],
        chooser: ImageChooser,
        images: CellImages,
        spool: ImageSpool,
        store: Store,
        budget: Budget,
    ) -> None:
        """Read the other images and make the labels of the chips that have enough images."""
        self._task, self._chips, self._chooser = task, chips, chooser
        self._images, self._spool, self._store = images, spool, store
        self.missing: dict[int, str] = {}
        """Index of a chip → why it is not made."""
        for number, choice in enumerate(chooser.choices):
            if len(choice.images) < task.product.min_images:
                self.missing[number] = choice.reason
        self._nearest: dict[str, dict[int, list[str]]] = {}
        for other in task.others:
            present = self._present()
            if other.within_days is None:
                covered = read_undated(task, other, present, spool, budget)
                self._require(covered, f"no {other.name} covers it")
            else:
                chosen = {number: chooser.choices[number].images for number in present}
                found = images.read_nearest(other, chosen)
                self._nearest[other.name] = found
                self._require(
                    found, f"no {other.name} within {other.within_days:g} days of each image"
                )
        for label in task.labels:
            self._make_masks(label, budget)

    def _present(self) -> dict[int, ChipRef]:
        return {
            number: chip for number, chip in enumerate(self._chips) if number not in self.missing
        }

    def _require(self, found: Container[int], reason: str) -> None:
        for number in self._present():
            if number not in found:
                self.missing[number] = reason

    def _make_masks(self, label: LabelSource, budget: Budget) -> None:
        """Keep the masks of a label, and leave out chips of which too small a share has a class."""
        [requested] = [one for one in self._task.product.labels if one.name == label.name]
        found = set()
        for mask in make_masks(self._task, label, self._present(), self._store, budget):
            found.add(mask.number)
            if mask.share < requested.min_share:
                self.missing[mask.number] = (
                    f"less than {requested.min_share:g} % of it has a class of {label.name}"
                )
            else:
                self._spool.add(label.name, mask.number, "", mask.pixels)
        self._require(found, f"the label {label.name} has no data there")

    def publish(self) -> CellRecord:
        """Publish the chips, their items and statistics, and the record."""
        task, store = self._task, self._store
        layout = LAYOUTS[task.product.layout](task, store)
        statistics = ChipStatistics()
        # Where no split is for training, all chips are described.
        described = {TRAIN} if TRAIN in task.split_counts else set(task.split_counts)
        classes: dict[str, Counter[str]] = {}
        splits: Counter[str] = Counter()
        image_counts: dict[str, int] = {}
        items = []
        try:
            for sample, encoded in _encoded(layout, self._samples()):
                assets = layout.append(sample, encoded)
                items.append(chip_item(sample, assets))
                splits[sample.ref.split] += 1
                image_counts[sample.id] = len(sample.image.pixels)
                if sample.ref.split in described:
                    for stack in sample.stacks:
                        statistics.add(stack)
                _count_classes(sample, classes)
            layout.close()
        except BaseException:
            layout.discard()
            raise
        record = CellRecord(
            chips=len(items),
            images=sum(image_counts.values()),
            missing={self._chips[index].id: text for index, text in sorted(self.missing.items())},
            splits=dict(sorted(splits.items())),
            classes=_few(classes),
            image_counts=image_counts,
            files=tuple(layout.files),
        )
        if items:
            store.write(task.item_path, write_items(items))
            store.write(statistics_key(task), parquet_bytes(statistics.to_table()))
        store.write(task.record_key, record.to_bytes())
        return record

    def _samples(self) -> Iterator[ChipSample]:
        task = self._task
        scenes = {scene.id: scene for scene in task.scenes}
        for number, chip in self._present().items():
            ids = self._chooser.choices[number].images
            clouds = [self._chooser.cloud_of(number, one) for one in ids]
            image = replace(self._images.stack(IMAGE, number, scenes, ids), clouds=clouds)
            stacks = [image]
            for other in task.others:
                if other.within_days is None:
                    pixels = self._spool.get(other.name, number, "")[None]
                    names = [[scene.id for scene in other.layer]]
                    stacks.append(ImageStack(task.stack(other.name), pixels, [], names))
                else:
                    other_scenes = {scene.id: scene for scene in other.scenes}
                    found = self._nearest[other.name][number]
                    stacks.append(self._images.stack(other.name, number, other_scenes, found))
            masks = {one.name: self._spool.get(one.name, number, "") for one in task.labels}
            yield ChipSample(task, chip, stacks, masks)


def _encoded(
    layout: Layout, samples: Iterator[ChipSample]
) -> Iterator[tuple[ChipSample, EncodedSample]]:
    """Encode samples in threads, some of them ahead, and yield them in order."""
    pending: deque[tuple[ChipSample, Future[EncodedSample]]] = deque()
    for sample in samples:
        pending.append((sample, cpu_threads().submit(layout.encode, sample)))
        if len(pending) > _AHEAD:
            first, future = pending.popleft()
            yield first, future.result()
    for first, future in pending:
        yield first, future.result()


def _count_classes(sample: ChipSample, classes: dict[str, Counter[str]]) -> None:
    """Count the pixels of each class of the masks, and the values of label columns."""
    for label in sample.task.labels:
        mask = sample.masks[label.name]
        if label.instances or mask.dtype.kind not in "iu":
            continue
        values, counts = np.unique(mask, return_counts=True)
        found = classes.setdefault(label.name, Counter())
        for value, count in zip(values.tolist(), counts.tolist(), strict=True):
            found[str(value)] += count
    for name, value in sample.values.items():
        # Other values are not classes, but something to be predicted.
        if isinstance(value, str | int):
            classes.setdefault(name, Counter())[str(value)] += 1


def _few(classes: Mapping[str, Counter[str]]) -> dict[str, dict[str, int]]:
    """Return the counts of labels that do not have very many values."""
    few = {}
    for name, counts in classes.items():
        if len(counts) <= MAX_CLASSES:
            few[name] = dict(sorted(counts.items()))
    return few
