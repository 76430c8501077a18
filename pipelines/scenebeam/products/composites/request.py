"""The request of composites."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from scenebeam.collections.record import Resampling
from scenebeam.products.composites.periods import CALENDAR, parse_duration
from scenebeam.request.choices import Choices, Codec
from scenebeam.request.expression import INDICES, names_in, parse_expression
from scenebeam.request.interval import Interval, is_rolling
from scenebeam.request.masks import Mask
from scenebeam.request.product import BandsRequest, CubeRequest, OnMissing, Values
from scenebeam.request.sections import Several, StrictModel

if TYPE_CHECKING:
    from scenebeam.request.run import RunRequest

_PARAMETRIC = ("percentile", "max", "min")
"""Methods with a parameter, which are given as a mapping."""
_FILLS = ("linear", "previous", "next", "whittaker")
Extra = Literal["observations", "day", "source", "score", "filled", "emad", "smad", "bcmad"]


def _methods() -> list[str]:
    """Return the known methods: the modules of `raster.reducers`, with dashes."""
    return [name.replace("_", "-") for name in Choices("scenebeam.raster.reducers").names()]


def _check_duration(value: str) -> str:
    if value not in CALENDAR:
        parse_duration(value)
    return value


def _is_duration(value: Any) -> bool:
    return isinstance(value, str) and (value in CALENDAR or value.startswith("P"))


Period = Annotated[str, AfterValidator(_check_duration)]


class Weights(StrictModel):
    """How much each score counts in `best-pixel`, relative to the others."""

    distance: float = Field(default=1.0, ge=0)
    """The distance to masked ground."""
    day: float = Field(default=1.0, ge=0)
    """The day of the year."""
    sensor: float = Field(default=0.5, ge=0)
    """The preference of the platform."""
    opacity: float = Field(default=0.5, ge=0)
    """The cloud cover of the scene."""

    @model_validator(mode="after")
    def _check_any(self) -> Weights:
        if not any((self.distance, self.day, self.sensor, self.opacity)):
            raise ValueError("at least one of the weights must be above 0")
        return self


class Score(StrictModel):
    """The score of `best-pixel`, after Griffiths et al. 2013 and White et al. 2014."""

    weights: Weights = Weights()
    """How much each score counts."""
    required_distance: float = Field(default=1500.0, gt=0, le=10_000)
    """Distance to masked ground in meters from which a pixel is not penalized."""
    target_day: int = Field(default=196, ge=1, le=366)
    """The best day of the year: 196 is July 15."""
    sigma_days: float = Field(default=30.0, gt=0)
    """Standard deviation of the score around the target day."""
    sensors: dict[str, Annotated[float, Field(ge=0, le=1)]] = Field(default={})
    """Platform → preference from 0 to 1; others have 1."""


class CompositeRequest(BandsRequest, CubeRequest):
    """One cloud-free image per period, masked pixel by pixel."""

    kind: Literal["composite"] = "composite"
    period: Period | Several[Interval] = "month"
    """What becomes one image: a month, a quarter, a year, a duration, or an interval. Calendar
    periods are `month`, `quarter` and `year`. Durations are `P<n>D`, `P<n>W`, `P<n>M` and `P<n>Y`,
    counted from the first of `dates`. Each interval of a list becomes one image."""
    method: str | dict[str, float | str] = "median"
    """How the clear observations of a pixel are reduced to one. All bands are of one observation
    with `first-clear`, `medoid`, `best-pixel`, `{max: ndvi}` and `{min: red}`. Several are combined
    by `median`, `mean`, `{percentile: 25}` and `geomedian`. The parameter of `max` and `min` is a
    band, an index or an expression."""
    mask: Mask = True
    """Which pixels are clear. With `true`, by the classes or bits of the collection's record; with
    `false`, all that have data. Default: `true`."""
    min_observations: int = Field(default=1, ge=1)
    """Pixels with fewer clear observations have no data, or those of the `fallback`."""
    fallback: Period | None = None
    """A longer period, such as `quarter`, for pixels with too few observations. Pixels with fewer
    than `min_observations` are made of its observations, as far as `dates` go."""
    fill: str | dict[str, float] | None = None
    """How gaps are filled from other periods of the series; default: not at all. The method
    `linear` interpolates in time, `previous` and `next` repeat a neighbor, and `whittaker` smooths
    the whole series: `{whittaker: 100}` more than its default of 10. All periods of a window are
    then one task."""
    extra: Several[Extra] = Field(default=[])
    """Further bands: counts, days, sources, scores. The number of clear observations is
    `observations`. The day of the year of the pixel, or the median day, is `day`. An index into the
    item's list of scenes is `source`. What the pixel was chosen by is `score`. Whether it is of the
    `fallback` (1) or filled from other periods (2) is `filled`. With `geomedian`, the median
    absolute deviations are `emad`, `smad` and `bcmad`."""
    score: Score = Score()
    """The score of `best-pixel`."""
    resampling: Resampling | dict[str, Resampling] = "nearest"
    """One method for all bands, or band → method; categorical bands always use `nearest`. In a
    mapping, bands are named by their common names, and bands that it does not list use `nearest`.
    """
    values: Values = "harmonized"
    """`harmonized`: remove the provider's radiometric offset; `raw`: values as in the files."""
    on_missing: OnMissing = "best-available"
    """For a period with missing files: make what the others give, `fail`, or `skip` it. A
    permanently unreadable file counts as missing, and a scene without a readable mask is left out.
    """
    compression: Codec = "deflate"
    """Compression of the COGs."""

    can_grow: ClassVar = True
    # The expression of a method may name a band that is in `bands` under another name.
    repeats_bands: ClassVar = True
    cli_fields: ClassVar = {"crs": "grid.crs", "resolution": "grid.resolution"}

    def check_request(self, request: RunRequest) -> None:
        if self.fill is not None and request.series is not None:
            raise ValueError("series: product.fill takes pixels of other periods; leave one out")
        starts_today = any(is_rolling(text) for text in request.dates)
        if request.series is not None and _is_duration(self.period) and starts_today:
            raise ValueError(
                f"product.period: {self.period} is counted from the first date, which rolling "
                "dates move each day; use month, quarter or year, or dates such as 2024-01-01/.."
            )

    @field_validator("method", mode="before")
    @classmethod
    def _check_method(cls, value: Any) -> Any:
        known = _methods()
        if isinstance(value, str):
            name = value
            if name in _PARAMETRIC:
                raise ValueError(f"{name} needs a parameter: {{{name}: …}}")
        elif isinstance(value, dict) and len(value) == 1:
            name, parameter = next(iter(value.items()))
            if name not in _PARAMETRIC:
                raise ValueError(f"{name!r} takes no parameter, or is not a method")
            _check_parameter(name, parameter)
        else:
            raise ValueError("a method is a name, or a mapping of one name to its parameter")
        if name not in known:
            raise ValueError(f"{name!r} is not one of {', '.join(known)}")
        return value

    @field_validator("fill")
    @classmethod
    def _check_fill(cls, value: Any) -> Any:
        if value is None or value in _FILLS:
            return value
        if not isinstance(value, dict) or set(value) != {"whittaker"} or value["whittaker"] <= 0:
            known = ", ".join(_FILLS)
            raise ValueError(f"{value!r} is not one of {known}, or {{whittaker: 100}}")
        return value

    @field_validator("period", mode="before", json_schema_input_type=str | list[str])
    @classmethod
    def _accept_one(cls, value: Any) -> Any:
        # A command line gives a list, and a file may give one interval.
        if isinstance(value, list) and len(value) == 1 and _is_duration(value[0]):
            return value[0]
        if isinstance(value, str) and "/" in value:
            return [value]
        return value

    @field_validator("period")
    @classmethod
    def _check_period(cls, value: Any) -> Any:
        if isinstance(value, list) and not value:
            raise ValueError("the list of intervals is empty")
        return value

    @model_validator(mode="after")
    def _check_extra(self) -> CompositeRequest:
        twice = sorted({band.lower() for band in self.bands} & set(self.extra))
        if twice:
            raise ValueError(f"extra: {', '.join(twice)} is the name of a band too")
        return self

    @property
    def fill_name(self) -> str:
        """Name of the method that fills gaps; empty if none does."""
        return self.fill or "" if not isinstance(self.fill, dict) else next(iter(self.fill))

    @property
    def smoothness(self) -> float:
        """Lambda of `whittaker`."""
        return self.fill["whittaker"] if isinstance(self.fill, dict) else 10.0

    @property
    def method_name(self) -> str:
        """Name of the method, without its parameter."""
        return self.method if isinstance(self.method, str) else next(iter(self.method))

    @property
    def expression(self) -> str | None:
        """The expression that `max` or `min` compares."""
        if isinstance(self.method, str) or self.method_name == "percentile":
            return None
        text = str(self.method[self.method_name])
        known = INDICES.get(text.lower())
        return text if known is None else known.expression

    @property
    def requested_bands(self) -> list[str]:
        """The bands of the composite, and those that only help to choose."""
        if self.expression is None:
            return self.bands
        return [*self.bands, *names_in(parse_expression(self.expression))]

    @property
    def ignored_fields(self) -> frozenset[str]:
        return frozenset() if self.method_name == "best-pixel" else frozenset({"product.score"})


def _check_parameter(method: str, parameter: Any) -> None:
    if method == "percentile":
        is_number = isinstance(parameter, int | float) and not isinstance(parameter, bool)
        if not is_number or not 0 <= parameter <= 100:
            raise ValueError(f"percentile must be from 0 to 100, not {parameter!r}")
        return
    if not isinstance(parameter, str):
        raise ValueError(f"{method} needs a band, an index or an expression, not {parameter!r}")
    if parameter.lower() not in INDICES:
        parse_expression(parameter)


REQUEST = CompositeRequest
