"""Plan indices: one task per image and shard, on one grid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

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
)
from scenebeam.imaging.estimate import PROCESS_MEMORY, estimate_task, max_window_width
from scenebeam.imaging.gridded_plan import scenes_on_grid, series_grid
from scenebeam.imaging.gridded_task import item_key
from scenebeam.imaging.masks import MaskRule, mask_rules
from scenebeam.imaging.probes import BandProbe, compression_gain, probe_bands
from scenebeam.imaging.refs import SceneRef, scene_ref
from scenebeam.imaging.shards import Window, cut_windows
from scenebeam.imaging.thumbnails import THUMBNAIL
from scenebeam.metadata import stac_items
from scenebeam.products.base import Planned, SearchScope
from scenebeam.products.indices.periods import Group, group_acquisitions
from scenebeam.products.indices.request import IndexRequest
from scenebeam.products.indices.task import INDICES, IndexTask, label
from scenebeam.raster.compose import ROW_CHUNK
from scenebeam.raster.grid import Grid
from scenebeam.raster.merge import merge_method
from scenebeam.request import RunRequest
from scenebeam.storage import checked_key
from scenebeam.tasks import Estimate, GridSpec
from scenebeam.transfer.signing import effective_limits

_TASKS_AT_ONCE = 3
"""Tasks that share `limits.memory`: two of them compute while another one waits for its reads."""


def plan_indices(
    selection: Selection, request: RunRequest[IndexRequest], search_scope: SearchScope
) -> Planned:
    """Plan one task per image and shard, all on one grid.

    Without an area, the grid is that of all footprints. One header per band is read, for the
    estimate.

    Args:
        selection: The selected acquisitions.
        request: The request.
        search_scope: The area that was searched.

    Raises:
        RequestError: No image can be made, or the files of a band cannot be combined.
        ReadError: A header that decides the grid may be readable later.
    """
    product = request.product
    variables = dict(zip(product.requested_bands, resolve_bands(request), strict=True))
    limits = effective_limits(request)
    acquisitions = fill_footprints(selection.acquisitions, limits)
    grid = series_grid(acquisitions, list(variables.values()), request, search_scope.area)
    groups = group_acquisitions(_on_grid(acquisitions, grid), product, request.intervals)
    if not groups:
        raise NoScenesError(
            "dates: the two periods do not both have scenes on the grid"
            if product.formula.differenced
            else "none of the selected scenes is on the requested grid: see grid.bounds"
        )
    # An acquisition can be in several groups, and is described once.
    inputs: dict[str, _Inputs] = {}
    for group in groups:
        for acquisition in group.acquisitions:
            inputs[_input_key(acquisition)] = _describe_inputs(acquisition, variables, request)
    probes = probe_bands((described.bands for described in inputs.values()), limits)
    planner = _Planner(request, grid, variables, probes)
    tasks: list[IndexTask] = []
    for group in groups:
        tasks += planner.tasks(
            group, [inputs[_input_key(acquisition)] for acquisition in group.acquisitions]
        )
    return Planned(tasks, {})


def _on_grid(acquisitions: Sequence[Acquisition], grid: Grid) -> list[Acquisition]:
    """Return acquisitions with the scenes that are on the grid, if any is."""
    extent = shapely.geometry.shape(stac_items.grid_footprint(grid))
    kept = []
    for acquisition in acquisitions:
        scenes = scenes_on_grid(acquisition, extent)
        # An acquisition that a table lists without scenes is kept, and reported as failed.
        if scenes or not acquisition.scenes:
            kept.append(replace(acquisition, scenes=scenes))
    return kept


@dataclass(frozen=True)
class _Inputs:
    """What is read of one acquisition."""

    bands: Sequence[Band]
    rules: tuple[MaskRule, ...]


def _input_key(acquisition: Acquisition) -> str:
    # For one image per scene, each scene is an acquisition of its own, of the same timestamp.
    return acquisition.timestamp + "".join(scene.id for scene in acquisition.scenes[:1])


def _describe_inputs(
    acquisition: Acquisition, variables: Mapping[str, str], request: RunRequest[IndexRequest]
) -> _Inputs:
    product = request.product
    rules = mask_rules(acquisition, request, product.mask, is_required=False)
    names = dict.fromkeys((*variables.values(), *(rule.band for rule in rules)))
    bands = []
    for name in names:
        band = describe_band(
            name,
            acquisition,
            request.checks,
            label=label(acquisition.timestamp, name),
            values="harmonized",
            resampling=product.resampling,
        )
        bands.append(band)
    return _Inputs(bands, rules)


@dataclass(frozen=True)
class _Planner:
    """Plans the tasks of each image."""

    request: RunRequest[IndexRequest]
    grid: Grid
    variables: dict[str, str]
    """Variable of the expression → canonical name of the band."""
    probes: Mapping[str, BandProbe]

    def tasks(self, group: Group, inputs: Sequence[_Inputs]) -> list[IndexTask]:
        """Plan the shards of one image."""
        product = self.request.product
        bands: list[Band] = []
        rules: dict[MaskRule, None] = {}
        for described in inputs:
            bands += described.bands
            rules.update(dict.fromkeys(described.rules))
        scenes = _scenes_of(group)
        refs = tuple(scene_ref(scene, self.grid.crs) for scene in scenes)
        spec = GridSpec.of(self.grid)
        composite = product.composite if len(group.acquisitions) > 1 else "first"
        extra_bytes = self._bytes_per_column(composite, len(group.acquisitions))
        memory = self.request.limits.memory + (_TASKS_AT_ONCE - 1) * PROCESS_MEMORY
        widest = max_window_width(bands, "first", memory // _TASKS_AT_ONCE, 1, extra_bytes)
        windows, cell = cut_windows(spec.shape, widest)
        name = checked_key(group.name)
        item = item_key(INDICES, name)
        image, thumbnail = f"{INDICES}/{name}/{product.name}.tif", f"{INDICES}/{name}/{THUMBNAIL}"
        tasks = []
        for shard, window in enumerate(windows):
            task = IndexTask(
                id=name if len(windows) == 1 else f"{name}.{shard:05d}",
                outputs=(image, thumbnail, item),
                item_path=item,
                estimate=self._estimate(window, bands, refs, extra_bytes),
                name=name,
                when=group.when,
                collection=self.request.run,
                folder=INDICES,
                scenes=refs,
                bands=tuple(bands),
                grid=spec,
                window=window,
                shard=shard,
                shards=len(windows),
                cell=cell,
                values=declared_values("harmonized", scenes, self.variables.values()),
                on_missing=product.on_missing,
                codec=product.compression,
                properties=_properties(group, scenes, product, list(rules)),
                index=product.name,
                expression=product.formula.expression,
                variables=self.variables,
                acquisitions=tuple(acquisition.timestamp for acquisition in group.acquisitions),
                before=tuple(acquisition.timestamp for acquisition in group.before),
                masks=tuple(rules),
                composite=composite,
            )
            tasks.append(task)
        return tasks

    def _bytes_per_column(self, composite: str, acquisitions: int) -> int:
        """Return the bytes per column that computing an index takes, in float32 images."""
        # The variables, the intermediate results of the expression, and what the merge needs: at
        # least six images.
        merging = max(4 * 6, merge_method(composite).bytes_per_pixel(acquisitions))
        return ROW_CHUNK * (4 * (len(self.variables) + 4) + merging)

    def _estimate(
        self, window: Window, bands: Sequence[Band], refs: Sequence[SceneRef], extra_bytes: int
    ) -> Estimate:
        size = estimate_task(self.grid, window, bands, self.probes, refs, "first", 1, extra_bytes)
        # The output is one float32 image with its overviews. A quarter of its bytes compresses
        # away; more if it is masked, or finer than its bands.
        pixel = abs(self.grid.transform.a)
        gains = [compression_gain(known, pixel) for known in self.probes.values()]
        pixels = (window[1] - window[0]) * (window[3] - window[2])
        written = {
            "write_bytes": int(2 * pixels / min(gains, default=1.0)),
            "most_write_bytes": 4 * pixels,
        }
        return size.model_copy(update=written)


def _scenes_of(group: Group) -> list[Scene]:
    """Return the scenes of an image, each once."""
    scenes: dict[str, Scene] = {}
    for acquisition in group.acquisitions:
        scenes.update((scene.id, scene) for scene in acquisition.scenes)
    return list(scenes.values())


def _properties(
    group: Group, scenes: Sequence[Scene], product: IndexRequest, rules: Sequence[MaskRule]
) -> dict[str, Any]:
    properties = common_properties(scenes)
    if group.interval is not None:
        start, end = group.interval
        properties["start_datetime"] = stac_items.rfc3339(start)
        properties["end_datetime"] = stac_items.rfc3339(end)
    properties["scenebeam:index"] = product.name
    properties["scenebeam:expression"] = product.formula.expression
    properties["scenebeam:acquisitions"] = len(group.acquisitions)
    properties["scenebeam:masked_by"] = [rule.band for rule in rules]
    if len(group.acquisitions) > 1:
        properties["scenebeam:composite"] = product.composite
    if group.fallback:
        properties["scenebeam:period"] = "quarter, for months with too few acquisitions"
    return properties
