"""The request of mosaics."""

from __future__ import annotations

from typing import ClassVar, Literal

from scenebeam.collections.record import Resampling
from scenebeam.request.choices import Codec, MergeMethod
from scenebeam.request.masks import Mask
from scenebeam.request.product import BandsRequest, CubeRequest, OnMissing, Values


class MosaicRequest(BandsRequest, CubeRequest):
    """One mosaic per acquisition and band."""

    kind: Literal["mosaic"] = "mosaic"
    group_by: Literal["acquisition", "day"] = "acquisition"
    """What becomes one mosaic: the scenes of one overpass, or all scenes of one solar day. With
    `day`, a mosaic is named by the time of its first scene."""
    method: MergeMethod = "first"
    """Which source a pixel comes from, or how several are combined. With `first`, sources are
    ordered by least cloud, then largest coverage, then id, or as in the table of a time series; the
    order of `last` is the reverse. The mean and the median of integers are rounded."""
    resampling: Resampling | dict[str, Resampling] = "nearest"
    """One method for all bands, or band → method; categorical bands always use `nearest`. In a
    mapping, bands are named by their common names, and bands that it does not list use `nearest`.
    """
    mask: Mask = False
    """Which pixels are clear; masked ones count as without data. With `true`, by the classes or
    bits of the collection's record. Default: `false`."""
    values: Values = "harmonized"
    """`harmonized`: remove the provider's radiometric offset; `raw`: values as in the files. The
    offset is a constant, such as `BOA_ADD_OFFSET` of Sentinel-2."""
    on_missing: OnMissing = "best-available"
    """For an acquisition with missing files: make what the others give, `fail`, or `skip` it. A
    permanently unreadable file counts as missing. With `best-available`, the mosaic is made without
    it and marked incomplete; a band without any source is left out, and the other bands are made.
    With `fail`, no mosaic is made and the task fails. With `skip`, no mosaic is made and the task
    does not count as failed."""
    compression: Codec = "deflate"
    """Compression of the COGs."""

    can_grow: ClassVar = True
    cli_fields: ClassVar = {"crs": "grid.crs", "resolution": "grid.resolution"}

    @property
    def grouping(self) -> Literal["acquisition", "day"]:
        return self.group_by


REQUEST = MosaicRequest
