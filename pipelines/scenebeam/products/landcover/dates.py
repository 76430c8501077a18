"""Choose the scenes of an area of interest, date by date. Pure functions; no pixel is read.

Sentinel-2 sets the dates: the least cloudy scene of each period. All of them come from one MGRS
tile, because the corner of its files is the origin of the chips. Sentinel-1 and Landsat follow:
each date gets a separate acquisition of either, all from one relative orbit, or one WRS path and
row, so that dates differ in what is on the ground and not in where the sensor looks from. Elevation
and land cover have no dates; all their scenes are used together.

An area for which no such choice exists is an error that names what comes closest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import shapely
from shapely.geometry.base import BaseGeometry

from scenebeam.catalog.acquisition import Acquisition, coverage, group
from scenebeam.catalog.scene import Scene
from scenebeam.errors import CheckError
from scenebeam.products.landcover.request import LandcoverRequest, Platform, Sentinel2
from scenebeam.request import parse_interval

Cost = tuple[float, float]
"""(cloud cover in percent, distance in days), compared in this order."""
_SENSORS: dict[Platform, str] = {
    "s2l2a": "Sentinel-2",
    "s1rtc": "Sentinel-1",
    "lc2l2": "Landsat",
    "dem": "elevation",
    "lulc": "land-cover",
}
_TRACK_NAMES: dict[Platform, tuple[str, str]] = {
    "s1rtc": ("relative orbit", "relative orbits"),
    "lc2l2": ("WRS path and row", "WRS paths and rows"),
}
"""What a sensor's scenes must share, in the singular and the plural."""


@dataclass
class ChosenDates:
    """The acquisitions that were chosen for an area of interest."""

    common: BaseGeometry
    """The part of the area, in degrees, that the scenes of all modalities show."""
    dates: dict[Platform, list[Acquisition]] = field(default_factory=dict)
    """Acquisitions in the order of the Sentinel-2 dates; one for a modality without dates."""
    tile: str | None = None
    """MGRS tile of the Sentinel-2 scenes."""
    orbit: str | None = None
    """Relative orbit of the Sentinel-1 scenes."""
    wrs: str | None = None
    """WRS path and row of the Landsat scenes."""

    def add(self, platform: Platform, acquisitions: Sequence[Acquisition]) -> None:
        """Add the acquisitions of a modality, and narrow the common area to what they show.

        Raises:
            CheckError: They show nothing of what the modalities before them show.
        """
        self.dates[platform] = list(acquisitions)
        self.common = _area_shown(acquisitions, self.common)
        if self.common.is_empty:
            raise CheckError(
                f"the {_SENSORS[platform]} scenes do not overlap the others inside the area"
            )


@dataclass(frozen=True)
class _Series:
    """One acquisition for each date, all from one tile, orbit, or path and row."""

    rank: tuple[float, ...]
    """Smaller is better."""
    name: str
    """The tile, orbit, or path and row. It breaks ties, so that the choice is deterministic."""
    acquisitions: list[Acquisition]


def choose_dates(
    area: BaseGeometry, scenes: Mapping[Platform, Sequence[Scene]], product: LandcoverRequest
) -> ChosenDates:
    """Choose the scenes of all modalities for an area of interest.

    Args:
        area: The area in degrees.
        scenes: By modality, the scenes that intersect the area and have all bands.
        product: The request.

    Raises:
        CheckError: A modality has no scenes for one of the dates, or the modalities do not overlap.
    """
    chosen = ChosenDates(area)
    if product.s2l2a is not None:
        chosen.tile, acquisitions = _choose_tile(
            scenes["s2l2a"], area, product.s2l2a, product.periods
        )
        chosen.add("s2l2a", acquisitions)
    targets = [acquisition.acquired for acquisition in chosen.dates.get("s2l2a", ())]
    # Each sensor is ranked by how much it shows of what is left of the area, not of all of it:
    # ground that Sentinel-2 does not show is lost already.
    if product.s1rtc is not None:
        tracks = _group_by(scenes["s1rtc"], lambda scene: scene.relative_orbit)
        chosen.orbit, acquisitions = _choose_track(
            "s1rtc", tracks, chosen.common, targets, product.s1rtc.delta_days
        )
        chosen.add("s1rtc", acquisitions)
    if product.lc2l2 is not None:
        clear = _below_cloud_cover(scenes["lc2l2"], product.lc2l2.max_cloud_cover)
        tracks = _group_by(clear, lambda scene: scene.wrs)
        chosen.wrs, acquisitions = _choose_track(
            "lc2l2", tracks, chosen.common, targets, product.lc2l2.delta_days
        )
        chosen.add("lc2l2", acquisitions)
    if product.dem is not None:
        chosen.add("dem", [_combine("dem", scenes["dem"], area)])
    maps = _within_dates(scenes["lulc"], product.lulc.dates)
    chosen.add("lulc", [_combine("lulc", maps, area)])
    return chosen


def _below_cloud_cover(scenes: Iterable[Scene], limit: float) -> list[Scene]:
    """Filter by cloud cover. Scenes of unknown cloud cover stay; they are ranked last."""
    return [scene for scene in scenes if scene.cloud_cover is None or scene.cloud_cover < limit]


def _group_by(
    scenes: Iterable[Scene], attribute: Callable[[Scene], object]
) -> dict[str, list[Scene]]:
    groups: dict[str, list[Scene]] = {}
    for scene in scenes:
        groups.setdefault(str(attribute(scene)), []).append(scene)
    return dict(sorted(groups.items()))


def _area_shown(acquisitions: Iterable[Acquisition], area: BaseGeometry) -> BaseGeometry:
    """Return the part of an area that every acquisition shows."""
    for acquisition in acquisitions:
        footprints = [scene.footprint for scene in acquisition.scenes]
        # An unknown footprint could be anywhere: the pixels decide when they are read.
        if None not in footprints:
            area = shapely.intersection(area, shapely.union_all(footprints))
    return area


def _fraction_shown(acquisitions: Iterable[Acquisition], area: BaseGeometry) -> float:
    shown = _area_shown(acquisitions, area)
    # Rounding makes series equal that differ only by floating-point noise.
    return float(round(shown.area / area.area, 6))


def _cloud_cover(acquisition: Acquisition) -> float:
    """Cloud cover in percent; unknown counts as overcast."""
    return 100.0 if acquisition.cloud_cover is None else acquisition.cloud_cover


def _choose_tile(
    scenes: Sequence[Scene], area: BaseGeometry, sensor: Sentinel2, periods: Sequence[str]
) -> tuple[str, list[Acquisition]]:
    """Choose the MGRS tile, and its least cloudy acquisition of each period.

    Of several tiles with a scene in every period, the one that shows the largest part of the area
    is chosen, then the one with the least cloud in total.

    Raises:
        CheckError: No tile has a usable scene in every period.
    """
    usable = []
    for scene in _below_cloud_cover(scenes, sensor.max_cloud_cover):
        if scene.nodata is None or scene.nodata < sensor.max_nodata:
            usable.append(scene)
    # A tile without a scene in one of the periods is no candidate, however good its other scenes.
    complete: list[_Series] = []
    incomplete: list[tuple[int, str]] = []
    for tile, members in _group_by(usable, lambda scene: scene.tile).items():
        overpasses = group(members, area, "acquisition")
        chosen: list[Acquisition] = []
        missing: list[str] = []
        for period in periods:
            best = _least_cloudy(overpasses, *parse_interval(period))
            if best is None:
                missing.append(period)
            else:
                chosen.append(best)
        if missing:
            incomplete.append((len(missing), f"{tile} has none in {', '.join(missing)}"))
        else:
            total_cloud = sum(_cloud_cover(acquisition) for acquisition in chosen)
            rank = (-_fraction_shown(chosen, area), total_cloud)
            complete.append(_Series(rank, tile, chosen))
    if complete:
        series = min(complete, key=lambda series: (series.rank, series.name))
        return series.name, series.acquisitions
    # Name the tile that comes closest: it tells which period or threshold to change.
    if incomplete:
        closest = min(incomplete)[1]
    elif scenes:
        closest = f"none of the {len(scenes)} scenes qualifies"
    else:
        closest = "no scene was found"
    raise CheckError(
        f"no Sentinel-2 tile has a scene with less than {sensor.max_cloud_cover:g} % cloud and "
        f"{sensor.max_nodata:g} % nodata in each of {len(periods)} periods: {closest}"
    )


def _least_cloudy(
    acquisitions: Iterable[Acquisition], start: datetime, end: datetime
) -> Acquisition | None:
    within = [acquisition for acquisition in acquisitions if start <= acquisition.acquired <= end]
    return min(within, key=_cloud_rank, default=None)


def _cloud_rank(acquisition: Acquisition) -> tuple[bool, float, float, str]:
    """Least cloud first, unknown last; then the largest coverage; then the earliest."""
    unknown = acquisition.cloud_cover is None
    covered = acquisition.coverage or 0
    return unknown, _cloud_cover(acquisition), -covered, acquisition.timestamp


def _choose_track(
    platform: Platform,
    tracks: Mapping[str, Sequence[Scene]],
    area: BaseGeometry,
    targets: Sequence[datetime],
    delta_days: int,
) -> tuple[str, list[Acquisition]]:
    """Choose the track (orbit, or path and row), and one of its acquisitions for each target date.

    Of several tracks, the one that shows the largest part of the area is chosen, then the one with
    the least cloud, then the one nearest to the dates.

    Raises:
        CheckError: No track has a separate acquisition within `delta_days` of each date.
    """
    complete: list[_Series] = []
    for track, members in tracks.items():
        overpasses = []
        for acquisition in group(members, area, "day"):
            # Scenes were found by the whole area; some miss the part that is left of it.
            if acquisition.coverage is None or acquisition.coverage > 0:
                overpasses.append(acquisition)
        options = [_options(overpasses, target, delta_days) for target in targets]
        assignment = cheapest_assignment(options)
        if assignment is not None:
            cost, numbers = assignment
            chosen = [overpasses[number] for number in numbers]
            rank = (-_fraction_shown(chosen, area), *cost)
            complete.append(_Series(rank, track, chosen))
    if complete:
        series = min(complete, key=lambda series: (series.rank, series.name))
        return series.name, series.acquisitions
    kind, plural = _TRACK_NAMES[platform]
    dates = ", ".join(f"{target:%Y-%m-%d}" for target in targets)
    count = sum(map(len, tracks.values()))
    raise CheckError(
        f"no {kind} has a separate {_SENSORS[platform]} scene within {delta_days} days of each of "
        f"the dates {dates}: {count} scenes of {len(tracks)} {plural} were available"
    )


def _options(
    acquisitions: Sequence[Acquisition], target: datetime, delta_days: int
) -> dict[int, Cost]:
    """Return the acquisitions within `delta_days` of a date: index → cost."""
    options = {}
    for number, acquisition in enumerate(acquisitions):
        # The limit counts calendar days, as a request does; the cost is the exact distance.
        if abs((acquisition.acquired.date() - target.date()).days) <= delta_days:
            distance = abs((acquisition.acquired - target).total_seconds()) / 86400
            options[number] = (_cloud_cover(acquisition), distance)
    return options


def cheapest_assignment(
    options: Sequence[Mapping[int, Cost]],
) -> tuple[Cost, list[int]] | None:
    """Assign a different item to each slot, at the least total cost.

    This is the assignment problem, on so few slots (a request has at most six periods) that all
    assignments of the best candidates are compared.

    Args:
        options: For each slot, the items that fit it: item → cost. Costs are added component by
            component, and the sums are compared in order.

    Returns:
        (total cost, item of each slot); None if there are not enough items. Of several assignments
        of equal cost, the one with the smallest items is returned, compared slot by slot.
    """
    count = len(options)
    # The `count` cheapest items of each slot are enough. The other slots occupy at most count - 1
    # of them, so one is always free, and no item beyond them can be cheaper.
    ranked = []
    for costs in options:
        cheapest_first = sorted(costs.items(), key=lambda pair: (pair[1], pair[0]))
        ranked.append(cheapest_first[:count])

    def assignments(
        slot: int, taken: tuple[int, ...], cost: Cost
    ) -> Iterator[tuple[Cost, tuple[int, ...]]]:
        """Yield (total cost, items) of all ways to fill the slots from `slot` on."""
        if slot == count:
            yield cost, taken
            return
        for item, (cloud, days) in ranked[slot]:
            if item not in taken:
                yield from assignments(slot + 1, (*taken, item), (cost[0] + cloud, cost[1] + days))

    best = min(assignments(0, (), (0.0, 0.0)), default=None)
    return None if best is None else (best[0], list(best[1]))


def _combine(platform: Platform, scenes: Sequence[Scene], area: BaseGeometry) -> Acquisition:
    """Combine all scenes of a modality without dates, those that show most of the area first.

    Raises:
        CheckError: There are none.
    """
    if not scenes:
        raise CheckError(f"no {_SENSORS[platform]} scene shows the area")
    ranked = sorted(scenes, key=lambda scene: (-(coverage([scene], area) or 0.0), scene.id))
    earliest = min(scene.acquired for scene in scenes)
    return Acquisition(earliest, tuple(ranked), coverage(scenes, area))


def _within_dates(scenes: Sequence[Scene], dates: str | None) -> list[Scene]:
    if dates is None:
        return list(scenes)
    start, end = parse_interval(dates)
    return [scene for scene in scenes if start <= scene.datetime <= end]
