"""The request of stacks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from scenebeam.collections.record import Resampling
from scenebeam.request.choices import Codec
from scenebeam.request.product import MAX_BANDS, VISUAL, BandsRequest, StoreFormat, Values
from scenebeam.request.sections import Several


class StackRequest(BandsRequest):
    """One analysis-ready stack of bands per scene."""

    kind: Literal["stack"] = "stack"
    bands: Several[str] = Field(default=[])
    """Bands by any of their names, in any case; default: those of the collection's record."""
    required: Several[str] | None = Field(default=None, max_length=MAX_BANDS)
    """Bands without which a scene has no stack; default: those of the collection's record. They are
    given by any of their names. Other bands that are missing are left out with a warning; with `[]`
    any band may be missing."""
    format: Literal["vrt", "geotiff", "zarr", "icechunk"] | None = None
    """`vrt`: a VRT over the bands' own files; `geotiff`: one COG, read by range requests. The VRT
    has a few kilobytes, and remote files are downloaded first; the COG holds the area alone.
    With `zarr` and `icechunk`, all scenes become times of one store, on one grid; each band is a
    variable, of its own dtype. Default: `vrt` if all files and the output are on this machine,
    else `geotiff`."""
    resolution_mode: Literal["resample", "preserve", "intersect"] = "resample"
    """Bands of several resolutions: `resample` to the finest, `preserve`, or `intersect` extents.
    With `resample`, all bands are on the grid of the finest band (10 m for Sentinel-2, 30 m for
    Landsat). With `preserve`, there is one stack per resolution, `<scene>_10m.tif`,
    `<scene>_20m.tif`, and `grid` must be left out. The mode `intersect` is `resample`, cropped to
    the extent that all bands cover."""
    resampling: Resampling | dict[str, Resampling] = "bilinear"
    """One method for all bands, or band → method; categorical bands always use `nearest`. In a
    mapping, bands are named by their common names, and bands that it does not list use `nearest`.
    """
    values: Values = "harmonized"
    """`harmonized`: remove the provider's radiometric offset; `raw`: values as in the files. The
    offset is a constant, such as `BOA_ADD_OFFSET` of Sentinel-2."""
    visualization_only: bool = False
    """Take only the true-color image, which is not suitable for analysis. No bands may be named
    then. The item has `scenebeam:analysis_ready: false`, because the pixel values are stretched for
    display."""
    compression: Codec = "deflate"
    """Compression of the COGs, for `geotiff` only."""

    can_grow: ClassVar = True
    cli_fields: ClassVar = {"resolution": "grid.resolution", "screenshot": "checks.screenshot"}

    @property
    def store_format(self) -> StoreFormat | None:
        return self.format if self.format in ("zarr", "icechunk") else None

    @property
    def fixed_bands(self) -> Sequence[str]:
        return VISUAL if self.visualization_only else ()

    @field_validator("required", mode="before", json_schema_input_type=str | list[str] | None)
    @classmethod
    def _split_names(cls, value: Any) -> Any:
        """Split `blue,green`, the form of the command line."""
        if isinstance(value, str):
            return [name.strip() for name in value.split(",") if name.strip()]
        return value

    @model_validator(mode="after")
    def _true_color_or_bands(self) -> StackRequest:
        if self.store_format and self.resolution_mode != "resample":
            raise ValueError(
                "product.resolution_mode: a store has one grid for all bands and scenes; leave it "
                "out"
            )
        if self.store_format and self.compression != "deflate":
            raise ValueError(
                "product.compression: stores are compressed by blosc and zstd; leave it out"
            )
        if self.visualization_only and self.bands:
            raise ValueError("product.visualization_only takes the true-color image: name no bands")
        if self.visualization_only and self.required is not None:
            raise ValueError(
                "product.required: visualization_only takes the true-color image; leave it out"
            )
        return self


REQUEST = StackRequest
