"""The task of a stack: the bands of one scene."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from scenebeam.catalog.scene import Asset
from scenebeam.imaging.cube_layout import ZARR_ROOT, CubeLayout
from scenebeam.imaging.refs import SceneRef
from scenebeam.imaging.shards import PARTS_PREFIX
from scenebeam.request import Checks
from scenebeam.tasks import CubeSlice, GridSpec, Task

STACKS = "stacks"
"""Folder of the products."""


class BandSlot(BaseModel):
    """The place of a band in a stack. A slot that is no StackBand has no file in the scene."""

    model_config = ConfigDict(frozen=True)

    name: str
    required: bool
    stack: str
    """Suffix of its stack: `_20m` if each resolution has a stack of its own; otherwise empty."""


class StackBand(BandSlot):
    """A band of a stack that the scene has a file of."""

    asset: Asset
    resampling: str
    file: str
    """Name of its file in the stack's folder, if it is downloaded first; otherwise empty."""


class StackTask(Task):
    """All bands of one scene."""

    scene: SceneRef
    """The scene, with its footprint in degrees."""
    collection: str
    bands: tuple[StackBand | BandSlot, ...]
    """In canonical order."""
    format: Literal["vrt", "geotiff"]
    intersect: bool
    """Crop the grid to the extent that all bands cover."""
    grid: GridSpec | None
    """None: the scene's own, of the first of its finest bands."""
    area: str | None
    """Hex WKB of the area in degrees; None: all of the scene."""
    values: str
    codec: str
    checks: Checks
    visualization: bool
    at_once: int
    """Bands that are made at the same time, as memory allows."""
    properties: dict[str, Any]
    """Properties of the STAC item that are known when the task is planned."""

    @property
    def lacking(self) -> tuple[str, ...]:
        return tuple(band.name for band in self.bands if not isinstance(band, StackBand))

    @property
    def sources(self) -> tuple[str, ...]:
        return (self.scene.id,)

    @property
    def pixel_layout(self) -> object:
        return self.grid

    @property
    def stacks(self) -> list[str]:
        """Suffixes of the scene's stacks."""
        return list(dict.fromkeys(band.stack for band in self.bands))

    def stack_key(self, stack: str) -> str:
        """Key of a stack."""
        suffix = "vrt" if self.format == "vrt" else "tif"
        return f"{STACKS}/{self.scene.id}/{self.scene.id}{stack}.{suffix}"

    @property
    def cube_id(self) -> str:
        return self.scene.id

    def in_cube(self, slices: Mapping[str, CubeSlice]) -> StackTask:
        assert self.grid is not None, "the stacks of a cube are on one grid"
        place = slices[self.cube_id]
        layout = CubeLayout(self.grid.shape, place.cuts)
        keys: list[str] = []
        if place.format == "zarr":
            names = [band.name for band in self.bands if band.required]
            names = [band.name for band in place.bands if band.name in names]
            keys = _shards(layout, place, names)
        stacks = {self.stack_key(stack) for stack in self.stacks}
        for key in self.outputs:
            if key not in stacks and not key.startswith(ZARR_ROOT):
                keys.append(key)
        return self.model_copy(update={"cube": place, "outputs": tuple(keys)})

    @property
    def possible_outputs(self) -> Iterable[str]:
        if self.cube is None or self.grid is None or self.cube.format != "zarr":
            return self.outputs
        layout = CubeLayout(self.grid.shape, self.cube.cuts)
        names = [band.name for band in self.cube.bands]
        return {*self.outputs, *_shards(layout, self.cube, names)}

    @property
    def files_prefix(self) -> str:
        """Folder of the stacks and of the bands' own files."""
        return f"{STACKS}/{self.scene.id}/"

    def file_key(self, file: str) -> str:
        """Key of a band's own file."""
        return f"{self.files_prefix}{file}"

    @property
    def screenshot_key(self) -> str:
        """Key of the thumbnail."""
        return f"{STACKS}/{self.scene.id}/{self.scene.id}.png"

    @property
    def parts_prefix(self) -> str:
        """Folder of the parts of the scene's bands."""
        return f"{PARTS_PREFIX}{self.scene.id}/"

    def part_key(self, band: str) -> str:
        """Key of a band that was encoded before its stack could be published."""
        return f"{PARTS_PREFIX}{self.scene.id}/{band}.part"


def _shards(layout: CubeLayout, place: CubeSlice, names: Sequence[str]) -> list[str]:
    """Return the keys of the shards of some bands."""
    paths = layout.paths(place.index, names, range(len(layout.levels)))
    return [f"{ZARR_ROOT}{path}" for path in paths]
