"""FieldsTask: a cell of neighbouring chips, and one thing to be made for them: masks, or a season's imagery."""

from __future__ import annotations

import os.path
from collections.abc import Iterable
from typing import Literal, NamedTuple

import numpy as np
import shapely
from affine import Affine
from pydantic import BaseModel, ConfigDict

from scenebeam.catalog.scene import Asset
from scenebeam.imaging.refs import SceneRef
from scenebeam.products.fields.request import FieldsRequest, Season
from scenebeam.raster.grid import Grid
from scenebeam.request import Checks, is_url
from scenebeam.tasks import Task

CELLS = "cells/"
"""Folder of what is told of whole cells: the scenes chosen, the images made, and the items as a table."""
Step = Literal["masks", "planting", "harvest"]
MASKS = ("instance", "semantic_2_class", "semantic_3_class")


class ChipRef(NamedTuple):
    """What a task knows of a chip; its grid is the task's, shifted."""

    name: str
    left: float
    top: float
    day: int = 0
    """Day of year of the season; 0 for masks."""
    target: str = ""
    """That day, as 2024-03-15."""
    mask: str = ""
    item: str = ""
    coverage: float = 0.0
    """Percent under fields, where the run makes the chip."""
    split: str = ""


class Candidate(SceneRef):
    """A scene that may be suitable for some of the chips."""

    cloud: float | None
    """Cloud cover of the whole scene in percent."""
    nodata: float | None
    """Share of nodata of the whole scene in percent."""
    own_grid: bool = True
    """Whether its files can share the chips' grid: those of another UTM zone are resampled."""
    bands: tuple[Asset, ...]
    """The requested bands, in the order of the request."""
    looked_at: tuple[Asset, ...]
    """Bands that show clouds: probability, classes or flags; behind a probability, classes that show
    nodata."""


class Clouds(BaseModel):
    """What counts as cloud in the bands that are looked at."""

    model_config = ConfigDict(frozen=True)

    classes: dict[str, tuple[int, ...]] = {}
    bits: dict[str, tuple[int, ...]] = {}
    probability: dict[str, float] = {}


class FieldsTask(Task):
    """One step of one cell."""

    cell: str
    step: Step
    steps: tuple[Step, ...]
    """All of the cell: the last to be done puts its items together."""
    crs: str
    pixel: tuple[float, float]
    """Width and (negative) height of a pixel, in units of the CRS."""
    shape: tuple[int, int]
    chips: tuple[ChipRef, ...]
    candidates: tuple[Candidate, ...] = ()
    clouds: Clouds = Clouds()
    squares: tuple[str, ...] = ()
    """Of masks: the squares whose fields they are drawn of."""
    dataset: str = ""
    """Id of the collection."""
    catalogue: str = ""
    """Where the chips come from, from the output where they are in it; empty where the run makes them."""
    stac_host: str = ""
    source: str = ""
    """What the images come of: `sentinel-2`, else the id of the collection."""
    product: FieldsRequest
    checks: Checks

    @property
    def record(self) -> str:
        """Name of what the step tells of its chips: the scenes chosen, or the masks made."""
        return f"{CELLS}{self.cell}/{self.step}.json"

    @property
    def images_record(self) -> str:
        """Name of what was told of the images, when all of them stood."""
        return f"{CELLS}{self.cell}/{self.step}_images.json"

    @property
    def season(self) -> Season:
        """Of a task of imagery."""
        assert self.step != "masks"
        return self.step

    @property
    def sources(self) -> tuple[str, ...]:
        """Ids of the scenes that may be read."""
        return tuple(candidate.id for candidate in self.candidates)

    @property
    def downloads(self) -> bool:
        """Whether images are made."""
        return self.step != "masks" and self.product.images == "download"

    def is_done(self, existing: set[str]) -> bool:
        """Whether its records stand, and beside each chip's item its image."""
        if not existing.issuperset(self.outputs):
            return False
        if not self.downloads:
            return True
        return all(
            (self.item_name(c) in existing) == (self.image_name(c) in existing) for c in self.chips
        )

    @property
    def possible_outputs(self) -> Iterable[str]:
        """Names of all that it may leave in the store; a catalogue's own chips are not its."""
        yield from self.outputs
        yield self.images_record
        for chip in self.chips:
            if self.step == "masks":
                yield from (self.mask_name(chip, mask) for mask in MASKS)
                yield self.parent_name(chip)
            else:
                yield from (self.item_name(chip), self.image_name(chip), self.picture_name(chip))

    def grid_of(self, chip: ChipRef) -> Grid:
        """The grid of a chip's mask and images."""
        return Grid(
            self.shape, Affine(self.pixel[0], 0, chip.left, 0, self.pixel[1], chip.top), self.crs
        )

    def boxes(self) -> np.ndarray[tuple[int], np.dtype[np.object_]]:
        """The chips' outlines in the task's CRS."""
        left = np.array([chip.left for chip in self.chips])
        top = np.array([chip.top for chip in self.chips])
        right, bottom = left + self.pixel[0] * self.shape[1], top + self.pixel[1] * self.shape[0]
        return np.asarray(shapely.box(left, bottom, right, top))

    def base(self, chip: ChipRef) -> str:
        """`ftw-34UFF1628_2024`: the chip and the year."""
        return f"{chip.name.removesuffix(f'_{self.product.year}')}_{self.product.year}"

    def parent_name(self, chip: ChipRef) -> str:
        """Name of a chip's own item."""
        return chip.item or f"{chip.name}/{chip.name}.json"

    def image_id(self, chip: ChipRef) -> str:
        """Id of the item of a season's imagery."""
        return f"{self.base(chip)}_{self.step}_{self.suffix}"

    @property
    def suffix(self) -> str:
        """Of names: `s2` for Sentinel-2."""
        return "s2" if self.source == "sentinel-2" else self.source

    def item_name(self, chip: ChipRef) -> str:
        """Name of the item of a season's imagery."""
        return f"{chip.name}/{self.image_id(chip)}.json"

    def image_name(self, chip: ChipRef) -> str:
        """Name of a season's image."""
        return f"{chip.name}/{self.base(chip)}_{self.step}_image_{self.suffix}.tif"

    def picture_name(self, chip: ChipRef) -> str:
        """Name of the small picture of a season's image."""
        return self.image_name(chip).replace(".tif", ".png")

    def mask_name(self, chip: ChipRef, mask: str) -> str:
        """Name of one of the masks."""
        return f"{chip.name}/{chip.name}_{mask}.tif"


def is_elsewhere(path: str) -> bool:
    """Whether a path does not start from the output."""
    return is_url(path) or os.path.isabs(path)
