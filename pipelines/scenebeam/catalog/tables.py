"""The scene catalogue and what was chosen from it, as tables for people, notebooks and other programs."""

from __future__ import annotations

from datetime import date
from typing import Any

from shapely.geometry.base import BaseGeometry

from scenebeam.catalog.acquisition import Acquisition, square_metres
from scenebeam.catalog.scene import Scene
from scenebeam.catalog.select import Selection
from scenebeam.csvtable import Table

CATALOG_FILE, SELECTED_FILE = "scenes_catalog.csv", "scenes_selected.csv"
_SCENE = ("id", "datetime", "cloud_cover", "platform", "constellation", "collection")
_AOI_CLOUD = "aoi_cloud_percent"
"""Column that is there where it was measured."""
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
    """The four tables by file name. Areas are in square metres, clouds in percent, times in UTC.

    `scenes_catalog.csv`: every scene found; `timestamps_coverage.csv`: every acquisition that the filters left;
    `scenes_selected.csv` and `time_serie.csv`: the scenes and the acquisitions taken. `anchor_date` is the day
    that one was taken for, its own where all are taken.
    """
    whole = None if area is None else square_metres(area)
    measured = any(scene.aoi_cloud is not None for scene in selection.found)
    more = (_AOI_CLOUD,) if measured else ()
    return {
        CATALOG_FILE: Table((*_SCENE, *more), [_scene(scene) for scene in selection.found]),
        "timestamps_coverage.csv": Table(
            _COVERAGE, [_coverage(one, full_cover) for one in selection.candidates]
        ),
        SELECTED_FILE: Table(
            (*_SELECTED, *more),
            [
                _selected(scene, one, whole)
                for one in selection.acquisitions
                for scene in one.scenes
            ],
        ),
        "time_serie.csv": Table(_SERIES, [_series(one, whole) for one in selection.acquisitions]),
    }


def _scene(scene: Scene) -> dict[str, Any]:
    return {
        "id": scene.id,
        "datetime": scene.datetime,
        "cloud_cover": scene.cloud_cover,
        "platform": scene.platform,
        "constellation": scene.constellation,
        "collection": scene.collection,
        **({} if scene.aoi_cloud is None else {_AOI_CLOUD: scene.aoi_cloud}),
    }


def _coverage(one: Acquisition, full_cover: float) -> dict[str, Any]:
    clouds = [scene.cloud_cover for scene in one.scenes if scene.cloud_cover is not None]
    return {
        "acq_datetime": one.acquired,
        "coverage_frac": one.coverage,
        "tiles_count": len(one.scenes),
        "min_cloud": min(clouds, default=None),
        "max_cloud": max(clouds, default=None),
        "has_full_cover": None if one.coverage is None else one.coverage >= full_cover,
    }


def _selected(scene: Scene, one: Acquisition, whole: float | None) -> dict[str, Any]:
    return {
        "anchor_date": _anchor(one),
        "acq_datetime": one.acquired,
        **_scene(scene),
        "coverage_frac_union": one.coverage,
        "coverage_area_union": _covered(one, whole),
    }


def _series(one: Acquisition, whole: float | None) -> dict[str, Any]:
    return {
        "anchor_date": _anchor(one),
        "acq_datetime": one.acquired,
        "tile_ids": "|".join(scene.id for scene in one.scenes),
        "tiles_count": len(one.scenes),
        "cloud_score": one.cloud_cover,
        "coverage_frac": one.coverage,
        "coverage_area": _covered(one, whole),
    }


def _anchor(one: Acquisition) -> date:
    return (one.anchor or one.acquired).date()


def _covered(one: Acquisition, whole: float | None) -> float | None:
    return None if whole is None or one.coverage is None else one.coverage * whole
