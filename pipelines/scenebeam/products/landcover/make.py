"""Make: survey an area of interest, draw its chips, and publish their rasters."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Sequence

from scenebeam.products.landcover.candidates import (
    Survey,
    find_candidates,
    sample_chips,
    sampling_key,
)
from scenebeam.products.landcover.images import make_images, picture_name, raster_name
from scenebeam.products.landcover.lattice import ChipLattice, build_grid
from scenebeam.products.landcover.layers import scenes_needed
from scenebeam.products.landcover.record import AoiRecord, ChipRecord, MadeFile
from scenebeam.products.landcover.request import Platform
from scenebeam.products.landcover.task import LandcoverTask, Layer
from scenebeam.storage import Store
from scenebeam.tasks import Outcome
from scenebeam.transfer.pools import io_threads
from scenebeam.transfer.retry import Budget

log = logging.getLogger(__name__)
_ORDER: tuple[Platform, ...] = ("lulc", "dem", "s1rtc", "lc2l2", "s2l2a")
"""Cheapest first: a chip that one of them rejects costs nothing of those behind it."""


def make_area(task: LandcoverTask, store: Store, budget: Budget) -> Outcome:
    """Make the chips of one area of interest. Rasters that stand already are not made again.

    A chip that turns out to have holes gives way to the next of its class: which those are follows from the pixels
    alone, so that every run, resumed or not, ends with the same ones. Raises ReadError where a file cannot be read.
    """
    if task.fault:
        return Outcome(
            task=task.id, state="skipped", kind="skipped_aoi", reason=task.fault, permanent=True
        )
    lattice = build_grid(task, budget)
    found = find_candidates(lattice, budget)
    made = _standing(task, store)
    chips: list[int] = []
    while True:
        drawn = sample_chips(lattice, found.classes, found.rejected)
        new = sorted(set(drawn) - set(chips))
        chips = drawn
        if not new:
            break
        _make_chips(lattice, new, found, store, budget, made)
    record = _record(lattice, chips, found, made)
    log.info(
        "area %s: %d windows, %d of one class, %d not fit, %d chips",
        task.aoi, found.windows, found.homogeneous.total(), len(found.rejected), len(chips),
    )  # fmt: skip
    own = {f"{task.output_prefix}/{name}" for chip in record.chips for name in chip.files}
    store.delete(sorted(made.keys() - own))  # of chips that turned out not to be fit
    store.write(task.record, (record.model_dump_json() + "\n").encode())
    return Outcome(task=task.id, state="done", detail={"chips": len(chips)})


def _standing(task: LandcoverTask, store: Store) -> dict[str, MadeFile]:
    """Files that an earlier try has published."""
    names = sorted(store.list(f"{task.output_prefix}/"))
    told = io_threads().map(store.checksum, names)
    return {
        name: MadeFile(size=size, checksum=checksum)
        for name, (size, checksum) in zip(names, told, strict=True)
    }


def _make_chips(
    lattice: ChipLattice,
    chips: Sequence[int],
    found: Survey,
    store: Store,
    budget: Budget,
    made: dict[str, MadeFile],
) -> None:
    """Make what some chips lack, and note those that are not fit."""
    for layer in sorted(lattice.task.layers, key=lambda layer: _ORDER.index(layer.platform)):
        lacking = {
            chip: found.classes[chip]
            for chip in chips
            if chip not in found.rejected
            and not made.keys() >= set(_names(lattice.task, layer, chip))
        }
        if lacking:
            found.rejected |= make_images(layer, lattice, lacking, store, budget, made)


def _names(task: LandcoverTask, layer: Layer, chip: int) -> Iterable[str]:
    yield raster_name(task, layer, chip)
    if task.thumbnails:
        yield picture_name(task, layer, chip)


def _record(
    lattice: ChipLattice, chips: Sequence[int], found: Survey, made: dict[str, MadeFile]
) -> AoiRecord:
    task = lattice.task
    scenes: dict[int, dict[str, tuple[str, ...]]] = {chip: {} for chip in chips}
    for layer in task.layers:
        if len(layer.scenes) > 1:
            grids = [lattice.grid(chip, layer.platform) for chip in chips]
            for chip, numbers in zip(chips, scenes_needed(layer, grids), strict=True):
                scenes[chip][layer.key] = tuple(layer.scenes[number].id for number in numbers)

    def told(chip: int) -> ChipRecord:
        left, top = lattice.corner(chip)
        names = [name for layer in task.layers for name in _names(task, layer, chip)]
        return ChipRecord(
            chip=chip,
            land_class=found.classes[chip],
            left=left,
            top=top,
            lot=sampling_key(lattice, chip).hex(),
            files={name.rpartition("/")[2]: made[name] for name in names},
            scenes=scenes[chip],
        )

    return AoiRecord(
        crs=lattice.crs,
        windows=found.windows,
        homogeneous=dict(sorted(found.homogeneous.items())),
        rejected=dict(sorted(Counter(found.rejected.values()).items())),
        chips=tuple(told(chip) for chip in chips),
    )
