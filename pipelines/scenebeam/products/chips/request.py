"""The request of chips: where, when, which labels, and how they are packed."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, ByteSize, Field, model_validator

from scenebeam.collections.record import Resampling
from scenebeam.request.choices import Codec
from scenebeam.request.interval import MAX_DAYS
from scenebeam.request.markers import Marker, Place
from scenebeam.request.product import BandsRequest, OnMissing, Values
from scenebeam.request.sections import GridRequest, Several, Split, StrictModel

if TYPE_CHECKING:
    from scenebeam.request.run import RunRequest

_NAME = r"^[A-Za-z][A-Za-z0-9_]{0,31}$"
IMAGE = "image"
"""Name of the images of the bands that `product.bands` names."""
_RESERVED = {
    *(IMAGE, "id", "json", "split", "crs", "geometry", "lon", "lat", "time", "times", "metadata"),
    *("image_count", "mask", "label", "bbox", "place", "sample"),
}
"""Names that samples and layouts have of their own."""
MAX_SIDE = 4096


def _parse_size(value: Any) -> Any:
    """Convert a length such as `2560m` to a negative number of meters; numbers stay."""
    if isinstance(value, str):
        match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) ?m", value.strip())
        if match is None:
            raise ValueError(f"{value[:40]!r} is not a number of pixels, or of meters as in 2560m")
        return -float(match[1])
    return value


class PlaceGrid(StrictModel):
    """Chips on a regular grid over `area`, instead of places."""

    kind: Literal["step", "mgrs", "major-tom"] = "step"
    """`step` and `mgrs`: chips at a fixed distance; `major-tom`: the cells of the Major TOM grid.
    The former are at multiples of the distance from the origin of each UTM zone. `step` names them
    by zone, column and row, and `mgrs` by the MGRS reference of the lower left corner. With
    `major-tom`, each cell has a chip whose lower left corner is the point of the cell."""
    step: float | None = Field(default=None, gt=0, le=1_000_000)
    """Meters between chips; default: the side of a chip, or 10 km for `major-tom`."""
    min_overlap: float = Field(default=0.0, ge=0, le=1)
    """Smallest share of a chip that is in the area."""


class OtherImages(StrictModel):
    """Images of another collection, on the same grid."""

    name: str = Field(pattern=_NAME)
    """Name in files and samples: `s1`."""
    collection: str
    """Id of one of the `collections`."""
    bands: Several[str] = Field(min_length=1)
    """Bands by common name or by the sensor's own name."""
    within_days: float | None = Field(default=None, ge=0, le=MAX_DAYS)
    """For each image, take the one that is nearest in time, at most so many days away. Default: one
    image of all scenes, for collections without dates such as elevation."""


class LabelRequest(StrictModel):
    """A label of each chip: a mask of vectors, a mask of a raster, or a column of the places."""

    name: str = Field(pattern=_NAME)
    """Name in files and samples: `crops`."""
    vector: Annotated[str | None, Place("read")] = None
    """A vector file, in any format of `places`. A pixel has the value of the feature that its
    center is in: the last one in the file."""
    raster: Annotated[str | None, Place("read")] = None
    """A COG of classes, in any CRS; read by the nearest pixel."""
    collection: str | None = None
    """Id of one of the `collections`, whose band of classes is the label."""
    column: str | None = None
    """With `vector`, the column of classes; without any file, the column of `places`. Classes are
    whole numbers, or texts that are numbered from 1 in alphabetical order."""
    band: str | None = None
    """Band of the `collection`; default: its first."""
    all_touched: bool = False
    """With `vector`: a feature has all pixels that it touches."""
    instances: bool = False
    """With `vector`: number the features from 1 in the order of the file, instead of classes."""
    boundary: int | None = Field(default=None, ge=1, le=65_535)
    """With `vector`: class of pixels that the outline of a feature touches."""
    min_share: float = Field(default=0.0, ge=0, le=100)
    """Smallest share of a chip with a class, in percent. Pixels of the background, or without data
    in a raster, have none."""
    background: int = Field(default=0, ge=0, le=65_535)
    """Class of pixels outside of all features, or of a raster that declares no nodata value. Where
    the features are incomplete, it is the class to ignore."""

    @property
    def has_file(self) -> bool:
        """Whether it is a mask, and not a column of the places."""
        return bool(self.vector or self.raster or self.collection)

    @model_validator(mode="after")
    def _one_source(self) -> LabelRequest:
        given = [name for name in ("vector", "raster", "collection") if getattr(self, name)]
        if len(given) > 1 or not (given or self.column):
            raise ValueError("give one of vector, raster, collection and column")
        if self.instances and (self.column or self.boundary or self.background):
            raise ValueError("instances: leave out column, boundary and background")
        return self


class Draw(StrictModel):
    """Which of the places become chips."""

    count: int | None = Field(default=None, ge=1)
    """Draw so many at most; default: all."""
    per_class: int | None = Field(default=None, ge=1)
    """Draw so many at most of each value of `column`."""
    column: str | None = None
    """Column of the places to stratify by."""
    balance: float | None = Field(default=None, ge=1)
    """Largest ratio between the places of a class of `column` and those of the smallest class."""
    seed: int = 0
    """Seed of the draw. A place keeps its position in the draw whichever other places there are."""

    @model_validator(mode="after")
    def _stratified(self) -> Draw:
        if self.column is None and (self.per_class or self.balance):
            raise ValueError("per_class and balance need the column of the classes")
        return self


class ChipsRequest(BandsRequest):
    """Images and labels at places of one's own, packed for training."""

    kind: Literal["chips"] = "chips"
    places: Annotated[str | None, Place("read"), Marker.SEARCH] = None
    """A vector file, or a table with coordinates; each place is the center of a chip. The file is
    GeoParquet, GeoJSON, GeoPackage, FlatGeobuf or Shapefile, with points, boxes or polygons in any
    CRS. A table is CSV or Parquet with the columns lon and lat, or west, south, east and north, in
    degrees. Give either this field or `product.grid`."""
    id_column: Annotated[str | None, Marker.SEARCH] = None
    """Column of the ids of places. Default: the `id` of a vector file, else the number of the row.
    """
    grid: Annotated[PlaceGrid | None, Marker.SEARCH] = None
    """Chips on a regular grid over the `area` of the request."""
    size: Annotated[
        float,
        BeforeValidator(_parse_size, json_schema_input_type=int | str),
        Marker.SEARCH,
    ] = 256
    """Side of a chip in pixels, or in meters: `256` or `2560m`."""
    resolution: Annotated[float, Marker.SEARCH] = Field(default=10.0, gt=0, le=100_000)
    """Pixel size in units of the CRS."""
    crs: Annotated[str, Marker.SEARCH] = "utm"
    """`utm`: the UTM zone of each place; or one CRS for all, such as EPSG:3035."""
    snap: Annotated[bool, Marker.SEARCH] = True
    """Shift chips by half a pixel at most onto the pixel lattice of the images. These are then not
    resampled. Otherwise places are exactly in the center."""
    date_column: Annotated[str | None, Marker.SEARCH] = None
    """Column of the places with a date each; default: the `dates` of the request for all."""
    window_days: Annotated[int, Marker.SEARCH] = Field(default=15, ge=0, le=MAX_DAYS)
    """Days before and after the date of a place."""
    period: Literal["month", "quarter", "year"] | None = None
    """Choose images of each calendar period of `dates`; default: of each entry of `dates`."""
    choose: Literal["clearest", "nearest", "all"] = "clearest"
    """Images of a period: the `clearest` over the chip, the `nearest` in time, or `all` clear ones.
    The time is the date of the place, or the middle of the period."""
    count: int | None = Field(default=None, ge=1, le=1000)
    """Images of each period; default: 1, or all with `choose: all`."""
    max_cloud: float = Field(default=10.0, ge=0, le=100)
    """Largest cloud cover of an image in percent of the chip's own pixels. Scenes below 0.1 % count
    as clear, and those above 75 % are not read."""
    max_nodata: float = Field(default=0.0, ge=0, le=100)
    """Largest share of an image without data, in percent."""
    min_images: int = Field(default=1, ge=1, le=100_000)
    """A chip with fewer images is missing."""
    on_missing: OnMissing = "skip"
    """For a missing chip: `skip` it, `fail` its task, or take cloudy images. The latter are the
    least cloudy ones. The reason is in `chips.parquet`."""
    others: Annotated[list[OtherImages], Marker.SEARCH] = Field(default=[], max_length=100)
    """Images of other collections on the same grid."""
    labels: Annotated[list[LabelRequest], Marker.SEARCH] = Field(default=[], max_length=100)
    """Labels of each chip."""
    bands: Several[str] = Field(default=["red", "green", "blue", "nir"], min_length=1)
    """Bands by common name or by the sensor's own name, in any case: `red`, `B04`."""
    resampling: Resampling | dict[str, Resampling] = "bilinear"
    """For bands whose pixels are not on the chip's grid: one method, or band → method."""
    values: Values = "harmonized"
    """`harmonized`: remove the provider's radiometric offset; `raw`: values as in the files."""
    draw: Annotated[Draw, Marker.SEARCH] = Draw()
    """Which of the places become chips; default: all."""
    split: Split | None = Split()
    """How chips are split for training, by whole blocks; `null`: not at all. No two splits touch.
    """
    split_column: str | None = None
    """Column of the places with the split of each, in place of blocks."""
    layout: Literal["cogs", "webdataset", "parquet", "zarr"] = "cogs"
    """How chips are packed: as `cogs`, `webdataset`, `parquet` or `zarr`. These are: a folder of
    COGs per chip; tar files with `.npy` and `.json` members; rows with the bytes of COGs; one Zarr
    v3 store with arrays of all chips."""
    members: Literal["npy", "tif"] = "npy"
    """Arrays in tar files: `npy`, or `tif` for GeoTIFFs with a band for each image and band."""
    shard_size: ByteSize = Field(default=ByteSize(500_000_000), ge=1_000_000)
    """Largest size of a tar or Parquet file."""
    compression: Codec = "deflate"
    """Compression of COGs."""

    # Places and their dates say where and when.
    states_where_and_when: ClassVar = True

    @property
    def side(self) -> int:
        """Side of a chip in pixels."""
        return int(self.size) if self.size > 0 else round(-self.size / self.resolution)

    @property
    def image_count(self) -> int | None:
        """Images of each period; None: all."""
        return self.count if self.count is not None or self.choose == "all" else 1

    @property
    def place_columns(self) -> list[str]:
        """Columns of the places that are read."""
        columns = [self.id_column, self.date_column, self.split_column, self.draw.column]
        named = [column for column in columns if column]
        return list(dict.fromkeys([*named, *self.label_columns]))

    @property
    def label_columns(self) -> list[str]:
        """Those of them that are labels."""
        columns = []
        for label in self.labels:
            if label.column and not label.has_file:
                columns.append(label.column)
        return list(dict.fromkeys(columns))

    @property
    def other_collections(self) -> set[str]:
        """Collections whose scenes are not images of `bands`."""
        labels = {label.collection for label in self.labels if label.collection}
        return labels | {other.collection for other in self.others}

    def check_request(self, request: RunRequest) -> None:
        if request.grid != GridRequest():
            raise ValueError("grid: leave it out; product.resolution and product.crs define it")
        if self.grid is not None and request.area is None:
            raise ValueError("area: product.grid needs the area that it covers")
        if self.date_column is None and not request.dates:
            raise ValueError("dates: give them, or product.date_column")
        if self.period is not None and self.date_column is not None:
            raise ValueError("product.period: leave it out with date_column")
        known = {one if isinstance(one, str) else one.id for one in request.collections}
        unknown = sorted(self.other_collections - known)
        if unknown:
            raise ValueError(f"collections: add {', '.join(unknown)}, which product names")
        if not known - self.other_collections:
            raise ValueError("collections: none is left for the images of product.bands")

    @model_validator(mode="after")
    def _check_fields(self) -> ChipsRequest:
        if (self.places is None) == (self.grid is None):
            raise ValueError("give either places or grid")
        if self.grid is not None and self.place_columns:
            raise ValueError(f"product.grid has no column {self.place_columns[0]}")
        if not 1 <= self.side <= MAX_SIDE:
            raise ValueError(f"size: {self.side} pixels; it must be from 1 to {MAX_SIDE}")
        names = [one.name for one in self.others] + [one.name for one in self.labels]
        repeated = {name for name in names if names.count(name) > 1} | (_RESERVED & set(names))
        # Layouts join the names of images and of their bands.
        prefixes = tuple(f"{name}_" for name in (IMAGE, *(one.name for one in self.others)))
        repeated |= {name for name in names if name.startswith(prefixes)}
        if repeated:
            raise ValueError(f"others, labels: {', '.join(sorted(repeated))} is in use already")
        if self.grid is not None and self.grid.kind == "mgrs" and self.crs != "utm":
            raise ValueError("grid.kind: mgrs needs crs: utm")
        if self.layout == "zarr" and self.image_count is None:
            raise ValueError("layout: a Zarr array needs the number of images; set count")
        return self


REQUEST = ChipsRequest
