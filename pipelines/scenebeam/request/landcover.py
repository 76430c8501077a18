"""The request of land-cover chips: where, which sensors, which dates, how many of each class, and the release."""

from __future__ import annotations

from itertools import pairwise
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from scenebeam.collections.record import Resampling
from scenebeam.request.fields import Split
from scenebeam.request.interval import MAX_DAYS, Interval, parse_interval
from scenebeam.request.sections import Several, StrictModel

Platform = Literal["s2l2a", "s1rtc", "lc2l2", "dem", "lulc"]
PLATFORMS: tuple[Platform, ...] = ("s2l2a", "s1rtc", "lc2l2", "dem", "lulc")
"""Modalities, by the names that files begin with."""
Dtype = Literal["int16", "uint16", "uint8", "float32"]
QaFlag = Literal["fill", "dilated_cloud", "cirrus", "cloud", "cloud_shadow", "snow"]
QA_BITS: dict[str, int] = {
    "fill": 0,
    "dilated_cloud": 1,
    "cirrus": 2,
    "cloud": 3,
    "cloud_shadow": 4,
    "snow": 5,
}
"""Of Landsat Collection 2 QA_PIXEL: USGS LSDS-1619, table 6-3."""
_QUARTERS = ["2023-01/2023-03", "2023-04/2023-06", "2023-07/2023-09", "2023-10/2023-12"]


class Modality(StrictModel):
    """One sensor's part of every chip."""

    collection: str
    """One of the request's collections."""
    bands: Several[str] = Field(default=[])
    """None named: the default of the collection. A mask is among the rasters only where it is named here."""
    resolution: float = Field(ge=0.001, le=100_000)
    """Metres to a pixel; the chip's side is a whole number of them."""
    dtype: Dtype
    """Of whole numbers: digital numbers, harmonized, with their scale and offset. `float32`: physical values."""
    nodata: float = Field(default=-999, allow_inf_nan=True)
    resampling: Resampling = "bilinear"
    """Categorical bands are always nearest."""

    @property
    def cloud_below(self) -> float | None:
        """Percent of cloud that scenes have less of; None where that is no matter."""
        return None

    @property
    def reach(self) -> int:
        """Days around the Sentinel-2 dates."""
        return 0

    @property
    def kept_classes(self) -> tuple[int, ...]:
        """Of the scene classification, all that a chip may hold; none where it is not looked at."""
        return ()

    @property
    def rejected_bits(self) -> tuple[int, ...]:
        """Of the quality band, none that a chip may hold."""
        return ()

    @property
    def of_platforms(self) -> frozenset[str]:
        """Satellites whose scenes are taken; none: all."""
        return frozenset()


class Sentinel2(Modality):
    """Sentinel-2: its dates are the chips' dates, its tile their grid."""

    collection: str = "sentinel-2-l2a"
    bands: Several[str] = Field(
        default=["B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B11", "B12"]
    )
    resolution: float = Field(default=10, ge=0.001, le=100_000)
    dtype: Dtype = "int16"
    max_cloud_cover: float = Field(default=30, ge=0, le=101)
    """Percent of the scene: scenes with less are taken."""
    max_nodata: float = Field(default=5, ge=0, le=101)
    """Percent of the scene: scenes with less are taken."""
    keep_classes: Several[int] = Field(default=[2, 4, 5, 6, 11])
    """Of the scene classification: dark, vegetation, bare, water, snow. A chip with any other pixel is left out."""

    @property
    def cloud_below(self) -> float:
        """As asked."""
        return self.max_cloud_cover

    @property
    def kept_classes(self) -> tuple[int, ...]:
        """As asked."""
        return tuple(self.keep_classes)


class Sentinel1(Modality):
    """Sentinel-1, radiometrically terrain corrected: near each Sentinel-2 date, of one relative orbit."""

    collection: str = "sentinel-1-rtc"
    bands: Several[str] = Field(default=["vv", "vh"])
    resolution: float = Field(default=10, ge=0.001, le=100_000)
    dtype: Dtype = "float32"
    delta_days: int = Field(default=12, ge=0, le=MAX_DAYS)
    """Days before or after the Sentinel-2 date."""

    @property
    def reach(self) -> int:
        """As asked."""
        return self.delta_days


class Landsat(Modality):
    """Landsat 8 and 9 surface reflectance: near each Sentinel-2 date, of one WRS path and row."""

    collection: str = "landsat-c2-l2"
    bands: Several[str] = Field(
        default=["coastal", "blue", "green", "red", "nir08", "swir16", "swir22"]
    )
    resolution: float = Field(default=30, ge=0.001, le=100_000)
    dtype: Dtype = "float32"
    max_cloud_cover: float = Field(default=50, ge=0, le=101)
    """Percent of the scene: scenes with less are taken."""
    platforms: Several[str] = Field(default=["landsat-8", "landsat-9"])
    delta_days: int = Field(default=91, ge=0, le=MAX_DAYS)
    """Days before or after the Sentinel-2 date."""
    reject: Several[QaFlag] = Field(
        default=["fill", "dilated_cloud", "cirrus", "cloud", "cloud_shadow"]
    )
    """A chip with any pixel so flagged is left out."""

    @property
    def cloud_below(self) -> float:
        """As asked."""
        return self.max_cloud_cover

    @property
    def reach(self) -> int:
        """As asked."""
        return self.delta_days

    @property
    def rejected_bits(self) -> tuple[int, ...]:
        """By number."""
        return tuple(QA_BITS[flag] for flag in self.reject)

    @property
    def of_platforms(self) -> frozenset[str]:
        """As asked."""
        return frozenset(name.lower() for name in self.platforms)


class Elevation(Modality):
    """A digital elevation model, once."""

    collection: str = "cop-dem-glo-30"
    resolution: float = Field(default=30, ge=0.001, le=100_000)
    dtype: Dtype = "float32"


class LandCover(Modality):
    """The map that says what a chip is."""

    collection: str = "io-lulc-annual-v02"
    resolution: float = Field(default=10, ge=0.001, le=100_000)
    dtype: Dtype = "uint8"
    nodata: float = Field(default=0, allow_inf_nan=True)
    resampling: Resampling = "nearest"
    dates: Interval | None = "2023"
    """Maps of this time; null where there is but one."""
    classes: Several[int] = Field(default=[1, 2, 5, 7, 8, 11], min_length=1)
    """Classes that chips are made of; 0 is never one."""
    min_share: float = Field(default=1.0, gt=0.5, le=1)
    """Part of a chip's pixels that are of its class, at least."""

    @model_validator(mode="after")
    def _classes_above_zero(self) -> LandCover:
        if min(self.classes) < 1 or len(set(self.classes)) < len(self.classes):
            raise ValueError("classes are numbers greater than 0, each once")
        return self


class LandcoverRequest(StrictModel):
    """Chips of one land-cover class each, seen by several sensors on several dates, and a balanced release of them."""

    kind: Literal["landcover"]
    version: str = Field(default="v0.50.1", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")
    """Of the dataset: the release lies in `processed/<version>/`."""
    aois: str
    """Areas of interest: a GeoJSON file, in degrees; an area's index is its place in the file, from 0."""
    include: Several[int] | None = None
    """Indices of the areas that are looked at; default: all."""
    exclude: Several[int] = Field(default=[])
    """Indices of areas that are not."""
    periods: Several[Interval] = Field(default=_QUARTERS, min_length=1, max_length=6)
    """Of each the least cloudy Sentinel-2 scene is a date."""
    sample_size: int = Field(default=96, ge=8, le=4096)
    """Pixels to a side of a chip, of the land-cover map's resolution."""
    chips_per_class: int = Field(default=400, ge=1)
    """Of each class and area, at most."""
    seed: int = 0
    """Which chips are drawn where there are more."""
    s2l2a: Sentinel2 | None = Sentinel2()
    s1rtc: Sentinel1 | None = Sentinel1()
    lc2l2: Landsat | None = Landsat()
    dem: Elevation | None = Elevation()
    lulc: LandCover = LandCover()
    thumbnails: bool = True
    """Whether a PNG stands beside each raster."""
    sampling_factor: float | None = Field(default=None, ge=1)
    """Chips of the largest class of the release over those of the smallest, at most; null: all chips."""
    split: Split | None = None
    """How released chips are told apart for training: whole blocks of them go to one side. Default: not at all."""
    zip: bool = True
    """Whether the release is also one archive, `processed/<version>.zip`."""
    public_url: str | None = Field(default=None, pattern=r"^[a-z][a-z0-9+.-]*://")
    """Where the release will be served: thumbnails are named by it."""
    search_fields: ClassVar[frozenset[str]] = frozenset(
        {"aois", "include", "exclude", "periods", *PLATFORMS}
    )
    released: ClassVar[frozenset[str]] = frozenset(
        {"version", "sampling_factor", "split", "zip", "public_url"}
    )
    """Fields that decide what is released of the chips, and nothing of the chips themselves."""
    bands: ClassVar[tuple[str, ...]] = ()
    group_by: ClassVar[Literal["acquisition"]] = "acquisition"
    band_resolution: ClassVar[None] = None

    @property
    def modalities(self) -> dict[Platform, Modality]:
        """Those that a chip has, by platform."""
        return {name: one for name in PLATFORMS if (one := getattr(self, name)) is not None}

    @property
    def side(self) -> float:
        """Metres to a side of a chip."""
        return self.sample_size * self.lulc.resolution

    @model_validator(mode="after")
    def _periods_apart(self) -> LandcoverRequest:
        spans = sorted((parse_interval(text), text) for text in self.periods)
        for (before, one), (after, other) in pairwise(spans):
            if after[0] <= before[1]:
                raise ValueError(
                    f"product.periods: {one} and {other} overlap: each date is to be another"
                )
        return self

    @model_validator(mode="after")
    def _whole_pixels(self) -> LandcoverRequest:
        for name, modality in self.modalities.items():
            pixels = self.side / modality.resolution
            if abs(pixels - round(pixels)) > 1e-9:
                raise ValueError(
                    f"product.{name}.resolution: a chip of {self.side:g} m is {pixels:g} pixels of "
                    f"{modality.resolution:g} m: make them whole"
                )
        if self.s2l2a is None and (self.s1rtc is not None or self.lc2l2 is not None):
            raise ValueError(
                "product.s2l2a: the dates of the other sensors are those of Sentinel-2; it cannot be null"
            )
        return self
