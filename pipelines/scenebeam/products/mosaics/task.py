"""The task of a mosaic."""

from __future__ import annotations

from scenebeam.imaging.bands import Band
from scenebeam.imaging.gridded_task import GriddedTask
from scenebeam.imaging.masks import MaskRule

MOSAICS = "mosaics"
"""Folder of the products."""


class MosaicTask(GriddedTask):
    """All bands of one acquisition, on the whole grid or on one shard of it."""

    method: str
    """Merge method."""
    one_by_one: bool
    """Whether bands are composed one after another, which takes less memory."""

    masks: dict[str, MaskRule]
    """Label of a band that masks pixels → its rule."""

    @property
    def requested(self) -> tuple[Band, ...]:
        """The requested bands, without masks."""
        return tuple(band for band in self.bands if band.label not in self.masks)

    @property
    def mask_bands(self) -> tuple[Band, ...]:
        """The bands that mask pixels."""
        return tuple(band for band in self.bands if band.label in self.masks)

    @property
    def made(self) -> tuple[Band, ...]:
        """Bands that any of its scenes has. Without the others the mosaic is incomplete."""
        return tuple(band for band in self.requested if band.sources)
