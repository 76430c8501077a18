"""Chips: all that were made, which of them are released, and under which ids. Pure functions."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from scenebeam.collections import LandClass
from scenebeam.products import stac
from scenebeam.products.landcover.record import AoiRecord, ChipRecord
from scenebeam.products.landcover.task import LandcoverTask
from scenebeam.raster.grid import Grid
from scenebeam.request import Platform


@dataclass(frozen=True)
class Chip:
    """A chip that was made."""

    task: LandcoverTask
    crs: str
    made: ChipRecord
    id: int | None = None
    """In the release; None where it is not a part of it."""

    @property
    def land_class(self) -> LandClass:
        """What it shows."""
        return self.task.classes[self.made.land_class]

    @cached_property
    def center(self) -> tuple[float, float]:
        """Longitude and latitude."""
        half = self.task.side / 2
        x, y = stac.to_lonlat(self.crs).transform(self.made.left + half, self.made.top - half)
        return round(x, 7), round(y, 7)

    @cached_property
    def footprint(self) -> dict[str, Any]:
        """Its outline in degrees, as GeoJSON."""
        return stac.grid_footprint(self.grid("lulc"))

    def grid(self, platform: Platform) -> Grid:
        """The grid of a modality's rasters."""
        return self.task.chip_grid(self.crs, self.made.left, self.made.top, platform)


def numbered(
    tasks: Iterable[LandcoverTask], records: Mapping[str, AoiRecord], sampling_factor: float | None
) -> list[Chip]:
    """All chips by area and place; those that are released have ids, from 0 on."""
    chips = [
        Chip(task, records[task.id].crs, made)
        for task in sorted(tasks, key=lambda task: task.aoi)
        if task.id in records
        for made in records[task.id].chips
    ]
    taken = balanced([(chip.made.land_class, chip.made.lot) for chip in chips], sampling_factor)
    ids = {place: number for number, place in enumerate(sorted(taken))}
    return [replace(chip, id=ids.get(place)) for place, chip in enumerate(chips)]


def balanced(lots: Sequence[tuple[int, str]], sampling_factor: float | None) -> list[int]:
    """Which of some chips, given by class and lot, to keep so that no class has more than `sampling_factor` times
    the chips of the smallest class that has any; of a class too large those of the largest lots go.
    """
    counts = Counter(land_class for land_class, _ in lots)
    most = math.floor(min(counts.values()) * sampling_factor) if counts and sampling_factor is not None else len(lots)
    kept: Counter[int] = Counter()
    found = []
    for place in sorted(range(len(lots)), key=lambda place: (lots[place][1], place)):
        if kept[lots[place][0]] < most:
            kept[lots[place][0]] += 1
            found.append(place)
    return found
