"""The task of a gridded product: COGs of one name on one grid, whole or one shard of it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np

from scenebeam.imaging.bands import Band
from scenebeam.imaging.refs import SceneRef
from scenebeam.imaging.shards import PARTS_PREFIX, Window
from scenebeam.imaging.thumbnails import THUMBNAIL
from scenebeam.tasks import GridSpec, Task

Missing = dict[str, dict[str, str]]
"""Label of a band → scene → why it is missing."""


class GriddedTask(Task):
    """COGs of one name on the whole grid, or on one shard of it."""

    name: str
    """Of the folder and the item: a timestamp, a scene, a period."""
    when: datetime
    collection: str
    folder: str
    """`mosaics`, `indices`."""
    scenes: tuple[SceneRef, ...]
    bands: tuple[Band, ...]
    """What is read."""
    grid: GridSpec
    window: Window
    """Rows and columns of the grid that this task makes."""
    shard: int
    """Its number among the shards of the grid, in the order of their rows and columns."""
    shards: int
    cell: int
    values: str
    on_missing: str
    codec: str
    properties: dict[str, Any]

    @property
    def lacking(self) -> tuple[str, ...]:
        """Bands that no scene has a file of."""
        return tuple(
            dict.fromkeys(band.name for band in self.bands if band.absent and not band.sources)
        )

    @property
    def sources(self) -> tuple[str, ...]:
        """Ids of the scenes."""
        return tuple(ref.id for ref in self.scenes)

    @property
    def source_files(self) -> frozenset[tuple[str, str]]:
        """(label, scene) of each file of a band."""
        files = set()
        for band in self.bands:
            files |= {(band.label, source.scene) for source in band.sources}
        return frozenset(files)

    @property
    def pixel_layout(self) -> object:
        return self.grid, self.window

    def output_key(self, output: str) -> str:
        """Name of an output's COG in the store."""
        return f"{self.folder}/{self.name}/{output}.tif"

    @property
    def thumbnail_key(self) -> str:
        """Name of the small picture of its outputs in the store."""
        return f"{self.folder}/{self.name}/{THUMBNAIL}"

    def part_key(self, output: str, shard: int) -> str:
        """Name of a shard of an output, until the whole is put together."""
        return f"{PARTS_PREFIX}{self.name}/{output}.{shard:05d}.part"


def item_key(folder: str, name: str) -> str:
    """Name of an item in the store."""
    return f"{folder}/{name}/{name}.json"


@dataclass(frozen=True)
class Output:
    """One COG of a task: its numbers, and the inputs that it comes of."""

    name: str
    dtype: np.dtype[Any]
    nodata: float | None
    scale: float
    offset: float
    categorical: bool
    inputs: tuple[Band, ...]
