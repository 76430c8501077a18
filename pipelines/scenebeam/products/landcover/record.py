"""Record: what is told of the chips of an area of interest, when all of them stand."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from scenebeam.products.landcover.task import Layer


class MadeFile(BaseModel):
    """A file that stands."""

    model_config = ConfigDict(frozen=True)

    size: int
    checksum: str
    """Multihash in hex."""


class ChipRecord(BaseModel):
    """One chip that was made."""

    model_config = ConfigDict(frozen=True)

    chip: int
    land_class: int
    left: float
    top: float
    lot: str
    """What it was drawn by: of chips too many the largest go."""
    files: dict[str, MadeFile]
    """By name in the area's folder."""
    scenes: dict[str, tuple[str, ...]] = {}
    """Of layers that have several scenes the ids of those that show it, by the layer's key."""

    def scene_ids(self, layer: Layer) -> tuple[str, ...]:
        """The scenes of a layer that show the chip."""
        return self.scenes.get(layer.key) or tuple(scene.id for scene in layer.scenes)


class AoiRecord(BaseModel):
    """What became of an area of interest."""

    model_config = ConfigDict(frozen=True)

    crs: str
    windows: int
    """Places that were looked at."""
    homogeneous: dict[int, int]
    """Class → windows that are of it alone."""
    rejected: dict[str, int]
    """Why windows of the classes asked for were not fit → how many."""
    chips: tuple[ChipRecord, ...]
