"""Choose the scene of one season for each chip of a cell.

Scenes are ranked for each chip by these criteria, in this order:

1. the narrowest search window around planting or harvest that contains the scene,
2. the least cloud,
3. the fewest days to that day,
4. the chip's own UTM zone before another, whose pixels must be resampled,
5. the shortest time to 12:00 UTC of that day,
6. the smallest id, so that the choice never depends on chance.

The best scene that keeps the thresholds of the request is chosen. Clouds are those of the whole
scene, or with `pixel_check` those over the chip itself. The latter must be read from the scene's
classification, which is the expensive part of a choice. It is avoided where possible:

- Metadata decide first. A scene with less than CLEAR percent cloud counts as clear everywhere, and
  one with more than OVERCAST percent is not suitable; neither is read for its clouds.
- Scenes are read best first, and only for chips for which they can still win. The cloud over the
  chip is not known before, so a scene can still win if it would with no cloud at all.
- All chips of a cell share the reads: each block of a classification is fetched once per scene.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict

from scenebeam.imaging.chip_clouds import (
    CLEAR,
    OVERCAST,
    ChipClouds,
    SceneClouds,
    measure_chip_clouds,
)
from scenebeam.imaging.chip_scenes import ChipScene, covers
from scenebeam.products.fields.task import FieldsTask
from scenebeam.transfer.retry import Budget

_CONCURRENT_SCENES = 4
"""Scenes whose classifications are read at the same time."""
_CHOSEN_BEFORE = -1
"""Instead of the number of expansions, for a scene that was chosen before: it ranks first."""


class Distance(NamedTuple):
    """How far a scene is from the day of a chip."""

    days: int
    """Days from planting or harvest."""
    other_zone: bool
    """Whether its files are in another UTM zone than the chip."""
    time: timedelta
    """Time from 12:00 UTC of the day."""


class Rank(NamedTuple):
    """Rank of a scene for one chip; the smallest is the best."""

    expansions: int
    """How often the search window must be widened to contain the scene."""
    cloud: float
    """Percent; while it is not known, the least that it can be."""
    distance: Distance
    scene: str
    """Id of the scene."""


class FallbackRank(NamedTuple):
    """Rank of a scene that keeps no threshold, for `best-available`; the smallest is the best."""

    cloud_unknown: bool
    cloud: float
    distance: Distance
    scene: str


class Choice(BaseModel):
    """The scene that was chosen for a chip, and why."""

    model_config = ConfigDict(frozen=True)

    chip: str
    day: int
    """Day of year of planting or harvest."""
    scene: str | None = None
    """Id of the scene; None if no scene is suitable."""
    cloud: float | None = None
    """Percent of the chip that is cloudy, if it was measured, or if the scene has no cloud."""
    cloud_scene: float | None = None
    """Cloud cover of the whole scene in percent."""
    nodata: float | None = None
    """Percent of the chip without data, if it was measured."""
    buffer: int = 0
    """Days to either side of the window in which the scene was found."""
    expansions: int = 0
    """How often the window was widened."""
    checked: int = 0
    """Number of scenes in the widest window that cover the whole chip."""
    relaxed: bool = False
    """Whether no scene keeps the thresholds, and the least cloudy was chosen instead."""
    reason: str = ""
    """Why no scene was chosen."""
    unchecked: dict[str, str] = {}
    """Scenes whose classification cannot be read, and why."""
    rejected: dict[str, str] = {}
    """Scenes that were chosen first but whose pixels cannot be used, and why."""
    alternatives: tuple[str, ...] = ()
    """Ids of the other suitable scenes, best first."""


class _Pair(NamedTuple):
    """A scene and a chip that it covers."""

    candidate: ChipScene
    number: int
    """Index of the chip in the task."""
    rank: Rank
    """The best rank that the scene can have for the chip."""


@dataclass
class _ChipState:
    """What is known so far about the scenes of one chip. All keys are ids of scenes."""

    previous: str | None
    """Scene that was chosen under other thresholds."""
    rejected: dict[str, str]
    """Scenes that must not be chosen, and why."""
    checked: int = 0
    expansions: dict[str, int] = field(default_factory=dict)
    suitable: dict[str, Rank] = field(default_factory=dict)
    unsuitable: dict[str, FallbackRank] = field(default_factory=dict)
    clouds: dict[str, ChipClouds] = field(default_factory=dict)
    unchecked: dict[str, str] = field(default_factory=dict)
    """Scenes whose classification cannot be read, and why."""

    @property
    def best(self) -> Rank | None:
        return min(self.suitable.values(), default=None)


def choose(
    task: FieldsTask,
    budget: Budget,
    previous: Mapping[str, str] = MappingProxyType({}),
    rejected: Mapping[str, Mapping[str, str]] = MappingProxyType({}),
) -> list[Choice]:
    """Choose a scene for each chip of a task.

    Args:
        task: A task of imagery.
        budget: The task's budget for retries.
        previous: Chip → scene that was chosen under other thresholds. It ranks first: a scene that
            keeps the new thresholds, too, is kept with its image.
        rejected: Chip → scenes that must not be chosen, and why. The reasons are passed on in the
            choice.

    Returns:
        One choice per chip, in the order of the task.

    Raises:
        ReadError: A classification cannot be read at the moment, and a later attempt may succeed.
            One that can never be read is listed in the choice, and its scene is not chosen.
    """
    states: list[_ChipState] = []
    for chip in task.chips:
        states.append(_ChipState(previous.get(chip.name), dict(rejected.get(chip.name, {}))))

    # Decide by metadata what they can decide, and group the rest by scene.
    to_measure: dict[str, list[_Pair]] = {}
    for pair in _covering_pairs(task, states):
        if _needs_pixels(task, pair.candidate):
            to_measure.setdefault(pair.candidate.id, []).append(pair)
        else:
            _classify(task, pair, states[pair.number], ChipClouds())

    # Read the scenes that rank first for some chip before the others, a few at a time. Each wave
    # finds suitable scenes, and with them fewer pairs are left that can still win.
    queue = sorted(to_measure.values(), key=_best_distance)
    with ThreadPoolExecutor(_CONCURRENT_SCENES) as threads:
        for start in range(0, len(queue), _CONCURRENT_SCENES):
            wave: list[list[_Pair]] = []
            for group in queue[start : start + _CONCURRENT_SCENES]:
                contenders = [pair for pair in group if _can_win(task, states, pair)]
                if contenders:
                    wave.append(contenders)
            measured = threads.map(lambda group: _measure(task, group, budget), wave)
            for group, clouds in zip(wave, measured, strict=True):
                _record(task, states, group, clouds)
    return [_choice(task, number, state) for number, state in enumerate(states)]


def _covering_pairs(task: FieldsTask, states: Sequence[_ChipState]) -> Iterator[_Pair]:
    """Yield each scene with each chip that it covers entirely, within the widest window."""
    product, boxes = task.product, task.boxes()
    noons: list[datetime] = []
    for chip in task.chips:
        noons.append(datetime.fromisoformat(chip.target).replace(hour=12, tzinfo=UTC))
    for candidate in task.candidates:
        covered = covers(candidate, boxes, product.nodata_max, task.pixel[0])
        # With a pixel check, a chip may have no cloud at all, whatever the cover of its scene.
        least_cloud = 0.0
        if candidate.cloud is not None and not product.pixel_check:
            least_cloud = candidate.cloud
        for number in np.flatnonzero(covered).tolist():
            state, noon = states[number], noons[number]
            days = abs((candidate.when.astimezone(UTC).date() - noon.date()).days)
            beyond = days - product.buffer_days
            expansions = max(0, math.ceil(beyond / product.buffer_expansion_size))
            if expansions > product.buffer_expansions:
                continue
            state.checked += 1
            if candidate.id in state.rejected:
                continue
            state.expansions[candidate.id] = expansions
            if candidate.id == state.previous:
                expansions = _CHOSEN_BEFORE
            distance = Distance(days, not candidate.own_grid, abs(candidate.when - noon))
            rank = Rank(expansions, least_cloud, distance, candidate.id)
            yield _Pair(candidate, number, rank)


def _needs_pixels(task: FieldsTask, candidate: ChipScene) -> bool:
    """Whether only its pixels tell if a scene is suitable for a chip, and they can be read."""
    if not candidate.looked_at or _is_overcast(task, candidate):
        return False
    cloud = candidate.cloud
    cloud_matters = task.product.pixel_check and (cloud is None or cloud >= CLEAR)
    # A scene whose item states 0 % nodata has data everywhere inside its footprint.
    return cloud_matters or candidate.nodata != 0


def _is_overcast(task: FieldsTask, candidate: ChipScene) -> bool:
    """Whether a scene is too cloudy for any of its chips."""
    limit = OVERCAST if task.product.pixel_check else task.product.cloud_cover_scene
    return candidate.cloud is not None and candidate.cloud > limit


def _best_distance(group: Sequence[_Pair]) -> tuple[int, Distance, str]:
    """Rank a scene for reading, by the chip that it suits best. Clouds are not known yet."""
    return min((pair.rank.expansions, pair.rank.distance, pair.rank.scene) for pair in group)


def _can_win(task: FieldsTask, states: Sequence[_ChipState], pair: _Pair) -> bool:
    """Whether the pixels of a scene can still change what is chosen for a chip."""
    if task.product.include_alternatives:
        return True
    best = states[pair.number].best
    return best is None or pair.rank < best


def _measure(task: FieldsTask, group: Sequence[_Pair], budget: Budget) -> SceneClouds:
    grids = task.grids_of(pair.number for pair in group)
    return measure_chip_clouds(group[0].candidate, grids, task.clouds, budget)


def _record(
    task: FieldsTask, states: Sequence[_ChipState], group: Sequence[_Pair], clouds: SceneClouds
) -> None:
    """Add what the pixels of one scene show to the states of its chips."""
    for pair in group:
        state = states[pair.number]
        if clouds.error:
            # Neither suitable nor a fallback: a scene that cannot be read never counts as clear.
            state.unchecked[pair.candidate.id] = clouds.error
        else:
            _classify(task, pair, state, clouds.chips[pair.number])


def _classify(task: FieldsTask, pair: _Pair, state: _ChipState, clouds: ChipClouds) -> None:
    """Add a scene to the suitable or the unsuitable scenes of a chip.

    A scene with too much nodata over the chip is neither, as it cannot even be a fallback.
    """
    product, candidate = task.product, pair.candidate
    state.clouds[candidate.id] = clouds
    if clouds.nodata is not None and clouds.nodata > product.nodata_max:
        return
    cloud = candidate.cloud
    if product.pixel_check:
        # The measured cloud counts, and is what the scene is ranked by. A clear scene may not have
        # been measured.
        is_clear = cloud is not None and cloud < CLEAR
        is_suitable = is_clear or (
            clouds.cloud is not None and clouds.cloud <= product.cloud_cover_pixel
        )
        cloud = clouds.cloud if clouds.cloud is not None else cloud
    else:
        is_suitable = cloud is not None and cloud <= product.cloud_cover_scene
    rank = pair.rank
    if is_suitable and cloud is not None and not _is_overcast(task, candidate):
        state.suitable[candidate.id] = rank._replace(cloud=cloud)
    else:
        fallback = FallbackRank(cloud is None, cloud or 0.0, rank.distance, rank.scene)
        state.unsuitable[candidate.id] = fallback


def _choice(task: FieldsTask, number: int, state: _ChipState) -> Choice:
    product, chip = task.product, task.chips[number]
    choice = Choice(
        chip=chip.name,
        day=chip.day,
        checked=state.checked,
        unchecked=state.unchecked,
        rejected=state.rejected,
    )
    relaxed = not state.suitable and product.on_missing == "best-available"
    if relaxed:
        order = sorted(state.unsuitable, key=state.unsuitable.__getitem__)
    else:
        order = sorted(state.suitable, key=state.suitable.__getitem__)
    if not order:
        return choice.model_copy(update={"reason": _why_none(task, number, state)})
    candidate = next(scene for scene in task.candidates if scene.id == order[0])
    clouds = state.clouds[candidate.id]
    # A scene without any cloud has none over the chip, even if the chip was not measured.
    cloud = 0.0 if clouds.cloud is None and candidate.cloud == 0 else clouds.cloud
    # The least cloudy scene is taken from the widest window.
    expansions = product.buffer_expansions if relaxed else state.expansions[candidate.id]
    return choice.model_copy(
        update={
            "scene": candidate.id,
            "cloud": cloud,
            "cloud_scene": candidate.cloud,
            "nodata": clouds.nodata,
            "buffer": product.buffer_days + expansions * product.buffer_expansion_size,
            "expansions": expansions,
            "relaxed": relaxed,
            "alternatives": tuple(order[1:]) if product.include_alternatives else (),
        }
    )


def _why_none(task: FieldsTask, number: int, state: _ChipState) -> str:
    if not state.checked:
        reach, target = task.product.reach, task.chips[number].target
        return f"no {task.step} scene within {reach} days of {target} covers the whole chip"
    details: list[str] = []
    for scene, reason in state.unchecked.items():
        details.append(f"{scene} could not be checked: {reason}")
    details += state.rejected.values()
    suffix = f" ({'; '.join(details)})" if details else ""
    return f"no cloud-free {task.step} scene{suffix}"
