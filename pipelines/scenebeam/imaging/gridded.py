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

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from contextlib import closing
from dataclasses import replace
from typing import Any, Generic, TypeVar

import numpy as np
import shapely
from shapely.geometry.base import BaseGeometry

from scenebeam.errors import CheckError, ReadError
from scenebeam.imaging.assemble import assemble
from scenebeam.imaging.band_budget import BandBudget
from scenebeam.imaging.bands import Band, resolve_nodata
from scenebeam.imaging.encode import ImageEncoder, publish_cog
from scenebeam.imaging.gridded_item import (
    add_statistics,
    cog_profile,
    describe_output,
    publish_item,
    publish_thumbnail,
)
from scenebeam.imaging.gridded_task import GriddedTask, Missing, Output
from scenebeam.imaging.missing import describe_missing
from scenebeam.imaging.shards import shard_shapes, shared_levels
from scenebeam.imaging.thumbnails import read_previews, render_png
from scenebeam.raster.compose import RowChunks
from scenebeam.raster.grid import Grid
from scenebeam.raster.layers import BandLayers, Layer, LayerError
from scenebeam.raster.pyramid import level_shapes
from scenebeam.raster.reader import open_source
from scenebeam.raster.source import Source
from scenebeam.raster.validity import Array, nodata_in_dtype
from scenebeam.storage import Store
from scenebeam.tasks import Outcome
from scenebeam.transfer.pools import io_threads
from scenebeam.transfer.retry import Budget

TaskT = TypeVar("TaskT", bound=GriddedTask)

NO_SCENES = "no_scenes"
"""Kind of the outcome of a task without scenes."""
_OpenFiles = dict[str, dict[str, Source]]
"""Label of a band → id of a scene → its open file."""


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

    @abstractmethod
    def reason_to_refuse(self, task: TaskT, missing: Missing) -> str:
        """Explain why nothing can be made of the remaining files; empty if something can."""

    def render_thumbnail(self, outputs: Sequence[Output], previews: Mapping[str, Array]) -> bytes:
        """Render a picture of the outputs as PNG.

        Args:
            outputs: The outputs.
            previews: Name of an output → small version of it.
        """
        # Classes and bit flags make no picture: they are shown only if there is nothing else.
        measured = {out.name: previews[out.name] for out in outputs if not out.categorical}
        return render_png(measured or previews)


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
    missing = _missing_in_plan(task)
    if not any(band.sources for band in task.bands):
        if not task.bands:
            # Nothing is wrong: there is nothing to make it of.
            reason = recipe.reason_to_refuse(task, missing)
            return Outcome(task=task.id, state="skipped", kind=NO_SCENES, reason=reason)
        reason = "no scene of the acquisition has any of the bands"
        return _refusal(task, missing, "failed_no_tiles", reason)
    budgets = {band.label: BandBudget(budget, f"{task.id}: {band.label}") for band in task.bands}
    if not _has_parts(task, recipe, store):
        while True:
            refusal = _check_missing(task, recipe, missing)
            if refusal is not None:
                return refusal
            try:
                _compose(task, recipe, store, budgets, missing)
                break
            except LayerError as fault:
                # A file turned out to be unusable, perhaps halfway down the image. Start over
                # without it: what is above must be the same as if it had never been there.
                missing[fault.band][fault.name] = str(fault.cause)
    spending = {}
    for label, band_budget in budgets.items():
        band_budget.log_end()
        spending[label] = band_budget.spending
    if task.shards > 1:
        _assemble_if_complete(task, recipe, store)
    return Outcome(task=task.id, state="done", detail=spending)


def _missing_in_plan(task: GriddedTask) -> Missing:
    """Return the scenes that have no file of a band, as the plan knows already."""
    reason = "the scene has no such band"
    return {band.label: dict.fromkeys(band.absent, reason) for band in task.bands}


def _has_parts(task: TaskT, recipe: GriddedRecipe[TaskT], store: Store) -> bool:
    """Return whether the task is a shard whose parts an earlier run has stored."""
    if task.shards == 1:
        return False
    existing = store.list(task.parts_prefix)
    return all(
        task.part_key(output.name, task.shard) in existing for output in recipe.outputs(task, {})
    )


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


def _compose(
    task: TaskT,
    recipe: GriddedRecipe[TaskT],
    store: Store,
    budgets: Mapping[str, Budget],
    missing: Missing,
) -> None:
    """Read, compute, encode and publish, without the files that are missing.

    Raises:
        LayerError: One more file is unusable.
    """
    top, bottom, left, right = task.window
    grid = task.grid.grid[top:bottom, left:right]
    opened = _open_files(task, grid, budgets, missing)
    try:
        layers = _layers_by_label(task, opened)
        outputs = recipe.outputs(task, layers)
        encoders = [_encoder(task, grid, output) for output in outputs]
        # Closed before the files are, because its threads read from them.
        with closing(recipe.row_chunks(task, grid, layers)) as row_chunks:
            for index, _, pixels in row_chunks:
                encoders[index].add(pixels)
    finally:
        _close_all(opened)
    facts = []
    for output, encoder in zip(outputs, encoders, strict=True):
        facts.append({"valid": encoder.valid, "missing": _missing_of(output, missing)})
    if task.shards > 1:
        for output, encoder, fact in zip(outputs, encoders, facts, strict=True):
            encoder.store_part(store, task.part_key(output.name, task.shard), task.window, fact)
        return

    def publish(output: Output, encoder: ImageEncoder, fact: dict[str, Any]) -> dict[str, Any]:
        profile = cog_profile(task, output)
        file = publish_cog(store, task.output_key(output.name), profile, [encoder])
        return describe_output(task, output, file, [fact])

    # All bands are published at the same time, while the thumbnail is rendered; the item follows
    # when all of them are there.
    described = io_threads().map(publish, outputs, encoders, facts)
    previews = {out.name: encoder.preview() for out, encoder in zip(outputs, encoders, strict=True)}
    thumbnail = publish_thumbnail(task, store, recipe.render_thumbnail(outputs, previews))
    assets = {output.name: asset for output, asset in zip(outputs, described, strict=True)}
    add_statistics(outputs, assets, previews)
    publish_item(task, store, outputs, {**assets, "thumbnail": thumbnail}, missing)


def _open_files(
    task: GriddedTask, grid: Grid, budgets: Mapping[str, Budget], missing: Missing
) -> _OpenFiles:
    """Open every file that intersects the grid.

    Raises:
        LayerError: A file is permanently unusable, and no other error may pass.
        ReadError: A file may be readable later.
    """
    scenes = _scenes_on_grid(task, grid)
    # A header is one round trip: request all of them at once, and wait only then.
    futures: dict[tuple[str, str], Future[Source]] = {}
    for band in task.bands:
        for source in band.sources:
            if source.scene in scenes and source.scene not in missing[band.label]:
                futures[band.label, source.scene] = io_threads().submit(
                    open_source, source.href, source.index, budgets[band.label], source.signing
                )
    opened: _OpenFiles = {band.label: {} for band in task.bands}
    error_to_raise: Exception | None = None
    for (label, scene), future in futures.items():
        try:
            opened[label][scene] = future.result()
        except ReadError as error:
            # A transient error wins: the task fails now, so it need not start over without the
            # unusable files. The next run finds those again.
            if not error.permanent:
                error_to_raise = error
            elif error_to_raise is None:
                error_to_raise = LayerError(label, scene, error)
    if error_to_raise is not None:
        _close_all(opened)
        raise error_to_raise
    return opened


def _close_all(opened: _OpenFiles) -> None:
    for sources in opened.values():
        for source in sources.values():
            source.close()


def _scenes_on_grid(task: GriddedTask, grid: Grid) -> set[str]:
    """Return the ids of scenes whose footprint intersects the grid, or is not known."""
    extent = shapely.geometry.box(*grid.extent.boundingbox.bbox)
    scenes = set()
    for ref in task.scenes:
        footprint = ref.geometry
        if footprint is None or footprint.intersects(extent):
            scenes.add(ref.id)
    return scenes


def _layers_by_label(task: GriddedTask, opened: _OpenFiles) -> dict[str, BandLayers]:
    footprints = {ref.id: ref.geometry for ref in task.scenes}
    layers = {}
    for band in task.bands:
        if opened[band.label]:
            layers[band.label] = _build_layers(band, opened[band.label], footprints)
    return layers


def _build_layers(
    band: Band, opened: Mapping[str, Source], footprints: Mapping[str, BaseGeometry | None]
) -> BandLayers:
    """Stack the open files of a band in the order of its sources.

    Raises:
        LayerError: The nodata value of a file contradicts its collection's.
    """
    nodata = band.nodata
    layers = []
    for source in band.sources:
        if source.scene not in opened:
            continue
        file = opened[source.scene]
        try:
            nodata = resolve_nodata(source.href, file.info.nodata, nodata)
        except CheckError as fault:
            raise LayerError(band.label, source.scene, fault) from None
        layers.append(Layer(source.scene, file, source.add_offset, footprints[source.scene]))
    # The dtype of the plan, unless a file has values that it cannot hold.
    dtype = np.result_type(np.dtype(band.dtype), *(layer.source.info.dtype for layer in layers))
    return BandLayers(
        band.label,
        layers,
        dtype,
        nodata_in_dtype(nodata, dtype),
        band.resampling,
        method="first",  # the product replaces it where it merges by another one
        min_std_dev=band.min_std_dev,
    )


def _encoder(task: GriddedTask, grid: Grid, output: Output) -> ImageEncoder:
    """Create the encoder of an output, or of a shard of it."""
    shapes, keep_coarse = level_shapes(*grid.shape), False
    if task.shards > 1:
        # Only the levels whose blocks do not reach beyond the shard: see `imaging.shards`.
        levels = shared_levels(task.grid.shape, task.cell)
        shapes = shard_shapes(task.window, levels)
        keep_coarse = levels < len(level_shapes(*task.grid.shape))
    return ImageEncoder(
        shapes,
        output.dtype,
        output.nodata,
        codec=task.codec,
        average=not output.categorical,
        keep_coarse=keep_coarse,
    )


def _missing_of(output: Output, missing: Missing) -> dict[str, str]:
    """Return scene → reason for the missing files of an output."""
    reasons: dict[str, str] = {}
    for band in (*output.inputs, *output.masks):
        reasons.update(missing[band.label])
    return reasons


def _assemble_if_complete(task: TaskT, recipe: GriddedRecipe[TaskT], store: Store) -> None:
    """Assemble the COGs if the parts of all shards are there.

    Each shard tries it after its own part is stored, so the last one succeeds. If two shards finish
    at once, both assemble: they publish the same bytes, and publishing is atomic.
    """
    shards = range(task.shards)
    outputs = recipe.outputs(task, {})
    all_parts: set[str] = set()
    for output in outputs:
        all_parts.update(task.part_key(output.name, shard) for shard in shards)
    # Otherwise other shards are not finished, or another worker has assembled the COGs already and
    # deleted the parts.
    if not all_parts <= store.list(task.parts_prefix):
        return
    assets = {}
    for output in outputs:
        part_keys = [task.part_key(output.name, shard) for shard in shards]
        file, headers = assemble(
            store,
            part_keys,
            task.output_key(output.name),
            cog_profile(task, output),
            average=not output.categorical,
        )
        # The plan knows the expected dtype and nodata value, the parts know the real ones.
        made = replace(output, dtype=np.dtype(headers[0].dtype), nodata=headers[0].nodata)
        facts = [header.facts for header in headers]
        assets[output.name] = describe_output(task, made, file, facts)
    previews = read_previews(store, {name: (task.output_key(name), 1) for name in assets})
    add_statistics(outputs, assets, previews)
    thumbnail = publish_thumbnail(task, store, recipe.render_thumbnail(outputs, previews))
    publish_item(task, store, outputs, {**assets, "thumbnail": thumbnail}, _missing_in_plan(task))
    store.delete(sorted(all_parts))
