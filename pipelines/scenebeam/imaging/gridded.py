"""Make the COGs of a gridded product: files of many scenes in, images on one grid out.

A product defines what it computes of its inputs (`GriddedRecipe`). Everything else is the same for
all of them, and is here:

1. Open the files of all bands that intersect the window of the task.
2. Compute the outputs, one chunk of rows after another, and encode each chunk at once.
3. Publish the COGs and the STAC item, or store the shard as a part. The shard that finishes last
   assembles the COGs.

A file that is permanently unusable (404, corrupt, wrong nodata) is named as missing, and the task
starts again without it, or fails, as `on_missing` says. A file that may become readable later (a
timeout, a 5xx) fails the task, and the next run retries it.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from typing import Any, Generic, TypeVar, cast

from scenebeam.errors import StorageError
from scenebeam.imaging.band_budget import BandBudget
from scenebeam.imaging.encode import ImageEncoder
from scenebeam.imaging.gridded_item import (
    add_statistics,
    describe_output,
    draw_outputs,
    publish_item,
    publish_thumbnail,
)
from scenebeam.imaging.gridded_task import GriddedTask, Missing, Output
from scenebeam.imaging.missing import describe_missing
from scenebeam.imaging.open_files import close_all, layers_by_label, open_files
from scenebeam.imaging.writers import writer_of
from scenebeam.imaging.writers.base import Written
from scenebeam.raster.compose import RowChunks
from scenebeam.raster.grid import Grid
from scenebeam.raster.layers import BandLayers, LayerError
from scenebeam.raster.merge import cast_nodata
from scenebeam.raster.validity import Array
from scenebeam.storage import Store
from scenebeam.tasks import Outcome
from scenebeam.transfer.pools import io_threads
from scenebeam.transfer.retry import Budget

log = logging.getLogger(__name__)

TaskT = TypeVar("TaskT", bound=GriddedTask)

NO_SCENES = "no_scenes"
"""Kind of the outcome of a task without scenes."""


class GriddedRecipe(ABC, Generic[TaskT]):
    """What a gridded product computes of its inputs."""

    @abstractmethod
    def outputs(self, task: TaskT, layers: Mapping[str, BandLayers]) -> list[Output]:
        """Describe the outputs of a task.

        Args:
            task: The task.
            layers: The open inputs by label, which may need a wider dtype than the plan expects;
                empty if only the plan is known.
        """

    @abstractmethod
    def row_chunks(self, task: TaskT, grid: Grid, layers: Mapping[str, BandLayers]) -> RowChunks:
        """Compute the outputs from top to bottom.

        Args:
            task: The task.
            grid: The part of its grid that is in its window.
            layers: The open inputs by label. A band without a file in the window has none.

        Yields:
            (index of the output, first row in the grid, pixels of shape (rows, columns)).
        """

    def only(self, task: TaskT, output: str) -> TaskT:
        """Return a task that reads no more than one output needs; its pixels stay the same.

        Args:
            task: The task.
            output: Name of the output. The task may have others besides.
        """
        return task

    @abstractmethod
    def reason_to_refuse(self, task: TaskT, missing: Missing) -> str:
        """Explain why nothing can be made of the remaining files; empty if something can."""


def make_gridded(
    task: TaskT, recipe: GriddedRecipe[TaskT], store: Store, budget: Budget
) -> Outcome:
    """Make the COGs of one task, or one shard of them, and publish them.

    Args:
        task: The task.
        recipe: What is computed.
        store: The output.
        budget: Retries and waiting time of the whole task.

    Returns:
        The outcome; `detail` has the time, bytes and retries of each band, or what is missing.

    Raises:
        ReadError: A file cannot be read now, but may be readable later.
        StorageError: An output cannot be published.
        CheckError: The shards cannot be assembled, see `assemble`.
    """
    missing = missing_in_plan(task)
    if not any(band.sources for band in task.bands):
        if not task.bands:
            # Nothing is wrong: there is nothing to make it of.
            reason = recipe.reason_to_refuse(task, missing)
            return Outcome(task=task.id, state="skipped", kind=NO_SCENES, reason=reason)
        reason = "no scene of the acquisition has any of the bands"
        return _refusal(task, missing, "failed_no_tiles", reason)
    spending: dict[str, Any] = {}
    if not has_parts(task, recipe, store):
        sink = Encoders(task)
        outcome = compute(task, recipe, budget, missing, sink)
        if outcome.state != "done":
            return outcome
        spending = outcome.detail
        publish(task, recipe, store, sink, missing)
    if task.shards > 1:
        assemble_if_complete(task, recipe, store)
    return Outcome(task=task.id, state="done", detail=spending)


def compute(
    task: TaskT, recipe: GriddedRecipe[TaskT], budget: Budget, missing: Missing, sink: RowSink
) -> Outcome:
    """Compute the outputs of a task, without the files that are missing.

    A file can turn out to be unusable, perhaps halfway down the image. Then everything starts over
    without it: what is above must be the same as if it had never been there.

    Args:
        task: The task.
        recipe: What is computed.
        budget: Retries and waiting time of the whole task.
        missing: The missing files; those that turn out to be unusable are added.
        sink: Takes the outputs.

    Returns:
        `done`, with the time, bytes and retries of each band as its detail; or why nothing may be
        made of the remaining files.

    Raises:
        ReadError: A file cannot be read now, but may be readable later.
    """
    others: dict[str, str] = {}
    budgets = {band.label: BandBudget(budget, f"{task.id}: {band.label}") for band in task.bands}
    while True:
        refusal = _check_missing(task, recipe, missing)
        if refusal is not None:
            return refusal
        try:
            _compute_once(task, recipe, budgets, missing, sink)
            break
        except LayerError as fault:
            other = task.with_alternate(fault.band, fault.name)
            if other is None:
                missing[fault.band][fault.name] = str(fault.cause)
            else:
                log.warning("%s; reading it from another catalog", fault.cause)
                others[f"{fault.band}/{fault.name}"] = str(fault.cause)
                task = cast(TaskT, other)
    spending = {}
    for label, band_budget in budgets.items():
        band_budget.log_end()
        spending[label] = band_budget.spending
    if others:
        spending["read_from_other_catalogs"] = others
    return Outcome(task=task.id, state="done", detail=spending)


def missing_in_plan(task: GriddedTask) -> Missing:
    """Return the scenes that have no file of a band, as the plan knows already."""
    reason = "the scene has no such band"
    return {band.label: dict.fromkeys(band.absent, reason) for band in task.bands}


def has_parts(task: TaskT, recipe: GriddedRecipe[TaskT], store: Store) -> bool:
    """Return whether the task is a shard whose parts an earlier run has stored."""
    if task.shards == 1:
        return False
    outputs = recipe.outputs(task, {})
    return all(_are_stored(task, store, output.name, [task.shard]) for output in outputs)


def _are_stored(task: GriddedTask, store: Store, output: str, shards: Iterable[int]) -> bool:
    keys = {task.part_key(output, shard) for shard in shards}
    # Large images have many pieces beside their parts: only the parts are listed.
    return keys <= store.list(task.output_parts(output))


def _check_missing(task: TaskT, recipe: GriddedRecipe[TaskT], missing: Missing) -> Outcome | None:
    """Return the outcome of a task that must not be made of the remaining files; None if it can."""
    kind = "failed_missing_inputs"
    if task.on_missing != "best-available" and any(missing.values()):
        return _refusal(task, missing, kind, describe_missing(missing))
    reason = recipe.reason_to_refuse(task, missing)
    return _refusal(task, missing, kind, reason) if reason else None


def _refusal(task: GriddedTask, missing: Missing, kind: str, reason: str) -> Outcome:
    return Outcome(
        task=task.id,
        state="skipped" if task.on_missing == "skip" else "failed",
        kind=kind,
        reason=reason,
        permanent=True,
        detail={"missing": missing},
    )


def _compute_once(
    task: TaskT,
    recipe: GriddedRecipe[TaskT],
    budgets: Mapping[str, Budget],
    missing: Missing,
    sink: RowSink,
) -> None:
    """Compute the outputs. Raises LayerError if one more file is unusable."""
    top, bottom, left, right = task.window
    grid = task.grid.grid[top:bottom, left:right]
    opened = open_files(task, grid, budgets, missing)
    try:
        layers = layers_by_label(task, opened)
        sink.start(recipe.outputs(task, layers))
        # Closed before the files are, because its threads read from them.
        with closing(recipe.row_chunks(task, grid, layers)) as row_chunks:
            for index, first, pixels in row_chunks:
                sink.add(index, first, pixels)
    finally:
        close_all(opened)


class RowSink(ABC):
    """Takes the outputs of a task, chunk of rows by chunk of rows."""

    @abstractmethod
    def start(self, outputs: list[Output]) -> None:
        """Start, or start over."""

    @abstractmethod
    def add(self, index: int, first: int, pixels: Array) -> None:
        """Take the next rows of an output.

        Args:
            index: Index of the output.
            first: First row in the window of the task.
            pixels: Array of shape (rows, columns).
        """


class Encoders(RowSink):
    """Encodes the outputs of a task at once."""

    def __init__(self, task: GriddedTask) -> None:
        self._task, self._writer = task, writer_of(task)
        self._computed: list[Output] = []
        self.outputs: list[Output] = []
        self.encoders: list[ImageEncoder] = []

    def start(self, outputs: list[Output]) -> None:
        task, writer = self._task, self._writer
        self._computed = outputs
        self.outputs = [writer.encoding(task, output) for output in outputs]
        self.encoders = [writer.encoder(task, output) for output in self.outputs]

    def add(self, index: int, first: int, pixels: Array) -> None:
        computed, stored = self._computed[index], self.outputs[index]
        self.encoders[index].add(cast_nodata(pixels, computed.nodata, stored.dtype, stored.nodata))


def publish(
    task: TaskT, recipe: GriddedRecipe[TaskT], store: Store, made: Encoders, missing: Missing
) -> None:
    """Publish the outputs of a task and its item, or store them as parts if it is a shard.

    Args:
        task: The task.
        recipe: What was computed.
        store: The output.
        made: The encoded outputs.
        missing: The missing files.
    """
    writer = writer_of(task)
    outputs, encoders = made.outputs, made.encoders
    facts = []
    for output, encoder in zip(outputs, encoders, strict=True):
        facts.append({"valid": encoder.valid, "missing": _missing_of(output, missing)})
    if task.shards > 1:
        for output, encoder, fact in zip(outputs, encoders, facts, strict=True):
            writer.store_shard(task, store, output, encoder, fact)
        return

    def publish_output(output: Output, encoder: ImageEncoder, fact: dict[str, Any]) -> Written:
        return writer.publish(task, store, output, encoder, fact)

    # All bands are published at the same time; the item follows when all of them are there.
    written = list(io_threads().map(publish_output, outputs, encoders, facts))
    _publish_item(task, store, written, missing)


def _publish_item(
    task: GriddedTask, store: Store, written: Sequence[Written], missing: Missing
) -> None:
    """Publish the thumbnail and the item of outputs that are published."""
    outputs = [one.output for one in written]
    previews = {one.output.name: one.preview for one in written}
    assets = {}
    for one in written:
        assets[one.output.name] = describe_output(task, one.output, one.asset, one.facts)
    add_statistics(outputs, assets, previews)
    thumbnail = publish_thumbnail(task, store, draw_outputs(outputs, previews))
    publish_item(task, store, outputs, {**assets, "thumbnail": thumbnail}, missing)


def _missing_of(output: Output, missing: Missing) -> dict[str, str]:
    """Return scene → reason for the missing files of an output."""
    reasons: dict[str, str] = {}
    for band in (*output.inputs, *output.masks):
        reasons.update(missing[band.label])
    return reasons


def assemble_if_complete(task: TaskT, recipe: GriddedRecipe[TaskT], store: Store) -> None:
    """Assemble the COGs if the parts of all shards are there.

    Each shard tries it after its own part is stored, so the last one succeeds. If two shards finish
    at once, both assemble: they publish the same bytes, and publishing is atomic.
    """
    shards = range(task.shards)
    outputs = recipe.outputs(task, {})
    # Otherwise other shards are not finished, or another worker has assembled the COGs already and
    # deleted the parts.
    if not all(_are_stored(task, store, output.name, shards) for output in outputs):
        return
    writer = writer_of(task)
    try:
        written = [writer.assemble(task, store, output) for output in outputs]
    except StorageError:
        # Another worker may have assembled them, and deleted the parts, in the meantime.
        if not task.is_done(store.list()):
            raise
    else:
        _publish_item(task, store, written, missing_in_plan(task))
    # Parts first: nobody looks for pieces without a part, but a part needs its pieces.
    store.delete([task.part_key(output.name, shard) for output in outputs for shard in shards])
    store.delete(sorted(store.list(task.parts_prefix)))
