"""The task of a mosaic: one acquisition, all its bands, on the whole grid or on one shard of it."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict

from scenebeam.products.shards import PARTS, Window
from scenebeam.products.task import GridSpec, Task


class TileSource(BaseModel):
    """One scene's file of a band."""

    model_config = ConfigDict(frozen=True)

    scene: str
    href: str
    index: int
    signing: str
    shift: int


class MosaicBand(BaseModel):
    """One band of a mosaic: its tiles, best first."""

    model_config = ConfigDict(frozen=True)

    name: str
    sources: tuple[TileSource, ...]
    absent: tuple[str, ...]
    """Scenes of the acquisition that lack the band."""
    dtype: str
    nodata: float | None
    scale: float
    offset: float
    resampling: str
    categorical: bool


class SceneRef(BaseModel):
    """What a mosaic remembers of a scene."""

    model_config = ConfigDict(frozen=True)

    id: str
    item_href: str | None
    footprint: str | None
    """WKB in hex, in the grid's CRS."""


class MosaicTask(Task):
    """All bands of one acquisition, on the whole grid or on one shard of it."""

    timestamp: str
    acquired: datetime
    collection: str
    scenes: tuple[SceneRef, ...]
    bands: tuple[MosaicBand, ...]
    grid: GridSpec
    windows: tuple[Window, ...]
    shard: int
    cell: int
    method: str
    values: str
    on_missing: str
    codec: str
    properties: dict[str, Any]

    @property
    def sources(self) -> tuple[str, ...]:
        """Ids of the acquisition's scenes."""
        return tuple(ref.id for ref in self.scenes)

    @property
    def window(self) -> Window:
        """Rows and columns of the grid that this task makes."""
        return self.windows[self.shard]

    def band_path(self, band: str) -> str:
        """Name of a band's mosaic in the store."""
        return f"mosaics/{self.timestamp}/{band}.tif"

    def part_path(self, band: str, shard: int) -> str:
        """Name of a shard of a band, until the whole is put together."""
        return f"{PARTS}{self.timestamp}/{band}.{shard:05d}.part"
