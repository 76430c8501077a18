"""The task of chips: all chips of a cell of neighboring places."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import shapely
from affine import Affine
from pydantic import BaseModel, ConfigDict

from scenebeam.collections.record import Nodata
from scenebeam.imaging.chip_scenes import ChipScene, Clouds
from scenebeam.imaging.refs import SceneFiles
from scenebeam.products.chips.request import ChipsRequest
from scenebeam.products.chips.stacks import StackSpec
from scenebeam.raster.grid import Grid
from scenebeam.raster.validity import Array
from scenebeam.request import Checks
from scenebeam.tasks import Task

CELLS = "cells/"
"""Folder of what is known of each cell: its chips, what was made of them, and their items."""


class Period(NamedTuple):
    """When an image of a chip may be from."""

    start: str
    """RFC 3339, like the others."""
    end: str
    target: str
    """The time that images are ranked by."""


class ChipRef(NamedTuple):
    """A chip of a cell, as its table has it."""

    id: str
    left: float
    """In units of the cell's CRS, like `top`."""
    top: float
    split: str
    date: str
    """Date of the place; empty if it has none."""
    number: int
    """Number of the chip among those of its split."""
    values: str
    """Label columns of the place, as JSON."""
    place: str
    """Id of the place in its file."""


class OtherScenes(BaseModel):
    """The scenes of another collection near a cell."""

    model_config = ConfigDict(frozen=True)

    name: str
    within_days: float | None
    scenes: tuple[ChipScene, ...]
    """If dated."""
    layer: tuple[SceneFiles, ...] = ()
    """Otherwise: scenes that fill each other's gaps, in the order of their ids."""


class LabelSource(BaseModel):
    """Where the pixels of a label come from."""

    model_config = ConfigDict(frozen=True, ser_json_inf_nan="strings")

    name: str
    dtype: str
    nodata: Nodata = None
    """Value of pixels without data, if the label is a raster."""
    is_vector: bool
    layer: tuple[SceneFiles, ...] = ()
    """The files of a raster label. Their footprints are in degrees."""
    features: str = ""
    """Key of the features of a vector label."""
    background: int = 0
    all_touched: bool = False
    instances: bool = False
    boundary: int | None = None
    classes: dict[int, str] = {}
    """Class → its name."""


class ChipsTask(Task):
    """The chips of a cell. Methods named `*_key` return keys in the store of the output."""

    cell: str
    dataset: str
    """Id of the collection."""
    crs: str
    resolution: float
    side: int
    """Pixels."""
    count: int
    """Number of chips."""
    periods: tuple[Period, ...]
    """When images are from; empty if each chip has its own date."""
    scenes: tuple[ChipScene, ...]
    clouds: Clouds
    others: tuple[OtherScenes, ...] = ()
    labels: tuple[LabelSource, ...] = ()
    stacks: tuple[StackSpec, ...]
    """How images are stored: those of `bands` first, then those of the others, in their order."""
    split_counts: dict[str, int]
    """Number of chips of each split, in all cells."""
    product: ChipsRequest
    checks: Checks

    @property
    def chips_key(self) -> str:
        """Key of the table of its chips, which is written with the plan."""
        return f"{CELLS}{self.cell}/chips.parquet"

    @property
    def record_key(self) -> str:
        """Key of the record of what was made."""
        return f"{CELLS}{self.cell}/record.json"

    @property
    def sources(self) -> tuple[str, ...]:
        return tuple(scene.id for scene in self.scenes)

    def grid_of(self, chip: ChipRef) -> Grid:
        """Return the grid of a chip's images and masks."""
        transform = Affine(self.resolution, 0, chip.left, 0, -self.resolution, chip.top)
        return Grid((self.side, self.side), transform, self.crs)

    def boxes(self, chips: Iterable[ChipRef]) -> Array:
        """Return the outlines of chips as boxes in the task's CRS, shape (chips,)."""
        corners = np.array([(chip.left, chip.top) for chip in chips]).reshape(-1, 2)
        left, top = corners.T
        side = self.side * self.resolution
        return np.asarray(shapely.box(left, top - side, left + side, top))

    def stack(self, name: str) -> StackSpec:
        """Return how the images of a collection are stored."""
        return next(one for one in self.stacks if one.name == name)
