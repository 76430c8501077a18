"""The request of field chips: which chips, which seasons, and what a clear scene is."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from scenebeam.collections.record import Resampling
from scenebeam.request.interval import MAX_DAYS
from scenebeam.request.products import Codec, OnMissing, Product, Values
from scenebeam.request.sections import Several, StrictModel

Season = Literal["planting", "harvest"]
SEASONS: tuple[Season, ...] = ("planting", "harvest")


class Split(StrictModel):
    """How chips are told apart for training: whole blocks of chips go to one side."""

    train: float = Field(default=0.8, ge=0, le=1)
    val: float = Field(default=0.1, ge=0, le=1)
    test: float = Field(default=0.1, ge=0, le=1)
    block: int = Field(default=8, ge=1)
    """Chips to a side of a block."""
    seed: int = 0

    @model_validator(mode="after")
    def _sums_to_one(self) -> Split:
        if abs(self.train + self.val + self.test - 1) > 1e-9:
            raise ValueError("train, val and test are shares of all chips: they must sum to 1")
        return self


class ChipGrid(StrictModel):
    """The chips that are made of field boundaries."""

    prefix: str = Field(default="ftw", pattern=r"^[A-Za-z0-9][A-Za-z0-9_]{0,31}$")
    """Of the chips' ids: `ftw-34UFF1628`."""
    size: int = Field(default=256, ge=16, le=4096)
    """Pixels to a side."""
    resolution: float = Field(default=10.0, gt=0, le=10_000)
    """Metres to a pixel."""
    min_coverage: float = Field(default=0.01, ge=0, le=100)
    """Percent of a chip that fields cover, at least."""
    presence_only: bool = False
    """The boundaries tell where fields are, not where none is: background is 3, unknown, instead of 0."""
    split: Split = Split()


class SeasonDays(StrictModel):
    """Days of the year, 1 to 366. A harvest day before the planting day is the next year's."""

    planting: int = Field(ge=1, le=366)
    harvest: int = Field(ge=1, le=366)


class FieldsRequest(Product):
    """Imagery for every chip of a field-boundary dataset, at planting and at harvest."""

    kind: Literal["fields"]
    year: int = Field(ge=1980, le=2100)
    """Of planting; a harvest day before the planting day is the next year's."""
    chips: str | None = None
    """A catalogue of chips: its folder, `collection.json` or `items.parquet`."""
    boundaries: str | None = None
    """Field boundaries, GeoParquet or GeoJSON, of which chips and their masks are made."""
    grid: ChipGrid = ChipGrid()
    """Of chips that are made of boundaries."""
    crop_calendar: str | None = None
    """Folder or URL with `sc-sos-3x3-v2-cog.tiff` and `sc-eos-3x3-v2-cog.tiff`: days of planting and harvest. Default:
    the global calendar that Fields of The World publishes, fetched on first use."""
    days: SeasonDays | None = None
    """The days of planting and harvest of all chips, in place of a crop calendar."""
    images: Literal["none", "select", "download"] = "download"
    """How far it goes: chips and masks alone; scenes chosen for them; their imagery."""
    bands: Several[str] = Field(default=["red", "green", "blue", "nir"], min_length=1)
    cloud_cover_scene: float = Field(default=10.0, ge=0, le=100)
    """Percent: scenes with less or as much are taken; with `pixel_check` the chip's own pixels say it."""
    pixel_check: bool = False
    """Look at the chip's own pixels in the scene's classification or cloud probability."""
    cloud_cover_pixel: float = Field(default=0.0, ge=0, le=100)
    """Percent of the chip's pixels, at most, where `pixel_check` is on."""
    nodata_max: float = Field(default=0.0, ge=0, le=100)
    """Percent of the chip without data, at most."""
    buffer_days: int = Field(default=14, ge=0, le=MAX_DAYS)
    """Days before and after the day of planting or harvest."""
    buffer_expansions: int = Field(default=3, ge=0, le=1000)
    """How often that window is widened where no scene in it will do."""
    buffer_expansion_size: int = Field(default=14, ge=1, le=MAX_DAYS)
    """Days by which it is widened to either side."""
    include_alternatives: bool = False
    """Whether items list the other scenes that would do."""
    on_missing: OnMissing = "skip"
    """Of a chip that no scene will do for. `best-available`: the least cloudy one that there is."""
    resampling: Resampling | dict[str, Resampling] = "bilinear"
    """One for all, or band → method; categorical bands are always nearest."""
    values: Values = "harmonized"
    compression: Codec = "deflate"
    keep_remote_refs: bool = True
    """Whether items name the scene's own files beside the chip's."""
    search_fields: ClassVar[frozenset[str]] = frozenset(
        {"year", "chips", "boundaries", "grid", "crop_calendar", "days"}
        | {"buffer_days", "buffer_expansions", "buffer_expansion_size"}
    )
    adjustable: ClassVar[frozenset[str]] = frozenset(
        {
            "cloud_cover_scene",
            "pixel_check",
            "cloud_cover_pixel",
            "nodata_max",
            "include_alternatives",
            "on_missing",
        }
        | {"buffer_days", "buffer_expansions", "buffer_expansion_size"}
    )
    """Fields that decide which scene a chip gets; one that was chosen before and still keeps them stays."""
    group_by: ClassVar[Literal["acquisition"]] = "acquisition"
    band_resolution: ClassVar[None] = None

    @property
    def reach(self) -> int:
        """Days to either side of the widest window."""
        return self.buffer_days + self.buffer_expansions * self.buffer_expansion_size

    @model_validator(mode="after")
    def _chips_of_something(self) -> FieldsRequest:
        if self.reach > MAX_DAYS:
            raise ValueError(
                f"product.buffer_expansions: the widest window reaches {self.reach:,} days to either side; "
                f"at most {MAX_DAYS:,}"
            )
        if (self.chips is None) == (self.boundaries is None):
            raise ValueError(
                "give chips, a catalogue of them, or boundaries, of which they are made: one of the two"
            )
        if self.images == "none" and self.boundaries is None:
            raise ValueError("product.images: none makes chips alone, of product.boundaries")
        if self.days is not None and self.crop_calendar is not None:
            raise ValueError("give crop_calendar or days: one of the two says when")
        return self
