"""The sections of a request that all products share: where, when, which scenes, which grid."""

from __future__ import annotations

import re
import warnings
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ByteSize,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    field_validator,
    model_validator,
)

from scenebeam.request.interval import MAX_DAYS, Interval
from scenebeam.request.markers import Place

_MAX_SECONDS = 1e7
_MAX_COORDINATE = 1e9
"""Largest coordinate of a grid, in units of its CRS."""


class _FailFast:
    """Stop validating a list at its first error. Hashable, unlike pydantic's own `FailFast`."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> Any:
        return {**handler(source), "fail_fast": True}


Item = TypeVar("Item")
Several = Annotated[list[Item], _FailFast()]
"""A list of which only the first error is reported: a long list may have one error per item."""


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str | int) else value


Names = Annotated[
    list[str], _FailFast(), BeforeValidator(_listed, json_schema_input_type=str | list[str])
]
Numbers = Annotated[
    list[int], _FailFast(), BeforeValidator(_listed, json_schema_input_type=int | list[int])
]


class StrictModel(BaseModel):
    """A frozen model without unknown fields and without infinite or NaN numbers.

    The docstring below a field is its description: the first sentence is the help of its
    command-line option, and the whole is its row in the tables of docs/. A default that depends on
    something else is stated last, as `Default: …` or `; default: …`.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


class TimeSeries(StrictModel):
    """A table of acquisitions whose files exist already, as `<root>/<scene_id>/<band>.tif`."""

    time_series: Annotated[str, Place("read-on-load")]
    """A `time_serie.csv` with the columns `acq_datetime` and `tile_ids`. It is a local file, or at
    `gs://bucket/…`."""
    root: Annotated[str, Place("read-on-load")]
    """Folder of the files, or `gs://bucket/prefix`. The bands of a scene are at
    `<root>/<scene_id>/<band>.tif`, `.tiff` or `.jp2`."""

    @field_validator("time_series", "root")
    @classmethod
    def _check_place(cls, value: str) -> str:
        if "://" in value and not value.startswith("gs://"):
            raise ValueError(f"{value!r} is neither a local path nor gs://bucket/name")
        return value


class Area(StrictModel):
    """The area of interest in one of four forms, in longitude and latitude (WGS 84)."""

    bbox: tuple[float, float, float, float] | None = None
    """West, south, east, north. A box with west > east crosses the antimeridian."""
    geojson: Annotated[str | None, Place("read-on-load")] = None
    """A vector file with the area, local or remote. Despite its name, the field also accepts
    GeoParquet, GeoPackage, Shapefile and FlatGeobuf."""
    geometry: dict[str, Any] | None = None
    """A GeoJSON Polygon or MultiPolygon. A geometry with a `crs` member is transformed to WGS 84.
    """
    mgrs: Several[str] | None = None
    """Sentinel-2 tiles: `[34TFK]`."""

    @model_validator(mode="after")
    def _one_form(self) -> Area:
        given = [
            name
            for name in ("bbox", "geojson", "geometry", "mgrs")
            if getattr(self, name) is not None
        ]
        if len(given) != 1:
            raise ValueError(
                f"give exactly one of bbox, geojson, geometry or mgrs (found {given or 'none'})"
            )
        return self

    @field_validator("bbox")
    @classmethod
    def _check_bbox(cls, value: tuple[float, float, float, float] | None) -> Any:
        if value is None:
            return value
        west, south, east, north = value
        if not (
            -180 <= west <= 180
            and -180 <= east <= 180
            and -90 <= south <= 90
            and -90 <= north <= 90
        ):
            raise ValueError(
                "a bbox is west, south, east, north in degrees of longitude and latitude"
            )
        if south >= north:
            raise ValueError(f"south ({south}) must be less than north ({north})")
        if west == east:
            raise ValueError("west equals east: the box is empty")
        # RFC 7946 section 5.2 writes a box across the antimeridian with west > east. A box that
        # would span more than half the Earth is more likely two numbers in the wrong order.
        if west > east and east + 360 - west > 180:
            raise ValueError(
                f"west ({west}) is greater than east ({east}), but a box across the antimeridian "
                "would span more than half the Earth: swap the two"
            )
        return value

    @field_validator("geometry")
    @classmethod
    def _check_geometry(cls, value: dict[str, Any] | None) -> dict[str, Any] | None:
        """Take JSON alone: the request is hashed and sent as JSON."""
        pending: list[Any] = [value]
        while pending:
            found = pending.pop()
            if isinstance(found, dict):
                if not all(isinstance(key, str) for key in found):
                    raise ValueError("a GeoJSON geometry has text for keys")
                pending.extend(found.values())
            elif isinstance(found, list | tuple):
                pending.extend(found)
            elif found is not None and not isinstance(found, str | int | float):
                raise ValueError(
                    f"a GeoJSON geometry holds numbers and text, not {type(found).__name__}"
                )
        return value

    @field_validator("mgrs")
    @classmethod
    def _check_mgrs(cls, value: list[str] | None) -> Any:
        for tile in value or []:
            if not re.fullmatch(
                r"(?:0?[1-9]|[1-5][0-9]|60)[C-HJ-NP-X][A-HJ-NP-Z]{2}", tile.upper()
            ):
                raise ValueError(f"{tile!r} is not an MGRS tile like 34TFK")
        return [tile.upper() for tile in value] if value else value


class PickedScene(StrictModel):
    """A scene that was selected before."""

    id: str
    """Id of the scene."""
    anchor: Interval | None = None
    """The date that it was selected for."""


class Select(StrictModel):
    """Which of the scenes found are used."""

    table: Annotated[str | None, Place("read-on-load")] = None
    """A `scenes_selected.csv`: use exactly its scenes, for the dates in it. The columns `id` and
    `anchor_date` are read into `select.scenes`."""
    scenes: Several[PickedScene] | None = None
    """Use exactly these scenes; the catalog is searched for them by id. Each is `{id: S2B_…,
    anchor: 2023-04-09}`, where `anchor` may be left out. A scene that the catalog lacks is a row of
    `failures.csv`, and the run is partial."""
    mode: Literal["all", "anchors", "least-cloudy-per-period", "nearest-to-date"] = "all"
    """How acquisitions are chosen from those that passed the filters. With `all`, all are used;
    with `anchors`, the best one near each anchor date; with `least-cloudy-per-period`, the best one
    of each period; with `nearest-to-date`, the nearest one to each anchor date."""
    anchors: Several[Interval] = []
    """Anchor dates of the modes `anchors` and `nearest-to-date`."""
    n_anchors: int = Field(default=18, ge=1, le=MAX_DAYS)
    """Number of anchor dates in the mode `anchors` if `anchors` is empty. They are spread evenly
    from the first to the last day of the dates."""
    window_days: int = Field(default=21, ge=0, le=MAX_DAYS)
    """Largest distance of an acquisition from its anchor date, in days before or after."""
    full_cover_threshold: float = Field(default=0.95, ge=0, le=1)
    """Smallest fraction of the area that an acquisition near an anchor date covers. The column
    `has_full_cover` of the tables says whether an acquisition reaches it."""
    period: Literal["month", "quarter"] | Several[Interval] = "month"
    """Periods of `least-cloudy-per-period`: `month`, `quarter`, or a list of intervals. An interval
    is `2023-03-01/2023-04-15`, for example."""
    max_cloud_cover: float | None = Field(default=None, ge=0, le=100)
    """Largest cloud cover of a scene in percent; scenes without this property are kept."""
    max_aoi_cloud: float | None = Field(default=None, ge=0, le=100)
    """Largest cloud cover of the area in a scene, in percent, measured by its pixels. The
    classification or quality band is read while planning, and the tables of scenes get a column
    `aoi_cloud_percent`. Scenes without such a band are kept."""
    max_nodata: float | None = Field(default=None, ge=0, le=100)
    """Largest share of nodata of a scene in percent; scenes without this property are kept."""
    min_coverage: float = Field(default=0.0, ge=0, le=1)
    """Smallest fraction of the area that the scenes of one acquisition cover together."""
    cover: Literal["all", "minimal"] = "all"
    """Which scenes of an acquisition are kept: `all`, or a `minimal` set that covers as much. The
    latter drops scenes that add nothing to their acquisition's coverage of the area, for products
    that need each place once."""
    platform: Names | None = None
    """Platforms to use, such as `sentinel-2a`: one, or a list; default: all."""
    relative_orbit: Numbers | None = None
    """Relative orbits to use: one, or a list; default: all."""
    orbit_state: Literal["ascending", "descending"] | None = None
    """Orbit direction to use: `ascending` or `descending`; default: both."""

    @field_validator("cover", mode="before")
    @classmethod
    def _accept_old_word(cls, value: Any) -> Any:
        if value == "least":
            warnings.warn("'least' is deprecated; use 'minimal'", FutureWarning, stacklevel=2)
            return "minimal"
        return value

    @model_validator(mode="after")
    def _one_way_to_choose(self) -> Select:
        if self.mode != "all" and (self.scenes is not None or self.table is not None):
            raise ValueError(
                "select.mode: a table or a list of scenes leaves nothing to select; use mode: all"
            )
        if self.mode == "nearest-to-date" and not self.anchors:
            raise ValueError("select.anchors: mode nearest-to-date needs dates")
        return self


class GridRequest(StrictModel):
    """The output grid; whatever is left out is derived from the area."""

    crs: str | None = None
    """`EPSG:32634` or any CRS that PROJ reads; default: the UTM zone of the area's center. A CRS in
    degrees also needs `grid.resolution`."""
    resolution: float | None = Field(default=None, ge=1e-9, le=1e7)
    """Pixel size in units of the CRS; default: that of the finest requested band."""
    bounds: tuple[float, float, float, float] | None = None
    """Left, bottom, right, top in units of `grid.crs`, which is then required. The bounds are used
    exactly as given and must span a whole number of pixels. Default: the bounds of the area,
    snapped outward to the pixel lattice of the sources."""

    @model_validator(mode="after")
    def _bounds_need_crs(self) -> GridRequest:
        if self.bounds is not None:
            if self.crs is None:
                raise ValueError("grid.bounds needs grid.crs, the CRS of the bounds")
            left, bottom, right, top = self.bounds
            if max(abs(value) for value in self.bounds) > _MAX_COORDINATE:
                raise ValueError(
                    "grid.bounds lie farther from the origin than any CRS reaches on Earth"
                )
            if left >= right or bottom >= top:
                raise ValueError("grid.bounds are left, bottom, right, top")
        return self


class Runner(StrictModel):
    """Where tasks run."""

    kind: str = "auto"
    """`auto`, `serial`, `direct`, `dask`, `dataflow`, `flink`, `spark`, or any Beam runner's name.
    Tasks run one after another in this process with `serial`, several at once on this machine with
    `direct`, on Google Cloud with `dataflow`, and on a cluster with `dask`, `flink` and `spark`."""
    workers: int | None = Field(default=None, ge=1, le=10_000)
    """Number of tasks at once, or the maximum number of workers; default: the runner's own. The
    former applies to `direct`, `flink` and local `dask`, the latter to `dataflow`."""
    options: dict[str, str | int | float | bool | list[str]] = Field(default={}, max_length=1000)
    """Beam pipeline options by their command-line names, without the dashes. For example:
    `{kind: flink, options: {job_endpoint: …}}`. With `dask`: `scheduler`, its address."""
    serial_blocks: int = Field(default=100, ge=0)
    """With `auto`, a run of fewer source blocks is `serial`, and a larger one is `direct`. For few
    blocks, starting Beam would take longer. Assets are always serial."""
    local_blocks: int = Field(default=1000, ge=0)
    """With `auto`, a run of at least this number of source blocks uses Dataflow. It does so if
    `options` has its settings and the output is `gs://`. A run of an hour or more suggests it."""


class OpticalChecks(StrictModel):
    """When an optical image is usable."""

    min_std_dev: float = Field(default=1.0, ge=0)
    """Standard deviation at or below which a band of digital numbers is blank. Any other band is
    blank if it is constant. 0 accepts constant bands."""
    value_range: tuple[float, float] | None = None
    """Plausible digital numbers: a 1st or 99th percentile outside is a warning. Default: the range
    in the collection's record."""


class SarChecks(StrictModel):
    """When a radar image is usable."""

    min_std_dev_db: float = Field(default=2.0, ge=0)
    """Smallest standard deviation in dB, which speckle alone exceeds. With 0, constant bands are
    accepted."""
    backscatter_range_db: tuple[float, float] = (-30.0, 10.0)
    """Plausible backscatter in dB: a 1st or 99th percentile outside is a warning."""
    required_polarizations: Several[str] = ["vv", "vh"]
    """Polarizations that a radar image with several bands must have."""


class Checks(StrictModel):
    """When an image is usable, for `scenebeam validate` and every product. `off` accepts any."""

    enabled: bool = True
    """Check the pixel values of bands. Short form to set it to false: `checks: off`. Files that
    cannot be read are errors in any case."""
    max_nodata_percent: float = Field(default=50.0, ge=0, le=100)
    """Largest share of nodata in a requested band, in percent."""
    optical: OpticalChecks = OpticalChecks()
    """Thresholds for optical images."""
    sar: SarChecks = SarChecks()
    """Thresholds for radar images."""
    screenshot: bool = False
    """Write a small PNG with each stack or image of a field chip."""
    checksums: bool = False
    """Verify the raw files of a time series by the checksums in their items. Sizes are always
    compared. A damaged file is read from its source instead."""
    outside_sources: bool = False
    """Allow a VRT to name files outside its own folder, or on the network."""

    @model_validator(mode="before")
    @classmethod
    def _switch(cls, value: Any) -> Any:
        """Accept `off` and `on`, and their synonyms, in place of the mapping."""
        word = str(value).lower() if isinstance(value, bool | str) else ""
        if word in ("off", "false", "no"):
            return {"enabled": False}
        return {} if word in ("on", "true", "yes") else value


class Limits(StrictModel):
    """Ceilings that stop a run before it becomes larger than intended."""

    max_scenes: int = Field(default=10_000, ge=1)
    """Largest number of scenes that a search may return, or that a pass of a series makes."""
    max_download_workers: int = Field(default=8, ge=1, le=256)
    """Whole files that one process downloads at once. Also `--max-download-workers`, and
    `SCENEBEAM_MAX_DOWNLOAD_WORKERS` in the environment."""
    max_per_host: int = Field(default=4, ge=1, le=256)
    """Whole files that one process downloads at once from one host."""
    max_attempts: int = Field(default=6, ge=1, le=20)
    """Attempts for one request to a catalog or a file, with exponential backoff."""
    retry_wait: float = Field(default=0.25, ge=0, le=60)
    """Seconds before the first retry. The wait is doubled for each further retry, and longer if the
    server sends Retry-After."""
    retry_seconds: float = Field(default=300.0, ge=0, le=_MAX_SECONDS)
    """Seconds that one task may spend waiting for retries in total."""
    max_bytes: ByteSize = Field(default=ByteSize(10**12), validate_default=True)
    """Largest number of bytes to read, by the estimate of the plan."""
    max_cost: float | None = Field(default=None, ge=0, le=1e6)
    """Largest cost of a run on Dataflow in USD, by the estimate of the plan at list prices."""
    max_failed: float = Field(default=0.05, ge=0, le=1)
    """Largest fraction of failed tasks with which a run is `partial`; above it is `failed`."""
    max_pixels: int = Field(default=10**11, ge=1)
    """Largest number of pixels of one band of one product."""
    file_seconds: float = Field(default=300.0, gt=0, le=_MAX_SECONDS)
    """Seconds that one whole file may take to download; a later run resumes a partial one."""
    task_seconds: float = Field(default=21_600.0, gt=0, le=_MAX_SECONDS)
    """Seconds that one task may take. A slower one fails at its next request."""
    private_addresses: bool = False
    """Allow files at loopback and private addresses even if the catalog is public. They are always
    allowed if the catalog is a local file or at a private address itself."""
    memory: ByteSize = Field(default=ByteSize(2**30), validate_default=True)
    """Largest memory of one task; areas that need more are cut into shards."""


class Split(StrictModel):
    """How chips are split for training: whole blocks of neighboring chips go to one side."""

    train: float = Field(default=0.8, ge=0, le=1)
    """Share of chips for training."""
    val: float = Field(default=0.1, ge=0, le=1)
    """Share of chips for validation."""
    test: float = Field(default=0.1, ge=0, le=1)
    """Share of chips for testing."""
    block: int = Field(default=8, ge=1)
    """Side of a block, in chips."""
    seed: int = 0
    """Seed of the assignment of blocks."""

    @model_validator(mode="after")
    def _sums_to_one(self) -> Split:
        if abs(self.train + self.val + self.test - 1) > 1e-9:
            raise ValueError("train, val and test are shares of all chips and must sum to 1")
        return self
