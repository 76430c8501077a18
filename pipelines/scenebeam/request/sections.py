"""The parts of a request that every product shares: where, when, which scenes, which grid, where it is made."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    BaseModel,
    ByteSize,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    field_validator,
    model_validator,
)

from scenebeam.request.interval import MAX_DAYS, Interval

_MAX_SECONDS = 1e7
_FARTHEST = 1e9
"""Largest coordinate of a grid, in units of its CRS."""


class _FirstFault:
    """Ends the validation of a list at its first fault. Hashable, as pydantic's own `FailFast` is not."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> Any:
        return {**handler(source), "fail_fast": True}


Item = TypeVar("Item")
Several = Annotated[list[Item], _FirstFault()]
"""A list of which the first fault is told alone: a long list may hold as many faults as items."""


class StrictModel(BaseModel):
    """Frozen, without any field that is not known, and without numbers that are not finite."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class TimeSeries(StrictModel):
    """Scenes that are there already: a table of acquisitions and files `<root>/<scene_id>/<band>.tif`."""

    time_series: str
    """`time_serie.csv` with the columns `acq_datetime` and `tile_ids` (separated by `|`, `,` or `;`)."""
    root: str
    """A folder, or `gs://bucket/prefix`."""

    @field_validator("time_series", "root")
    @classmethod
    def _check_place(cls, value: str) -> str:
        if "://" in value and not value.startswith("gs://"):
            raise ValueError(f"{value!r} is neither on this machine nor gs://bucket/name")
        return value


class Area(StrictModel):
    """Where: exactly one of the four forms, in longitude and latitude (WGS 84)."""

    bbox: tuple[float, float, float, float] | None = None
    """West, south, east, north. West > east crosses the antimeridian, and must be meant: see `_check_bbox`."""
    geojson: str | None = None
    geometry: dict[str, Any] | None = None
    mgrs: Several[str] | None = None
    """Sentinel-2 tiles: `34TFK`."""

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
        # A box over the antimeridian is written west > east (RFC 7946 section 5.2). One that would go
        # the long way round the Earth is two numbers swapped, not an area somebody wants.
        if west > east and east + 360 - west > 180:
            raise ValueError(
                f"west ({west}) is greater than east ({east}), and the box is not one over the antimeridian "
                "(it would span more than half the Earth): swap the two"
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
    """A scene that was chosen before."""

    id: str
    anchor: Interval | None = None
    """The day that it was chosen for."""


class Select(StrictModel):
    """Which of the scenes found are taken."""

    table: str | None = None
    """A `scenes_selected.csv`: just its scenes, for the days that it names. Read into `scenes` at once."""
    scenes: Several[PickedScene] | None = None
    """Just these scenes, by id; the catalogue is asked for them and for no others."""
    mode: Literal["all", "anchors", "least-cloudy-per-period", "nearest-to-date"] = "all"
    """`all`; `anchors`: the best acquisition near each anchor; `least-cloudy-per-period`: the best of each period;
    `nearest-to-date`: the nearest to each anchor. Better is: less cloud, more of the area, nearer, smaller name."""
    anchors: Several[Interval] = []
    """Days for `anchors` and `nearest-to-date`."""
    n_anchors: int = Field(default=18, ge=1, le=MAX_DAYS)
    """Where `anchors` names no days: so many, spread evenly from the first to the last day of the dates."""
    window_days: int = Field(default=21, ge=0, le=MAX_DAYS)
    """How many days an acquisition may lie before or after its anchor."""
    full_cover_threshold: float = Field(default=0.95, ge=0, le=1)
    """Least fraction of the area that an acquisition near an anchor covers; `has_full_cover` in the tables."""
    period: Literal["month", "quarter"] | Several[Interval] = "month"
    """Of `least-cloudy-per-period`: calendar months, quarters, or intervals such as 2023-03-01/2023-04-15."""
    max_cloud_cover: float | None = Field(default=None, ge=0, le=100)
    """Percent, of the scene; scenes that do not say are kept."""
    max_aoi_cloud: float | None = Field(default=None, ge=0, le=100)
    """Percent of the area as a scene shows it, by its classification or quality band, which is read while planning;
    `aoi_cloud_percent` in the tables. Scenes without such a band are kept."""
    max_nodata: float | None = Field(default=None, ge=0, le=100)
    """Percent, of the scene; scenes that do not say are kept."""
    min_coverage: float = Field(default=0.0, ge=0, le=1)
    """Least fraction of the area that one acquisition's scenes cover together."""
    cover: Literal["all", "least"] = "all"
    """`least`: without the scenes that add nothing to their acquisition's coverage of the area."""
    platform: Several[str] | None = None
    relative_orbit: Several[int] | None = None
    orbit_state: Literal["ascending", "descending"] | None = None

    @model_validator(mode="after")
    def _one_way_to_choose(self) -> Select:
        if self.mode != "all" and (self.scenes is not None or self.table is not None):
            raise ValueError(
                "select.mode chooses among what is found; a table of chosen scenes goes with mode: all"
            )
        if self.mode == "nearest-to-date" and not self.anchors:
            raise ValueError("select.anchors: nearest to which dates?")
        return self

    @field_validator("platform", "relative_orbit", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        return [value] if isinstance(value, str | int) else value


class GridRequest(StrictModel):
    """The output grid; what is left out is chosen from the area."""

    crs: str | None = None
    """`EPSG:32634` or any CRS that PROJ reads; else the UTM zone of the area's centre."""
    resolution: float | None = Field(default=None, ge=1e-9, le=1e7)
    """Pixel size in units of the CRS; else the finest of the bands asked for."""
    bounds: tuple[float, float, float, float] | None = None
    """Left, bottom, right, top in units of the CRS; else the area's bounds, outward to the resolution."""

    @model_validator(mode="after")
    def _bounds_need_crs(self) -> GridRequest:
        if self.bounds is not None:
            if self.crs is None:
                raise ValueError("grid.bounds needs grid.crs: in which CRS are they?")
            left, bottom, right, top = self.bounds
            if max(abs(value) for value in self.bounds) > _FARTHEST:
                raise ValueError(
                    "grid.bounds lie farther from the origin than any CRS reaches on Earth"
                )
            if left >= right or bottom >= top:
                raise ValueError("grid.bounds are left, bottom, right, top")
        return self


class Runner(StrictModel):
    """Where tasks are made."""

    kind: str = "auto"
    """`auto`, `serial`, `direct`, `dataflow`, or the name of any Beam runner (`PortableRunner`)."""
    workers: int | None = Field(default=None, ge=1, le=10_000)
    options: dict[str, str | int | float | bool | list[str]] = Field(default={}, max_length=1000)
    """Beam pipeline options by their command-line name, without the dashes."""
    serial_blocks: int = Field(default=100, ge=0)
    """`auto`: below this many source blocks, starting Beam takes longer than the work."""
    local_blocks: int = Field(default=1000, ge=0)
    """`auto`: beyond this many a cluster, where `options` and `output` name one; else this machine, with advice."""


class OpticalChecks(StrictModel):
    """When an optical image is fit to use."""

    min_std_dev: float = Field(default=1.0, ge=0)
    """A band of digital numbers that spreads no more than this is blank; any other band is when it is constant. With 0
    no band is blank: constant ones are accepted."""
    value_range: tuple[float, float] | None = None
    """Plausible digital numbers, of which the 99th percentile is held against; default: the collection's own."""


class SarChecks(StrictModel):
    """When a radar image is fit to use."""

    min_std_dev_db: float = Field(default=2.0, ge=0)
    """Speckle alone is more: an image below this is none. With 0 constant bands are accepted."""
    backscatter_range_db: tuple[float, float] = (-30.0, 10.0)
    """For the 1st and the 99th percentile; beyond it is a warning."""
    required_polarizations: Several[str] = ["vv", "vh"]


class Checks(StrictModel):
    """When an image is fit to use: what `scenebeam validate` and every product asks.

    `checks: off` accepts any numbers.
    """

    enabled: bool = True
    """Whether the numbers of a band are judged at all; files that cannot be read are errors either way."""
    max_nodata_percent: float = Field(default=50.0, ge=0, le=100)
    """Of what was asked for, in a band of either sensor."""
    optical: OpticalChecks = OpticalChecks()
    sar: SarChecks = SarChecks()
    screenshot: bool = False
    """Whether stacks come with a small PNG."""
    checksums: bool = False
    """Whether raw files of a time series are read whole and held against the checksums of the items beside them; their
    sizes always are. A damaged file is read from where it was fetched."""
    outside_sources: bool = False
    """Whether a VRT may name files outside its own folder, or on the network."""

    @model_validator(mode="before")
    @classmethod
    def _switch(cls, value: Any) -> Any:
        """Accept `off` and `on` in place of the mapping, and the other words for them."""
        word = str(value).lower() if isinstance(value, bool | str) else ""
        if word in ("off", "false", "no"):
            return {"enabled": False}
        return {} if word in ("on", "true", "yes") else value


class Limits(StrictModel):
    """Ceilings that stop a run before it becomes larger than meant."""

    max_scenes: int = Field(default=10_000, ge=1)
    max_download_workers: int = Field(default=8, ge=1, le=256)
    """Whole files fetched at once by one process."""
    max_per_host: int = Field(default=4, ge=1, le=256)
    """Whole files fetched at once from one host by one process."""
    max_attempts: int = Field(default=6, ge=1, le=20)
    """Tries of one request to a catalogue or a file, each after twice the wait of the one before."""
    retry_wait: float = Field(default=0.25, ge=0, le=60)
    """Seconds before a file is asked for the second time; more where the server says so."""
    retry_seconds: float = Field(default=300.0, ge=0, le=_MAX_SECONDS)
    """Seconds that one task may wait for tries in all."""
    max_bytes: ByteSize = Field(default=ByteSize(10**12), validate_default=True)
    """Most bytes to read, by the plan's estimate."""
    max_failed: float = Field(default=0.05, ge=0, le=1)
    """Up to this fraction of failed tasks a run is `partial`; beyond it is `failed`."""
    max_pixels: int = Field(default=10**11, ge=1)
    """Most pixels of one band of one product."""
    file_seconds: float = Field(default=300.0, gt=0, le=_MAX_SECONDS)
    """Seconds that one whole file may take to come; what has come by then is kept for the next run."""
    private_addresses: bool = False
    """Whether files may lie at loopback and private addresses although the catalog is a public one. They always may
    where the catalog is on this machine or in a private network itself."""
    memory: ByteSize = Field(default=ByteSize(2**30), validate_default=True)
    """Most memory a task may take; areas that would need more are cut into shards."""
