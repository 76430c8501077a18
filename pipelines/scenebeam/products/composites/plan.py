"""Plan composites: one task per period and shard, on one grid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import shapely

from scenebeam.catalog.acquisition import Acquisition
from scenebeam.catalog.bands import resolve_bands
from scenebeam.catalog.scene import Scene
from scenebeam.catalog.selection import Selection
from scenebeam.catalog.selection_modes import quality_key
from scenebeam.errors import NoScenesError, RequestError
from scenebeam.imaging.bands import (
    Band,
    common_properties,
    declared_values,
    fill_footprints,
)
from scenebeam.imaging.estimate import ENCODED_MEMORY, PROCESS_MEMORY, estimate_task
from scenebeam.imaging.gridded_plan import scenes_on_grid, series_grid
from scenebeam.imaging.gridded_task import item_key
from scenebeam.imaging.probes import BandProbe, compression_gain, probe_bands
from scenebeam.imaging.refs import SceneRef, scene_ref
from scenebeam.imaging.shards import Window, cut_windows
from scenebeam.imaging.thumbnails import THUMBNAIL
from scenebeam.metadata import stac_items
from scenebeam.products.base import Planned, SearchScope
from scenebeam.products.composites.inputs import (
    Input,
    bands_of,
    check_methods,
    common_encoding,
    describe,
    inputs_of,
    scenes_of,
)
from scenebeam.products.composites.memory import column_bytes
from scenebeam.products.composites.periods import Interval, Period, find_periods
from scenebeam.products.composites.request import CompositeRequest
from scenebeam.products.composites.task import COMPOSITES, CompositeTask
from scenebeam.raster.compose import ROW_CHUNK
from scenebeam.raster.grid import Grid
from scenebeam.raster.read_ahead import MAX_IN_FLIGHT
from scenebeam.raster.reduce import reducer
from scenebeam.request import RunRequest
from scenebeam.storage import checked_key
from scenebeam.tasks import Estimate, GridSpec
from scenebeam.transfer.signing import effective_limits


def plan_composites(
    selection: Selection, request: RunRequest[CompositeRequest], search_scope: SearchScope
) -> Planned:
    """Plan one task per period and shard, all on one grid.

    A period without scenes has a task too, which is skipped and reported by its name.

    Args:
        selection: The selected acquisitions.
        request: The request.
        search_scope: The area that was searched.

    Raises:
        RequestError: No scene is on the grid, or the files of a band cannot be combined.
        ReadError: A header that decides the grid may be readable later.
    """
    limits = effective_limits(request)
    names = list(dict.fromkeys(resolve_bands(request)))
    acquisitions = fill_footprints(selection.acquisitions, limits)
    grid = series_grid(acquisitions, names, request, search_scope.area)
    extent = shapely.geometry.shape(stac_items.grid_footprint(grid))
    inputs = []
    for acquisition in acquisitions:
        scenes = scenes_on_grid(acquisition, extent)
        if scenes:
            inputs.append(describe(replace(acquisition, scenes=scenes), names, request))
    if not inputs:
        raise NoScenesError("none of the selected scenes is on the requested grid: see grid.bounds")
    inputs.sort(key=lambda one: (*quality_key(one.acquisition), one.acquisition.timestamp))
    encodings = [common_encoding(name, index, inputs) for index, name in enumerate(names)]
    check_methods(request.product, encodings)
    planner = _Planner(
        request, grid, names, encodings, probe_bands((one.bands for one in inputs), limits)
    )
    # A period that nobody asked for by its dates need not have scenes.
    product = request.product
    is_asked = bool(request.intervals or product.fill) or not isinstance(product.period, str)
    by_period: dict[Period, list[Input]] = {}
    for period in _periods(request, [one.acquisition for one in inputs]):
        used = inputs_of(period, inputs)
        if used or is_asked:
            by_period[period] = used
    tasks: list[CompositeTask] = []
    if product.fill:
        # The periods of a window are filled together, so all of them are cut alike.
        widest = min(planner.widest(used) for used in by_period.values())
        for period, used in by_period.items():
            tasks += planner.tasks(period, used, widest)
        return Planned(_as_series(tasks), {})
    for period, used in by_period.items():
        tasks += planner.tasks(period, used, planner.widest(used))
    return Planned(tasks, {})


def _periods(
    request: RunRequest[CompositeRequest], acquisitions: Sequence[Acquisition]
) -> list[Period]:
    """Return the periods; without dates, those from the first acquisition to the last."""
    product = request.product
    dates: Sequence[Interval] = request.intervals
    if not dates:
        times = [acquisition.acquired for acquisition in acquisitions]
        dates = [(min(times), max(times))]
    try:
        whole = request.series is not None
        return find_periods(product.period, dates, product.fallback, whole=whole)
    except ValueError as error:
        raise RequestError(str(error)) from error


def _as_series(tasks: Sequence[CompositeTask]) -> list[CompositeTask]:
    """Combine the periods of each window into one task."""
    by_shard: dict[int, list[CompositeTask]] = {}
    for task in tasks:
        by_shard.setdefault(task.shard, []).append(task)
    series = []
    for shard, periods in by_shard.items():
        name = f"{periods[0].name}_{periods[-1].name}"
        outputs: list[str] = []
        for period in periods:
            outputs += period.outputs
        update = {
            "id": name if len(by_shard) == 1 else f"{name}.{shard:05d}",
            "outputs": tuple(outputs),
            "estimate": _sum([period.estimate for period in periods]),
            "series": tuple(periods),
        }
        series.append(periods[0].model_copy(update=update))
    return series


def _sum(estimates: Sequence[Estimate]) -> Estimate:
    """Add up estimates; periods are made one after another, so memory is that of the largest."""
    total = {
        name: sum(getattr(estimate, name) for estimate in estimates)
        for name in Estimate.model_fields
    }
    return Estimate(**{**total, "memory": max(estimate.memory for estimate in estimates)})


@dataclass(frozen=True)
class _Planner:
    """Plans the tasks of each period."""

    request: RunRequest[CompositeRequest]
    grid: Grid
    names: Sequence[str]
    encodings: Sequence[Band]
    probes: Mapping[str, BandProbe]

    def widest(self, used: Sequence[Input]) -> int:
        """Return the columns of the widest window of a period that fits into the memory."""
        spare = self.request.limits.memory - self._fixed_memory
        return max(ROW_CHUNK, int(spare // self._column_bytes(used)))

    def _column_bytes(self, used: Sequence[Input]) -> int:
        return column_bytes(bands_of(used), len(used), [band.dtype for band in self.encodings])

    def tasks(self, period: Period, used: Sequence[Input], widest: int) -> list[CompositeTask]:
        """Plan the shards of one period.

        Args:
            period: The period.
            used: Its acquisitions, and then those of its fallback only.
            widest: Columns of a shard at most.
        """
        product = self.request.product
        bands = bands_of(used)
        scenes = scenes_of(used)
        refs = tuple(scene_ref(scene, self.grid.crs) for scene in scenes)
        spec = GridSpec.of(self.grid)
        windows, cell = cut_windows(spec.shape, widest)
        name = checked_key(period.name)
        keys = [f"{COMPOSITES}/{name}/{file}.tif" for file in (*product.bands, *product.extra)]
        item = item_key(COMPOSITES, name)
        parameters = self._parameters()
        properties = _properties(period, scenes, used, product)
        tasks = []
        for shard, window in enumerate(windows):
            task = CompositeTask(
                id=name if len(windows) == 1 else f"{name}.{shard:05d}",
                outputs=(*keys, f"{COMPOSITES}/{name}/{THUMBNAIL}", item),
                item_path=item,
                estimate=self._estimate(window, used, refs),
                name=name,
                when=period.start,
                collection=self.request.run,
                folder=COMPOSITES,
                scenes=refs,
                bands=tuple(bands),
                grid=spec,
                window=window,
                shard=shard,
                shards=len(windows),
                cell=cell,
                values=declared_values(product.values, scenes, self.names),
                on_missing=product.on_missing,
                codec=product.compression,
                properties=properties,
                observations=tuple(one.observation for one in used),
                names=tuple(self.names),
                made=tuple(product.bands),
                method=product.method_name,
                parameters=parameters,
                min_observations=product.min_observations,
                extra=tuple(product.extra),
                encodings=tuple(self.encodings),
                middle=period.start + (period.end - period.start) / 2,
                fill=product.fill_name,
                smoothness=product.smoothness,
            )
            tasks.append(task)
        return tasks

    def _parameters(self) -> dict[str, Any]:
        product = self.request.product
        if product.expression is not None:
            return {"expression": product.expression, "variables": self._variables()}
        if not isinstance(product.method, str):
            return dict(product.method)
        return product.score.model_dump() if product.method == "best-pixel" else {}

    def _variables(self) -> dict[str, str]:
        """Return the names in the expression of the method → canonical names."""
        product = self.request.product
        resolved = resolve_bands(self.request)
        typed = product.requested_bands[len(product.bands) :]
        return dict(zip(typed, resolved[len(product.bands) :], strict=True))

    @property
    def _outputs(self) -> int:
        return len(self.request.product.bands) + len(self.request.product.extra)

    @property
    def _fixed_memory(self) -> int:
        return PROCESS_MEMORY + ENCODED_MEMORY * self._outputs + MAX_IN_FLIGHT

    def _estimate(
        self, window: Window, used: Sequence[Input], refs: Sequence[SceneRef]
    ) -> Estimate:
        bands, outputs = bands_of(used), self._outputs
        method = "first" if reducer(self.request.product.method_name).is_ordered else "median"
        size = estimate_task(self.grid, window, bands, self.probes, refs, method, outputs)
        width, pixels = window[3] - window[2], (window[1] - window[0]) * (window[3] - window[2])
        least = most = 0.0
        for band in self.encodings[: len(self.request.product.bands)]:
            known = self.probes.get(band.name, BandProbe())
            written = pixels * 4 / 3 * known.bytes_per_pixel
            most += max(written, pixels * 4 / 3 * np.dtype(band.dtype).itemsize)
            least += written / compression_gain(known, abs(self.grid.transform.a))
        return size.model_copy(
            update={
                "write_bytes": int(least),
                "most_write_bytes": int(most),
                "memory": self._fixed_memory + width * self._column_bytes(used),
            }
        )


def _properties(
    period: Period, scenes: Sequence[Scene], used: Sequence[Input], product: CompositeRequest
) -> dict[str, Any]:
    properties = common_properties(scenes)
    # Clouds are masked: those of the scenes say nothing about the composite.
    properties.pop("eo:cloud_cover", None)
    properties["start_datetime"] = stac_items.rfc3339(period.start)
    properties["end_datetime"] = stac_items.rfc3339(period.end)
    own = [one for one in used if one.observation.in_period]
    properties["scenebeam:method"] = product.method
    properties["scenebeam:acquisitions"] = len(own)
    masks = {rule.band for one in used for rule in one.observation.rules}
    properties["scenebeam:masked_by"] = sorted(masks)
    properties["scenebeam:min_observations"] = product.min_observations
    if product.fill is not None:
        properties["scenebeam:fill"] = product.fill
    if product.fallback is not None:
        properties["scenebeam:fallback"] = product.fallback
        properties["scenebeam:fallback_acquisitions"] = len(used) - len(own)
    return properties
