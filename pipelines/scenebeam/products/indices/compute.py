"""Compute an index: evaluate an expression of bands, mask it, and combine acquisitions over time.

All acquisitions pass by in chunks of rows. As soon as the last band of an acquisition has arrived
for a chunk, the expression is evaluated, and the bands are dropped. So memory holds the bands of
one acquisition, and not those of a whole period.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from scenebeam.products.indices.task import IndexTask, label
from scenebeam.raster.compose import ROW_CHUNK, RowChunks, compose
from scenebeam.raster.grid import Grid
from scenebeam.raster.indices import evaluate, physical
from scenebeam.raster.layers import BandLayers
from scenebeam.raster.merge import Merge, new_merge
from scenebeam.raster.validity import Array
from scenebeam.request.expression import parse_expression


def index_row_chunks(task: IndexTask, grid: Grid, layers: Mapping[str, BandLayers]) -> RowChunks:
    """Compute an index from top to bottom.

    Args:
        task: The task.
        grid: The part of its grid that is in its window.
        layers: The open bands by label.

    Yields:
        (0, first row, pixels): float32 of shape (rows, columns), NaN where there is no data.
    """
    bands, acquisition_ends = _complete_acquisitions(task, layers)
    if not bands:
        yield from _empty_row_chunks(grid)
        return
    tree = parse_expression(task.expression)
    composite = _Composite(task)
    # Chunks of the bands of one acquisition, by label.
    arrived: dict[str, Array] = {}
    for index, top, pixels in compose(grid, bands, whole=task.grid.grid):
        arrived[bands[index].name] = pixels
        acquisition = acquisition_ends.get(index)
        if acquisition is not None:
            variables = {}
            for variable, name in task.variables.items():
                band = task.band(acquisition, name)
                nodata = layers[band.label].nodata
                variables[variable] = physical(arrived[band.label], nodata, band.scale, band.offset)
            values = evaluate(tree, variables)
            for rule in task.masks:
                classes = label(acquisition, rule.band)
                nodata = layers[classes].nodata
                values[rule.test.hidden(arrived[classes], nodata)] = np.nan
            arrived.clear()
            composite.add(acquisition, values)
        if index == len(bands) - 1:
            yield 0, top, composite.result()


def _complete_acquisitions(
    task: IndexTask, layers: Mapping[str, BandLayers]
) -> tuple[list[BandLayers], dict[int, str]]:
    """Return the bands of acquisitions that have all theirs in the window.

    Returns:
        (bands, ends): the bands, and the index of the last one of each acquisition → its timestamp.
    """
    bands: list[BandLayers] = []
    ends: dict[int, str] = {}
    for acquisition in task.acquisitions:
        labels = [band.label for band in task.bands_of(acquisition)]
        if all(name in layers for name in labels):
            bands += [layers[name] for name in labels]
            ends[len(bands) - 1] = acquisition
    return bands, ends


class _Composite:
    """Combines the acquisitions of one chunk of rows: into one image, or a difference of two."""

    def __init__(self, task: IndexTask) -> None:
        self._task = task
        self._merges: dict[bool, Merge] = {}
        """Whether an acquisition is in `before` → merge of that side."""
        self._latest: Array = np.empty((0, 0), np.float32)

    def add(self, acquisition: str, values: Array) -> None:
        self._latest = values
        if len(self._task.acquisitions) == 1:
            return
        side = acquisition in self._task.before
        if side not in self._merges:
            nodata = float("nan")
            self._merges[side] = new_merge(self._task.composite, values.shape, values.dtype, nodata)
        rows, columns = values.shape
        self._merges[side].add((slice(0, rows), slice(0, columns)), values, None)

    def result(self) -> Array:
        """Return the chunk, and start the next one."""
        merges, self._merges = self._merges, {}
        if len(self._task.acquisitions) == 1:
            return self._latest
        if not self._task.before:
            return merges[False].result()
        if len(merges) == 2:
            difference: Array = merges[True].result() - merges[False].result()
            return difference
        # One side has no acquisition in this window: nothing to compare with.
        return np.full(self._latest.shape, np.nan, np.float32)


def _empty_row_chunks(grid: Grid) -> RowChunks:
    """Yield NaN everywhere, for a window that no complete acquisition reaches."""
    for top in range(0, grid.shape[0], ROW_CHUNK):
        rows = min(ROW_CHUNK, grid.shape[0] - top)
        yield 0, top, np.full((rows, grid.shape[1]), np.nan, np.float32)
