"""Chips: all that were made, which of them are released, and under which ids. Pure functions."""

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
from scenebeam.imaging.split import split_chips, warn_of_empty
from scenebeam.metadata import stac_items
from scenebeam.products.landcover.record import AoiRecord, ChipRecord
from scenebeam.products.landcover.request import Platform
from scenebeam.products.landcover.task import LandcoverTask
from scenebeam.raster.grid import Grid
from scenebeam.request import Split

_EDGE = 1e-3
"""Part of a chip that it may share with another: edges in rounded degrees."""


@dataclass(frozen=True)
class Chip:
    """A chip that was made."""

    task: LandcoverTask
    crs: str
    made: ChipRecord
    id: int | None = None
    """In the release; None where it is not a part of it."""
    twin: str = ""
    """Area of interest whose chip shows the same ground, and is released in place of this one."""
    split: str = ""

    @property
    def land_class(self) -> LandClass:
        """What it shows."""
        return self.task.classes[self.made.land_class]

    @cached_property
    def center(self) -> tuple[float, float]:
        """Longitude and latitude."""
        half = self.task.side / 2
        x, y = stac_items.to_lonlat(self.crs).transform(self.made.left + half, self.made.top - half)
        return round(x, 7), round(y, 7)

    @cached_property
    def footprint(self) -> dict[str, Any]:
        """Its outline in degrees, as GeoJSON."""
        return stac_items.grid_footprint(self.grid("lulc"))

    def grid(self, platform: Platform) -> Grid:
        """The grid of a modality's rasters."""
        return self.task.chip_grid(self.crs, self.made.left, self.made.top, platform)


def assign_ids(
    tasks: Iterable[LandcoverTask],
    records: Mapping[str, AoiRecord],
    sampling_factor: float | None,
    split: Split | None = None,
) -> list[Chip]:
    """All chips by area and place; those that are released have ids, from 0 on.

    Where areas overlap, ground that several chips show is released once.
    """
    chips = [
        Chip(task, records[task.id].crs, made)
        for task in sorted(tasks, key=lambda task: task.aoi)
        if task.id in records
        for made in records[task.id].chips
    ]
    chips = [replace(chip, twin=twin) for chip, twin in zip(chips, _twins(chips), strict=True)]
    own = [place for place, chip in enumerate(chips) if not chip.twin]
    taken = balance_classes(
        [(chips[place].made.land_class, chips[place].made.lot) for place in own], sampling_factor
    )
    ids = {place: number for number, place in enumerate(sorted(own[number] for number in taken))}
    chips = [replace(chip, id=ids.get(place)) for place, chip in enumerate(chips)]
    return chips if split is None else _with_splits(chips, split)


def _twins(chips: Sequence[Chip]) -> list[str]:
    """For each chip the area of an earlier one that shows some of its ground; empty where there is none."""
    shapes = [shape(chip.footprint) for chip in chips]
    tree, found = shapely.STRtree(shapes), [""] * len(chips)
    for place, chip in enumerate(chips):
        for other in sorted(tree.query(shapes[place], predicate="intersects").tolist()):
            if other >= place or found[other] or chips[other].task.aoi == chip.task.aoi:
                continue
            if shapely.intersection(shapes[place], shapes[other]).area > _EDGE * shapes[place].area:
                found[place] = chips[other].task.aoi
                break
    return found


def _with_splits(chips: Sequence[Chip], asked: Split) -> list[Chip]:
    released = [chip for chip in chips if chip.id is not None]
    places = [
        (
            chip.crs,
            math.floor(chip.made.left / chip.task.side),
            math.floor(chip.made.top / chip.task.side),
        )
        for chip in released
    ]
    outlines = np.array([shape(chip.footprint) for chip in released], object)
    splits = split_chips(places, outlines, asked) if released else []
    warn_of_empty(splits, asked)
    by_id = {chip.id: split for chip, split in zip(released, splits, strict=True)}
    return [replace(chip, split=by_id.get(chip.id, "")) for chip in chips]


def balance_classes(lots: Sequence[tuple[int, str]], sampling_factor: float | None) -> list[int]:
    """Which of some chips, given by class and lot, to keep so that no class has more than `sampling_factor` times
    the chips of the smallest class that has any; of a class too large those of the largest lots go.
    """
    counts = Counter(land_class for land_class, _ in lots)
    most = (
        math.floor(min(counts.values()) * sampling_factor)
        if counts and sampling_factor is not None
        else len(lots)
    )
    kept: Counter[int] = Counter()
    found = []
    for place in sorted(range(len(lots)), key=lambda place: (lots[place][1], place)):
        if kept[lots[place][0]] < most:
            kept[lots[place][0]] += 1
            found.append(place)
    return found
