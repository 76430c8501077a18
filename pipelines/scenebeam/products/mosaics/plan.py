"""Plan mosaics: one task per acquisition and shard, on one grid for the whole series."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import shapely

from scenebeam.catalog.acquisition import Acquisition
from scenebeam.catalog.bands import resolve_bands
from scenebeam.catalog.scene import Scene
from scenebeam.catalog.selection import Selection
from scenebeam.errors import NoScenesError
from scenebeam.imaging.bands import (
    Band,
    common_properties,
    declared_values,
    describe_band,
    fill_footprints,
    keep_scenes,
)
from scenebeam.imaging.estimate import estimate_task, max_window_width
from scenebeam.imaging.gridded_plan import scenes_on_grid, series_grid
from scenebeam.imaging.gridded_task import item_key
from scenebeam.imaging.masks import MaskRule, mask_bands, mask_rules
from scenebeam.imaging.probes import BandProbe, probe_bands
from scenebeam.imaging.refs import scene_ref
from scenebeam.imaging.shards import cut_windows
from scenebeam.metadata import stac_items
from scenebeam.products.base import Planned, SearchScope
from scenebeam.products.mosaics.request import MosaicRequest
from scenebeam.products.mosaics.task import MOSAICS, MosaicTask
from scenebeam.raster.grid import Grid
from scenebeam.request import RunRequest
from scenebeam.tasks import GridSpec
from scenebeam.transfer.signing import effective_limits

_WIDE = 4096
"""Columns of a grid above which a single band has enough blocks in a row to keep all cores busy."""


def plan_mosaics(
    selection: Selection, request: RunRequest[MosaicRequest], search_scope: SearchScope
) -> Planned:
    """Plan one task per acquisition and shard, all on one grid.

    Without an area, the grid is that of all footprints. One header per band is read, for the
    estimate.

    Args:
        selection: The selected acquisitions.
        request: The request.
        search_scope: The area that was searched.

    Raises:
        RequestError: No scene is on the grid, or the files of a band cannot be combined.
        ReadError: A header that decides the grid may be readable later.
    """
    limits = effective_limits(request)
    names = resolve_bands(request)
    acquisitions = fill_footprints(selection.acquisitions, limits)
    grid = series_grid(acquisitions, names, request, search_scope.area)
    bands_by_timestamp: dict[str, list[Band]] = {}
    masks_by_timestamp: dict[str, dict[str, MaskRule]] = {}
    for acquisition in acquisitions:
        timestamp = acquisition.timestamp
        rules = mask_rules(acquisition, request, request.product.mask)
        masks_by_timestamp[timestamp] = {_mask_label(rule.band): rule for rule in rules}
        bands_by_timestamp[timestamp] = [
            *_describe_bands(acquisition, names, request),
            *mask_bands(acquisition, rules, request, _mask_label),
        ]
    planner = _Planner(request, grid, names, probe_bands(bands_by_timestamp.values(), limits))
    extent = shapely.geometry.shape(stac_items.grid_footprint(grid))
    tasks: list[MosaicTask] = []
    for acquisition in acquisitions:
        scenes = scenes_on_grid(acquisition, extent)
        if not scenes and acquisition.scenes:
            continue  # inside the area that was searched, but outside the requested grid
        timestamp = acquisition.timestamp
        tasks += planner.tasks(
            acquisition, scenes, bands_by_timestamp[timestamp], masks_by_timestamp[timestamp]
        )
    if not tasks:
        raise NoScenesError("none of the selected scenes is on the requested grid: see grid.bounds")
    return Planned(tasks, {})


def _mask_label(name: str) -> str:
    # A band of classes can be masked by, and be requested too.
    return f"mask/{name}"


def _describe_bands(
    acquisition: Acquisition, names: Sequence[str], request: RunRequest[MosaicRequest]
) -> list[Band]:
    product = request.product
    bands = []
    # Files are named as the bands are in the request.
    for name, label in zip(names, product.bands, strict=True):
        band = describe_band(
            name,
            acquisition,
            request.checks,
            label=label,
            values=product.values,
            resampling=product.resampling,
        )
        bands.append(band)
    return bands


@dataclass(frozen=True)
class _Planner:
    """Plans the tasks of each acquisition."""

    request: RunRequest[MosaicRequest]
    grid: Grid
    names: Sequence[str]
    """Canonical names of the requested bands."""
    probes: Mapping[str, BandProbe]

    def tasks(
        self,
        acquisition: Acquisition,
        scenes: Sequence[Scene],
        all_bands: Sequence[Band],
        masks: dict[str, MaskRule],
    ) -> list[MosaicTask]:
        """Plan the shards of one acquisition, of the scenes that are on the grid."""
        product = self.request.product
        refs = tuple(scene_ref(scene, self.grid.crs) for scene in scenes)
        ids = {ref.id for ref in refs}
        bands = tuple(keep_scenes(band, ids) for band in all_bands)
        spec = GridSpec.of(self.grid)
        memory = self.request.limits.memory
        method, count = product.method, len(self.names)
        widest = max_window_width(bands, method, memory, count)
        one_by_one = spec.shape[1] > min(widest, _WIDE)
        at_once = 1 if one_by_one else count
        if one_by_one:
            widest = max_window_width(bands, method, memory, count, at_once=1)
        windows, cell = cut_windows(spec.shape, widest)
        properties = common_properties(scenes)
        if acquisition.coverage is not None:
            properties["scenebeam:coverage"] = round(acquisition.coverage, 6)
        if masks:
            properties["scenebeam:masked_by"] = sorted(rule.band for rule in masks.values())
        timestamp = acquisition.timestamp
        tasks = []
        for shard, window in enumerate(windows):
            task = MosaicTask(
                id=timestamp if len(windows) == 1 else f"{timestamp}.{shard:05d}",
                outputs=(),
                item_path=item_key(MOSAICS, timestamp),
                estimate=estimate_task(
                    self.grid, window, bands, self.probes, refs, method, count, at_once=at_once
                ),
                name=timestamp,
                when=acquisition.acquired,
                folder=MOSAICS,
                collection=self.request.run,
                scenes=refs,
                bands=bands,
                grid=spec,
                window=window,
                shard=shard,
                shards=len(windows),
                cell=cell,
                method=method,
                masks=masks,
                one_by_one=one_by_one,
                values=declared_values(product.values, scenes, self.names),
                on_missing=product.on_missing,
                codec=product.compression,
                properties=properties,
            )
            images = [task.output_key(band.label) for band in task.made]
            outputs = (*images, task.thumbnail_key, task.item_path)
            tasks.append(task.model_copy(update={"outputs": outputs}))
        return tasks
