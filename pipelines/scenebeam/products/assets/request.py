"""The request of the assets product: downloads of the scenes' own files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from scenebeam.request.interval import Interval
from scenebeam.request.markers import Marker, Place
from scenebeam.request.product import BandsRequest
from scenebeam.request.sections import Several

if TYPE_CHECKING:
    from scenebeam.request.run import RunRequest


class AssetsRequest(BandsRequest):
    """The scenes' own files, band by band, and a manifest of them."""

    kind: Literal["assets"] = "assets"
    bands: Several[str] = Field(default=["B04", "B08", "SCL"], min_length=1)
    """Bands by any of their names; files are named as the bands are here. The columns of the tables
    are named in lower case."""
    max_scenes: Annotated[int | None, Marker.ADJUSTABLE] = Field(default=None, ge=1)
    """Largest number of rows of the manifest, after sorting; default: all."""
    date_start: Annotated[Interval | None, Marker.ADJUSTABLE] = None
    """Drop scenes before this date."""
    sort_mode: Annotated[Literal["cloud_then_time", "time"], Marker.ADJUSTABLE] = "cloud_then_time"
    """Order of the manifest: least cloud first, then by time; or by time alone. With
    `cloud_then_time`, scenes of unknown cloud cover come last."""
    download_n: Annotated[int | None, Marker.ADJUSTABLE] = Field(default=None, ge=0)
    """Number of scenes to download, from the top of the manifest; default: all. With 0, only the
    manifest is written."""
    band_resolution: Literal[10, 20, 60] | None = None
    """Which copy to take of a band with several resolutions, in meters; default: the band's own.
    A catalog such as CDSE has `B04_10m` and `B04_20m`. A band without such a copy is taken at its
    own resolution."""
    raw_storage_mode: Annotated[
        Literal["url_to_local", "url_to_gcs_keep_local", "url_to_gcs_drop_local", "gcs_to_local"]
        | None,
        Marker.NOT_FINGERPRINTED,
    ] = None
    """Where files are stored: on this machine, in a bucket, or both. Default: `url_to_local`, or
    `url_to_gcs_drop_local` if the output is `gs://`."""
    gcs: Annotated[str | None, Place("write"), Marker.NOT_FINGERPRINTED] = Field(
        default=None, pattern=r"^gs://[a-z0-9][a-z0-9._-]+(/.*)?$"
    )
    """`gs://bucket/prefix` for the modes with `gcs` in their name. Default: `<output>/raw` if the
    output is `gs://`."""

    can_grow: ClassVar = True
    cli_fields: ClassVar = {
        "scenes": "select.table",
        "max_download_workers": "limits.max_download_workers",
    }

    @property
    def preferred_resolution(self) -> float | None:
        return self.band_resolution

    def check_request(self, request: RunRequest) -> None:
        output, mode = request.output, self.raw_storage_mode
        in_cloud = output.startswith("gs://")
        if in_cloud and mode not in (None, "url_to_gcs_drop_local"):
            raise ValueError(
                f"product.raw_storage_mode: {mode} keeps files on this machine, but the output is "
                f"{output}"
            )
        if mode is not None and "gcs" in mode and self.gcs is None and not in_cloud:
            raise ValueError(f"product.gcs: {mode} needs a gs://bucket/prefix")
        if mode in (None, "url_to_local") and self.gcs is not None and not in_cloud:
            raise ValueError("product.gcs has no effect with this product.raw_storage_mode")


REQUEST = AssetsRequest
