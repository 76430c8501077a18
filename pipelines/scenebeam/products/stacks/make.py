"""Make the stacks of a scene: check each band on its own, and publish them on one grid."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

from scenebeam.errors import CheckError, SceneBeamError, is_permanent
from scenebeam.imaging.bands import scale_offset
from scenebeam.imaging.thumbnails import ThumbnailBand, read_previews, render_thumbnail
from scenebeam.products.stacks.bands import BandStates
from scenebeam.products.stacks.content import BandContent, summarize_band
from scenebeam.products.stacks.encode import (
    EncodedBand,
    StoredParts,
    common_encoding,
    encode_band,
    write_stack,
)
from scenebeam.products.stacks.files import fetch_files, open_bands
from scenebeam.products.stacks.grids import stack_grid, warnings_of
from scenebeam.products.stacks.item import PublishedStack, publish_item
from scenebeam.products.stacks.overlay import write_overlay
from scenebeam.products.stacks.slices import StackSlice, encode_slice, write_slice
from scenebeam.products.stacks.task import StackBand, StackTask
from scenebeam.raster.grid import Grid
from scenebeam.raster.layers import LayerError
from scenebeam.raster.source import RasterInfo, Source
from scenebeam.raster.validity import Array
from scenebeam.storage import Store
from scenebeam.tasks import CubeSlice, Outcome
from scenebeam.transfer.retry import Budget

log = logging.getLogger("scenebeam.progress")

VISUAL_ONLY = "Visualization mode: spectral analysis not possible with the true-color image"
NO_VISUAL = "No visualization asset available for this item"


def make_stack(task: StackTask, store: Store, budget: Budget) -> Outcome:
    """Make the stacks of one scene, and publish them with its item.

    A band that fails does not stop the others: what is complete is not downloaded or encoded again
    by the next run. Without a required band there is no stack. An optional band is left out with a
    warning, but if it may be readable later, the task fails and the next run retries it.

    Args:
        task: The task.
        store: The output.
        budget: Retries and waiting time of the whole task.

    Returns:
        The outcome; `detail` is that of `BandStates`.

    Raises:
        CheckError: The area or the bands do not overlap.
        StorageError: An output cannot be published.
    """
    bands = BandStates(task, budget)
    if task.visualization:
        bands.warnings.append(VISUAL_ONLY)
        log.warning("%s: %s", task.scene.id, VISUAL_ONLY)
    for band in task.bands:
        if not isinstance(band, StackBand):
            reason = NO_VISUAL if task.visualization else f"the item has no file of {band.name}"
            bands.fail(band.name, CheckError(reason))
    fetch_files(task, store, budget, bands)
    with ExitStack() as files:
        opened = open_bands(task, store, bands, files)
        grids: dict[str, Grid] = {}
        for stack in {band.stack for band in bands.usable}:
            grids[stack] = stack_grid(task, _headers(bands, stack, opened))
        for band in bands.usable:
            bands.warnings += warnings_of(band, opened[band.name].info, grids[band.stack])
        if task.cube is not None:
            return _make_slices(task, task.cube, store, bands, opened, grids)
        if task.format == "vrt":
            return _make_vrts(task, store, bands, opened, grids)
        return _make_cogs(task, store, bands, opened, grids)


def _headers(
    bands: BandStates, stack: str, opened: Mapping[str, Source]
) -> list[tuple[StackBand, RasterInfo]]:
    """Return the usable bands of one stack, and the headers of their files."""
    return [(band, opened[band.name].info) for band in bands.usable_in(stack)]


def _make_cogs(
    task: StackTask,
    store: Store,
    bands: BandStates,
    opened: Mapping[str, Source],
    grids: Mapping[str, Grid],
) -> Outcome:
    """Publish one COG per stack."""
    encodings = {}
    for stack in grids:
        sources = [(band, opened[band.name]) for band in bands.usable_in(stack)]
        encodings[stack] = common_encoding(task, sources, grids[stack])
    encoded: dict[str, EncodedBand] = {}
    with StoredParts(task, store) as parts:

        def encode(band: StackBand) -> None:
            grid, encoding = grids[band.stack], encodings[band.stack]
            source = opened[band.name]
            encoded[band.name] = encode_band(task, band, source, grid, encoding, store, parts)

        _for_each_band(bands, encode)
        for band in bands.usable:
            bands.check_band(band, encoded[band.name].content.sample)
        refusal = _refusal(task, bands)
        if refusal is not None:
            # Keep what is encoded for the run that can finish the stack.
            for name, encoded_band in encoded.items():
                if name not in bands.failed:
                    encoded_band.keep(store)
            return refusal
        stacks = {}
        for stack in task.stacks:
            inside = [(band, encoded[band.name]) for band in bands.usable_in(stack)]
            if inside:
                stacks[f"stack{stack}"] = write_stack(
                    task, stack, inside, grids[stack], encodings[stack], store
                )
    _publish(task, store, stacks, bands)
    store.delete(sorted(parts.keys | {task.part_key(band.name) for band in task.bands}))
    return _done(bands)


def _make_vrts(
    task: StackTask,
    store: Store,
    bands: BandStates,
    opened: Mapping[str, Source],
    grids: Mapping[str, Grid],
) -> Outcome:
    """Publish one VRT per stack, after all that is on its grid was decoded and checked."""
    contents: dict[str, BandContent] = {}

    def summarize(band: StackBand) -> None:
        contents[band.name] = summarize_band(task, band, opened[band.name], grids[band.stack])

    _for_each_band(bands, summarize)
    for band in bands.usable:
        bands.check_band(band, contents[band.name].sample)
    refusal = _refusal(task, bands)
    if refusal is not None:
        return refusal
    stacks = {}
    for stack in task.stacks:
        inside = _headers(bands, stack, opened)
        if inside:
            grid = grids[stack]
            stacks[f"stack{stack}"] = write_overlay(task, stack, inside, contents, grid, store)
    previews = {}
    for name, content in contents.items():
        if content.preview is not None:
            previews[name] = content.preview
    _publish(task, store, stacks, bands, previews)
    return _done(bands)


def _make_slices(
    task: StackTask,
    place: CubeSlice,
    store: Store,
    bands: BandStates,
    opened: Mapping[str, Source],
    grids: Mapping[str, Grid],
) -> Outcome:
    """Write each band as one time of a variable of the run's store."""
    grid, slices = grids[""], dict[str, StackSlice]()

    def encode(band: StackBand) -> None:
        slices[band.name] = encode_slice(task, place, band, opened[band.name], grid)

    _for_each_band(bands, encode)
    for band in bands.usable:
        bands.check_band(band, slices[band.name].content.sample)
    refusal = _refusal(task, bands)
    if refusal is not None:
        return refusal
    stacks, previews = {}, {}
    for band in bands.usable:
        made = slices[band.name]
        stacks[band.name] = write_slice(task, place, made, grid, store)
        previews[band.name] = made.image.preview()
    _publish(task, store, stacks, bands, previews)
    return _done(bands)


def _for_each_band(bands: BandStates, work: Callable[[StackBand], None]) -> None:
    """Call a function for each usable band, as many at once as memory allows.

    A band that fails is recorded, and stops no other.
    """

    def try_band(band: StackBand) -> None:
        try:
            with bands.budgets[band.name].timed():
                work(band)
            bands.complete_band(band.name)
        except LayerError as error:
            cause = error.cause
            bands.fail(band.name, cause if isinstance(cause, SceneBeamError) else error)
        except SceneBeamError as error:
            bands.fail(band.name, error)

    with ThreadPoolExecutor(max(bands.task.at_once, 1)) as threads:
        list(threads.map(try_band, bands.usable))


def _publish(
    task: StackTask,
    store: Store,
    stacks: Mapping[str, PublishedStack],
    bands: BandStates,
    previews: Mapping[str, Array] | None = None,
) -> None:
    """Publish the last outputs: a thumbnail of the first stack if it is requested, and the item.

    Args:
        task: The task.
        store: The output.
        stacks: Name of an asset → published stack.
        bands: State of the bands.
        previews: Name of a band → preview; by default they are read from the published stack.
    """
    for name, reason in bands.missing.items():
        bands.warnings.append(f"{name} is not in the stack: {reason}")
    if task.checks.screenshot:
        first = next(iter(stacks.values()))
        drawn = [one for made in stacks.values() if made.grid == first.grid for one in made.bands]
        names = [stacked.band.name for stacked in drawn]
        if previews is None:
            key = task.stack_key(drawn[0].band.stack)
            indices = {name: (key, index) for index, name in enumerate(names, start=1)}
            shown = read_previews(store, indices)
        else:
            # A VRT is not read back: in a bucket, none that refers to other files is opened.
            shown = {name: previews[name] for name in names}
        thumbnail = []
        for stacked in drawn:
            band = stacked.band
            scale, offset = scale_offset(band.asset, task.values)
            thumbnail.append(
                ThumbnailBand(
                    name=band.asset.band,
                    values=shown[band.name] * scale + offset,
                    is_scaled=scale != 1,
                    categorical=band.asset.categorical,
                )
            )
        store.write(task.screenshot_key, render_thumbnail(thumbnail))
    publish_item(task, store, stacks, bands.missing, bands.warnings)


def _refusal(task: StackTask, bands: BandStates) -> Outcome | None:
    """Return the outcome of a task without stacks; None if they can be made."""
    required = [band.name for band in task.bands if band.required and band.name in bands.failed]
    retryable = [name for name, error in bands.failed.items() if not is_permanent(error)]
    empty = set(task.stacks) - {band.stack for band in bands.usable}
    if not required and not retryable and not empty:
        return None
    kind = "failed_required_bands" if required or not retryable else "failed_bands_for_now"
    reason = "; ".join(f"{name}: {why}" for name, why in bands.missing.items())
    if task.visualization and any(str(error) == NO_VISUAL for error in bands.failed.values()):
        kind, reason = "failed_no_visualization", NO_VISUAL
    return Outcome(
        task=task.id,
        state="failed",
        kind=kind,
        reason=f"{bands.summary}: {reason}",
        permanent=not retryable,
        detail=bands.detail,
    )


def _done(bands: BandStates) -> Outcome:
    return Outcome(task=bands.task.id, state="done", detail=bands.detail)
