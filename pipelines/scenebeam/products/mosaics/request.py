"""The request of mosaics."""

from __future__ import annotations

from typing import ClassVar, Literal

from scenebeam.collections.record import Resampling
from scenebeam.request.codecs import Codec
from scenebeam.request.methods import MergeMethod
from scenebeam.request.product import BandsRequest, OnMissing, Values


class MosaicRequest(BandsRequest):
    """One mosaic per acquisition and band."""

    kind: Literal["mosaic"] = "mosaic"
    group_by: Literal["acquisition", "day"] = "acquisition"
    """What becomes one mosaic: the scenes of one pass, or all scenes of one day."""
    method: MergeMethod = "first"
    """Which source a pixel comes from, or how several are combined."""
    resampling: Resampling | dict[str, Resampling] = "nearest"
    """One method for all bands, or band → method; categorical bands always use nearest."""
    values: Values = "harmonized"
    """`harmonized`: remove the provider's radiometric offset; `raw`: keep numbers as in the files."""
    on_missing: OnMissing = "best-available"
    """For an acquisition with missing files: make what the others give, `fail`, or `skip` it."""
    compression: Codec = "deflate"
    """Compression of the COGs."""

    cli_fields: ClassVar = {"crs": "grid.crs", "resolution": "grid.resolution"}

    @property
    def grouping(self) -> Literal["acquisition", "day"]:
        return self.group_by


REQUEST = MosaicRequest
