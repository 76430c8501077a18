"""LandcoverTask: the chips of one area of interest."""

from __future__ import annotations

from affine import Affine
from pydantic import BaseModel, ConfigDict, Field

from scenebeam.catalog.scene import Asset
from scenebeam.collections import LandClass
from scenebeam.imaging.refs import SceneRef
from scenebeam.products.landcover.request import Platform
from scenebeam.raster.grid import Grid
from scenebeam.request import Checks
from scenebeam.tasks import GridSpec, Task

CHIPS = "chips/"
"""Folder of the working chips, a folder for each area of interest."""
ONCE: tuple[Platform, ...] = ("dem", "lulc")
"""Modalities without dates."""


class SceneFiles(SceneRef):
    """One scene of a layer, with its footprint in degrees."""

    bands: tuple[Asset, ...]
    mask: Asset | None = None
    """Classes or flags of clear ground."""


class Layer(BaseModel):
    """One modality on one date: its scenes, best first; a later one fills what the first lacks."""

    model_config = ConfigDict(frozen=True)

    platform: Platform
    index: int = 0
    """Which of the modality's dates it is, from 0."""
    date: str = ""
    """`20230115`; empty of a modality without dates."""
    scenes: tuple[SceneFiles, ...]

    @property
    def key(self) -> str:
        """`s2l2a_0`: of assets; `dem` of what has no date."""
        return f"{self.platform}_{self.index}" if self.date else self.platform

    def name(self, chip: int) -> str:
        """Of a working raster, without its ending: `s2l2a_000012_0_20230115`."""
        dated = f"_{self.index}_{self.date}" if self.date else ""
        return f"{self.platform}_{chip:06}{dated}"

    def release_name(self, chip: int) -> str:
        """Of a raster in the release, without its ending: `s2l2a_000012_20230115`."""
        return f"{self.platform}_{chip:06}{f'_{self.date}' if self.date else ''}"


class Recipe(BaseModel):
    """How the rasters of a modality are written, and what is not fit for one."""

    model_config = ConfigDict(frozen=True)

    resolution: float
    """Metres to a pixel."""
    dtype: str
    nodata: float
    resampling: str
    keep_classes: tuple[int, ...] = ()
    """Of a mask of classes: all that a chip may hold."""
    reject_bits: tuple[int, ...] = ()
    """Of a mask of flags: none that a chip may hold."""


class LandcoverTask(Task):
    """All chips of one area of interest."""

    aoi: str
    name: str = ""
    """The area's own name or id, if it has one."""
    outline: str = ""
    """WKB in hex, in degrees; empty where the area cannot be drawn."""
    found: dict[Platform, int] = Field(default={})
    """Scenes there were to choose from."""
    tile: str | None = None
    orbit: str | None = None
    wrs: str | None = None
    area: str = ""
    """WKB in hex, in degrees: what the area of interest and the scenes of all layers have in common."""
    grid: GridSpec | None = None
    """The places of chips, each a pixel of it; None: laid from the corner of the Sentinel-2 files."""
    layers: tuple[Layer, ...] = ()
    recipes: dict[Platform, Recipe] = Field(default={})
    side: float
    """Metres to a side of a chip."""
    classes: dict[int, LandClass]
    """Those that chips are made of."""
    min_share: float = 1.0
    chips_per_class: int
    seed: int
    thumbnails: bool
    checks: Checks

    @property
    def output_prefix(self) -> str:
        """Where its chips lie."""
        return f"{CHIPS}{self.aoi}"

    @property
    def record(self) -> str:
        """Name of what is told of its chips, when all of them stand."""
        return f"{self.output_prefix}/chips.json"

    @property
    def sources(self) -> tuple[str, ...]:
        """Ids of the scenes that it reads."""
        return tuple(scene.id for layer in self.layers for scene in layer.scenes)

    @property
    def pixel_layout(self) -> object:
        return self.grid

    @property
    def dated(self) -> tuple[Layer, ...]:
        """Layers that have a date."""
        return tuple(layer for layer in self.layers if layer.platform not in ONCE)

    @property
    def land_cover(self) -> Layer:
        """The map."""
        return next(layer for layer in self.layers if layer.platform == "lulc")

    def chip_grid(
        self, crs: str, left: float, top: float, platform: Platform, chips: int = 1
    ) -> Grid:
        """The grid of a chip's rasters of a modality: of all of them the same ground, edge on edge.

        Of several `chips`: those beside each other, as one.
        """
        pixel, side = self.recipes[platform].resolution, self.chip_side(platform)
        return Grid((side, side * chips), Affine(pixel, 0, left, 0, -pixel, top), crs)

    def chip_side(self, platform: Platform) -> int:
        """Pixels to a side of a modality's rasters."""
        return round(self.side / self.recipes[platform].resolution)
