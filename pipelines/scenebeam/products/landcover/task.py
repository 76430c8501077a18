"""The task of land-cover chips: all chips of one area of interest."""

from __future__ import annotations

from affine import Affine
from pydantic import BaseModel, ConfigDict, Field

from scenebeam.collections import LandClass
from scenebeam.imaging.refs import SceneFiles
from scenebeam.products.landcover.request import Platform
from scenebeam.raster.grid import Grid
from scenebeam.request import Checks
from scenebeam.tasks import GridSpec, Task

CHIPS_PREFIX = "chips/"
"""Folder of the working chips; each area of interest has a folder in it."""
UNDATED: tuple[Platform, ...] = ("dem", "lulc")
"""Modalities without dates."""


class Layer(BaseModel):
    """One modality on one date: its scenes, best first. Later scenes fill gaps of earlier ones."""

    model_config = ConfigDict(frozen=True)

    platform: Platform
    index: int = 0
    """Index of the date among those of the modality, from 0."""
    date: str = ""
    """`20230115`; empty if the modality has no dates."""
    scenes: tuple[SceneFiles, ...]

    @property
    def label(self) -> str:
        """Key of the layer's STAC asset: `s2l2a_0`, or `dem` if the modality has no dates."""
        return f"{self.platform}_{self.index}" if self.date else self.platform

    def working_name(self, chip: int) -> str:
        """Return the name of a working raster, without extension: `s2l2a_000012_0_20230115`.

        Args:
            chip: Number of the chip within its area.
        """
        dated = f"_{self.index}_{self.date}" if self.date else ""
        return f"{self.platform}_{chip:06}{dated}"

    def release_name(self, chip_id: int) -> str:
        """Return the name of a released raster, without extension: `s2l2a_000012_20230115`.

        Args:
            chip_id: Id of the chip in the release.
        """
        dated = f"_{self.date}" if self.date else ""
        return f"{self.platform}_{chip_id:06}{dated}"


class Recipe(BaseModel):
    """How the rasters of a modality are written, and which pixels disqualify a chip."""

    model_config = ConfigDict(frozen=True, ser_json_inf_nan="strings")

    resolution: float
    """Pixel size in meters."""
    dtype: str
    nodata: float
    resampling: str
    keep_classes: tuple[int, ...] = ()
    """If the mask holds classes: the only ones that a chip may contain."""
    reject_bits: tuple[int, ...] = ()
    """If the mask holds flags: bits that no pixel of a chip may have set."""


class LandcoverTask(Task):
    """All chips of one area of interest."""

    aoi: str
    """Id of the area: its index in the file, with five digits."""
    name: str = ""
    """The feature's id or name in the file, if it has one."""
    outline: str = ""
    """The area as hex WKB, in degrees; empty if its geometry cannot be used."""
    found: dict[Platform, int] = Field(default={})
    """Number of scenes that were available, by modality."""
    tile: str | None = None
    """MGRS tile of the Sentinel-2 scenes."""
    orbit: str | None = None
    """Relative orbit of the Sentinel-1 scenes."""
    wrs: str | None = None
    """WRS path and row of the Landsat scenes."""
    area: str = ""
    """The part of the area that the scenes of all layers show, as hex WKB, in degrees."""
    grid: GridSpec | None = None
    """The grid of windows, one pixel each; None: from the corner of the Sentinel-2 files."""
    layers: tuple[Layer, ...] = ()
    recipes: dict[Platform, Recipe] = Field(default={})
    side: float
    """Side of a chip in meters."""
    classes: dict[int, LandClass]
    """The classes of which chips are made."""
    min_share: float = 1.0
    """Smallest share of a chip's pixels that have its class."""
    chips_per_class: int
    """Largest number of chips of one class."""
    seed: int
    """Seed of the sample."""
    thumbnails: bool
    checks: Checks

    @property
    def output_prefix(self) -> str:
        """Folder of the area's chips, without a trailing slash."""
        return f"{CHIPS_PREFIX}{self.aoi}"

    @property
    def record_key(self) -> str:
        """Key of the `AoiRecord`, which is written after all chips: it marks the task done."""
        return f"{self.output_prefix}/chips.json"

    @property
    def sources(self) -> tuple[str, ...]:
        """Ids of the scenes that the task reads."""
        ids = []
        for layer in self.layers:
            for scene in layer.scenes:
                ids.append(scene.id)
        return tuple(ids)

    @property
    def pixel_layout(self) -> object:
        return self.grid

    @property
    def dated_layers(self) -> tuple[Layer, ...]:
        """The layers that have a date."""
        return tuple(layer for layer in self.layers if layer.platform not in UNDATED)

    @property
    def land_cover_layer(self) -> Layer:
        """The land-cover map."""
        return next(layer for layer in self.layers if layer.platform == "lulc")

    def chip_grid(
        self, crs: str, left: float, top: float, platform: Platform, chips: int = 1
    ) -> Grid:
        """Return the grid of a chip's rasters of one modality.

        The grids of all modalities cover the same ground, edge to edge.

        Args:
            crs: CRS of the chip.
            left: Western edge, in units of the CRS.
            top: Northern edge, in units of the CRS.
            platform: The modality, which sets the pixel size.
            chips: Number of adjacent chips, eastward from `left`, that the grid covers.
        """
        pixel, side = self.recipes[platform].resolution, self.chip_side(platform)
        return Grid((side, side * chips), Affine(pixel, 0, left, 0, -pixel, top), crs)

    def chip_side(self, platform: Platform) -> int:
        """Return the side of a modality's rasters in pixels."""
        return round(self.side / self.recipes[platform].resolution)
