"""The task of an index."""

from __future__ import annotations

from scenebeam.imaging.bands import Band
from scenebeam.imaging.gridded_task import GriddedTask
from scenebeam.imaging.masks import MaskRule

INDICES = "indices"
"""Folder of the products."""


class IndexTask(GriddedTask):
    """One image of one or several acquisitions, on the whole grid or on one shard of it."""

    index: str
    """Name of the output."""
    expression: str
    variables: dict[str, str]
    """Variable of the expression → canonical name of the band."""
    acquisitions: tuple[str, ...]
    """Timestamps of all acquisitions; the label of a band begins with that of its acquisition."""
    before: tuple[str, ...]
    """Timestamps of the side of a difference from which the others are subtracted; else empty."""
    masks: tuple[MaskRule, ...]
    composite: str
    """Merge method of several acquisitions."""

    @property
    def rows(self) -> tuple[str, ...]:
        return self.acquisitions

    def band(self, acquisition: str, name: str) -> Band:
        """Return one band of an acquisition.

        Args:
            acquisition: Its timestamp.
            name: Canonical name of the band.

        Raises:
            KeyError: The acquisition has no such band.
        """
        wanted = label(acquisition, name)
        for band in self.bands:
            if band.label == wanted:
                return band
        raise KeyError(wanted)

    def bands_of(self, acquisition: str) -> list[Band]:
        """Return all bands of an acquisition."""
        prefix = label(acquisition, "")
        return [band for band in self.bands if band.label.startswith(prefix)]


def label(acquisition: str, name: str) -> str:
    """Return the label of a band of an acquisition."""
    return f"{acquisition}/{name}"
