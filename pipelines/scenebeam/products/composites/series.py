"""Make all periods of a series together, and fill the gaps of one from the others.

1. Compute the periods one after another, into temporary files on disk.
2. Fill the gaps in place, chunk of rows by chunk of rows.
3. Encode and publish the periods one after another.

So memory is that of one period. A period without scenes, or without a readable file, is a gap.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from scenebeam.imaging.gridded import (
    Encoders,
    GriddedRecipe,
    RowSink,
    assemble_if_complete,
    compute,
    has_parts,
    missing_in_plan,
    publish,
)
from scenebeam.imaging.gridded_task import Missing, Output
from scenebeam.products.composites.task import CompositeTask
from scenebeam.raster.compose import ROW_CHUNK
from scenebeam.raster.fill import fill_gaps
from scenebeam.raster.reduce import BandValues, to_numbers
from scenebeam.raster.validity import Array, valid_mask
from scenebeam.storage import Store
from scenebeam.tasks import Outcome
from scenebeam.transfer.pools import cpu_threads
from scenebeam.transfer.retry import Budget

GAP_FILLED = 2
"""What the band `filled` says of a pixel that is filled from other periods."""
_SLAB_ROWS = 16


def make_series(
    task: CompositeTask, recipe: GriddedRecipe[CompositeTask], store: Store, budget: Budget
) -> Outcome:
    """Make the periods of one window, and fill their gaps.

    Args:
        task: A task with the periods of a series.
        recipe: What is computed of one period.
        store: The output.
        budget: Retries and waiting time of the whole task.

    Raises:
        ReadError: A file cannot be read now, but may be readable later.
        StorageError: An output cannot be published.
    """
    if not all(has_parts(period, recipe, store) for period in task.series):
        with tempfile.TemporaryDirectory(prefix="scenebeam-series-") as folder:
            spools = []
            for number, period in enumerate(task.series):
                spool = _Spool(period, Path(folder, str(number)))
                outcome = _compute_period(period, recipe, budget, spool)
                if outcome.state == "failed":
                    return outcome.model_copy(update={"task": task.id})
                spools.append(spool)
            _fill(task, spools)
            for period, spool in zip(task.series, spools, strict=True):
                encoders = Encoders(period)
                encoders.start(spool.outputs)
                for index, first, pixels in spool.row_chunks():
                    encoders.add(index, first, pixels)
                publish(period, recipe, store, encoders, spool.missing)
    for period in task.series:
        if period.shards > 1:
            assemble_if_complete(period, recipe, store)
    return Outcome(task=task.id, state="done")


class _Spool(RowSink):
    """The outputs of one period in temporary files."""

    def __init__(self, period: CompositeTask, folder: Path) -> None:
        self.period = period
        self.outputs: list[Output] = []
        self.images: list[Array] = []
        self.missing: Missing = missing_in_plan(period)
        self._folder = folder

    def start(self, outputs: list[Output]) -> None:
        top, bottom, left, right = self.period.window
        self.outputs, self.images = outputs, []
        self._folder.mkdir(exist_ok=True)
        for output in outputs:
            image: Array = np.lib.format.open_memmap(
                self._folder / f"{output.name}.npy",
                mode="w+",
                dtype=output.dtype,
                shape=(bottom - top, right - left),
            )
            if output.nodata:  # a new file is full of zeros
                image[:] = output.nodata
            self.images.append(image)

    def add(self, index: int, first: int, pixels: Array) -> None:
        self.images[index][first : first + len(pixels)] = pixels

    def row_chunks(self) -> Iterator[tuple[int, int, Array]]:
        """Yield (index of the output, first row, pixels)."""
        rows = len(self.images[0])
        for first in range(0, rows, ROW_CHUNK):
            for index, image in enumerate(self.images):
                yield index, first, np.asarray(image[first : first + ROW_CHUNK])


def _compute_period(
    period: CompositeTask, recipe: GriddedRecipe[CompositeTask], budget: Budget, spool: _Spool
) -> Outcome:
    """Compute a period; one that has nothing to be made of is a gap as a whole."""
    if any(band.sources for band in period.bands):
        outcome = compute(period, recipe, budget, spool.missing, spool)
        if outcome.state == "done" or period.on_missing == "fail":
            return outcome
    spool.start(recipe.outputs(period, {}))
    return Outcome(task=period.id, state="done")


def _fill(task: CompositeTask, spools: Sequence[_Spool]) -> None:
    """Fill the gaps of all bands in place, and flag them."""
    middles = [period.middle for period in task.series]
    days = np.array([(middle - middles[0]).total_seconds() / 86_400 for middle in middles])
    outputs = spools[0].outputs
    flags = [output.name for output in outputs].index("filled") if "filled" in task.extra else None

    def fill_rows(rows: slice) -> None:
        filled: Array = np.zeros(0)
        for index in range(len(task.made)):
            gaps = _fill_band(task, spools, index, rows, days)
            filled = filled | gaps if index else gaps
        if flags is not None:
            for spool, gaps in zip(spools, filled, strict=True):
                spool.images[flags][rows][gaps] = GAP_FILLED

    height = len(spools[0].images[0])
    slabs = [slice(top, min(top + _SLAB_ROWS, height)) for top in range(0, height, _SLAB_ROWS)]
    list(cpu_threads().map(fill_rows, slabs))


def _fill_band(
    task: CompositeTask, spools: Sequence[_Spool], index: int, rows: slice, days: Array
) -> Array:
    """Fill some rows of one band. Returns which pixels were gaps and are filled now."""
    series = []
    for spool in spools:
        pixels = np.asarray(spool.images[index][rows])
        valid = valid_mask(pixels, spool.outputs[index].nodata)
        values = pixels.astype(np.float64)
        series.append(values if valid is None else np.where(valid, values, np.nan))
    before = np.stack(series)
    after = fill_gaps(before, days, task.fill, task.smoothness)
    changed = (after != before) & ~np.isnan(after)
    for spool, values, here in zip(spools, after, changed, strict=True):
        output = spool.outputs[index]
        encoding = BandValues(output.name, output.dtype, output.nodata)
        numbers = to_numbers(np.where(here, values, 0), encoding, here)
        np.copyto(spool.images[index][rows], numbers, where=here)
    return np.asarray(np.isnan(before) & ~np.isnan(after))
