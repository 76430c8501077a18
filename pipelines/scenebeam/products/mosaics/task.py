"""The task of a mosaic."""

from __future__ import annotations

from scenebeam.imaging.bands import Band
from scenebeam.imaging.gridded_task import GriddedTask

MOSAICS = "mosaics"
"""Folder of the products."""


class MosaicTask(GriddedTask):
    """All bands of one acquisition, on the whole grid or on one shard of it."""

    method: str
    """Merge method."""
    one_by_one: bool
    """Whether bands are composed one after another, which takes less memory."""

    @property
    def made(self) -> tuple[Band, ...]:
        """Bands that any of its scenes has. Without the others the mosaic is incomplete."""
        return tuple(band for band in self.bands if band.sources)
