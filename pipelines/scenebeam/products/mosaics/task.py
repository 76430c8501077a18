"""The task of a mosaic: one acquisition, all its bands, on the whole grid or on one shard of it."""

from __future__ import annotations

from scenebeam.imaging.bands import Band
from scenebeam.imaging.gridded_task import GriddedTask


class MosaicTask(GriddedTask):
    """All bands of one acquisition, on the whole grid or on one shard of it."""

    method: str

    @property
    def made(self) -> tuple[Band, ...]:
        """Bands that any of its scenes has; without the others it is incomplete."""
        return tuple(band for band in self.bands if band.sources)
