"""Gridded products: inputs of many files → COGs on one grid, whole or in shards, with a STAC item.

What is computed of the inputs is the product's (a Recipe); reading, encoding, publishing, shards, and what becomes of a
file that cannot be used are the same for all.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from dataclasses import replace
from typing import Any, Generic, TypeVar

import numpy as np
import shapely

from scenebeam.errors import CheckError, ReadError
from scenebeam.imaging.band_budget import BandBudget
from scenebeam.imaging.bands import Band, resolve_nodata
from scenebeam.imaging.encode import ImageEncoder, publish_cog
from scenebeam.imaging.gridded_item import cog_profile, describe_output, publish_item
from scenebeam.imaging.gridded_task import GriddedTask, Missing, Output
from scenebeam.imaging.shards import PARTS_PREFIX, assemble, shard_shapes, shared_levels
from scenebeam.raster.compose import BandLayers, Layer, LayerError
from scenebeam.raster.grid import Grid
from scenebeam.raster.pyramid import level_shapes
from scenebeam.raster.reader import open_source
from scenebeam.raster.source import Source
from scenebeam.raster.validity import Array, nodata_in_dtype
from scenebeam.storage import Store
from scenebeam.tasks import Outcome
from scenebeam.transfer.pools import io_threads
from scenebeam.transfer.retry import Budget

TaskT = TypeVar("TaskT", bound=GriddedTask)


class GriddedRecipe(ABC, Generic[TaskT]):
    """What a gridded product computes of its inputs. Everything else is the same for all of them."""

    @abstractmethod
    def outputs(self, task: TaskT, layers: Mapping[str, BandLayers]) -> list[Output]:
        """The outputs of a task.

        Args:
            task: The task.
            layers: The open inputs by label, which may need a wider dtype than the plan expects;
                empty when the plan is all there is.
        """

    @abstractmethod
    def row_chunks(
        self, task: TaskT, grid: Grid, layers: Mapping[str, BandLayers]
    ) -> Iterator[tuple[int, int, Array]]:
        """Compute the outputs from top to bottom.

        Yields:
            (index of the output, first row, pixels), in rows of the grid.
        """

    @abstractmethod
    def reason_to_refuse(self, task: TaskT, missing: Missing) -> str:
        """Why nothing can be made of the files that are left; empty if something can."""


def make_gridded(
    task: TaskT, recipe: GriddedRecipe[TaskT], store: Store, budget: Budget
) -> Outcome:
    """Make the COGs of one task, or one shard of them, and publish them.

    A file that is missing or broken for good is left out and named, or ends the task, as `on_missing` says.
    Raises ReadError where a file may be read later, and StorageError where nothing can be published.
    """
    missing = _absent(task)
    if not any(band.sources for band in task.bands):
        return _refusal(
            task, missing, "failed_no_tiles", "no tile of the acquisition has any of the bands"
        )
    parts = {task.part_key(output.name, task.shard) for output in recipe.outputs(task, {})}
    budgets = {band.label: BandBudget(budget, f"{task.id}: {band.label}") for band in task.bands}
    if task.shards == 1 or not parts <= store.list(f"{PARTS_PREFIX}{task.name}/"):
        while True:
            refused = _check_missing(task, recipe, missing)
            if refused is not None:
                return refused
            try:
                _compose(task, recipe, store, budgets, missing)
                break
            except LayerError as fault:
                # From the start without the file: the result does not depend on how far it had been read.
                missing[fault.band][fault.name] = str(fault.cause)
    for own in budgets.values():
        own.log_end()
    spending = {label: own.spending for label, own in budgets.items()}
    if task.shards > 1:
        return _put_together(task, recipe, store, spending)
    return Outcome(task=task.id, state="done", detail=spending)


def _check_missing(task: TaskT, recipe: GriddedRecipe[TaskT], missing: Missing) -> Outcome | None:
    if task.on_missing != "best-available" and any(missing.values()):
        return _refusal(task, missing, "failed_missing_inputs", describe_missing(missing))
    lacking = recipe.reason_to_refuse(task, missing)
    return _refusal(task, missing, "failed_missing_inputs", lacking) if lacking else None


def _refusal(task: GriddedTask, missing: Missing, kind: str, reason: str) -> Outcome:
    state = "skipped" if task.on_missing == "skip" else "failed"
    detail = {"missing": missing}
    return Outcome(
        task=task.id, state=state, kind=kind, reason=reason, permanent=True, detail=detail
    )


def has_no_source(band: Band, missing: Missing) -> bool:
    """Whether no file of a band is left."""
    return len(missing[band.label]) == len(band.sources) + len(band.absent)


def describe_missing(missing: Missing) -> str:
    """What is missing, and why, in words."""
    return "; ".join(
        f"{band} of {scene}: {why}"
        for band, scenes in missing.items()
        for scene, why in scenes.items()
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
    opened = _open_all(task, budgets, missing)
    try:
        footprints = {ref.id: ref.footprint for ref in task.scenes}
        layers: dict[str, BandLayers] = {}
        for band in task.bands:
            if opened[band.label]:
                layers[band.label] = build_layers(band, opened[band.label], footprints)
        outputs = recipe.outputs(task, layers)
        encoders = [_encoder(task, grid, output) for output in outputs]
        for index, _, pixels in recipe.row_chunks(task, grid, layers):
            encoders[index].add(pixels)
    finally:
        for sources in opened.values():
            for source in sources.values():
                source.close()
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

    described = io_threads().map(publish, outputs, encoders, facts)
    assets = {output.name: asset for output, asset in zip(outputs, described, strict=True)}
    publish_item(task, store, outputs, assets, missing)


def _encoder(task: GriddedTask, grid: Grid, output: Output) -> ImageEncoder:
    """The encoder of an output: a shard has only the levels that its window allows."""
    shapes, keep_coarse = level_shapes(*grid.shape), False
    if task.shards > 1:
        levels = shared_levels(task.grid.shape, task.cell)
        shapes = shard_shapes(task.window, levels)
        # The coarser levels are made of the coarse pixels of all shards when they are assembled.
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
    return {scene: why for band in output.inputs for scene, why in missing[band.label].items()}


def _open_all(
    task: GriddedTask, budgets: Mapping[str, Budget], missing: Missing
) -> dict[str, dict[str, Source]]:
    """Open every file that the window needs, all headers in flight at once: label → scene → source."""
    scenes = _scenes_in_window(task)
    futures: dict[tuple[str, str], Future[Source]] = {
        (band.label, source.scene): io_threads().submit(
            open_source, source.href, source.index, budgets[band.label], source.signing
        )
        for band in task.bands
        for source in band.sources
        if source.scene in scenes and source.scene not in missing[band.label]
    }
    opened: dict[str, dict[str, Source]] = {band.label: {} for band in task.bands}
    fault: Exception | None = None
    for (band, scene), future in futures.items():
        try:
            opened[band][scene] = future.result()
        except ReadError as error:
            if fault is None or not error.permanent:
                fault = LayerError(band, scene, error) if error.permanent else error
    if fault is not None:
        for sources in opened.values():
            for source in sources.values():
                source.close()
        raise fault
    return opened


def _scenes_in_window(task: GriddedTask) -> set[str]:
    top, bottom, left, right = task.window
    extent = shapely.geometry.box(*task.grid.grid[top:bottom, left:right].extent.boundingbox.bbox)
    return {
        ref.id
        for ref in task.scenes
        if ref.footprint is None or shapely.from_wkb(ref.footprint).intersects(extent)
    }


def build_layers(
    band: Band,
    opened: Mapping[str, Source],
    footprints: Mapping[str, str | None],
    method: str = "first",
) -> BandLayers:
    """A band ready to compose. Raises LayerError for a file whose nodata contradicts its collection's."""
    nodata = band.nodata
    layers = []
    for source in band.sources:
        if source.scene not in opened:
            continue
        try:
            nodata = resolve_nodata(source.href, opened[source.scene].info.nodata, nodata)
        except CheckError as fault:
            raise LayerError(band.label, source.scene, fault) from None
        footprint = footprints[source.scene]
        layers.append(
            Layer(
                name=source.scene,
                source=opened[source.scene],
                add_offset=source.add_offset,
                footprint=None if footprint is None else shapely.from_wkb(footprint),
            )
        )
    # Kept, or promoted to what holds every file's numbers.
    dtype = np.result_type(np.dtype(band.dtype), *(layer.source.info.dtype for layer in layers))
    nodata = nodata_in_dtype(nodata, dtype)
    return BandLayers(band.label, layers, dtype, nodata, band.resampling, method, band.min_std_dev)


def _put_together(
    task: TaskT, recipe: GriddedRecipe[TaskT], store: Store, spending: dict[str, Any]
) -> Outcome:
    """The last shard to finish puts the whole together; two at once publish the same bytes."""
    shards = range(task.shards)
    outputs = recipe.outputs(task, {})
    wanted = {task.part_key(output.name, shard) for output in outputs for shard in shards}
    if not wanted <= store.list(f"{PARTS_PREFIX}{task.name}/"):
        # Others are still to come, or another worker was faster, and has tidied up.
        return Outcome(task=task.id, state="done", detail=spending)
    assets = {}
    for output in outputs:
        names = [task.part_key(output.name, shard) for shard in shards]
        file, parts = assemble(
            store,
            names,
            task.output_key(output.name),
            cog_profile(task, output),
            average=not output.categorical,
        )
        made = replace(output, dtype=np.dtype(parts[0].dtype), nodata=parts[0].nodata)
        assets[output.name] = describe_output(task, made, file, [part.facts for part in parts])
    publish_item(task, store, outputs, assets, _absent(task))
    store.delete(sorted(wanted))
    return Outcome(task=task.id, state="done", detail=spending)


def _absent(task: GriddedTask) -> Missing:
    """Scenes that lack a band, as the plan has them."""
    reason = "the scene has no such band"
    return {band.label: dict.fromkeys(band.absent, reason) for band in task.bands}
