"""Choose the images of each chip of a cell.

A scene can be an image of a chip if it covers the chip, and if the chip's own pixels in its
classification are clear. Scenes are read for clouds best first, and only for chips that may still
take them; all chips share the reads, so each block of a classification is fetched once per scene.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import numpy as np

from scenebeam.catalog.acquisition import PASS_GAP
from scenebeam.imaging.chip_clouds import (
    CLEAR,
    OVERCAST,
    ChipClouds,
    SceneClouds,
    measure_chip_clouds,
)
from scenebeam.imaging.chip_scenes import ChipScene, covers
from scenebeam.products.chips.scope import period_of_date
from scenebeam.products.chips.task import ChipRef, ChipsTask, Period
from scenebeam.raster.validity import Array
from scenebeam.transfer.retry import Budget

_SCENES_AT_ONCE = 4


class ImageRank(NamedTuple):
    """Rank of a scene as an image of a chip; the smallest is the best."""

    cloudy: bool
    """Whether it has more cloud than the request allows: only if nothing else is left."""
    first: float
    """Percent of cloud, or seconds from the target; see `choose` of the request."""
    second: float
    """The other of the two."""
    other_zone: bool
    """Whether its pixels must be resampled."""
    scene: str


@dataclass
class ChipChoice:
    """What is known of the scenes of a chip."""

    periods: Sequence[Period]
    covered: set[str] = field(default_factory=set)
    """Ids of the scenes that cover it in some period."""
    clouds: dict[str, ChipClouds] = field(default_factory=dict)
    """Scenes whose clouds over the chip are known."""
    rejected: dict[str, str] = field(default_factory=dict)
    """Scenes that cannot be used, and why."""
    images: list[str] = field(default_factory=list)
    """Ids of the chosen scenes, in order of time."""

    @property
    def reason(self) -> str:
        """Why the chip has too few images."""
        if not self.covered:
            return "no scene covers it"
        text = f"too few of {len(self.covered)} scenes are clear ({len(self.clouds)} measured)"
        if self.rejected:
            scene, why = min(self.rejected.items())
            text += f"; {len(self.rejected)} cannot be used, such as {scene}: {why}"
        return text


class ImageChooser:
    """Chooses the images of the chips of a task, and others in place of those that are unusable."""

    def __init__(self, task: ChipsTask, chips: Sequence[ChipRef], budget: Budget) -> None:
        self._task, self._chips, self._budget = task, chips, budget
        self._scenes = {scene.id: scene for scene in task.scenes}
        self.choices: list[ChipChoice] = []
        for chip in chips:
            periods = task.periods
            if chip.date:
                periods = (period_of_date(chip.date, task.product.window_days),)
            self.choices.append(ChipChoice(periods))
        for scene, covered in zip(task.scenes, _covered(task, chips), strict=True):
            for number in np.flatnonzero(covered).tolist():
                if any(_is_within(scene, period) for period in self.choices[number].periods):
                    self.choices[number].covered.add(scene.id)

    def choose(self, numbers: Sequence[int]) -> None:
        """Choose the images of some chips.

        Raises:
            ReadError: A classification cannot be read at the moment.
        """
        with ThreadPoolExecutor(_SCENES_AT_ONCE) as threads:
            for wave in self._waves():
                groups = []
                for scene in wave:
                    asking = [number for number in numbers if self._needs(number, scene)]
                    if asking:
                        groups.append((scene, asking))
                measured = threads.map(lambda group: self._measure(*group), groups)
                for (scene, asking), clouds in zip(groups, measured, strict=True):
                    self._record(scene, asking, clouds)
        for number in numbers:
            self.choices[number].images = self._pick(number)

    def _waves(self) -> Iterator[list[ChipScene]]:
        """Yield the scenes a few at a time, those first that are probably the best."""

        def key(scene: ChipScene) -> tuple[float, datetime, str]:
            return 0.0 if scene.cloud is None else scene.cloud, scene.when, scene.id

        queue = sorted(self._task.scenes, key=key)
        for start in range(0, len(queue), _SCENES_AT_ONCE):
            yield queue[start : start + _SCENES_AT_ONCE]

    def _needs(self, number: int, scene: ChipScene) -> bool:
        """Whether the clouds of a scene over a chip can decide what is chosen."""
        choice = self.choices[number]
        if scene.id not in choice.covered or scene.id in choice.clouds:
            return False
        if scene.id in choice.rejected:
            return False
        if not scene.looked_at or _is_overcast(scene, self._task):
            return False
        if scene.cloud is not None and scene.cloud < CLEAR and scene.nodata == 0:
            return False
        count = self._task.product.image_count
        if count is None:
            return True
        for period in choice.periods:
            if not _is_within(scene, period):
                continue
            best = self._ranked(number, period)
            # With no cloud at all, would it be among the best?
            rank = self._rank(scene, period, 0.0)
            if len(best) < count or rank < best[count - 1]:
                return True
        return False

    def _measure(self, scene: ChipScene, numbers: Sequence[int]) -> SceneClouds:
        grids = {number: self._task.grid_of(self._chips[number]) for number in numbers}
        return measure_chip_clouds(scene, grids, self._task.clouds, self._budget)

    def _record(self, scene: ChipScene, numbers: Sequence[int], clouds: SceneClouds) -> None:
        for number in numbers:
            choice = self.choices[number]
            if clouds.error:
                choice.rejected[scene.id] = clouds.error
                continue
            found = clouds.chips[number]
            choice.clouds[scene.id] = found
            if found.nodata is not None and found.nodata > self._task.product.max_nodata:
                choice.rejected[scene.id] = f"{found.nodata:g} % of the chip has no data"

    def cloud_of(self, number: int, scene: str) -> float | None:
        """Return the cloud of a scene over a chip in percent; None if it is not known."""
        measured = self.choices[number].clouds.get(scene)
        if measured is not None and measured.cloud is not None:
            return measured.cloud
        cover = self._scenes[scene].cloud
        return 0.0 if cover == 0 else None

    def _ranked(self, number: int, period: Period) -> list[ImageRank]:
        """Rank the scenes of a period whose clouds over a chip are known, one per overpass."""
        choice, ranks = self.choices[number], []
        for name in choice.covered:
            scene = self._scenes[name]
            if name in choice.rejected or not _is_within(scene, period):
                continue
            measured = choice.clouds.get(name)
            if measured is not None and measured.cloud is not None:
                cloud = measured.cloud
            elif scene.looked_at and not (scene.cloud is not None and scene.cloud < CLEAR):
                continue  # not measured
            else:
                # Without a classification the cover of the scene has to do; radar sees no cloud.
                cloud = scene.cloud or 0.0
            ranks.append(self._rank(scene, period, cloud))
        return self._one_per_overpass(sorted(ranks))

    def _rank(self, scene: ChipScene, period: Period, cloud: float) -> ImageRank:
        product = self._task.product
        away = abs((scene.when - datetime.fromisoformat(period.target)).total_seconds())
        criteria = (cloud, away) if product.choose == "clearest" else (away, cloud)
        return ImageRank(cloud > product.max_cloud, *criteria, not scene.own_grid, scene.id)

    def _one_per_overpass(self, ranks: Sequence[ImageRank]) -> list[ImageRank]:
        """Drop scenes of an overpass of which a better one is there, such as the next tile."""
        kept: list[ImageRank] = []
        times: list[datetime] = []
        for rank in ranks:
            when = self._scenes[rank.scene].when
            if all(abs(when - other) > PASS_GAP for other in times):
                kept.append(rank)
                times.append(when)
        return kept

    def _pick(self, number: int) -> list[str]:
        """Return the best images of each period; cloudy ones only if there are too few others."""
        product = self._task.product
        images: dict[str, None] = {}
        cloudy: list[ImageRank] = []
        for period in self.choices[number].periods:
            ranks = self._ranked(number, period)
            clear = [rank for rank in ranks if not rank.cloudy][: product.image_count]
            images |= {rank.scene: None for rank in clear}
            room = None if product.image_count is None else product.image_count - len(clear)
            cloudy += [rank for rank in ranks if rank.cloudy][:room]
        if product.on_missing == "best-available":
            for rank in sorted(cloudy):
                if len(images) < product.min_images:
                    images[rank.scene] = None
        return sorted(images, key=lambda name: (self._scenes[name].when, name))


def _is_within(scene: ChipScene, period: Period) -> bool:
    start, end = datetime.fromisoformat(period.start), datetime.fromisoformat(period.end)
    return start <= scene.when.astimezone(UTC) <= end


def _is_overcast(scene: ChipScene, task: ChipsTask) -> bool:
    # As a last resort, even an overcast scene has to do, and must be measured.
    relaxed = task.product.on_missing == "best-available"
    return not relaxed and scene.cloud is not None and scene.cloud > OVERCAST


def _covered(task: ChipsTask, chips: Sequence[ChipRef]) -> Iterator[Array]:
    """Yield for each scene which chips it covers by its footprint, shape (chips,)."""
    boxes = task.boxes(chips)
    for scene in task.scenes:
        yield covers(scene, boxes, task.product.max_nodata, task.resolution)


def nearest_scenes(
    task_scenes: Sequence[ChipScene],
    covered: Mapping[str, Array],
    number: int,
    times: Sequence[datetime],
    within_days: float,
) -> list[str]:
    """Return for each image of a chip the nearest scene of another collection; empty if none is.

    Args:
        task_scenes: Scenes of the other collection.
        covered: Id of a scene → which chips it covers.
        number: Index of the chip.
        times: When its images were taken.
        within_days: Largest distance in time.
    """
    nearest = []
    for when in times:
        ranks = []
        for scene in task_scenes:
            away = abs(scene.when - when)
            if covered[scene.id][number] and away <= timedelta(days=within_days):
                ranks.append((away, not scene.own_grid, scene.id))
        nearest.append(min(ranks)[2] if ranks else "")
    return nearest
