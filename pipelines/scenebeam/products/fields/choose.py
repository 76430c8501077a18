"""Choose: for each chip of a cell the scene of its season, by the scene's cloud or by the chip's own pixels.

The best scene is the one found with the narrowest window around the day; then the one with the least
cloud, of the nearest day, on the chip's own grid, the nearest in time, of the smallest id.
 All chips share the reads: a block of a classification is fetched once a scene.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any

import numpy as np
import shapely
from pydantic import BaseModel, ConfigDict

from scenebeam.catalog.scene import Asset
from scenebeam.errors import CheckError, ReadError
from scenebeam.imaging.chip_reader import ChipReader, open_sources
from scenebeam.products.fields.task import Candidate, Clouds, FieldsTask
from scenebeam.raster.indices import obscured
from scenebeam.raster.validity import Array, valid_mask
from scenebeam.transfer.retry import Budget

CLEAR = 0.1
"""Percent of a scene below which its chips are not looked at."""
OVERCAST = 75.0
"""Percent of a scene above which its chips are not looked at: none of them would do."""
_AT_ONCE = 4
"""Scenes that are looked at together."""

Distance = tuple[int, bool, timedelta]
"""Days to the day, whether the scene is of another zone, and the time to noon of the day."""
Key = tuple[int, float, Distance, str]
"""How often the window was widened, percent of cloud, distance, id: less is better."""
_CHOSEN = -1
"""In place of how often the window was widened, for a scene that was chosen before."""


class Choice(BaseModel):
    """What was chosen for a chip, and of how many."""

    model_config = ConfigDict(frozen=True)

    chip: str
    day: int
    scene: str | None = None
    """Id; None where none will do."""
    cloud: float | None = None
    """Percent of the chip, where it is known: looked at, or of a scene without any."""
    cloud_scene: float | None = None
    nodata: float | None = None
    """Percent of the chip, where it was looked at."""
    buffer: int = 0
    """Days to either side of the window in which it was found."""
    expansions: int = 0
    checked: int = 0
    """Scenes of the widest window that show all of the chip."""
    relaxed: bool = False
    """Whether no scene kept the thresholds, and the least cloudy was taken."""
    reason: str = ""
    unchecked: dict[str, str] = {}
    """Scenes that could not be looked at, and why."""
    rejected: dict[str, str] = {}
    """Scenes whose pixels turned out not to be fit, and why."""
    alternatives: tuple[str, ...] = ()
    """Ids of other scenes that would have done, best first."""


@dataclass(frozen=True)
class ChipClouds:
    """What the pixels of a chip say of a scene, in percent; None where they were not asked."""

    cloud: float | None
    nodata: float | None


@dataclass
class _Found:
    """What is known of one chip's scenes so far."""

    before: str | None = None
    """Scene that was chosen by other thresholds: it ranks first."""
    rejected: dict[str, str] = field(default_factory=dict)
    widened: dict[str, int] = field(default_factory=dict)
    """How often the window was widened for each scene."""
    passing: dict[str, Key] = field(default_factory=dict)
    others: dict[str, tuple[bool, float, Distance, str]] = field(default_factory=dict)
    """Scenes that keep no threshold, by known cloud before unknown."""
    looks: dict[str, ChipClouds] = field(default_factory=dict)
    unchecked: dict[str, str] = field(default_factory=dict)
    checked: int = 0

    @property
    def best(self) -> Key | None:
        return min(self.passing.values(), default=None)


def choose(
    task: FieldsTask,
    budget: Budget,
    before: Mapping[str, str] = MappingProxyType({}),
    rejected: Mapping[str, Mapping[str, str]] = MappingProxyType({}),
) -> list[Choice]:
    """One choice for each chip of the task, in its order.

    A scene of `before`, by chip, ranks first: what was chosen by other thresholds stays where it keeps these. Scenes of
    `rejected`, by chip, are not chosen: the reasons go with the choice.
    Raises ReadError where a classification may be read later; one that is broken for good is named, and its scene
    left out.
    """
    found = [
        _Found(before.get(chip.name), dict(rejected.get(chip.name, {}))) for chip in task.chips
    ]
    pairs = list(_pairs(task, found))
    to_look: dict[str, list[tuple[Candidate, int, Key]]] = {}
    for candidate, number, key in pairs:
        if _needs_look(task, candidate):
            to_look.setdefault(candidate.id, []).append((candidate, number, key))
        else:
            _judge(task, candidate, found[number], key, ChipClouds(None, None))
    # Near scenes first: what they settle is not looked at in others.
    waiting = sorted(
        to_look.values(), key=lambda group: min((key[0], key[2], key[3]) for _, _, key in group)
    )
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        for start in range(0, len(waiting), _AT_ONCE):
            wave = [
                [pair for pair in group if _may_win(task, found, pair)]
                for group in waiting[start:][:_AT_ONCE]
            ]
            wave = [group for group in wave if group]
            looks = threads.map(
                lambda group: measure_chip_clouds(
                    task, group[0][0], [n for _, n, _ in group], budget
                ),
                wave,
            )
            for group, looked in zip(wave, looks, strict=True):
                for candidate, number, key in group:
                    if isinstance(looked, str):
                        found[number].unchecked[candidate.id] = looked
                    else:
                        _judge(task, candidate, found[number], key, looked[number])
    return [_choice(task, number, one) for number, one in enumerate(found)]


def _pairs(task: FieldsTask, found: Sequence[_Found]) -> Iterator[tuple[Candidate, int, Key]]:
    """(scene, chip, the best key it can have) where the scene shows the chip within the widest window."""
    product, boxes = task.product, task.boxes()
    noons = [
        datetime.fromisoformat(chip.target).replace(tzinfo=UTC) + timedelta(hours=12)
        for chip in task.chips
    ]
    for candidate in task.candidates:
        shown = _shows(candidate, boxes, product.nodata_max, task.pixel[0])
        for number in np.flatnonzero(shown).tolist():
            noon = noons[number]
            days = abs((candidate.when.astimezone(UTC).date() - noon.date()).days)
            widened = max(
                0, math.ceil((days - product.buffer_days) / product.buffer_expansion_size)
            )
            if widened > product.buffer_expansions:
                continue
            found[number].checked += 1
            if candidate.id in found[number].rejected:
                continue
            found[number].widened[candidate.id] = widened
            if candidate.id == found[number].before:
                widened = _CHOSEN
            least = 0.0 if product.pixel_check or candidate.cloud is None else candidate.cloud
            distance = days, not candidate.own_grid, abs(candidate.when - noon)
            yield candidate, number, (widened, least, distance, candidate.id)


def _shows(candidate: Candidate, boxes: Array, nodata_max: float, pixel: float) -> Array:
    """Which chips lie inside a scene's footprint, but for `nodata_max` percent of them. Boolean."""
    footprint = candidate.geometry
    if footprint is None:
        return np.ones(len(boxes), bool)
    footprint = shapely.buffer(footprint, pixel)  # footprints are drawn in degrees, and rounded
    shapely.prepare(footprint)
    if nodata_max == 0:
        return np.asarray(shapely.covers(footprint, boxes))
    return np.asarray(
        shapely.area(shapely.intersection(footprint, boxes))
        >= (1 - nodata_max / 100) * shapely.area(boxes)
    )


def _needs_look(task: FieldsTask, candidate: Candidate) -> bool:
    """Whether a scene's figures do not settle whether it will do for a chip, and its pixels can."""
    if not candidate.looked_at or _is_overcast(task, candidate):
        return False
    cloud = candidate.cloud
    return (task.product.pixel_check and (cloud is None or cloud >= CLEAR)) or candidate.nodata != 0


def _is_overcast(task: FieldsTask, candidate: Candidate) -> bool:
    """Whether a scene is too cloudy for any of its chips."""
    most = OVERCAST if task.product.pixel_check else task.product.cloud_cover_scene
    return candidate.cloud is not None and candidate.cloud > most


def _may_win(task: FieldsTask, found: Sequence[_Found], pair: tuple[Candidate, int, Key]) -> bool:
    """Whether looking at a scene could still change what is chosen for a chip."""
    best = found[pair[1]].best
    return best is None or task.product.include_alternatives or pair[2] < best


def _judge(
    task: FieldsTask, candidate: Candidate, found: _Found, key: Key, looked: ChipClouds
) -> None:
    """Enter a scene among those that will do for a chip, or among the others."""
    product = task.product
    cloud = looked.cloud if product.pixel_check and looked.cloud is not None else candidate.cloud
    found.looks[candidate.id] = looked
    if looked.nodata is not None and looked.nodata > product.nodata_max:
        return
    widened, _, distance, name = key
    clear = candidate.cloud is not None and candidate.cloud < CLEAR
    if product.pixel_check:
        will_do = clear or (looked.cloud is not None and looked.cloud <= product.cloud_cover_pixel)
    else:
        will_do = cloud is not None and cloud <= product.cloud_cover_scene
    if will_do and cloud is not None and not _is_overcast(task, candidate):
        found.passing[candidate.id] = (widened, cloud, distance, name)
    else:
        found.others[candidate.id] = (cloud is None, cloud or 0.0, distance, name)


def _choice(task: FieldsTask, number: int, found: _Found) -> Choice:
    product, chip = task.product, task.chips[number]
    relaxed = not found.passing and product.on_missing == "best-available"
    ranked: Mapping[str, Any] = found.others if relaxed else found.passing
    order = sorted(ranked, key=lambda name: ranked[name])
    facts: dict[str, Any] = {
        "chip": chip.name,
        "day": chip.day,
        "checked": found.checked,
        "unchecked": found.unchecked,
        "rejected": found.rejected,
    }
    if not order:
        return Choice(**facts, reason=_why_none(task, number, found))
    candidate = next(one for one in task.candidates if one.id == order[0])
    looked = found.looks[candidate.id]
    widened = product.buffer_expansions if relaxed else found.widened[candidate.id]
    return Choice(
        **facts,
        scene=candidate.id,
        cloud=0.0 if looked.cloud is None and candidate.cloud == 0 else looked.cloud,
        cloud_scene=candidate.cloud,
        nodata=looked.nodata,
        buffer=product.buffer_days + widened * product.buffer_expansion_size,
        expansions=widened,
        relaxed=relaxed,
        alternatives=tuple(order[1:]) if product.include_alternatives else (),
    )


def _why_none(task: FieldsTask, number: int, found: _Found) -> str:
    if not found.checked:
        reach, target = task.product.reach, task.chips[number].target
        return f"no {task.step} scene: none within {reach} days of {target} shows all of the chip"
    told = "; ".join(
        [
            *(f"{name} could not be looked at: {why}" for name, why in found.unchecked.items()),
            *found.rejected.values(),
        ]
    )
    return f"no cloud-free {task.step} scene" + (f" ({told})" if told else "")


def measure_chip_clouds(
    task: FieldsTask, candidate: Candidate, chips: Sequence[int], budget: Budget
) -> dict[int, ChipClouds] | str:
    """What a scene's classification says of some chips, by number, each block fetched once; or why it cannot be read.

    Raises ReadError where it may be read later.
    """
    assets = {asset.band: asset for asset in candidate.looked_at}
    grids = {number: task.grid_of(task.chips[number]) for number in chips}
    opened = open_sources(candidate.looked_at, budget)
    looks: dict[int, ChipClouds] = {}
    try:
        with ChipReader(candidate.looked_at, opened, grids, lambda asset: "nearest") as reader:
            for number in reader.file_order():
                bands = zip(assets, reader.read(number), strict=True)
                seen = {name: values for name, (values, _) in bands}
                looks[number] = _look_at(seen, assets, task)
    except CheckError as error:
        return str(error)
    except ReadError as error:
        if error.permanent:
            return str(error)
        raise
    return looks


def _look_at(
    seen: Mapping[str, Array], assets: Mapping[str, Asset], task: FieldsTask
) -> ChipClouds:
    """Percent of cloud among the pixels that hold data, and percent that hold none."""
    shape = next(iter(seen.values())).shape
    valid = np.ones(shape, bool)
    cloudy = np.zeros(shape, bool)
    probable = [band for band in seen if band in task.clouds.probability]
    for band, values in seen.items():
        if band in probable:
            cloudy |= values >= task.clouds.probability[band]
            continue
        mask = valid_mask(values, assets[band].nodata)
        valid &= True if mask is None else mask
        if not probable:
            cloudy |= obscured(values, None, *_rules(task.clouds, band))
    count = int(np.count_nonzero(valid))
    cloud = 100 * np.count_nonzero(cloudy & valid) / count if count else 100.0
    return ChipClouds(round(float(cloud), 4), round(100 * (1 - count / valid.size), 4))


def _rules(clouds: Clouds, band: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    return clouds.classes.get(band, ()), clouds.bits.get(band, ())
