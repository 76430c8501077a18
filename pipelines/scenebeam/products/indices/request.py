"""The request of spectral indices."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, model_validator

from scenebeam.collections.record import Resampling
from scenebeam.request.choices import Codec, MergeMethod
from scenebeam.request.expression import INDICES, Formula, names_in, parse_expression
from scenebeam.request.product import CubeRequest, OnMissing

if TYPE_CHECKING:
    from scenebeam.request.run import RunRequest
from scenebeam.suggestions import suggest


class IndexRequest(CubeRequest):
    """Band math over an area, block by block: one COG per scene, acquisition or period."""

    kind: Literal["index"] = "index"
    index: str | None = None
    """A known index: `ndvi`, `ndwi`, `mndwi`, `nbr`, `evi` or `dnbr`. The last takes two `dates`,
    before and after."""
    expression: str | None = None
    """An expression of bands, in place of an index: `(nir - red) / (nir + red)`. Bands stand for
    reflectance."""
    per: Literal["scene", "acquisition", "day", "month", "quarter"] = "acquisition"
    """What becomes one image: a scene, or the scenes of an acquisition, day, month or quarter. An
    acquisition is all scenes of an overpass. Leave the field out for `dnbr`."""
    composite: MergeMethod = "median"
    """How the acquisitions of a month, a quarter, or one side of a difference are combined."""
    min_scenes_per_period: int = Field(default=0, ge=0)
    """A month with fewer acquisitions is replaced by its whole quarter, which is made once."""
    mask: bool = True
    """Exclude pixels that the classification or quality band marks as cloud, shadow or cirrus.
    These are the classes 3, 8, 9 and 10 of `scl`, or the bits 0 to 4 of `qa_pixel`, which also mark
    fill. Pixels where that band has no data are excluded too, and an acquisition without a readable
    classification is left out."""
    resampling: Resampling | dict[str, Resampling] = "bilinear"
    """One method for all bands, or band → method; categorical bands always use `nearest`. In a
    mapping, bands are named by their common names, and bands that it does not list use `nearest`.
    """
    on_missing: OnMissing = "best-available"
    """For an image with missing files: make what the others give, `fail`, or `skip` it. A
    permanently unreadable file counts as missing. With `best-available`, the image is made without
    it and marked incomplete. With `fail`, no image is made and the task fails. With `skip`, no
    image is made and the task does not count as failed."""
    compression: Codec = "deflate"
    """Compression of the COGs."""

    can_grow: ClassVar = True
    # An expression may name one band twice: `red` and `B04`.
    repeats_bands: ClassVar = True
    cli_fields: ClassVar = {"crs": "grid.crs", "resolution": "grid.resolution"}

    @model_validator(mode="after")
    def _check_formula(self) -> IndexRequest:
        known = ", ".join(INDICES)
        if (self.index is None) == (self.expression is None):
            raise ValueError(f"give either an index ({known}) or an expression of band names")
        if self.index is not None and self.index.lower() not in INDICES:
            hint = suggest(self.index, INDICES)
            raise ValueError(f"product.index: {self.index!r} is not known; {hint}")
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
        if self.formula.differenced and request.series is not None:
            raise ValueError(f"series: {self.index} is one image of two periods; leave it out")
        if self.formula.differenced and len(request.dates) != 2:
            raise ValueError(
                f"dates: {self.index} needs two intervals, before and after: [2023-06, 2023-09]"
            )


REQUEST = IndexRequest
