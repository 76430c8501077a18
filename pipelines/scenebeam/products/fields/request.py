"""The request of field chips: which chips, which seasons, and what a clear scene is."""

from __future__ import annotations

import re
from datetime import date
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, model_validator

from scenebeam.collections.record import Resampling
from scenebeam.request.choices import Codec
from scenebeam.request.interval import MAX_DAYS
from scenebeam.request.markers import Marker, Place
from scenebeam.request.product import BandsRequest, OnMissing, Values
from scenebeam.request.sections import GridRequest, Several, Split, StrictModel

if TYPE_CHECKING:
    from scenebeam.request.run import RunRequest

Season = Literal["planting", "harvest"]
SEASONS: tuple[Season, ...] = ("planting", "harvest")


class ChipGridOptions(StrictModel):
    """The chips that are made from field boundaries."""

    prefix: str = Field(default="ftw", pattern=r"^[A-Za-z0-9][A-Za-z0-9_]{0,31}$")
    """Prefix of chip ids: `ftw-34UFF1628`."""
    size: int = Field(default=256, ge=16, le=4096)
    """Side of a chip in pixels."""
    resolution: float = Field(default=10.0, gt=0, le=10_000)
    """Pixel size in meters."""
    min_coverage: float = Field(default=0.01, ge=0, le=100)
    """Smallest share of a chip that fields cover, in percent."""
    presence_only: bool = False
    """The boundaries are incomplete: background is unknown (3) in the semantic masks, not 0."""
    split: Split = Split()
    """How chips are split for training, by whole blocks of neighboring chips. It may be changed
    later: masks and images are kept."""


def _day_of_year(value: Any) -> Any:
    """Convert a date such as `04-01` to its day in a year of 365 days; numbers stay."""
    if not isinstance(value, str) or value.isdigit():
        return value
    try:
        if not re.fullmatch("[0-9]{1,2}-[0-9]{1,2}", value):
            raise ValueError(value)
        month, day = map(int, value.split("-"))
        return date(2023, month, day).timetuple().tm_yday
    except ValueError:
        raise ValueError(f"{value[:40]!r} is not a month and a day, such as 04-01") from None


DayOfYear = Annotated[
    int, BeforeValidator(_day_of_year, json_schema_input_type=int | str), Field(ge=1, le=366)
]


class SeasonDays(StrictModel):
    """Days of the year. A harvest day before the planting day is in the next year."""

    planting: DayOfYear
    """Planting, as month and day (`04-06`) or as the day of the year (96)."""
    harvest: DayOfYear
    """Harvest, in the same forms."""


class FieldsRequest(BandsRequest):
    """Imagery for every chip of a field-boundary dataset, at planting and at harvest."""

    kind: Literal["fields"] = "fields"
    year: Annotated[int, Marker.SEARCH] = Field(ge=1980, le=2100)
    """Year of planting. A harvest day before the planting day belongs to the next year, as for
    winter crops and in the southern hemisphere."""
    chips: Annotated[str | None, Place("read"), Marker.SEARCH] = None
    """A catalog of existing chips: its folder, `collection.json` or `items.parquet`. It is on this
    machine or at `gs://`. Give either this field or `product.boundaries`."""
    boundaries: Annotated[str | None, Place("read"), Marker.SEARCH] = None
    """A vector file of field boundaries, from which chips and masks are made. It is GeoParquet,
    GeoJSON, GeoPackage, Shapefile or FlatGeobuf in any CRS, on this machine or at an address. A
    local file is no longer needed once the output lists the chips in `chips.csv`."""
    grid: Annotated[ChipGridOptions, Marker.SEARCH] = ChipGridOptions()
    """The chips that are made from boundaries."""
    crop_calendar: Annotated[str | None, Place("read"), Marker.SEARCH] = None
    """Folder or URL with `sc-sos-3x3-v2-cog.tiff` and `sc-eos-3x3-v2-cog.tiff`. They hold the days
    of the year of planting and of harvest, at 0.5°. Only the blocks under the chips are read, each
    once. The default is downloaded on first use into `$XDG_CACHE_HOME/scenebeam/crop-calendar`
    (`~/.cache/scenebeam/crop-calendar`). Default: that of Fields of The World."""
    days: Annotated[SeasonDays | None, Marker.SEARCH] = None
    """Days for all chips, in place of a calendar: `{planting: 04-06, harvest: 10-25}`."""
    images: Annotated[Literal["none", "select", "download"], Marker.NOT_FINGERPRINTED] = "download"
    """The last step: `none` (chips and masks), `select` (also scenes), `download` (also imagery).
    It may be raised later; existing outputs are kept."""
    bands: Several[str] = Field(default=["red", "green", "blue", "nir"], min_length=1)
    """Bands by common name or by the sensor's own name, in any case: `red`, `B04`."""
    cloud_cover_scene: Annotated[float, Marker.ADJUSTABLE] = Field(default=10.0, ge=0, le=100)
    """Largest cloud cover of a scene in percent. A scene without a stated cloud cover is not
    suitable. With `pixel_check`, the chip's own pixels decide instead."""
    pixel_check: Annotated[bool, Marker.ADJUSTABLE] = False
    """Use the cloud over the chip's own pixels instead of the scene's cloud cover. Scenes below
    0.1 % count as clear and are not read for cloud; those above 75 % are not read and never count
    as clear."""
    cloud_cover_pixel: Annotated[float, Marker.ADJUSTABLE] = Field(default=0.0, ge=0, le=100)
    """Largest cloud cover of a chip in percent, with `pixel_check`."""
    nodata_max: Annotated[float, Marker.ADJUSTABLE] = Field(default=0.0, ge=0, le=100)
    """Largest share of a chip without data, in percent. It is checked with the footprint, then with
    the item (a scene with 0 % nodata is not read), else with the classification, and finally with
    the image itself."""
    buffer_days: Annotated[int, Marker.SEARCH, Marker.ADJUSTABLE] = Field(
        default=14, ge=0, le=MAX_DAYS
    )
    """Half width of the search window: days before and after the day of planting or harvest."""
    buffer_expansions: Annotated[int, Marker.SEARCH, Marker.ADJUSTABLE] = Field(
        default=3, ge=0, le=1000
    )
    """How often the window is widened for a chip without a suitable scene."""
    buffer_expansion_size: Annotated[int, Marker.SEARCH, Marker.ADJUSTABLE] = Field(
        default=14, ge=1, le=MAX_DAYS
    )
    """Days by which the window is widened on each side, each time."""
    include_alternatives: Annotated[bool, Marker.ADJUSTABLE] = False
    """List the other suitable scenes in each item."""
    on_missing: Annotated[OnMissing, Marker.ADJUSTABLE] = "skip"
    """For a chip without a suitable scene: `skip` it, `fail`, or take the least cloudy scene. With
    `skip`, the chip has no image; with `fail`, its cell fails; with `best-available`, it gets the
    least cloudy scene of the widest window, unknown cloud cover last."""
    resampling: Resampling | dict[str, Resampling] = "bilinear"
    """One method for all bands, or band → method; categorical bands always use `nearest`. It is
    used for bands whose pixels are not on the chip's grid. In a mapping, bands are named by their
    common names, and bands that it does not list use `nearest`."""
    values: Values = "harmonized"
    """`harmonized`: remove the provider's radiometric offset; `raw`: values as in the files. The
    offset is a constant, such as `BOA_ADD_OFFSET` of Sentinel-2."""
    compression: Codec = "deflate"
    """Compression of the images."""
    keep_remote_refs: bool = True
    """List the scene's own files in each item, beside the chip's."""

    # Chips and their seasons say where and when.
    states_where_and_when: ClassVar = True
    uses_dates: ClassVar = False

    @property
    def reach(self) -> int:
        """Half width of the widest window, in days."""
        return self.buffer_days + self.buffer_expansions * self.buffer_expansion_size

    @property
    def adjustable_sections(self) -> frozenset[str]:
        return frozenset({"select", "product.grid.split"})

    @property
    def ignored_fields(self) -> frozenset[str]:
        """A run that stops early does not use the fields of the later steps."""
        if self.images == "download":
            return frozenset()
        if self.images == "select":
            imagery = {"bands", "resampling", "values", "compression", "keep_remote_refs"}
            return frozenset({"checks"} | {f"product.{name}" for name in imagery})
        used = {"kind", "year", "boundaries", "grid", "chips"}
        ignored = {f"product.{name}" for name in FieldsRequest.model_fields.keys() - used}
        return frozenset({"catalog", "collections", "select", "checks"} | ignored)

    def check_request(self, request: RunRequest) -> None:
        if request.dates or request.grid != GridRequest():
            raise ValueError(
                "dates, grid: leave them out; the crop calendar and the chips define them"
            )

    @model_validator(mode="after")
    def _check_sources(self) -> FieldsRequest:
        if self.reach > MAX_DAYS:
            raise ValueError(
                f"product.buffer_expansions: the widest window reaches {self.reach:,} days to "
                f"either side; the limit is {MAX_DAYS:,}"
            )
        if (self.chips is None) == (self.boundaries is None):
            raise ValueError(
                "give either chips (a catalog) or boundaries, from which they are made"
            )
        if self.images == "none" and self.boundaries is None:
            raise ValueError("product.images: none makes chips, which needs product.boundaries")
        if self.days is not None and self.crop_calendar is not None:
            raise ValueError("give either crop_calendar or days")
        return self


REQUEST = FieldsRequest
