"""FieldsTask: one step (masks, or the imagery of one season) for one cell of neighboring chips."""

from __future__ import annotations

import os.path
from collections.abc import Iterable
from typing import Literal, NamedTuple

import numpy as np
import shapely
from affine import Affine

from scenebeam.imaging.chip_scenes import ChipScene, Clouds
from scenebeam.products.fields.request import FieldsRequest
from scenebeam.raster.grid import Grid
from scenebeam.request import Checks, is_url
from scenebeam.tasks import Task

CELLS = "cells/"
"""Folder of the records of cells: the chosen scenes, the images made, and the items as a table."""
Step = Literal["masks", "planting", "harvest"]
MASKS = ("instance", "semantic_2_class", "semantic_3_class")


class ChipRef(NamedTuple):
    """A chip as a task stores it. Its grid is that of the task, shifted to its corner."""

    name: str
    left: float
    """In units of the task's CRS, like `top`."""
    top: float
    day: int = 0
    """Day of year of the season; 0 for masks."""
    target: str = ""
    """The date of that day, such as 2024-03-15."""
    mask: str = ""
    """Path, URL or key of the mask whose grid its images must have; empty if the run makes it."""
    item: str = ""
    """Key of its item in the catalog that it comes from."""
    coverage: float = 0.0
    """Percent covered by fields, if the run makes the chip."""
    split: str = ""


class FieldsTask(Task):
    """One step of one cell. Methods named `*_key` return keys in the store of the output."""

    cell: str
    step: Step
    steps: tuple[Step, ...]
    """All steps of the cell. The last one to finish writes the cell's items."""
    crs: str
    pixel: tuple[float, float]
    """Width and (negative) height of a pixel, in units of the CRS."""
    shape: tuple[int, int]
    """Rows and columns of each chip."""
    chips: tuple[ChipRef, ...]
    candidates: tuple[ChipScene, ...] = ()
    clouds: Clouds = Clouds()
    squares: tuple[str, ...] = ()
    """For masks: the MGRS squares whose fields may be on the chips."""
    dataset: str = ""
    """Id of the collection."""
    catalog: str = ""
    """Catalog that the chips come from, relative to the output if it is inside; empty if the run
    makes them."""
    stac_host: str = ""
    source: str = ""
    """Source of the images: `sentinel-2`, or the id of another collection."""
    product: FieldsRequest
    checks: Checks

    @property
    def record_key(self) -> str:
        """Key of the record of the step: the chosen scenes, or the masks that were made."""
        return f"{CELLS}{self.cell}/{self.step}.json"

    @property
    def images_record_key(self) -> str:
        """Key of the record that is written when all images of the step exist."""
        return f"{CELLS}{self.cell}/{self.step}_images.json"

    @property
    def sources(self) -> tuple[str, ...]:
        """Ids of the scenes that may be read."""
        return tuple(candidate.id for candidate in self.candidates)

    @property
    def downloads(self) -> bool:
        """Whether the task makes images."""
        return self.step != "masks" and self.product.images == "download"

    def is_done(self, existing: set[str]) -> bool:
        """Whether its records exist, and each chip has both its item and its image, or neither.

        Args:
            existing: Keys of all files in the store.
        """
        if not existing.issuperset(self.outputs):
            return False
        if not self.downloads:
            return True
        # An image that was deleted by hand leaves its item behind, and must be made again.
        for chip in self.chips:
            if (self.item_key(chip) in existing) != (self.image_key(chip) in existing):
                return False
        return True

    @property
    def possible_outputs(self) -> Iterable[str]:
        """Keys of all files that the task may write; not the items of a catalog's own chips."""
        yield from self.outputs
        yield self.images_record_key
        for chip in self.chips:
            yield from self.chip_keys(chip)
            if self.step == "masks":
                yield self.parent_key(chip)

    def chip_keys(self, chip: ChipRef) -> list[str]:
        """Keys of the files of one chip that only this step writes: its masks or its imagery."""
        if self.step == "masks":
            return [self.mask_key(chip, mask) for mask in MASKS]
        return [self.item_key(chip), self.image_key(chip), self.thumbnail_key(chip)]

    def grid_of(self, chip: ChipRef) -> Grid:
        """Return the grid of a chip's masks and images."""
        transform = Affine(self.pixel[0], 0, chip.left, 0, self.pixel[1], chip.top)
        return Grid(self.shape, transform, self.crs)

    def grids_of(self, numbers: Iterable[int]) -> dict[int, Grid]:
        """Return the grids of some chips, by their index in the task."""
        return {number: self.grid_of(self.chips[number]) for number in numbers}

    def boxes(self) -> np.ndarray[tuple[int], np.dtype[np.object_]]:
        """Return the outlines of all chips as boxes in the task's CRS, shape (n,)."""
        left = np.array([chip.left for chip in self.chips])
        top = np.array([chip.top for chip in self.chips])
        right, bottom = left + self.pixel[0] * self.shape[1], top + self.pixel[1] * self.shape[0]
        return np.asarray(shapely.box(left, bottom, right, top))

    def parent_key(self, chip: ChipRef) -> str:
        """Key of a chip's own item."""
        return chip.item or f"{chip.name}/{chip.name}.json"

    def image_id(self, chip: ChipRef) -> str:
        """Id of the item of a chip's imagery: `ftw-34UFF1628_2024_planting_s2`."""
        return f"{self._stem(chip)}_{self._suffix}"

    def item_key(self, chip: ChipRef) -> str:
        """Key of the item of a chip's imagery."""
        return f"{chip.name}/{self.image_id(chip)}.json"

    def image_key(self, chip: ChipRef) -> str:
        """Key of a chip's image."""
        return f"{chip.name}/{self._stem(chip)}_image_{self._suffix}.tif"

    def thumbnail_key(self, chip: ChipRef) -> str:
        """Key of the thumbnail of a chip's image."""
        return self.image_key(chip).replace(".tif", ".png")

    def mask_key(self, chip: ChipRef, mask: str) -> str:
        """Key of one of a chip's masks."""
        return f"{chip.name}/{chip.name}_{mask}.tif"

    def _stem(self, chip: ChipRef) -> str:
        """Chip, year and season. Chips of other catalogs may not have the year in their name."""
        year = self.product.year
        return f"{chip.name.removesuffix(f'_{year}')}_{year}_{self.step}"

    @property
    def _suffix(self) -> str:
        return "s2" if self.source == "sentinel-2" else self.source


def is_outside_output(path: str) -> bool:
    """Whether a path is a URL or an absolute path, rather than a key in the store of the output."""
    return is_url(path) or os.path.isabs(path)
