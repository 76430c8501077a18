"""Make the chips of an area of interest: find candidates, sample them, publish their rasters."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence

from scenebeam.imaging.layered_reader import required_scenes
from scenebeam.products.landcover.candidates import (
    Candidates,
    find_candidates,
    sample_chips,
    sampling_key,
)
from scenebeam.products.landcover.images import Published, make_images, raster_key, thumbnail_key
from scenebeam.products.landcover.lattice import ChipLattice, build_grid
from scenebeam.products.landcover.record import AoiRecord, ChipRecord, FileRecord
from scenebeam.products.landcover.request import Platform
from scenebeam.products.landcover.task import LandcoverTask, Layer
from scenebeam.storage import Store
from scenebeam.tasks import Outcome
from scenebeam.transfer.pools import io_threads
from scenebeam.transfer.retry import Budget

log = logging.getLogger(__name__)
_ORDER: tuple[Platform, ...] = ("lulc", "dem", "s1rtc", "lc2l2", "s2l2a")
"""Order in which modalities are made, cheapest first: a chip that one of them rejects is not read
from those after it."""


def make_area(task: LandcoverTask, store: Store, budget: Budget) -> Outcome:
    """Make the chips of one area of interest. Existing rasters are not made again.

    A chip that turns out to have gaps or a blank band is replaced by the next one of its class. The
    replacement follows from the pixels alone, so every run, resumed or not, ends with the same
    chips.

    Args:
        task: The task.
        store: Where files are published.
        budget: Retries of the task's reads.

    Returns:
        `skipped` if the plan found that the area cannot be made, else `done`.

    Raises:
        ReadError: A file cannot be read.
        CheckError: The files of an input contradict each other or their collection.
        StorageError: A file cannot be published.
    """
    if task.fault:
        return Outcome(
            task=task.id, state="skipped", kind="skipped_aoi", reason=task.fault, permanent=True
        )
    lattice = build_grid(task, budget)
    candidates = find_candidates(lattice, budget)
    published = _existing_files(task, store)
    # Making chips can reject some of them, so sample again until the sample has no new chip.
    chips: list[int] = []
    while True:
        sample = sample_chips(lattice, candidates.classes, candidates.rejected)
        new = sorted(set(sample) - set(chips))
        chips = sample
        if not new:
            break
        _make_chips(lattice, new, candidates, store, budget, published)
    record = _make_record(lattice, chips, candidates, published)
    log.info(
        "area %s: %d windows, %d of one class, %d rejected, %d chips",
        task.aoi,
        candidates.windows,
        candidates.homogeneous.total(),
        len(candidates.rejected),
        len(chips),
    )
    # Remove files of chips that were rejected later. The record comes last: it marks the area done.
    kept = set()
    for chip in record.chips:
        for name in chip.files:
            kept.add(f"{task.output_prefix}/{name}")
    store.delete(sorted(published.keys() - kept))
    store.write(task.record_key, (record.model_dump_json() + "\n").encode())
    return Outcome(task=task.id, state="done", detail={"chips": len(chips)})


def _existing_files(task: LandcoverTask, store: Store) -> Published:
    """Return the files of the area that an earlier attempt published."""
    keys = sorted(store.list(f"{task.output_prefix}/"))
    checksums = io_threads().map(store.checksum, keys)
    files = {}
    for key, (size, checksum) in zip(keys, checksums, strict=True):
        files[key] = FileRecord(size=size, checksum=checksum)
    return files


def _make_chips(
    lattice: ChipLattice,
    chips: Sequence[int],
    candidates: Candidates,
    store: Store,
    budget: Budget,
    published: Published,
) -> None:
    """Make the missing files of some chips, and add those that are not usable to the rejected."""
    for layer in sorted(lattice.task.layers, key=lambda layer: _ORDER.index(layer.platform)):
        missing = {}
        for chip in chips:
            complete = published.keys() >= set(_file_keys(lattice.task, layer, chip))
            if chip not in candidates.rejected and not complete:
                missing[chip] = candidates.classes[chip]
        if missing:
            candidates.rejected |= make_images(layer, lattice, missing, store, budget, published)


def _file_keys(task: LandcoverTask, layer: Layer, chip: int) -> list[str]:
    keys = [raster_key(task, layer, chip)]
    if task.thumbnails:
        keys.append(thumbnail_key(task, layer, chip))
    return keys


def _make_record(
    lattice: ChipLattice, chips: Sequence[int], candidates: Candidates, published: Published
) -> AoiRecord:
    scenes = _scenes_of_chips(lattice, chips)
    records = []
    for chip in chips:
        left, top = lattice.corner(chip)
        files = {}
        for layer in lattice.task.layers:
            for key in _file_keys(lattice.task, layer, chip):
                files[key.rpartition("/")[2]] = published[key]
        records.append(
            ChipRecord(
                chip=chip,
                land_class=candidates.classes[chip],
                left=left,
                top=top,
                lot=sampling_key(lattice, chip).hex(),
                files=files,
                scenes=scenes[chip],
            )
        )
    return AoiRecord(
        crs=lattice.crs,
        windows=candidates.windows,
        homogeneous=dict(sorted(candidates.homogeneous.items())),
        rejected=dict(sorted(Counter(candidates.rejected.values()).items())),
        chips=tuple(records),
    )


def _scenes_of_chips(
    lattice: ChipLattice, chips: Sequence[int]
) -> dict[int, dict[str, tuple[str, ...]]]:
    """Return chip number → label of each layer with several scenes → ids of those of the chip."""
    scenes: dict[int, dict[str, tuple[str, ...]]] = {chip: {} for chip in chips}
    for layer in lattice.task.layers:
        if len(layer.scenes) > 1:
            grids = [lattice.grid(chip, layer.platform) for chip in chips]
            for chip, indices in zip(chips, required_scenes(layer.scenes, grids), strict=True):
                scenes[chip][layer.label] = tuple(layer.scenes[index].id for index in indices)
    return scenes
