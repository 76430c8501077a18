"""What can be made of scenes: the request of each product."""

from __future__ import annotations

from collections import Counter
from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from scenebeam.collections.record import Resampling
from scenebeam.request.expression import INDICES, Formula, names_in, parse_expression
from scenebeam.request.interval import Interval
from scenebeam.request.sections import Several, StrictModel

OnMissing = Literal["best-available", "fail", "skip"]
Values = Literal["harmonized", "raw"]
"""`harmonized`: a provider's shift is taken out. `raw`: numbers as they are in the files."""
Codec = Literal["deflate", "zstd", "lzw"]
MAX_BANDS = 1000
"""More than any sensor has."""
VISUAL = ("visual_red", "visual_green", "visual_blue")
"""The bands of the true-colour image that some providers keep beside the measurements."""


class Product(StrictModel):
    """What every product has."""

    bands: Several[str] = Field(min_length=1)
    """By any of their names, in any case."""
    search_fields: ClassVar[frozenset[str]] = frozenset()
    """Fields that say where and when scenes are searched, beside the request's area and dates."""

    @field_validator("bands")
    @classmethod
    def _unique_bands(cls, value: list[str]) -> list[str]:
        if len(value) > MAX_BANDS:
            raise ValueError(f"{len(value):,} bands are named; at most {MAX_BANDS:,} can be")
        counts = Counter(band.lower() for band in value)
        twice = sorted(band for band, count in counts.items() if count > 1)
        if twice:
            raise ValueError(f"named twice: {', '.join(twice)}")
        return value


class MosaicRequest(Product):
    """One mosaic per acquisition and band."""

    kind: Literal["mosaic"] = "mosaic"
    group_by: Literal["acquisition", "day"] = "acquisition"
    method: Literal["first", "last", "min", "max", "mean", "median"] = "first"
    resampling: Resampling | dict[str, Resampling] = "nearest"
    """One for all, or band → method; categorical bands are always nearest."""
    values: Values = "harmonized"
    on_missing: OnMissing = "best-available"
    compression: Codec = "deflate"
    band_resolution: ClassVar[None] = None


class StackRequest(Product):
    """One analysis-ready stack of bands per scene."""

    kind: Literal["stack"]
    bands: Several[str] = Field(default=[])
    """None named: the default of the scene's collection."""
    required: Several[str] | None = Field(default=None, max_length=MAX_BANDS)
    """Bands without which there is no stack, by any of their names; default: those of the collection's record. The
    others are left out with a warning where they fail; `[]`: any of them may be missing."""
    format: Literal["vrt", "geotiff"] | None = None
    """`vrt`: the bands' own files and a VRT over them; `geotiff`: one COG of just the area, read by range. Default:
    `vrt` where the files are on this machine."""
    resolution_mode: Literal["resample", "preserve", "intersect"] = "resample"
    """`resample`: all bands on the grid of the finest; `preserve`: a stack for each resolution; `intersect`: as
    `resample`, cut to what all bands show."""
    resampling: Resampling | dict[str, Resampling] = "bilinear"
    """One for all, or band → method; categorical bands are always nearest."""
    values: Values = "harmonized"
    visualization_only: bool = False
    """Just the true-colour image, which is not fit for analysis."""
    compression: Codec = "deflate"
    group_by: ClassVar[Literal["acquisition"]] = "acquisition"
    band_resolution: ClassVar[None] = None

    @field_validator("required", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        """Split `blue,green`, as the command line has it."""
        if isinstance(value, str):
            return [part.strip() for part in value.split(",") if part.strip()]
        return value

    @model_validator(mode="after")
    def _true_colour_or_bands(self) -> StackRequest:
        if self.visualization_only and self.bands:
            raise ValueError(
                "product.visualization_only takes the true-colour image alone: name no bands"
            )
        if self.visualization_only and self.required is not None:
            raise ValueError(
                "product.required: visualization_only takes the true-color image alone; leave it out"
            )
        return self


class IndexRequest(StrictModel):
    """Band maths over an area, block by block: one COG per scene, acquisition or period."""

    kind: Literal["index"]
    index: str | None = None
    """`ndvi`, `ndwi`, `mndwi`, `nbr`, `evi`; or `dnbr`: NBR of the first of two `dates` less that of the second."""
    expression: str | None = None
    """Of band names, as reflectance: `(nir - red) / (nir + red)`."""
    per: Literal["scene", "acquisition", "day", "month", "quarter"] = "acquisition"
    composite: Literal["median", "max", "mean"] = "median"
    """What is made of the acquisitions of a month, a quarter, or one side of a difference."""
    min_scenes_per_period: int = Field(default=0, ge=0)
    """A month with fewer acquisitions gives way to its whole quarter; by default none does."""
    mask: bool = True
    """Leave out pixels that the scene classification or the quality band calls cloud, shadow or cirrus."""
    resampling: Resampling | dict[str, Resampling] = "bilinear"
    on_missing: OnMissing = "best-available"
    compression: Codec = "deflate"
    values: ClassVar[Literal["harmonized"]] = "harmonized"
    search_fields: ClassVar[frozenset[str]] = frozenset()
    band_resolution: ClassVar[None] = None

    @model_validator(mode="after")
    def _one_formula(self) -> IndexRequest:
        if (self.index is None) == (self.expression is None):
            raise ValueError(
                f"give an index ({', '.join(INDICES)}) or an expression of band names, one of the two"
            )
        if self.index is not None and self.index.lower() not in INDICES:
            raise ValueError(
                f"product.index: {self.index!r} is none of {', '.join(INDICES)}; or give an expression"
            )
        parse_expression(self.formula.expression)
        if self.formula.differenced and self.per != "acquisition":
            raise ValueError(f"product.per: {self.index} is one image of two periods; leave it out")
        return self

    @property
    def name(self) -> str:
        """Of the files: the index, or `expression`."""
        return self.index.lower() if self.index is not None else "expression"

    @property
    def formula(self) -> Formula:
        """What is computed."""
        return (
            INDICES[self.index.lower()]
            if self.index is not None
            else Formula("", self.expression or "", "request")
        )

    @property
    def bands(self) -> list[str]:
        """The bands that the formula names."""
        return names_in(parse_expression(self.formula.expression))

    @property
    def group_by(self) -> Literal["acquisition", "day"]:
        """How scenes are put together before anything is computed of them."""
        return "day" if self.per == "day" else "acquisition"


class AssetsRequest(Product):
    """The scenes' own files, band by band, and a manifest of them."""

    kind: Literal["assets"]
    bands: Several[str] = Field(default=["B04", "B08", "SCL"], min_length=1)
    max_scenes: int | None = Field(default=None, ge=1)
    """Most rows of the manifest, after sorting."""
    date_start: Interval | None = None
    """Scenes of this day and later."""
    sort_mode: Literal["cloud_then_time", "time"] = "cloud_then_time"
    download_n: int | None = Field(default=None, ge=0)
    """Scenes that are downloaded, from the top of the manifest; 0 for the manifest alone."""
    band_resolution: Literal[10, 20, 60] | None = None
    """Where a catalogue keeps a band at several resolutions (`B04_10m`, `B04_20m`): which; else its own."""
    raw_storage_mode: (
        Literal["url_to_local", "url_to_gcs_keep_local", "url_to_gcs_drop_local", "gcs_to_local"]
        | None
    ) = None
    """Default: `url_to_local`, or `url_to_gcs_drop_local` where the output is gs://."""
    gcs: str | None = Field(default=None, pattern=r"^gs://[a-z0-9][a-z0-9._-]+(/.*)?$")
    """`gs://bucket/prefix` of the modes with gcs in their name; default: the output, where that is one."""
    group_by: ClassVar[Literal["acquisition"]] = "acquisition"
    adjustable: ClassVar[frozenset[str]] = frozenset(
        {"max_scenes", "date_start", "sort_mode", "download_n"}
    )
    """Fields that decide which scenes are downloaded, and nothing of their files."""


def check_storage(product: AssetsRequest, output: str) -> None:
    """Raise ValueError where files could not lie as the request says."""
    in_cloud = output.startswith("gs://")
    mode = product.raw_storage_mode
    if in_cloud and mode not in (None, "url_to_gcs_drop_local"):
        raise ValueError(
            f"product.raw_storage_mode: {mode} keeps files on this machine, and the output is {output}"
        )
    if mode is not None and "gcs" in mode and product.gcs is None and not in_cloud:
        raise ValueError(f"product.gcs: {mode} needs a gs://bucket/prefix")
    if mode in (None, "url_to_local") and product.gcs is not None and not in_cloud:
        raise ValueError(
            "product.gcs is given, and product.raw_storage_mode does not use it: which is meant?"
        )
