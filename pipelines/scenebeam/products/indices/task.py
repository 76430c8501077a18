"""The task of an index: one image of one or several acquisitions, on the whole grid or on one shard of it."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from scenebeam.imaging.bands import Band
from scenebeam.imaging.gridded_task import GriddedTask

INDICES = "indices"
"""Folder of the products."""


class MaskRule(BaseModel):
    """Which pixels a band of classes or bit flags leaves out."""

    model_config = ConfigDict(frozen=True)

    band: str
    classes: tuple[int, ...] = ()
    bits: tuple[int, ...] = ()


class IndexTask(GriddedTask):
    """An expression of the bands of some acquisitions, and what is made of them together."""

    index: str
    """Name of the output."""
    expression: str
    variables: dict[str, str]
    """Name in the expression → our name of the band."""
    acquisitions: tuple[str, ...]
    """Their timestamps; a band's label begins with its acquisition's."""
    before: tuple[str, ...]
    """Of a difference: those on the side that the others are taken from. Else empty."""
    masks: tuple[MaskRule, ...]
    composite: str

    @property
    def rows(self) -> tuple[str, ...]:
        return self.acquisitions

    def band(self, acquisition: str, name: str) -> Band | None:
        """One band of an acquisition; None where its collection has no such band."""
        return next((band for band in self.bands if band.label == label(acquisition, name)), None)


def label(acquisition: str, name: str) -> str:
    """What one band of one acquisition is called within a task."""
    return f"{acquisition}/{name}"
