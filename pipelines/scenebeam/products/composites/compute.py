"""Compute a composite: read the observations of a period row by row, and reduce them to one.

The observations pass by band by band, for one chunk of rows after another (see `raster.compose`),
masked already. When the last one of a chunk has arrived, slabs of its rows are reduced on all
cores, while the next chunk is read. An observation that can only fill what better ones have left
open waits for them, and is not read where nothing is open.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any

import numpy as np

from scenebeam.imaging.bands import Band
from scenebeam.imaging.masks import apply_masks
from scenebeam.products.composites.demand import Demands
from scenebeam.products.composites.extras import add_extras
from scenebeam.products.composites.task import CompositeTask, Observation
from scenebeam.raster.compose import RowChunks, compose
from scenebeam.raster.grid import Grid
from scenebeam.raster.layers import BandLayers
from scenebeam.raster.masks import SceneMask
from scenebeam.raster.order_statistics import where
from scenebeam.raster.reduce import BandValues, Context, Reduced, Reducer, Stack, reducer
from scenebeam.raster.reducers._per_band import PerBandReducer
from scenebeam.raster.validity import Array, Mask, as_masked, valid_mask
from scenebeam.transfer.pools import cpu_threads

_SLAB_PIXELS = 2**15
"""Pixels that are reduced together: the observations of a slab fit into the cache of a core."""


def composite_row_chunks(
    task: CompositeTask, grid: Grid, layers: Mapping[str, BandLayers]
) -> RowChunks:
    """Compute a composite from top to bottom.

    Args:
        task: The task.
        grid: The part of its grid that is in its window.
        layers: The open bands by label.

    Yields:
        (index of the output, first row, pixels): the bands, and then the extra ones.
    """
    period = _Period(task, grid, layers)
    reduced: _ReducedChunk | None = None
    with closing(compose(grid, period.bands, whole=task.grid.grid)) as row_chunks:
        for index, top, pixels in row_chunks:
            period.add(index, top, pixels)
            if index == len(period.bands) - 1:
                # A chunk is reduced while the next one is read.
                if reduced is not None:
                    yield from reduced.images()
                reduced = period.reduce(top)
        if reduced is not None:
            yield from reduced.images()


def open_encoding(
    task: CompositeTask, band: Band, layers: Mapping[str, BandLayers]
) -> tuple[np.dtype[Any], float | None]:
    """Return the dtype and nodata value of a band: those of its files, where any is open.

    They may need a wider dtype than the plan expects.
    """
    labels = [observation.label(band.name) for observation in task.observations]
    opened = [layers[label] for label in labels if label in layers]
    dtype = np.result_type(band.dtype, *(one.dtype for one in opened))
    return dtype, opened[0].nodata if opened else band.nodata


def reduces_bands_apart(task: CompositeTask) -> bool:
    """Return whether no pixel of a band depends on other bands."""
    # Observations are counted, and periods exchanged, where any band has data.
    counts = task.min_observations > 1 or any(not one.in_period for one in task.observations)
    return issubclass(reducer(task.method), PerBandReducer) and not counts


class _ReducedChunk:
    """A chunk of rows that is reduced in slabs, on all cores."""

    def __init__(
        self, top: int, slabs: Sequence[slice], reduce: Callable[[slice], list[Array]]
    ) -> None:
        self._top = top
        self._slabs = cpu_threads().map(reduce, slabs)

    def images(self) -> Iterator[tuple[int, int, Array]]:
        """Wait for the slabs, and yield (index of the output, first row, pixels)."""
        for output, parts in enumerate(zip(*self._slabs, strict=True)):
            joined = np.ma.concatenate if any(map(np.ma.isMaskedArray, parts)) else np.concatenate
            yield output, self._top, joined(parts)


class _Period:
    """The observations of one window of the grid, and what has arrived of them."""

    def __init__(self, task: CompositeTask, grid: Grid, layers: Mapping[str, BandLayers]) -> None:
        self._task, self._grid, self._layers = task, grid, layers
        values = []
        for name, band in zip(task.names, task.encodings, strict=True):
            dtype, nodata = open_encoding(task, band, layers)
            values.append(BandValues(name, dtype, nodata, band.scale, band.offset))
        self.values = tuple(values)
        self._method = reducer(task.method)
        self._own = sum(observation.in_period for observation in task.observations)
        """Number of the observations that are not of the fallback only; they come first."""
        self._reducers = {
            number: self._reducer(number) for number in {self._own, len(task.observations)}
        }
        self._reach = self._method.reach(task.parameters)
        self._demands = Demands()
        self._scene_places = {scene: place for place, scene in enumerate(task.sources)}
        self._masks: list[dict[str, SceneMask]] = []
        self._taken: dict[tuple[int, int], Array] = {}
        self._chunk: list[list[Array]] = [[] for _ in task.names]
        """For each band, the observations that have arrived of a chunk of rows."""
        self.bands: list[BandLayers] = []
        self._scenes: list[list[str]] = []
        for number, observation in enumerate(task.observations):
            self._add_observation(number, observation)

    def _add_observation(self, number: int, observation: Observation) -> None:
        task = self._task
        demand = self._demands.of(number) if self._waits(number, observation) else None
        bands = []
        for value in self.values:
            label = observation.label(value.name)
            empty = BandLayers(label, (), value.dtype, value.nodata, "nearest", "first")
            opened = self._layers.get(label, empty)
            bands.append(replace(opened, dtype=value.dtype, nodata=value.nodata, demand=demand))
        rules = {observation.mask_label(rule.band): rule for rule in observation.rules}
        masked, masks = apply_masks(
            bands, rules, self._layers, self._grid, task.grid.grid, self._reach
        )
        self._masks.append(masks)
        self._scenes.append([layer.name for layer in masked[0].layers])
        if "source" in task.extra:
            masked[0] = replace(masked[0], on_taken=self._keep_taken(number))
        self.bands += masked

    def _waits(self, number: int, observation: Observation) -> bool:
        """Return whether an observation only fills what those before it leave open."""
        if number == 0:
            return False
        if not observation.in_period:
            return True
        counts = self._task.min_observations > 1 or "observations" in self._task.extra
        return self._method.is_ordered and not counts

    def _keep_taken(self, number: int) -> Callable[[int, Array], None]:
        def keep(top: int, taken: Array) -> None:
            self._taken[number, top] = taken

        return keep

    def add(self, index: int, top: int, pixels: Array) -> None:
        """Add a chunk of rows of one band of one observation."""
        number, place = divmod(index, len(self.values))
        self._chunk[place].append(pixels)
        if place == len(self.values) - 1:
            self._demands.finish(number, top, self._open_pixels(number))

    def _valid(self, place: int, pixels: Array) -> Mask:
        """Return where pixels of a band are clear and have data."""
        valid = valid_mask(pixels, self.values[place].nodata)
        return np.ones(pixels.shape, bool) if valid is None else valid

    def _open_pixels(self, number: int) -> Mask | None:
        """Return what is open after an observation, if the next one waits for it."""
        following = number + 1
        observations = self._task.observations
        if following == len(observations) or not self._waits(following, observations[following]):
            return None
        valid = []
        for place, band in enumerate(self._chunk):
            valid.append([self._valid(place, pixels) for pixels in band])
        if self._method.is_ordered and self._task.min_observations == 1:
            taken = np.zeros(valid[0][0].shape, bool)
            for bands in zip(*valid, strict=True):
                taken |= np.logical_and.reduce(bands)
            return ~taken
        count = np.zeros(valid[0][0].shape, np.uint16)
        for bands in list(zip(*valid, strict=True))[: self._own]:
            count += np.logical_or.reduce(bands)
        return np.asarray(count < self._task.min_observations)

    def reduce(self, top: int) -> _ReducedChunk:
        """Start to reduce the chunk, and start the next one.

        Returns:
            The bands and the extra bands; masked arrays where there is no nodata value.
        """
        chunk, self._chunk = self._chunk, [[] for _ in self.values]
        rows, columns = chunk[0][0].shape
        distance = self._distances(top, top + rows)
        sources = self._sources(top, (rows, columns))
        height = max(1, _SLAB_PIXELS // columns)
        slabs = [slice(first, min(first + height, rows)) for first in range(0, rows, height)]

        def reduce_slab(slab: slice) -> list[Array]:
            pixels, valid = [], []
            for place, band in enumerate(chunk):
                stacked = np.ma.stack if any(map(np.ma.isMaskedArray, band)) else np.stack
                stack = stacked([one[slab] for one in band])
                valid.append(self._valid(place, stack))
                pixels.append(np.asarray(stack))
            near = None if distance is None else distance[:, slab]
            places = None if sources is None else sources[:, slab]
            return self._reduce_stack(Stack(pixels, valid, near), places)

        return _ReducedChunk(top, slabs, reduce_slab)

    def _reduce_stack(self, stack: Stack, sources: Array | None) -> list[Array]:
        task, own = self._task, self._own
        has_any = np.stack(
            [np.logical_or.reduce(bands) for bands in zip(*stack.valid, strict=True)]
        )
        count = np.add.reduce(has_any[:own].view(np.uint8), axis=0, dtype=np.uint16)
        enough = count >= task.min_observations
        reduced = self._reduce_first(stack, own)
        filled = np.zeros(count.shape, bool)
        if own < len(has_any):
            longer = np.add.reduce(has_any.view(np.uint8), axis=0, dtype=np.uint16)
            filled = ~enough & (longer >= task.min_observations)
            if filled.any():
                reduced = _combine(self._reduce_first(stack, len(has_any)), filled, reduced)
                count = np.where(filled, longer, count)
        shown = enough | filled
        valid = [one & shown for one in reduced.valid]
        images = []
        for value, pixels, has_data in zip(self.values, reduced.pixels, valid, strict=False):
            if value.nodata is None:
                images.append(as_masked(pixels, has_data))
            else:
                nothing = np.full_like(pixels, value.nodata)
                images.append(pixels if has_data.all() else where(has_data, pixels, nothing))
        has_data = np.logical_or.reduce(valid)
        return images + add_extras(task, reduced, has_any, count, filled, has_data, sources)

    def _reduce_first(self, stack: Stack, number: int) -> Reduced:
        """Reduce the first `number` observations."""
        if number == 0:  # the period has none of its own
            shape = stack.pixels[0].shape[1:]
            outputs = len(self._task.made)
            empty = [np.zeros(shape, value.dtype) for value in self.values[:outputs]]
            taken = np.full(shape, -1, np.int16) if self._method.takes_pixels else None
            extra = {name: np.full(shape, np.nan, np.float32) for name in self._method.extra}
            return Reduced(empty, [np.zeros(shape, bool)] * outputs, taken, extra)
        method = self._reducers[number]
        if number == len(stack.pixels[0]):
            return method.reduce(stack)
        distance = None if stack.distance is None else stack.distance[:number]
        part = Stack(
            [one[:number] for one in stack.pixels], [v[:number] for v in stack.valid], distance
        )
        return method.reduce(part)

    def _reducer(self, number: int) -> Reducer:
        observations = self._task.observations[:number]
        context = Context(
            bands=self.values,
            outputs=len(self._task.made),
            parameters=self._task.parameters,
            days=[observation.day for observation in observations],
            platforms=[observation.platform for observation in observations],
            clouds=[observation.cloud_cover for observation in observations],
        )
        return self._method(context)

    def _distances(self, top: int, bottom: int) -> Array | None:
        """Return the distance to masked ground of all observations, in meters."""
        if not self._reach:
            return None
        distances = np.full(
            (len(self._masks), bottom - top, self._grid.shape[1]), self._reach, np.float32
        )
        for distance, masks in zip(distances, self._masks, strict=True):
            unknown = np.ones(distance.shape, bool)
            for mask in masks.values():
                # Where scenes overlap, the first clear one is taken.
                here = unknown & mask.clear(top, bottom)
                np.copyto(distance, mask.distance(top, bottom), where=here)
                unknown &= ~here
                mask.release(top)
        return distances

    def _sources(self, top: int, shape: tuple[int, int]) -> Array | None:
        """Return for all observations the place in the task's list of scenes of each pixel."""
        if "source" not in self._task.extra:
            return None
        sources = np.zeros((len(self._scenes), *shape), np.uint16)
        for number, scenes in enumerate(self._scenes):
            taken = self._taken.pop((number, top))
            if scenes:
                places = np.array([self._scene_places[scene] for scene in scenes], np.uint16)
                sources[number] = places[np.maximum(taken, 0)]
        return sources


def _combine(one: Reduced, here: Mask, other: Reduced) -> Reduced:
    """Take one composite where a mask is True, and the other elsewhere."""
    pixels = [where(here, a, b) for a, b in zip(one.pixels, other.pixels, strict=True)]
    valid = [np.where(here, a, b) for a, b in zip(one.valid, other.valid, strict=True)]
    taken = None
    if one.taken is not None and other.taken is not None:
        taken = where(here, one.taken, other.taken)
    extra = {name: np.where(here, one.extra[name], other.extra[name]) for name in one.extra}
    return Reduced(pixels, valid, taken, extra)
