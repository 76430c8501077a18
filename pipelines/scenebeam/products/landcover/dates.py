"""Dates: which scenes of each modality show an area of interest on which dates, or why not enough do. Pure functions.

Sentinel-2 gives the dates: of each period the least cloudy scene, all of one tile. The other sensors follow it, each
date with an acquisition of its own, all of one relative orbit, or one WRS path and row.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import shapely
from shapely.geometry.base import BaseGeometry

from scenebeam.catalog.acquisition import Acquisition, coverage, group
from scenebeam.catalog.scene import Scene
from scenebeam.errors import CheckError
from scenebeam.products.landcover.request import LandcoverRequest, Platform
from scenebeam.request import parse_interval

Cost = tuple[float, float]
"""Percent of cloud, days from the date."""
_TITLES: dict[Platform, str] = {
    "s2l2a": "Sentinel-2",
    "s1rtc": "Sentinel-1",
    "lc2l2": "Landsat",
    "dem": "elevation",
    "lulc": "land cover",
}


@dataclass
class Chosen:
    """What was chosen for an area of interest."""

    common: BaseGeometry
    """The part of the area, in degrees, that the scenes of all modalities show."""
    dates: dict[Platform, list[Acquisition]] = field(default_factory=dict)
    """In the order of Sentinel-2's; one alone of a modality without dates."""
    tile: str | None = None
    orbit: str | None = None
    """Sentinel-1's relative orbit."""
    wrs: str | None = None
    """Landsat's path and row."""

    def take(self, platform: Platform, acquisitions: Sequence[Acquisition]) -> None:
        """Enter a modality. Raises CheckError where it shows nothing of what the others do."""
        self.dates[platform] = list(acquisitions)
        self.common = _shown(acquisitions, self.common)
        if self.common.is_empty:
            raise CheckError(
                f"the {_TITLES[platform]} scenes do not overlap the others inside the area"
            )


def choose_dates(
    area: BaseGeometry, scenes: Mapping[Platform, Sequence[Scene]], product: LandcoverRequest
) -> Chosen:
    """Choose among scenes that meet the area and have all bands. Raises CheckError where there are not enough.

    `area` is in degrees.
    """
    chosen = Chosen(area)
    if product.s2l2a is not None:
        chosen.tile, acquisitions = _one_tile(scenes["s2l2a"], area, product)
        chosen.take("s2l2a", acquisitions)
    targets = [one.acquired for one in chosen.dates.get("s2l2a", ())]
    if product.s1rtc is not None:
        tracks = _grouped((str(s.relative_orbit), s) for s in scenes["s1rtc"])
        chosen.orbit, acquisitions = _one_track(
            "s1rtc", tracks, chosen.common, targets, product.s1rtc.delta_days
        )
        chosen.take("s1rtc", acquisitions)
    if product.lc2l2 is not None:
        tracks = _grouped(
            (str(s.wrs), s) for s in _clear(scenes["lc2l2"], product.lc2l2.max_cloud_cover)
        )
        chosen.wrs, acquisitions = _one_track(
            "lc2l2", tracks, chosen.common, targets, product.lc2l2.delta_days
        )
        chosen.take("lc2l2", acquisitions)
    if product.dem is not None:
        chosen.take("dem", _once("dem", scenes["dem"], area))
    chosen.take("lulc", _once("lulc", _maps(scenes["lulc"], product.lulc.dates), area))
    return chosen


def _clear(scenes: Iterable[Scene], below: float) -> list[Scene]:
    """Scenes with less cloud; those that do not say are kept, and come last."""
    return [scene for scene in scenes if scene.cloud_cover is None or scene.cloud_cover < below]


def _grouped(pairs: Iterable[tuple[str, Scene]]) -> dict[str, list[Scene]]:
    found: dict[str, list[Scene]] = {}
    for key, scene in pairs:
        found.setdefault(key, []).append(scene)
    return dict(sorted(found.items()))


def _shown(acquisitions: Iterable[Acquisition], area: BaseGeometry) -> BaseGeometry:
    """The part of an area that every acquisition shows."""
    for one in acquisitions:
        footprints = [scene.footprint for scene in one.scenes]
        if None not in footprints:
            area = shapely.intersection(area, shapely.union_all(footprints))
    return area


def _share(acquisitions: Iterable[Acquisition], area: BaseGeometry) -> float:
    """Fraction of an area that every acquisition shows."""
    shown = _shown(acquisitions, area)
    return float(round(shown.area / area.area, 6))


def _cloud(one: Acquisition) -> float:
    return 100.0 if one.cloud_cover is None else one.cloud_cover


def _one_tile(
    scenes: Sequence[Scene], area: BaseGeometry, product: LandcoverRequest
) -> tuple[str, list[Acquisition]]:
    """The tile that has a scene in every period, and shows most of the area; the least cloudy scenes of it."""
    asked = product.s2l2a
    assert asked is not None
    clear = [
        s
        for s in _clear(scenes, asked.max_cloud_cover)
        if s.nodata is None or s.nodata < asked.max_nodata
    ]
    found: list[tuple[float, float, str, list[Acquisition]]] = []  # best first, the tile settles it
    lacking: list[tuple[int, str]] = []
    for tile, members in _grouped((str(s.tile), s) for s in clear).items():
        acquisitions = group(members, area, "acquisition")
        best = [_least_cloudy(acquisitions, *parse_interval(period)) for period in product.periods]
        whole = [one for one in best if one is not None]
        if len(whole) == len(best):
            found.append((-_share(whole, area), sum(map(_cloud, whole)), tile, whole))
        else:
            without = [
                period for period, one in zip(product.periods, best, strict=True) if one is None
            ]
            lacking.append((len(without), f"{tile} has none in {', '.join(without)}"))
    if found:
        _, _, tile, whole = min(found, key=lambda one: one[:3])
        return tile, whole
    nearest = (
        min(lacking)[1]
        if lacking
        else f"none of {len(scenes)} scenes has"
        if scenes
        else "there is no scene"
    )
    raise CheckError(
        f"no Sentinel-2 tile has a scene with less than {asked.max_cloud_cover:g} % cloud and {asked.max_nodata:g} % "
        f"nodata in each of {len(product.periods)} periods: {nearest}"
    )


def _least_cloudy(
    acquisitions: Iterable[Acquisition], start: datetime, end: datetime
) -> Acquisition | None:
    inside = [one for one in acquisitions if start <= one.acquired <= end]
    return min(inside, key=lambda one: (one.cloud_cover is None, _cloud(one), -(one.coverage or 0), one.timestamp),
               default=None)  # fmt: skip


def _one_track(
    platform: Platform,
    tracks: Mapping[str, Sequence[Scene]],
    area: BaseGeometry,
    targets: Sequence[datetime],
    delta_days: int,
) -> tuple[str, list[Acquisition]]:
    """The track that has an acquisition for each date, and shows most of the area; then the least cloudy, nearest."""
    found: list[tuple[float, Cost, str, list[Acquisition]]] = []
    for track, members in tracks.items():
        acquisitions = [
            one for one in group(members, area, "day") if one.coverage is None or one.coverage > 0
        ]
        options = [_near(acquisitions, target, delta_days) for target in targets]
        matched = match(options)
        if matched is not None:
            cost, picked = matched
            taken = [acquisitions[number] for number in picked]
            found.append((-_share(taken, area), cost, track, taken))
    if found:
        _, _, track, taken = min(found, key=lambda one: one[:3])
        return track, taken
    kind = "relative orbit" if platform == "s1rtc" else "WRS path and row"
    raise CheckError(
        f"no {kind} has a {_TITLES[platform]} scene of its own within {delta_days} days of each of the dates "
        f"{', '.join(f'{target:%Y-%m-%d}' for target in targets)}: {sum(map(len, tracks.values()))} scenes of "
        f"{len(tracks)} were there to choose from"
    )


def _near(
    acquisitions: Sequence[Acquisition], target: datetime, delta_days: int
) -> dict[int, Cost]:
    """Acquisitions, by number, not too far from a date, and what taking each would cost."""
    found = {}
    for number, one in enumerate(acquisitions):
        if abs((one.acquired.date() - target.date()).days) <= delta_days:
            apart = abs((one.acquired - target).total_seconds()) / 86400
            found[number] = (_cloud(one), apart)
    return found


def match(options: Sequence[Mapping[int, Cost]]) -> tuple[Cost, list[int]] | None:
    """A thing of its own for each place, at the least cost in all; None where there are not enough.

    `options` are, for each place, the things that would do and their costs. Costs add up part by part; of equals the
    first in order is taken.
    """
    count = len(options)
    # Of its own best `count` things each place finds one that no other takes.
    ranked = [
        sorted(costs.items(), key=lambda pair: (pair[1], pair[0]))[:count] for costs in options
    ]

    def ways(
        place: int, taken: tuple[int, ...], cost: Cost
    ) -> Iterator[tuple[Cost, tuple[int, ...]]]:
        if place == count:
            yield cost, taken
            return
        for thing, (cloud, days) in ranked[place]:
            if thing not in taken:
                yield from ways(place + 1, (*taken, thing), (cost[0] + cloud, cost[1] + days))

    best = min(ways(0, (), (0.0, 0.0)), default=None)
    return None if best is None else (best[0], list(best[1]))


def _once(platform: Platform, scenes: Sequence[Scene], area: BaseGeometry) -> list[Acquisition]:
    """All scenes together, those that show most of the area first."""
    if not scenes:
        raise CheckError(f"there is no {_TITLES[platform]} of the area")
    ranked = sorted(scenes, key=lambda scene: (-(coverage([scene], area) or 0.0), scene.id))
    return [
        Acquisition(min(scene.acquired for scene in scenes), tuple(ranked), coverage(scenes, area))
    ]


def _maps(scenes: Sequence[Scene], dates: str | None) -> list[Scene]:
    if dates is None:
        return list(scenes)
    start, end = parse_interval(dates)
    return [scene for scene in scenes if start <= scene.datetime <= end]
