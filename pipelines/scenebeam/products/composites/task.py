"""The task of a composite."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, cast

from pydantic import BaseModel, ConfigDict

from scenebeam.imaging.bands import Band
from scenebeam.imaging.gridded_task import GriddedTask
from scenebeam.imaging.masks import MaskRule
from scenebeam.tasks import CubeSlice

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
    middle: datetime
    """The middle of the period."""
    fill: str = ""
    """How gaps are filled from other periods; empty for not at all."""
    smoothness: float = 0.0
    """The parameter of the method."""
    series: tuple[CompositeTask, ...] = ()
    """All periods of the window, if they are made together to fill their gaps: this task is then
    one for all of them, and itself the first."""

    def _state_whatever_the_host(self, identities: Mapping[str, str]) -> dict[str, Any]:
        observations = []
        for one in self.observations:
            observations.append(one.model_dump(mode="json", exclude={"cloud_cover"}))
        return {**super()._state_whatever_the_host(identities), "observations": observations}

    @property
    def cube_parts(self) -> tuple[CompositeTask, ...]:
        return self.periods

    def in_cube(self, slices: Mapping[str, CubeSlice]) -> CompositeTask:
        """Return the task, and all periods that it makes, with images in a Zarr store."""
        if not self.series:
            return cast(CompositeTask, super().in_cube(slices))
        periods = tuple(period.in_cube(slices) for period in self.series)
        outputs: list[str] = []
        for period in periods:
            outputs += period.outputs
        update = {"cube": periods[0].cube, "series": periods, "outputs": tuple(outputs)}
        return self.model_copy(update=update)

    def bands_of(self, name: str) -> tuple[Band, ...]:
        """Return a band of all acquisitions, by its canonical name."""
        labels = {observation.label(name) for observation in self.observations}
        return tuple(band for band in self.bands if band.label in labels)

    def only(self, made: str) -> CompositeTask:
        """Return the task with one of its bands, and without extra ones.

        Args:
            made: Name of the band's file; with any other name, the task stays as it is.
        """
        if made not in self.made:
            return self
        place = self.made.index(made)
        name = self.names[place]
        kept = (*self.bands_of(name), *self.mask_bands)
        update = {
            "names": (name,),
            "made": (made,),
            "encodings": (self.encodings[place],),
            "bands": tuple(band for band in self.bands if band in kept),
            "extra": (),
        }
        return self.model_copy(update=update)

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
    def periods(self) -> tuple[CompositeTask, ...]:
        """The periods that the task makes."""
        return self.series or (self,)

    @property
    def item_keys(self) -> tuple[str, ...]:
        return tuple(period.item_path for period in self.periods)

    @property
    def sources(self) -> tuple[str, ...]:
        scenes: dict[str, None] = {}
        for period in self.periods:
            scenes.update((ref.id, None) for ref in period.scenes)
        return tuple(scenes)

    @property
    def source_files(self) -> frozenset[tuple[str, str]]:
        files: set[tuple[str, str]] = set()
        for period in self.periods:
            for band in period.bands:
                files.update((band.label, source.scene) for source in band.sources)
        return frozenset(files)

    @property
    def rows(self) -> tuple[str, ...]:
        timestamps = []
        for period in self.periods:
            timestamps += [observation.timestamp for observation in period.observations]
        return tuple(timestamps)
