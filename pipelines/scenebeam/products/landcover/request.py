"""The request of land-cover chips: areas, sensors, dates, chips of each class, and the release."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from scenebeam.collections.record import Resampling
from scenebeam.request.interval import MAX_DAYS, Interval, parse_interval
from scenebeam.request.markers import Marker, Place
from scenebeam.request.product import ProductRequest
from scenebeam.request.sections import GridRequest, Several, Split, StrictModel

if TYPE_CHECKING:
    from scenebeam.request.run import RunRequest

Platform = Literal["s2l2a", "s1rtc", "lc2l2", "dem", "lulc"]
PLATFORMS: tuple[Platform, ...] = ("s2l2a", "s1rtc", "lc2l2", "dem", "lulc")
"""Modalities, by the prefix of their file names."""
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
"""Bits of Landsat Collection 2 QA_PIXEL (USGS LSDS-1619, table 6-3)."""
_QUARTERS = ["2023-01/2023-03", "2023-04/2023-06", "2023-07/2023-09", "2023-10/2023-12"]


class Modality(StrictModel):
    """The rasters of one sensor in every chip."""

    collection: str
    """One of the request's collections."""
    bands: Several[str] = Field(default=[])
    """Bands by any of their names; default: those of the collection. `SCL` or `qa_pixel` become
    rasters only if they are listed."""
    resolution: float = Field(ge=0.001, le=100_000)
    """Pixel size in meters. The side of the chip must be a whole number of pixels."""
    dtype: Dtype
    """Data type. Integer types hold harmonized digital numbers, with scale and offset; `float32`
    holds physical values: reflectance, power, meters."""
    nodata: float = Field(default=-999, allow_inf_nan=True)
    """Nodata value of the rasters, written as a tag. No pixel of a chip has it; a valid value that
    equals it is changed to the adjacent value."""
    resampling: Resampling = "bilinear"
    """Resampling method for pixels that are not on the chip's grid. Classes and flags always use
    `nearest`."""

    @property
    def cloud_below(self) -> float | None:
        """Exclusive upper bound of a scene's cloud cover in percent; None: no bound."""
        return None

    @property
    def reach(self) -> int:
        """Search window on either side of the Sentinel-2 dates, in days."""
        return 0

    @property
    def kept_classes(self) -> tuple[int, ...]:
        """Scene classes that a chip may contain; empty: the classification is not read."""
        return ()

    @property
    def rejected_bits(self) -> tuple[int, ...]:
        """Bits of the quality band that no pixel of a chip may have."""
        return ()

    @property
    def of_platforms(self) -> frozenset[str]:
        """Satellites whose scenes are used, in lower case; empty: all."""
        return frozenset()


class Sentinel2(Modality):
    """Sentinel-2, whose dates are the dates of the chips and whose tile is their grid."""

    collection: str = "sentinel-2-l2a"
    bands: Several[str] = Field(
        default=["B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B11", "B12"]
    )
    resolution: float = Field(default=10, ge=0.001, le=100_000)
    dtype: Dtype = "int16"
    max_cloud_cover: float = Field(default=30, ge=0, le=101)
    """Cloud cover of a scene in percent, exclusive: scenes with less are used."""
    max_nodata: float = Field(default=5, ge=0, le=101)
    """Share of nodata of a scene in percent, exclusive: scenes with less are used."""
    keep_classes: Several[int] = Field(default=[2, 4, 5, 6, 11])
    """Classes of SCL that a chip may contain: dark, vegetation, bare, water, snow. A chip with a
    pixel of any other class is left out."""

    @property
    def cloud_below(self) -> float:
        return self.max_cloud_cover

    @property
    def kept_classes(self) -> tuple[int, ...]:
        return tuple(self.keep_classes)


class Sentinel1(Modality):
    """Sentinel-1 (RTC) near each Sentinel-2 date, from one relative orbit."""

    collection: str = "sentinel-1-rtc"
    bands: Several[str] = Field(default=["vv", "vh"])
    resolution: float = Field(default=10, ge=0.001, le=100_000)
    dtype: Dtype = "float32"
    delta_days: int = Field(default=12, ge=0, le=MAX_DAYS)
    """Largest distance from the Sentinel-2 date, in days."""

    @property
    def reach(self) -> int:
        return self.delta_days


class Landsat(Modality):
    """Landsat 8 and 9 surface reflectance near each Sentinel-2 date, from one WRS path and row."""

    collection: str = "landsat-c2-l2"
    bands: Several[str] = Field(
        default=["coastal", "blue", "green", "red", "nir08", "swir16", "swir22"]
    )
    resolution: float = Field(default=30, ge=0.001, le=100_000)
    dtype: Dtype = "float32"
    max_cloud_cover: float = Field(default=50, ge=0, le=101)
    """Cloud cover of a scene in percent, exclusive: scenes with less are used."""
    platforms: Several[str] = Field(default=["landsat-8", "landsat-9"])
    """Satellites whose scenes are used."""
    delta_days: int = Field(default=91, ge=0, le=MAX_DAYS)
    """Largest distance from the Sentinel-2 date, in days."""
    reject: Several[QaFlag] = Field(
        default=["fill", "dilated_cloud", "cirrus", "cloud", "cloud_shadow"]
    )
    """Flags of the quality band: a chip with any such pixel is left out."""

    @property
    def cloud_below(self) -> float:
        return self.max_cloud_cover

    @property
    def reach(self) -> int:
        return self.delta_days

    @property
    def rejected_bits(self) -> tuple[int, ...]:
        return tuple(QA_BITS[flag] for flag in self.reject)

    @property
    def of_platforms(self) -> frozenset[str]:
        return frozenset(name.lower() for name in self.platforms)


class Elevation(Modality):
    """A digital elevation model, without a date."""

    collection: str = "cop-dem-glo-30"
    resolution: float = Field(default=30, ge=0.001, le=100_000)
    dtype: Dtype = "float32"


class LandCover(Modality):
    """The land-cover map that gives each chip its class."""

    collection: str = "io-lulc-annual-v02"
    resolution: float = Field(default=10, ge=0.001, le=100_000)
    dtype: Dtype = "uint8"
    nodata: float = Field(default=0, allow_inf_nan=True)
    resampling: Resampling = "nearest"
    dates: Interval | None = "2023"
    """Dates of the map; null if there is only one."""
    classes: Several[int] = Field(default=[1, 2, 5, 7, 8, 11], min_length=1)
    """Classes of which chips are made, greater than 0. By default, these are water, trees, crops,
    built area, bare ground and rangeland of `io-lulc-annual-v02`."""
    min_share: float = Field(default=1.0, gt=0.5, le=1)
    """Smallest share of a chip's pixels that have its class, more than 0.5. The `lulc` raster holds
    the class of the chip in every pixel."""

    @model_validator(mode="after")
    def _classes_above_zero(self) -> LandCover:
        if min(self.classes) < 1 or len(set(self.classes)) < len(self.classes):
            raise ValueError("classes are numbers greater than 0, each once")
        return self


class LandcoverRequest(ProductRequest):
    """Chips of one land-cover class each, from several sensors and dates, released in balance."""

    kind: Literal["landcover"] = "landcover"
    version: Annotated[str, Marker.NOT_FINGERPRINTED] = Field(
        default="v0.50.1", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$"
    )
    """Version of the dataset: the release is written to `processed/<version>/`."""
    aois: Annotated[str, Place("read"), Marker.SEARCH]
    """A vector file of areas of interest; the index of an area is its position in it, from 0. The
    file is GeoJSON, GeoParquet, GeoPackage, Shapefile or FlatGeobuf in any CRS, on this machine or
    at an address."""
    include: Annotated[Several[int] | None, Marker.SEARCH] = None
    """Indices of the areas to use; default: all."""
    exclude: Annotated[Several[int], Marker.SEARCH] = Field(default=[])
    """Indices of areas to leave out; default: none."""
    periods: Annotated[Several[Interval], Marker.SEARCH] = Field(
        default=_QUARTERS, min_length=1, max_length=6
    )
    """Periods of time: the least cloudy Sentinel-2 scene of each is one date of the chips. There
    are up to six, and they may not overlap."""
    sample_size: int = Field(default=96, ge=8, le=4096)
    """Side of a chip, in pixels of the land-cover map's resolution."""
    chips_per_class: int = Field(default=400, ge=1)
    """Largest number of chips of one class from one area."""
    seed: int = 0
    """Seed of the sample: decides which chips are drawn if there are more."""
    s2l2a: Annotated[Sentinel2 | None, Marker.SEARCH] = Sentinel2()
    """Sentinel-2 surface reflectance; null leaves it out. Without it, `s1rtc` and `lc2l2` must be
    null too, because they are chosen near its dates."""
    s1rtc: Annotated[Sentinel1 | None, Marker.SEARCH] = Sentinel1()
    """Sentinel-1 backscatter; null leaves it out."""
    lc2l2: Annotated[Landsat | None, Marker.SEARCH] = Landsat()
    """Landsat surface reflectance; null leaves it out."""
    dem: Annotated[Elevation | None, Marker.SEARCH] = Elevation()
    """Elevation; null leaves it out."""
    lulc: Annotated[LandCover, Marker.SEARCH] = LandCover()
    """The land-cover map, which gives each chip its class."""
    thumbnails: bool = True
    """Write a PNG beside each raster."""
    sampling_factor: Annotated[float | None, Marker.NOT_FINGERPRINTED] = Field(default=None, ge=1)
    """Largest ratio of the largest class to the smallest, in released chips; default: no limit.
    With 1, all classes are equal. In a class that is too large, the chips that were
    drawn last are dropped."""
    split: Annotated[Split | None, Marker.NOT_FINGERPRINTED] = None
    """How released chips are split for training, by whole blocks; default: none. The split of a
    chip is `split` in `chip_metadata.csv` and `scenebeam:split` in its item."""
    zip: Annotated[bool, Marker.NOT_FINGERPRINTED] = True
    """Write the release as one archive too, `processed/<version>.zip`."""
    public_url: Annotated[str | None, Marker.NOT_FINGERPRINTED] = Field(
        default=None, pattern=r"^[a-z][a-z0-9+.-]*://"
    )
    """URL under which the release will be served. Tables prefix the rasters and thumbnails of
    released chips with it."""

    # Areas of interest and periods say where and when.
    states_where_and_when: ClassVar = True
    uses_dates: ClassVar = False

    @property
    def modalities(self) -> dict[Platform, Modality]:
        """The modalities of a chip, by platform."""
        found: dict[Platform, Modality] = {}
        for name in PLATFORMS:
            modality = getattr(self, name)
            if modality is not None:
                found[name] = modality
        return found

    @property
    def side(self) -> float:
        """Side of a chip in meters."""
        return self.sample_size * self.lulc.resolution

    @property
    def adjustable_sections(self) -> frozenset[str]:
        return frozenset()

    def check_request(self, request: RunRequest) -> None:
        grid = request.grid
        if request.dates or request.area is not None:
            raise ValueError(
                "dates, area: leave them out; product.periods and product.aois define them"
            )
        if grid != GridRequest() and (grid.bounds is None or grid.resolution is not None):
            raise ValueError(
                "grid: give crs and bounds, or leave it out; product.*.resolution is the pixel size"
            )
        if self.s2l2a is None and grid.bounds is None:
            raise ValueError(
                "grid: without Sentinel-2 no tile defines the grid of chips; give crs and bounds"
            )
        known = [
            collection if isinstance(collection, str) else collection.id
            for collection in request.collections
        ]
        for name, modality in self.modalities.items():
            if modality.collection not in known:
                # The land-cover map is the one modality that no chip can do without.
                leave_out = f", or leave the modality out with product.{name}: null"
                hint = "" if name == "lulc" else leave_out
                raise ValueError(
                    f"product.{name}.collection: {modality.collection} is not among collections; "
                    f"name it there{hint}"
                )

    @model_validator(mode="after")
    def _periods_apart(self) -> LandcoverRequest:
        spans = sorted((parse_interval(text), text) for text in self.periods)
        for (before, one), (after, other) in pairwise(spans):
            if after[0] <= before[1]:
                raise ValueError(
                    f"product.periods: {one} and {other} overlap; each date must be a different one"
                )
        return self

    @model_validator(mode="after")
    def _whole_pixels(self) -> LandcoverRequest:
        for name, modality in self.modalities.items():
            pixels = self.side / modality.resolution
            if abs(pixels - round(pixels)) > 1e-9:
                raise ValueError(
                    f"product.{name}.resolution: a chip of {self.side:g} m is {pixels:g} pixels of "
                    f"{modality.resolution:g} m; choose a resolution that divides it"
                )
        if self.s2l2a is None and (self.s1rtc is not None or self.lc2l2 is not None):
            raise ValueError(
                "product.s2l2a cannot be null: its dates are the dates of the other sensors"
            )
        return self


REQUEST = LandcoverRequest
