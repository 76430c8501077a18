"""The task of a stack: the bands of one scene."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from scenebeam.catalog.scene import Asset
from scenebeam.imaging.refs import SceneRef
from scenebeam.imaging.shards import PARTS_PREFIX
from scenebeam.request import Checks
from scenebeam.tasks import GridSpec, Task

STACKS = "stacks"
"""Folder of the products."""


class BandSlot(BaseModel):
    """The place of a band in a stack. On its own: the scene has no file of the band."""

    model_config = ConfigDict(frozen=True)

    name: str
    required: bool
    stack: str
    """Suffix of its stack: `_20m` where each resolution has a stack of its own, else empty."""


class StackBand(BandSlot):
    """A band of a stack, and its file."""

    asset: Asset
    resampling: str
    file: str
    """Name of its own file in the stack's folder, if it is downloaded first; otherwise empty."""


class StackTask(Task):
    """All bands of one scene."""

    scene: SceneRef
    """The scene, with its footprint in degrees."""
    collection: str
    bands: tuple[StackBand | BandSlot, ...]
    """In canonical order."""
    format: Literal["vrt", "geotiff"]
    intersect: bool
    """Whether the grid ends where the smallest of the bands does."""
    grid: GridSpec | None
    """None: the scene's own, of the first of its finest bands."""
    area: str | None
    """WKB in hex, in degrees; None: all of the scene."""
    values: str
    codec: str
    checks: Checks
    visualization: bool
    at_once: int
    """Bands that are made together: what fits into memory."""
    ahead: int
    """Strips of each that are read ahead."""
    properties: dict[str, Any]

    @property
    def lacking(self) -> tuple[str, ...]:
        """Bands that the scene has no file of."""
        return tuple(band.name for band in self.bands if not isinstance(band, StackBand))

    @property
    def sources(self) -> tuple[str, ...]:
        """The scene."""
        return (self.scene.id,)

    @property
    def pixel_layout(self) -> object:
        return self.grid

    @property
    def stacks(self) -> list[str]:
        """Endings of the scene's stacks."""
        return list(dict.fromkeys(band.stack for band in self.bands))

    def stack_key(self, stack: str) -> str:
        """Name of a stack in the store."""
        return f"{STACKS}/{self.scene.id}/{self.scene.id}{stack}.{'vrt' if self.format == 'vrt' else 'tif'}"

    def file_key(self, file: str) -> str:
        """Name of a band's own file in the store."""
        return f"{STACKS}/{self.scene.id}/{file}"

    @property
    def screenshot_key(self) -> str:
        """Name of the small picture."""
        return f"{STACKS}/{self.scene.id}/{self.scene.id}.png"

    def part_key(self, band: str) -> str:
        """Name of a band that is finished before its stack."""
        return f"{PARTS_PREFIX}{self.scene.id}/{band}.part"
