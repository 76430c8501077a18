"""The request of spectral indices."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, model_validator

from scenebeam.collections.record import Resampling
from scenebeam.request.codecs import Codec
from scenebeam.request.expression import INDICES, Formula, names_in, parse_expression
from scenebeam.request.product import OnMissing, ProductRequest

if TYPE_CHECKING:
    from scenebeam.request.run import RunRequest


class IndexRequest(ProductRequest):
    """Band math over an area, block by block: one COG per scene, acquisition or period."""

    kind: Literal["index"] = "index"
    index: str | None = None
    """`ndvi`, `ndwi`, `mndwi`, `nbr`, `evi`; or `dnbr`: NBR of the first of two `dates` minus NBR of
    the second."""
    expression: str | None = None
    """An expression of band names as reflectance: `(nir - red) / (nir + red)`."""
    per: Literal["scene", "acquisition", "day", "month", "quarter"] = "acquisition"
    """What becomes one image."""
    composite: Literal["median", "max", "mean"] = "median"
    """How the acquisitions of a month, a quarter, or one side of a difference are combined."""
    min_scenes_per_period: int = Field(default=0, ge=0)
    """A month with fewer acquisitions is replaced by its whole quarter; by default none is."""
    mask: bool = True
    """Mask pixels that the scene classification or the quality band marks as cloud, shadow or
    cirrus."""
    resampling: Resampling | dict[str, Resampling] = "bilinear"
    """One method for all bands, or band → method; categorical bands always use nearest."""
    on_missing: OnMissing = "best-available"
    """For an acquisition with missing files: make what the others give, `fail`, or `skip` it."""
    compression: Codec = "deflate"
    """Compression of the COGs."""

    # An expression may name one band twice: `red` and `B04`.
    repeats_bands: ClassVar = True
    cli_fields: ClassVar = {"crs": "grid.crs", "resolution": "grid.resolution"}

    @model_validator(mode="after")
    def _check_formula(self) -> IndexRequest:
        known = ", ".join(INDICES)
        if (self.index is None) == (self.expression is None):
            raise ValueError(f"give either an index ({known}) or an expression of band names")
        if self.index is not None and self.index.lower() not in INDICES:
            raise ValueError(
                f"product.index: {self.index!r} is not one of {known}; or give an expression"
            )
        parse_expression(self.formula.expression)
        if self.formula.differenced and self.per != "acquisition":
            raise ValueError(f"product.per: {self.index} is one image of two periods; leave it out")
        return self

    @property
    def name(self) -> str:
        """Name of the files: the index, or `expression`."""
        return self.index.lower() if self.index is not None else "expression"

    @property
    def formula(self) -> Formula:
        """The formula to evaluate."""
        if self.index is not None:
            return INDICES[self.index.lower()]
        return Formula("", self.expression or "", "request")

    @property
    def requested_bands(self) -> list[str]:
        """The bands that the formula names."""
        return names_in(parse_expression(self.formula.expression))

    @property
    def grouping(self) -> Literal["acquisition", "day"]:
        return "day" if self.per == "day" else "acquisition"

    @property
    def adjustable_sections(self) -> frozenset[str]:
        # The two periods of a difference decide its pixels.
        return frozenset({"select"}) if self.formula.differenced else super().adjustable_sections

    def check_request(self, request: RunRequest) -> None:
        if self.formula.differenced and len(request.dates) != 2:
            raise ValueError(
                f"dates: {self.index} needs two intervals, before and after: [2023-06, 2023-09]"
            )


REQUEST = IndexRequest
