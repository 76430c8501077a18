"""Cover: the fewest scenes of an acquisition that show all that it shows of the area."""

from __future__ import annotations

from dataclasses import replace

import shapely
from shapely.geometry.base import BaseGeometry

from scenebeam.catalog.acquisition import Acquisition, coverage, square_metres

_LEAST_GAIN = 100.0
"""Square meters that a scene must add: a pixel of Sentinel-2. Footprints are less exact."""


def cover_least(one: Acquisition, area: BaseGeometry | None) -> Acquisition:
    """Leave out the scenes of an acquisition that add nothing to its coverage of the area.

    Greedy set cover: the scene that adds most comes first, and of two that add as much (to a square
    meter) the better one, by the order of the acquisition. A scene that later ones have made
    superfluous goes last. Without an area, what all the scenes show is to be covered.

    Args:
        one: The acquisition, its scenes best first.
        area: In degrees.

    Returns:
        The acquisition with the scenes that are left, in their order. It is unchanged where a
        footprint is not known.
    """
    parts: list[BaseGeometry] = []
    for scene in one.scenes:
        if scene.footprint is None:
            return one
        parts.append(scene.footprint if area is None else scene.footprint.intersection(area))
    taken: list[int] = []
    covered: BaseGeometry = shapely.Polygon()
    left = list(range(len(parts)))
    while left:
        gains = {number: _area_outside(parts[number], covered) for number in left}
        best = min(left, key=lambda number: (-round(gains[number]), number))
        if gains[best] < _LEAST_GAIN:
            break
        taken.append(best)
        left.remove(best)
        covered = shapely.union(covered, parts[best])
    for number in list(taken):
        others = [parts[other] for other in taken if other != number]
        if others and _area_outside(parts[number], shapely.union_all(others)) < _LEAST_GAIN:
            taken.remove(number)
    scenes = tuple(one.scenes[number] for number in sorted(taken))
    if not scenes or len(scenes) == len(one.scenes):
        return one
    return replace(one, scenes=scenes, coverage=coverage(scenes, area))


def _area_outside(part: BaseGeometry, covered: BaseGeometry) -> float:
    outside = shapely.difference(part, covered)
    return 0.0 if outside.is_empty else square_metres(outside)
