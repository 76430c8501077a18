"""Make stacks: fetch or read the bands of a scene, each on its own, check them, and put them onto one grid."""

from __future__ import annotations

import logging
import os.path
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

from scenebeam.errors import CheckError, SceneBeamError, is_permanent
from scenebeam.imaging.bands import band_spec
from scenebeam.imaging.thumbnails import read_previews, render_png
from scenebeam.products.stacks.bands import BandStates
from scenebeam.products.stacks.encode import (
    BandOnGrid,
    Encoded,
    common_encoding,
    decode_band,
    encode_band,
    write_stack,
)
from scenebeam.products.stacks.files import fetch_files, open_bands
from scenebeam.products.stacks.grids import own_grid, warnings_of
from scenebeam.products.stacks.item import MadeStack, publish_item
from scenebeam.products.stacks.overlay import write_overlay
from scenebeam.products.stacks.task import StackBand, StackTask
from scenebeam.raster.compose import LayerError
from scenebeam.raster.grid import Grid
from scenebeam.raster.source import Source
from scenebeam.raster.validity import Array
from scenebeam.storage import Store
from scenebeam.tasks import Outcome
from scenebeam.transfer.retry import Budget

log = logging.getLogger("scenebeam.progress")

VISUAL_ONLY = "Visualization mode: spectral analysis not possible with the true-colour image"
NO_VISUAL = "No visualization asset available for this item"


def make_stack(task: StackTask, store: Store, budget: Budget) -> Outcome:
    """Make the stacks of one scene, and publish them with its item.

    A band that fails is named and loses none of the others: what is finished is not fetched or made again. Without a
    required band there is no stack; an optional one is left out with a warning, unless it may be read later.
    """
    bands = BandStates(task, budget)
    if task.visualization:
        bands.warnings.append(VISUAL_ONLY)
        log.warning("%s: %s", task.scene.id, VISUAL_ONLY)
    for band in task.bands:
        if not isinstance(band, StackBand):
            told = NO_VISUAL if task.visualization else f"the item has no file of {band.name}"
            bands.fail(band.name, CheckError(told))
    fetch_files(task, store, budget, bands)
    with ExitStack() as files:
        opened = open_bands(task, store, bands, files)
        grids = {
            stack: own_grid(
                task, [(band, opened[band.name].info) for band in bands.left if band.stack == stack]
            )
            for stack in {band.stack for band in bands.left}
        }
        for band in bands.left:
            bands.warnings += warnings_of(band, opened[band.name].info, grids[band.stack])
        if task.format == "vrt":
            return _lay_over(task, store, bands, opened, grids)
        return _encode(task, store, bands, opened, grids)


def _encode(
    task: StackTask,
    store: Store,
    bands: BandStates,
    opened: dict[str, Source],
    grids: dict[str, Grid],
) -> Outcome:
    """One COG a stack: bands are made side by side, and a finished one is kept while another is not."""
    encoded: dict[str, Encoded] = {}
    numbers = {
        stack: common_encoding(
            [(band, opened[band.name].info) for band in bands.left if band.stack == stack]
        )
        for stack in grids
    }
    parts = store.list(os.path.dirname(task.part_key("")) + "/")
    with ExitStack() as kept:

        def encode(band: StackBand) -> None:
            source, target = opened[band.name], (grids[band.stack], numbers[band.stack])
            encoded[band.name] = encode_band(task, band, source, *target, store, parts, kept)

        _for_each_band(bands, encode)
        for band in list(bands.left):
            bands.check_band(band, encoded[band.name].content.sample)
        refused = _refusal(task, bands)
        if refused is not None:
            for name, one in encoded.items():
                if bands.failed.get(name) is None:
                    one.keep(store)
            return refused
        made = {}
        for stack in task.stacks:
            inside = [band for band in bands.left if band.stack == stack]
            if inside:
                facts = [encoded[band.name] for band in inside]
                made[stack] = write_stack(
                    task, stack, inside, facts, grids[stack], numbers[stack], store
                )
    _publish(task, store, made, bands)
    store.delete(sorted(parts | {task.part_key(band.name) for band in task.bands}))
    return _done(bands)


def _lay_over(
    task: StackTask,
    store: Store,
    bands: BandStates,
    opened: dict[str, Source],
    grids: dict[str, Grid],
) -> Outcome:
    """One VRT a stack over the bands' files, after what lies on its grid was decoded and judged."""
    content: dict[str, BandOnGrid] = {}

    def look(band: StackBand) -> None:
        content[band.name] = decode_band(task, band, opened[band.name], grids[band.stack])

    _for_each_band(bands, look)
    for band in list(bands.left):
        bands.check_band(band, content[band.name].sample)
    refused = _refusal(task, bands)
    if refused is not None:
        return refused
    made = {}
    for stack in task.stacks:
        inside = [(band, opened[band.name].info) for band in bands.left if band.stack == stack]
        if inside:
            made[stack] = write_overlay(task, stack, inside, content, grids[stack], store)
    pictures = {name: one.picture for name, one in content.items() if one.picture is not None}
    _publish(task, store, made, bands, pictures)
    return _done(bands)


def _for_each_band(bands: BandStates, work: Callable[[StackBand], None]) -> None:
    """Do the work of each band that is left, as many at once as memory allows.

    One that fails stops no other.
    """

    def try_band(band: StackBand) -> None:
        try:
            with bands.budgets[band.name].timed():
                work(band)
            bands.complete_band(band.name)
        except LayerError as fault:
            cause = fault.cause
            bands.fail(band.name, cause if isinstance(cause, SceneBeamError) else fault)
        except SceneBeamError as error:
            bands.fail(band.name, error)

    with ThreadPoolExecutor(max(bands.task.at_once, 1)) as threads:
        list(threads.map(try_band, bands.left))


def _publish(
    task: StackTask,
    store: Store,
    made: dict[str, MadeStack],
    bands: BandStates,
    seen: dict[str, Array] | None = None,
) -> None:
    """Publish the last outputs: a small picture of the first stack if it is wanted, and the item.

    `seen` are small pictures of the bands on its grid, where there are any.
    """
    for name, why in bands.missing.items():
        bands.warnings.append(f"{name} is not in the stack: {why}")
    if task.checks.screenshot:
        stack, first = next(iter(made.items()))
        if (
            seen is not None
        ):  # a VRT names other files, and in a bucket none that names others is opened
            pictures = {band.name: seen[band.name] for band in first.bands}
        else:
            path = task.stack_key(stack)
            bands_of = {
                band.name: (path, number) for number, band in enumerate(first.bands, start=1)
            }
            pictures = read_previews(store, bands_of)
        store.write(task.screenshot_key, render_png(pictures, band_spec(first.bands[0].asset).unit))
    publish_item(task, store, made, bands.missing, bands.warnings)


def _refusal(task: StackTask, bands: BandStates) -> Outcome | None:
    """Why there can be no stack now; None where there can."""
    needed = [band.name for band in task.bands if band.required and band.name in bands.failed]
    later = [name for name, error in bands.failed.items() if not is_permanent(error)]
    empty = set(task.stacks) - {band.stack for band in bands.left}
    if not needed and not later and not empty:
        return None
    kind = "failed_required_bands" if needed or not later else "failed_bands_for_now"
    told = "; ".join(f"{name}: {why}" for name, why in bands.missing.items())
    if task.visualization and any(str(error) == NO_VISUAL for error in bands.failed.values()):
        kind, told = "failed_no_visualization", NO_VISUAL
    return Outcome(
        task=task.id,
        state="failed",
        kind=kind,
        reason=f"{bands.summary}: {told}",
        permanent=not later,
        detail=bands.detail,
    )


def _done(bands: BandStates) -> Outcome:
    return Outcome(task=bands.task.id, state="done", detail=bands.detail)
