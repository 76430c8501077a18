"""The task of a composite."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict

from scenebeam.imaging.bands import Band
from scenebeam.imaging.gridded_task import GriddedTask
from scenebeam.imaging.masks import MaskRule

COMPOSITES = "composites"
"""Folder of the products."""


class Observation(BaseModel):
    """One acquisition of a period: what its pixels are masked by, and what methods may know."""

    model_config = ConfigDict(frozen=True)

    timestamp: str
    when: datetime
    platform: str
    cloud_cover: float
    """Percent; 100 if it is not known."""
    in_period: bool
    """Whether it is in the period itself, and not only in its fallback."""
    rules: tuple[MaskRule, ...]

    @property
    def day(self) -> int:
        """Day of the year, from 1."""
        return self.when.timetuple().tm_yday

    def label(self, band: str) -> str:
        """Return the label of a band of the acquisition."""
        return f"{self.timestamp}/{band}"

    def mask_label(self, band: str) -> str:
        """Return the label of a band that masks: the same band can be requested too."""
        return f"{self.timestamp}/mask/{band}"


class CompositeTask(GriddedTask):
    """One image of a period, on the whole grid or on one shard of it."""

    observations: tuple[Observation, ...]
    """Those of the period, best first, and then those of its fallback only."""
    names: tuple[str, ...]
    """Canonical names of the bands that are read, without masks."""
    made: tuple[str, ...]
    """Names of the files of the first of them: the bands of the composite."""
    method: str
    parameters: dict[str, Any]
    min_observations: int
    extra: tuple[str, ...]
    encodings: tuple[Band, ...]
    """A band for each name, for its dtype, nodata value, scale and offset."""

    def bands_of(self, name: str) -> tuple[Band, ...]:
        """Return a band of all acquisitions, by its canonical name."""
        labels = {observation.label(name) for observation in self.observations}
        return tuple(band for band in self.bands if band.label in labels)

    def masks_of(self, band: Band) -> list[Band]:
        """Return the mask bands of the acquisition that a band is of."""
        prefix = f"{band.label.partition('/')[0]}/"
        return [mask for mask in self.mask_bands if mask.label.startswith(prefix)]

    @property
    def mask_bands(self) -> tuple[Band, ...]:
        """The bands that mask pixels."""
        labels: set[str] = set()
        for observation in self.observations:
            labels.update(observation.mask_label(rule.band) for rule in observation.rules)
        return tuple(band for band in self.bands if band.label in labels)

    @property
    def rows(self) -> tuple[str, ...]:
        return tuple(observation.timestamp for observation in self.observations)
