"""Decide which chips are released, and under which ids. Pure functions of the areas' records."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import shapely
from shapely.geometry import shape

from scenebeam.collections import LandClass
from scenebeam.imaging.split import split_chips, warn_of_empty_splits
from scenebeam.metadata import stac_items
from scenebeam.products.landcover.record import AoiRecord, ChipRecord
from scenebeam.products.landcover.request import Platform
from scenebeam.products.landcover.task import LandcoverTask
from scenebeam.raster.grid import Grid
from scenebeam.request import Split

_MAX_OVERLAP = 1e-3
"""Share of a chip that may overlap another without being the same ground: adjacent chips overlap a
little, because footprints are rounded degrees."""


@dataclass(frozen=True)
class Chip:
    """A chip of an area, and its place in the release."""

    task: LandcoverTask
    crs: str
    record: ChipRecord
    id: int | None = None
    """Id in the release; None if the chip is not released."""
    duplicate_of: str = ""
    """The earlier area that has a chip of the same ground, which is released instead."""
    split: str = ""
    """`train`, `val`, `test` or `buffer`; empty without a split or if the chip is not released."""

    @property
    def land_class(self) -> LandClass:
        """Name and color of the chip's class."""
        return self.task.classes[self.record.land_class]

    @cached_property
    def center(self) -> tuple[float, float]:
        """Longitude and latitude of the center, rounded to 7 decimals."""
        half = self.task.side / 2
        to_lonlat = stac_items.to_lonlat(self.crs)
        x, y = to_lonlat.transform(self.record.left + half, self.record.top - half)
        return round(x, 7), round(y, 7)

    @cached_property
    def footprint(self) -> dict[str, Any]:
        """The outline in degrees, as GeoJSON."""
        return stac_items.grid_footprint(self.grid("lulc"))

    def grid(self, platform: Platform) -> Grid:
        """Return the grid of the rasters of a modality."""
        return self.task.chip_grid(self.crs, self.record.left, self.record.top, platform)


def assign_ids(
    tasks: Iterable[LandcoverTask],
    records: Mapping[str, AoiRecord],
    sampling_factor: float | None,
    split: Split | None = None,
) -> list[Chip]:
    """Collect the chips of all areas, and assign ids to those that are released.

    Where areas overlap, ground that several chips show is released once, from the first area.

    Args:
        tasks: The tasks of the areas.
        records: Task id → record; tasks without one are left out.
        sampling_factor: Largest ratio of the classes' chips, see `balance_classes`.
        split: How released chips are split for training; None: not at all.

    Returns:
        All chips in the order of their areas and numbers. The ids of released chips are consecutive
        from 0 in this order.
    """
    chips: list[Chip] = []
    for task in sorted(tasks, key=lambda task: task.aoi):
        if task.id in records:
            area = records[task.id]
            for record in area.chips:
                chips.append(Chip(task, area.crs, record))
    # Remove duplicates before balancing, or ground that is shown twice would count twice.
    unique: list[int] = []
    keys: list[tuple[int, str]] = []
    for index, original in enumerate(_find_duplicates(chips)):
        if original:
            chips[index] = replace(chips[index], duplicate_of=original)
        else:
            unique.append(index)
            keys.append((chips[index].record.land_class, chips[index].record.lot))
    released = sorted(unique[position] for position in balance_classes(keys, sampling_factor))
    for chip_id, index in enumerate(released):
        chips[index] = replace(chips[index], id=chip_id)
    return chips if split is None else _assign_splits(chips, split)


def _find_duplicates(chips: Sequence[Chip]) -> list[str]:
    """Return for each chip the earlier area with a chip of the same ground, or an empty string."""
    shapes = [shape(chip.footprint) for chip in chips]
    tree, duplicate_of = shapely.STRtree(shapes), [""] * len(chips)
    for index, chip in enumerate(chips):
        for other in sorted(tree.query(shapes[index], predicate="intersects").tolist()):
            # Only an earlier chip of another area that is not a duplicate itself takes precedence.
            if other >= index or duplicate_of[other] or chips[other].task.aoi == chip.task.aoi:
                continue
            overlap = shapely.intersection(shapes[index], shapes[other]).area
            if overlap > _MAX_OVERLAP * shapes[index].area:
                duplicate_of[index] = chips[other].task.aoi
                break
    return duplicate_of


def _assign_splits(chips: Sequence[Chip], split: Split) -> list[Chip]:
    released = [chip for chip in chips if chip.id is not None]
    cells = []
    for chip in released:
        side = chip.task.side
        column, row = math.floor(chip.record.left / side), math.floor(chip.record.top / side)
        cells.append((chip.crs, column, row))
    outlines = np.array([shape(chip.footprint) for chip in released], object)
    splits = split_chips(cells, outlines, split) if released else []
    warn_of_empty_splits(splits, split)
    by_id = {chip.id: name for chip, name in zip(released, splits, strict=True)}
    return [replace(chip, split=by_id.get(chip.id, "")) for chip in chips]


def balance_classes(chips: Sequence[tuple[int, str]], sampling_factor: float | None) -> list[int]:
    """Select chips so that no class has too many.

    Args:
        chips: (class, sampling key) of each chip.
        sampling_factor: Largest ratio between the chips of a class and those of the smallest class
            that has any; None: select all. Of a class that is too large, the chips with the largest
            sampling keys are dropped.

    Returns:
        Indices of the selected chips, in the order of their sampling keys.
    """
    available = Counter(land_class for land_class, _ in chips)
    limit = len(chips)
    if available and sampling_factor is not None:
        limit = math.floor(min(available.values()) * sampling_factor)
    selected_of_class: Counter[int] = Counter()
    selected = []
    for index in sorted(range(len(chips)), key=lambda index: (chips[index][1], index)):
        land_class, _ = chips[index]
        if selected_of_class[land_class] < limit:
            selected_of_class[land_class] += 1
            selected.append(index)
    return selected
