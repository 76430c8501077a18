"""Parts: whether two scenes of one tile and pass show the same ground."""

from __future__ import annotations

from scenebeam.catalog.acquisition import PASS_GAP
from scenebeam.catalog.scene import Scene


def is_same_part(first: Scene, second: Scene) -> bool:
    """Return whether two scenes of one tile and pass are processings of the same part."""
    # A reprocessing changes the time of a scene by seconds at most.
    if abs(first.acquired - second.acquired) > PASS_GAP:
        return False
    if first.part_key is not None and second.part_key is not None:
        return first.part_key == second.part_key
    # Without footprints, one tile and pass is assumed to have one part.
    if first.footprint is None or second.footprint is None:
        return first.tile_key is not None
    shared = first.footprint.intersection(second.footprint).area
    areas = first.footprint.area, second.footprint.area
    # Neighboring scenes of one second may overlap a lot: only nearly equal ones are duplicates.
    if first.tile_key is None:
        return bool(shared > 0.9 * max(areas))
    # Parts of one tile hardly overlap, while footprints of the same part may differ in detail
    # between processings: half of the smaller one separates the two cases.
    return bool(shared > 0.5 * min(areas))
