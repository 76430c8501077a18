"""Export found scenes and the selection as CSV tables."""

from __future__ import annotations

from datetime import date
from typing import Any

from shapely.geometry.base import BaseGeometry

from scenebeam.catalog.acquisition import Acquisition, square_meters
from scenebeam.catalog.scene import Scene
from scenebeam.catalog.selection import Selection
from scenebeam.csvtable import Table

CATALOG_FILE, SELECTED_FILE = "scenes_catalog.csv", "scenes_selected.csv"
_SCENE = ("id", "datetime", "cloud_cover", "platform", "constellation", "collection")
_AOI_CLOUD = "aoi_cloud_percent"
"""Column that exists only if the cloud cover of the area was measured."""
_SELECTED = ("anchor_date", "acq_datetime", *_SCENE, "coverage_frac_union", "coverage_area_union")
_SERIES = (
    "anchor_date",
    "acq_datetime",
    "tile_ids",
    "tiles_count",
    "cloud_score",
    "coverage_frac",
    "coverage_area",
)
_COVERAGE = (
    "acq_datetime",
    "coverage_frac",
    "tiles_count",
    "min_cloud",
    "max_cloud",
    "has_full_cover",
)


def scene_tables(
    selection: Selection, area: BaseGeometry | None, full_cover: float
) -> dict[str, Table]:
    """Build the four tables of a selection. Areas are in square meters, clouds in percent, times
    in UTC.

    Args:
        selection: The selection.
        area: The area in degrees; None if it is unbounded.
        full_cover: Minimum coverage (0 to 1) of `has_full_cover`.

    Returns:
        Tables by file name. `scenes_catalog.csv`: every scene found. `timestamps_coverage.csv`:
        every acquisition that passed the filters. `scenes_selected.csv` and `time_serie.csv`: the
        selected scenes and acquisitions. `anchor_date` is the day that an acquisition was selected
        for, or its own day if the mode selects all.
    """
    total_area = None if area is None else square_meters(area)
    measured = any(scene.aoi_cloud is not None for scene in selection.found)
    extra = (_AOI_CLOUD,) if measured else ()
    scene_rows = [_scene_row(scene) for scene in selection.found]
    coverage_rows = [_coverage_row(candidate, full_cover) for candidate in selection.candidates]
    selected_rows, series_rows = [], []
    for acquisition in selection.acquisitions:
        series_rows.append(_series_row(acquisition, total_area))
        for scene in acquisition.scenes:
            selected_rows.append(_selected_row(scene, acquisition, total_area))
    return {
        CATALOG_FILE: Table((*_SCENE, *extra), scene_rows),
        "timestamps_coverage.csv": Table(_COVERAGE, coverage_rows),
        SELECTED_FILE: Table((*_SELECTED, *extra), selected_rows),
        "time_serie.csv": Table(_SERIES, series_rows),
    }


def _scene_row(scene: Scene) -> dict[str, Any]:
    row = {
        "id": scene.id,
        "datetime": scene.datetime,
        "cloud_cover": scene.cloud_cover,
        "platform": scene.platform,
        "constellation": scene.constellation,
        "collection": scene.collection,
    }
    if scene.aoi_cloud is not None:
        row[_AOI_CLOUD] = scene.aoi_cloud
    return row


def _coverage_row(acquisition: Acquisition, full_cover: float) -> dict[str, Any]:
    scenes, coverage = acquisition.scenes, acquisition.coverage
    clouds = [scene.cloud_cover for scene in scenes if scene.cloud_cover is not None]
    return {
        "acq_datetime": acquisition.acquired,
        "coverage_frac": coverage,
        "tiles_count": len(scenes),
        "min_cloud": min(clouds, default=None),
        "max_cloud": max(clouds, default=None),
        "has_full_cover": None if coverage is None else coverage >= full_cover,
    }


def _selected_row(
    scene: Scene, acquisition: Acquisition, total_area: float | None
) -> dict[str, Any]:
    return {
        "anchor_date": _anchor_date(acquisition),
        "acq_datetime": acquisition.acquired,
        **_scene_row(scene),
        "coverage_frac_union": acquisition.coverage,
        "coverage_area_union": _covered_area(acquisition, total_area),
    }


def _series_row(acquisition: Acquisition, total_area: float | None) -> dict[str, Any]:
    return {
        "anchor_date": _anchor_date(acquisition),
        "acq_datetime": acquisition.acquired,
        "tile_ids": "|".join(scene.id for scene in acquisition.scenes),
        "tiles_count": len(acquisition.scenes),
        "cloud_score": acquisition.cloud_cover,
        "coverage_frac": acquisition.coverage,
        "coverage_area": _covered_area(acquisition, total_area),
    }


def _anchor_date(acquisition: Acquisition) -> date:
    return (acquisition.anchor or acquisition.acquired).date()


def _covered_area(acquisition: Acquisition, total_area: float | None) -> float | None:
    if total_area is None or acquisition.coverage is None:
        return None
    return acquisition.coverage * total_area
