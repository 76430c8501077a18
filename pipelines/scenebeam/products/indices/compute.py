"""Make indices: strips of bands → strips of an expression of them, masked, and put together over time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from scenebeam.products.indices.task import IndexTask, label
from scenebeam.raster.compose import ROW_CHUNK, BandLayers, compose
from scenebeam.raster.grid import Grid
from scenebeam.raster.indices import evaluate, obscured, physical
from scenebeam.raster.merge import Merge, new_merge
from scenebeam.raster.validity import Array
from scenebeam.request.expression import parse_expression


def index_row_chunks(
    task: IndexTask, grid: Grid, layers: Mapping[str, BandLayers]
) -> Iterator[tuple[int, int, Array]]:
    """Each strip of each acquisition is computed as soon as its last band is there, and its bands forgotten."""
    tree = parse_expression(task.expression)
    bands, last = _in_order(task, layers)
    sides = _Sides(task)
    waiting: dict[str, Array] = {}
    if not bands:
        yield from _empty(grid)
    for index, top, strip in compose(grid, bands):
        waiting[bands[index].name] = strip
        acquisition = last.get(index)
        if acquisition is not None:
            values = {
                variable: _physical(task, acquisition, name, waiting, layers)
                for variable, name in task.variables.items()
            }
            found = evaluate(tree, values)
            for rule in task.masks:
                classes = label(acquisition, rule.band)
                found[
                    obscured(waiting[classes], layers[classes].nodata, rule.classes, rule.bits)
                ] = np.nan
            waiting.clear()
            sides.add(acquisition, found)
        if index == len(bands) - 1:
            yield 0, top, sides.result()


def _in_order(
    task: IndexTask, layers: Mapping[str, BandLayers]
) -> tuple[list[BandLayers], dict[int, str]]:
    """The bands of the acquisitions that have all theirs here, and the acquisition that each last one ends."""
    bands: list[BandLayers] = []
    last: dict[int, str] = {}
    for acquisition in task.acquisitions:
        own = [band.label for band in task.bands if band.label.startswith(label(acquisition, ""))]
        if all(name in layers for name in own):
            bands += [layers[name] for name in own]
            last[len(bands) - 1] = acquisition
    return bands, last


def _physical(
    task: IndexTask,
    acquisition: str,
    name: str,
    row_chunks: Mapping[str, Array],
    layers: Mapping[str, BandLayers],
) -> Array:
    band = task.band(acquisition, name)
    assert band is not None, "the plan has it for every acquisition"
    return physical(row_chunks[band.label], layers[band.label].nodata, band.scale, band.offset)


class _Sides:
    """What is made of the acquisitions of a strip: one image, or the difference of two."""

    def __init__(self, task: IndexTask) -> None:
        self._task = task
        self._single = len(task.acquisitions) == 1
        self._merges: dict[bool, Merge] = {}
        self._found: Array | None = None

    def add(self, acquisition: str, values: Array) -> None:
        if self._single:
            self._found = values
            return
        side = acquisition in self._task.before
        if side not in self._merges:
            self._merges[side] = new_merge(
                self._task.composite, values.shape, np.dtype(np.float32), float("nan")
            )
        self._merges[side].add((slice(0, values.shape[0]), slice(0, values.shape[1])), values, None)
        self._found = np.full(values.shape, np.nan, np.float32)

    def result(self) -> Array:
        """The strip, and a clean start for the next one."""
        assert self._found is not None, "something has been added"
        found = self._found
        if not self._single and not self._task.before:
            found = self._merges[False].result()
        elif len(self._merges) == 2:
            found = self._merges[True].result() - self._merges[False].result()
        self._merges = {}
        return found


def _empty(grid: Grid) -> Iterator[tuple[int, int, Array]]:
    """A shard that no acquisition reaches."""
    for top in range(0, grid.shape[0], ROW_CHUNK):
        yield (
            0,
            top,
            np.full((min(ROW_CHUNK, grid.shape[0] - top), grid.shape[1]), np.nan, np.float32),
        )
