"""The record of an area of interest: its chips and their files, written after all of them."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from scenebeam.products.landcover.task import Layer


class FileRecord(BaseModel):
    """Size and checksum of a published file."""

    model_config = ConfigDict(frozen=True)

    size: int
    """In bytes."""
    checksum: str
    """SHA-256 as a hex multihash, as in `file:checksum`."""


class ChipRecord(BaseModel):
    """A chip and its files."""

    model_config = ConfigDict(frozen=True)

    chip: int
    """Number of the chip within its area."""
    land_class: int
    left: float
    """Western edge, in units of the area's CRS."""
    top: float
    """Northern edge, in units of the area's CRS."""
    lot: str
    """The sampling key in hex. If a class has too many chips, those with the largest keys are
    dropped."""
    files: dict[str, FileRecord]
    """Files by name, relative to the area's folder."""
    scenes: dict[str, tuple[str, ...]] = {}
    """Label of a layer with several scenes → ids of the scenes that show the chip."""

    def scene_ids(self, layer: Layer) -> tuple[str, ...]:
        """Return the ids of the layer's scenes that show the chip."""
        return self.scenes.get(layer.label) or tuple(scene.id for scene in layer.scenes)


class AoiRecord(BaseModel):
    """The windows and chips of an area of interest."""

    model_config = ConfigDict(frozen=True)

    crs: str
    """CRS of all chips of the area."""
    windows: int
    """Number of windows inside the area."""
    homogeneous: dict[int, int]
    """Class → number of windows of that class alone."""
    rejected: dict[str, int]
    """Reason → number of windows of the requested classes that were rejected for it."""
    chips: tuple[ChipRecord, ...]
