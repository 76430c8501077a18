"""Read the chips that an earlier run has made, so that later runs do not need the boundaries."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import compress

from scenebeam.imaging.split import CellIndex
from scenebeam.products.fields.chips import Chip
from scenebeam.products.fields.request import ChipGridOptions
from scenebeam.storage import Store

CHIPS_TABLE = "chips.csv"
_SQUARE = 5
"""Characters of the name of a 100 km square: `34UFF`."""


@dataclass
class ExistingChips:
    """The chips that `chips.csv` lists. All sequences have one entry per chip."""

    chips: list[Chip] = field(default_factory=list)
    coverage: list[float] = field(default_factory=list)
    """Percent of each chip covered by fields."""
    cells: list[CellIndex] = field(default_factory=list)
    """Where each chip is on the lattice of its zone."""
    squares: list[str] = field(default_factory=list)
    """MGRS square (100 km) of each chip."""

    def subset(self, names: set[str]) -> ExistingChips:
        """Return only the chips with these names."""
        kept = [chip.name in names for chip in self.chips]
        return ExistingChips(
            list(compress(self.chips, kept)),
            list(compress(self.coverage, kept)),
            list(compress(self.cells, kept)),
            list(compress(self.squares, kept)),
        )


def read_existing_chips(store: Store, grid: ChipGridOptions, year: int) -> ExistingChips | None:
    """Read the table of chips of an earlier run.

    Args:
        store: The output of the run.
        grid: Size, resolution and prefix of the chips; the same as in the earlier run.
        year: Year of planting, part of the chips' names.

    Returns:
        The chips, or None if the output has no such table.
    """
    content = store.read(CHIPS_TABLE)
    if content is None:
        return None
    existing = ExistingChips()
    shape, pixel = (grid.size, grid.size), grid.resolution
    for row in csv.DictReader(io.StringIO(content.decode())):
        name = row["chip"]
        transform = (pixel, 0.0, float(row["left"]), 0.0, -pixel, float(row["top"]))
        existing.chips.append(Chip(name, row["crs"], transform, shape))
        existing.coverage.append(float(row["field_coverage"]))
        existing.cells.append(_cell(row["crs"], transform, grid.size * pixel))
        mgrs_name = name.removeprefix(f"{grid.prefix}-").removesuffix(f"_{year}")
        existing.squares.append(mgrs_name[:_SQUARE])
    return existing


def _cell(crs: str, transform: Sequence[float], side: float) -> CellIndex:
    """Return the cell that a chip was made of. The lattice's origin is within a pixel of 0."""
    left, top = transform[2], transform[5]
    epsg = int(crs.rpartition(":")[2])
    return epsg, math.floor((left + side / 2) / side), math.floor((top - side / 2) / side)
