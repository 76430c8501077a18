"""List the candidate scenes of a cell: those that may be suitable for some of its chips."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date, datetime, timedelta
from typing import Any

import numpy as np
import shapely

from scenebeam.catalog.bands import bands_of, record_of
from scenebeam.catalog.scene import Scene
from scenebeam.imaging.chip_places import bounds_by_hemisphere
from scenebeam.imaging.chip_scenes import ChipScene, chip_scene
from scenebeam.products.fields.request import FieldsRequest
from scenebeam.products.fields.task import ChipRef
from scenebeam.request import RunRequest


def candidates_of(
    chips: Sequence[ChipRef],
    shapes: np.ndarray[Any, np.dtype[Any]],
    crs: str,
    scenes: Sequence[Scene],
    request: RunRequest[FieldsRequest],
) -> Iterator[ChipScene]:
    """Yield the scenes that may be suitable for some chips of a cell in one season.

    They are in the widest window of some chip, intersect the bounds of the cell, and have all
    requested bands. Which chips a scene covers is decided later, when scenes are chosen.

    Args:
        chips: The chips, with their dates.
        shapes: Their outlines in degrees, in the same order.
        crs: CRS of the chips, in which footprints are stored.
        scenes: The selected scenes.
        request: The validated request.
    """
    first, last = _widest_window(chips, request.product.reach)
    boxes = [shapely.box(*bounds) for bounds in bounds_by_hemisphere(shapes)]
    extent = shapely.union_all(boxes)
    for scene in scenes:
        if not first <= scene.datetime.date() <= last:
            continue
        if scene.footprint is not None and not scene.footprint.intersects(extent):
            continue
        record = record_of(scene, request)
        candidate = chip_scene(scene, crs, record, bands_of(record, request))
        if candidate is not None:
            yield candidate


def _widest_window(chips: Sequence[ChipRef], reach: int) -> tuple[date, date]:
    dates = [datetime.fromisoformat(chip.target).date() for chip in chips]
    return min(dates) - timedelta(days=reach), max(dates) + timedelta(days=reach)
