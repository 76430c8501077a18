"""Drop scenes from an acquisition that do not add to its coverage of the area."""

from __future__ import annotations

from dataclasses import replace

import shapely
from shapely.geometry.base import BaseGeometry

from scenebeam.catalog.acquisition import Acquisition, coverage, square_meters

_MIN_GAIN = 100.0
"""Minimum coverage in square meters that a scene must add: one 10 m pixel of Sentinel-2. Footprints
are less accurate than that.
"""


def minimal_cover(acquisition: Acquisition, area: BaseGeometry | None) -> Acquisition:
    """Drop scenes of an acquisition that add nothing to its coverage of the area.

    Greedy set cover: repeatedly take the scene that adds most. Of two scenes that add the same to
    within a square meter, the better one by the order of the acquisition is taken. Scenes that
    later ones made redundant are dropped at the end. Without an area, the union of all footprints
    is to be covered.

    Args:
        acquisition: The acquisition, its scenes best first.
        area: The area in degrees, or None.

    Returns:
        The acquisition with the remaining scenes, in the same order. It is unchanged if a
        footprint is unknown.
    """
    parts: list[BaseGeometry] = []
    for scene in acquisition.scenes:
        if scene.footprint is None:
            return acquisition
        parts.append(scene.footprint if area is None else scene.footprint.intersection(area))
    taken = _drop_redundant(_greedy_cover(parts), parts)
    scenes = tuple(acquisition.scenes[index] for index in sorted(taken))
    if not scenes or len(scenes) == len(acquisition.scenes):
        return acquisition
    return replace(acquisition, scenes=scenes, coverage=coverage(scenes, area))


def _greedy_cover(parts: list[BaseGeometry]) -> list[int]:
    """Return the indexes of the parts that cover the union of all, in the order they are taken."""
    taken: list[int] = []
    covered: BaseGeometry = shapely.Polygon()
    remaining = list(range(len(parts)))
    while remaining:
        gains = {index: _area_outside(parts[index], covered) for index in remaining}
        # Rounding to square meters makes the choice between equal scenes independent of noise.
        best = min(remaining, key=lambda index: (-round(gains[index]), index))
        if gains[best] < _MIN_GAIN:
            break
        taken.append(best)
        remaining.remove(best)
        covered = shapely.union(covered, parts[best])
    return taken


def _drop_redundant(taken: list[int], parts: list[BaseGeometry]) -> list[int]:
    """Drop parts that the other taken parts cover together."""
    needed = list(taken)
    for index in taken:
        others = [parts[other] for other in needed if other != index]
        if others and _area_outside(parts[index], shapely.union_all(others)) < _MIN_GAIN:
            needed.remove(index)
    return needed


def _area_outside(part: BaseGeometry, covered: BaseGeometry) -> float:
    """Return the area of `part` outside of `covered`, in square meters."""
    outside = shapely.difference(part, covered)
    return 0.0 if outside.is_empty else square_meters(outside)
