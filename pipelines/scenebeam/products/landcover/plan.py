"""Plan land-cover chips: the searches for the areas of interest, and a task for each area."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import shapely

from scenebeam.catalog.acquisition import square_meters
from scenebeam.catalog.queries import Interval, SearchQuery, merge_intervals
from scenebeam.catalog.scene import Scene
from scenebeam.catalog.selection import Selection
from scenebeam.collections import LandClass
from scenebeam.errors import CheckError, RequestError
from scenebeam.imaging.probes import ProbeCache
from scenebeam.products.base import Planned, SearchScope
from scenebeam.products.landcover.aois import Aoi, read_aois
from scenebeam.products.landcover.dates import ChosenDates, choose_dates
from scenebeam.products.landcover.estimate import estimate_area
from scenebeam.products.landcover.modality_scenes import (
    ModalityScenes,
    modality_bands,
    modality_records,
)
from scenebeam.products.landcover.request import LandcoverRequest, Modality, Platform
from scenebeam.products.landcover.tables import AOIS_FILE, aoi_table
from scenebeam.products.landcover.task import UNDATED, LandcoverTask, Layer, Recipe
from scenebeam.raster.grid import choose_grid
from scenebeam.request import RunRequest, parse_interval
from scenebeam.tasks import GridSpec
from scenebeam.transfer.signing import effective_limits

_MAX_FAULTS = 3
"""Areas whose faults an error message lists."""


@dataclass(frozen=True)
class LandcoverScope(SearchScope):
    """The search scope, with the areas of interest."""

    aois: Sequence[Aoi] = ()


def scope_of_areas(request: RunRequest[LandcoverRequest]) -> LandcoverScope:
    """Read the areas of interest, and determine the catalog searches for them.

    Args:
        request: The request.

    Returns:
        One query for each area, modality and period of time.

    Raises:
        RequestError: No area can be used, or a modality names a band that its collection does not
            have.
    """
    product = request.product
    aois = read_aois(product)
    queries = []
    for platform, modality in product.modalities.items():
        for interval, cloud_below in _search_intervals(platform, product):
            for bounds in _bounds(aois):
                queries.append(SearchQuery(bounds, interval, (modality.collection,), cloud_below))
    # Unknown bands are reported before the search, which can take minutes.
    for platform, modality in product.modalities.items():
        for record in modality_records(modality, request):
            modality_bands(platform, modality, record)
    hint = "Are there scenes of the areas in product.periods, and does product.aois hold degrees?"
    return LandcoverScope(None, queries, hint, aois)


def _bounds(aois: Iterable[Aoi]) -> Iterator[tuple[float, float, float, float]]:
    """Yield the bounds of the areas, of each part on its own: parts can be far apart."""
    for aoi in aois:
        if aoi.area is not None:
            for part in aoi.area.geoms:
                yield part.bounds


def _search_intervals(
    platform: Platform, product: LandcoverRequest
) -> Iterator[tuple[Interval | None, Mapping[str, float]]]:
    """Yield (interval, exclusive upper bounds of properties) of a modality's searches."""
    if platform in UNDATED:
        dates = product.lulc.dates if platform == "lulc" else None
        yield (parse_interval(dates) if dates else None), {}
        return
    modality = product.modalities[platform]
    limit = modality.cloud_below
    margin = timedelta(days=modality.reach)
    intervals = []
    for start, end in map(parse_interval, product.periods):
        intervals.append((start - margin, end + margin))
    for interval in merge_intervals(intervals):
        yield interval, {} if limit is None else {"eo:cloud_cover": limit}


def plan_areas(
    selection: Selection, request: RunRequest[LandcoverRequest], search_scope: LandcoverScope
) -> Planned:
    """Plan a task for each area of interest. The task of an area that cannot be made says why.

    Args:
        selection: The scenes that were found.
        request: The request.
        search_scope: The areas, as `scope_of_areas` returned them.

    Raises:
        RequestError: No area can be made, or the map does not have a requested class.
    """
    scenes = {}
    for platform, modality in request.product.modalities.items():
        scenes[platform] = ModalityScenes(platform, modality, selection.scenes, request)
    shared = _shared_fields(request)
    probing = ProbeCache(effective_limits(request), measure=search_scope.measure)
    tasks = []
    for aoi in search_scope.aois:
        tasks.append(_plan_area(aoi, scenes, request.product, shared, probing))
    faults = [f"area {task.aoi}: {task.fault}" for task in tasks if task.fault]
    if len(faults) == len(tasks):
        more = f"; and {len(faults) - _MAX_FAULTS} more" if len(faults) > _MAX_FAULTS else ""
        raise RequestError(
            f"no area of interest can be made: {'; '.join(faults[:_MAX_FAULTS])}{more}"
        )
    return Planned(tasks, {AOIS_FILE: aoi_table(tasks, {}, {})})


def _shared_fields(request: RunRequest[LandcoverRequest]) -> dict[str, Any]:
    """Return the fields of `LandcoverTask` that all tasks of a request have in common."""
    product = request.product
    grid = None
    if request.grid.bounds:
        # One pixel of this grid is one window.
        grid = GridSpec.of(choose_grid(None, request.grid, product.side))
    return {
        "grid": grid,
        "recipes": {name: _recipe(modality) for name, modality in product.modalities.items()},
        "side": product.side,
        "classes": _land_classes(request),
        "min_share": product.lulc.min_share,
        "chips_per_class": product.chips_per_class,
        "seed": product.seed,
        "thumbnails": product.thumbnails,
        "checks": request.checks,
    }


def _land_classes(request: RunRequest[LandcoverRequest]) -> dict[int, LandClass]:
    """Return the requested classes, with the names and colors of the map's record.

    Raises:
        RequestError: The record lists its classes, and a requested one is not among them.
    """
    lulc = request.product.lulc
    record = modality_records(lulc, request)[0]
    classes, unknown = {}, []
    for number in lulc.classes:
        if record.classes and number not in record.classes:
            unknown.append(number)
        classes[number] = record.classes.get(number, LandClass(name=f"class {number}"))
    if unknown:
        known = ", ".join(f"{number} {known.name}" for number, known in record.classes.items())
        raise RequestError(
            f"product.lulc.classes: {record.id} has no class {unknown}; known: {known}"
        )
    return classes


def _recipe(modality: Modality) -> Recipe:
    return Recipe(
        resolution=modality.resolution,
        dtype=modality.dtype,
        nodata=modality.nodata,
        resampling=modality.resampling,
        keep_classes=modality.kept_classes,
        reject_bits=modality.rejected_bits,
    )


def _plan_area(
    aoi: Aoi,
    scenes: Mapping[Platform, ModalityScenes],
    product: LandcoverRequest,
    shared: Mapping[str, Any],
    probing: ProbeCache,
) -> LandcoverTask:
    task = LandcoverTask(
        id=aoi.id, outputs=(), item_path="", aoi=aoi.id, name=aoi.name, fault=aoi.fault, **shared
    )
    task = task.model_copy(update={"outputs": (task.record_key,), "item_path": task.record_key})
    if aoi.area is None:
        return task
    near: dict[Platform, list[Scene]] = {}
    counts: dict[Platform, int] = {}
    for platform, known in scenes.items():
        near[platform] = known.near(aoi.area)
        counts[platform] = len(near[platform])
    update: dict[str, Any] = {"outline": shapely.to_wkb(aoi.area, hex=True), "found": counts}
    try:
        chosen = choose_dates(aoi.area, near, product)
    except CheckError as error:
        # Scenes that lack bands are not among those to choose from; they may be the reason.
        reasons = [str(error)]
        for known in scenes.values():
            incomplete = known.describe_incomplete(aoi.area)
            if incomplete:
                reasons.append(incomplete)
        update["fault"] = "; ".join(reasons)
    else:
        layers = tuple(_layers(chosen, scenes))
        shown = square_meters(chosen.common)
        update |= {
            "area": shapely.to_wkb(chosen.common, hex=True),
            "tile": chosen.tile,
            "orbit": chosen.orbit,
            "wrs": chosen.wrs,
            "layers": layers,
            "estimate": estimate_area(layers, task, shown, probing),
        }
    return task.model_copy(update=update)


def _layers(chosen: ChosenDates, scenes: Mapping[Platform, ModalityScenes]) -> Iterator[Layer]:
    for platform, acquisitions in chosen.dates.items():
        for index, acquisition in enumerate(acquisitions):
            files = tuple(scenes[platform].files(scene) for scene in acquisition.scenes)
            date = "" if platform in UNDATED else f"{acquisition.acquired:%Y%m%d}"
            yield Layer(platform=platform, index=index, date=date, scenes=files)
