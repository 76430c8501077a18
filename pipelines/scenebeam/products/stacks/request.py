"""The request of stacks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from scenebeam.collections.record import Resampling
from scenebeam.request.codecs import Codec
from scenebeam.request.product import MAX_BANDS, VISUAL, BandsRequest, Values
from scenebeam.request.sections import Several


class StackRequest(BandsRequest):
    """One analysis-ready stack of bands per scene."""

    kind: Literal["stack"] = "stack"
    bands: Several[str] = Field(default=[])
    """Bands by any of their names; default: those of the scene's collection."""
    required: Several[str] | None = Field(default=None, max_length=MAX_BANDS)
    """Bands without which there is no stack, by any of their names; default: those of the
    collection's record. Other bands that fail are left out with a warning; `[]` requires none."""
    format: Literal["vrt", "geotiff"] | None = None
    """`vrt`: the bands' own files and a VRT over them; `geotiff`: one COG of the area alone, read
    by range. Default: `vrt` if the files are local."""
    resolution_mode: Literal["resample", "preserve", "intersect"] = "resample"
    """`resample`: all bands on the grid of the finest; `preserve`: one stack per resolution;
    `intersect`: like `resample`, cropped to the extent that all bands share."""
    resampling: Resampling | dict[str, Resampling] = "bilinear"
    """One method for all bands, or band → method; categorical bands always use nearest."""
    values: Values = "harmonized"
    """`harmonized`: remove the provider's radiometric offset; `raw`: keep numbers as in the files."""
    visualization_only: bool = False
    """Take only the true-color image, which is not suitable for analysis."""
    compression: Codec = "deflate"
    """Compression of the COGs."""

    cli_fields: ClassVar = {"resolution": "grid.resolution", "screenshot": "checks.screenshot"}

    @property
    def fixed_bands(self) -> Sequence[str]:
        return VISUAL if self.visualization_only else ()

    @field_validator("required", mode="before")
    @classmethod
    def _split_names(cls, value: Any) -> Any:
        """Split `blue,green`, the form of the command line."""
        if isinstance(value, str):
            return [name.strip() for name in value.split(",") if name.strip()]
        return value

    @model_validator(mode="after")
    def _true_color_or_bands(self) -> StackRequest:
        if self.visualization_only and self.bands:
            raise ValueError("product.visualization_only takes the true-color image: name no bands")
        if self.visualization_only and self.required is not None:
            raise ValueError(
                "product.required: visualization_only takes the true-color image; leave it out"
            )
        return self


REQUEST = StackRequest
