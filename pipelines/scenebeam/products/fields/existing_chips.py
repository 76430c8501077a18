"""Standing: the chips that an earlier run has made of field boundaries, when the boundaries are not there any more."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass

from scenebeam.products.fields.chips import Chip
from scenebeam.products.fields.request import ChipGridOptions
from scenebeam.storage import Store

CHIPS_TABLE = "chips.csv"


@dataclass
class StandingChips:
    """Chips, each with what its table says of it."""

    chips: list[Chip]
    coverage: list[float]
    """Percent of each chip under fields."""
    splits: list[str]
    squares: list[str]
    """MGRS square of each chip."""

    def only(self, names: set[str]) -> StandingChips:
        """Without the chips of other names."""
        kept = [number for number, chip in enumerate(self.chips) if chip.name in names]
        return StandingChips(
            [self.chips[number] for number in kept],
            [self.coverage[number] for number in kept],
            [self.splits[number] for number in kept],
            [self.squares[number] for number in kept],
        )


def standing_chips(store: Store, grid: ChipGridOptions, year: int) -> StandingChips | None:
    """Read the table of the chips that stand in a store; None where there is none."""
    content = store.read(CHIPS_TABLE)
    if content is None:
        return None
    found = StandingChips([], [], [], [])
    shape, pixel = (grid.size, grid.size), grid.resolution
    for row in csv.DictReader(io.StringIO(content.decode())):
        transform = (pixel, 0.0, float(row["left"]), 0.0, -pixel, float(row["top"]))
        found.chips.append(Chip(row["chip"], row["crs"], transform, shape))
        found.coverage.append(float(row["field_coverage"]))
        found.splits.append(row["split"])
        place = row["chip"].removeprefix(f"{grid.prefix}-").removesuffix(f"_{year}")
        found.squares.append(place[:5])
    return found
