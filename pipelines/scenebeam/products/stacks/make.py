"""Make stacks: fetch or read the bands of a scene, each on its own, check them, and put them onto one grid."""

from __future__ import annotations

import logging
import os.path
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field

from scenebeam.errors import CheckError, ReadError, SceneBeamError, StorageError, unexpected
from scenebeam.products.fetch import fetch
from scenebeam.products.inputs import settled_nodata, spec_of
from scenebeam.products.pictures import draw, look_back
from scenebeam.products.stacks.encode import Encoded, encode_band, nodata_of, stack_numbers, write_stack
from scenebeam.products.stacks.grids import own_grid, warnings_of
from scenebeam.products.stacks.item import MadeStack, publish_item
from scenebeam.products.stacks.overlay import write_overlay
from scenebeam.products.stacks.task import StackBand, StackTask
from scenebeam.products.task import Outcome
from scenebeam.raster.checks import BandSpec, Finding, judge
from scenebeam.raster.compose import LayerError
from scenebeam.raster.grid import Grid
from scenebeam.raster.reader import Source, open_source
from scenebeam.raster.validate import sample_source
from scenebeam.storage import Store
from scenebeam.transfer.ranges import Budget, io_threads

log = logging.getLogger("scenebeam.progress")

VISUAL_ONLY = "Visualization mode: spectral analysis not possible with the true-colour image"
NO_VISUAL = "No visualization asset available for this item"


@dataclass
class _Bands:
    """What has become of each band so far. Threads share it."""

    task: StackTask
    complete: set[str] = field(default_factory=set)
    failed: dict[str, SceneBeamError] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def completed(self, band: str) -> None:
        with self._lock:
            self.complete.add(band)
            log.info("%s: %s is done, %s", self.task.scene, band, self.told)

    def fail(self, band: str, error: SceneBeamError) -> None:
        with self._lock:
            self.failed[band] = error
            self.complete.discard(band)
            log.warning("%s: %s FAILED (%s), %s", self.task.scene, band, error, self.told)

    @property
    def told(self) -> str:
        """`3/6 bands complete, 1 failed`."""
        failed = f", {len(self.failed)} failed" if self.failed else ""
        return f"{len(self.complete)}/{len(self.task.bands)} bands complete{failed}"

    @property
    def left(self) -> list[StackBand]:
        """Bands that nothing has gone wrong with."""
        return [band for band in self.task.bands if band.name not in self.failed]

    @property
    def missing(self) -> dict[str, str]:
        """Band → why it is not in the stack."""
        return {band.name: str(self.failed[band.name]) for band in self.task.bands if band.name in self.failed}


def make(task: StackTask, store: Store, budget: Budget) -> Outcome:
    """Make the stacks of one scene, and publish them with its item.

    A band that fails is named and loses none of the others: what is finished is not fetched or made again. Without a
    required band there is no stack; an optional one is left out and listed, unless it may be read later.
    """
    bands = _Bands(task)
    if task.visualization:
        bands.warnings.append(VISUAL_ONLY)
        log.warning("%s: %s", task.scene, VISUAL_ONLY)
    for band in task.bands:
        if band.asset is None:
            told = NO_VISUAL if task.visualization else f"the item has no file of {band.name}"
            bands.fail(band.name, CheckError(told))
    _fetch(task, store, budget, bands)
    with ExitStack() as files:
        opened = _open(task, store, budget, bands, files)
        grids = {
            stack: own_grid(task, [(band, opened[band.name].info) for band in bands.left if band.stack == stack])
            for stack in {band.stack for band in bands.left}
        }
        for band in bands.left:
            bands.warnings += warnings_of(band, opened[band.name].info, grids[band.stack])
        if task.format == "vrt":
            return _lay_over(task, store, bands, opened, grids)
        return _encode(task, store, bands, opened, grids)


def _fetch(task: StackTask, store: Store, budget: Budget, bands: _Bands) -> None:
    """Bring the bands' own files into the store, each once; those that are there are not fetched again."""
    by_file: dict[str, list[StackBand]] = {}
    for band in bands.left:
        if band.file:
            by_file.setdefault(band.file, []).append(band)
    if not by_file:
        return
    here = store.list(task.file_path(""))

    def bring(file: str, sharing: list[StackBand]) -> None:
        asset = sharing[0].asset
        assert asset is not None, "a band without a file has failed before"
        name = task.file_path(file)
        fault = None
        try:
            if name in here:
                log.info("%s: %s is there already, skipping", task.scene, file)
            else:
                fetch(asset, store, name, budget, task.checks)
        except SceneBeamError as error:
            fault = error
        except Exception as error:
            log.exception("%s of %s", file, task.scene)
            fault = StorageError(unexpected(error))
        for band in sharing:
            if fault is None:
                bands.completed(band.name)
            else:
                bands.fail(band.name, fault)

    with ThreadPoolExecutor(min(len(by_file), budget.download_workers)) as threads:
        list(threads.map(bring, by_file, by_file.values()))


def _open(task: StackTask, store: Store, budget: Budget, bands: _Bands, files: ExitStack) -> dict[str, Source]:
    """Read the header of every band's file, all in flight at once."""

    def open_one(band: StackBand) -> Source:
        asset = band.asset
        assert asset is not None, "a band without a file has failed before"
        if band.file:
            source = open_source(store.path(task.file_path(band.file)), asset.index, budget)
        else:
            source = open_source(asset.href, asset.index, budget, asset.signing)
        files.callback(source.close)
        settled_nodata(asset.href, source.info.nodata, asset.nodata)
        return source

    futures = {band.name: io_threads().submit(open_one, band) for band in bands.left}
    opened = {}
    for name, future in futures.items():
        try:
            opened[name] = future.result()
        except (ReadError, CheckError) as error:
            bands.fail(name, error)
    return opened


def _encode(task: StackTask, store: Store, bands: _Bands, opened: dict[str, Source], grids: dict[str, Grid]) -> Outcome:
    """One COG a stack: bands are made side by side, and a finished one is kept while another is not."""
    encoded: dict[str, Encoded] = {}
    numbers = {
        stack: stack_numbers([(band, opened[band.name].info) for band in bands.left if band.stack == stack])
        for stack in grids
    }
    parts = store.list(os.path.dirname(task.part_path("")) + "/")
    with ExitStack() as kept:

        def encode(band: StackBand) -> None:
            where = grids[band.stack], numbers[band.stack]
            try:
                encoded[band.name] = encode_band(task, band, opened[band.name], *where, store, parts, kept)
                bands.completed(band.name)
            except LayerError as fault:
                cause = fault.cause
                bands.fail(band.name, cause if isinstance(cause, SceneBeamError) else fault)
            except SceneBeamError as error:
                bands.fail(band.name, error)

        with ThreadPoolExecutor(max(task.at_once, 1)) as threads:
            list(threads.map(encode, bands.left))
        for band in list(bands.left):
            _heed(bands, band, judge(band.name, encoded[band.name].sample, _spec(band), task.checks))
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
                made[stack] = write_stack(task, stack, inside, facts, grids[stack], numbers[stack], store)
    _publish(task, store, made, bands)
    store.delete(sorted(parts | {task.part_path(band.name) for band in task.bands}))
    return _done(bands)


def _lay_over(
    task: StackTask,
    store: Store,
    bands: _Bands,
    opened: dict[str, Source],
    grids: dict[str, Grid],
) -> Outcome:
    """One VRT a stack over the bands' files, after a look at each of them."""
    for band in list(bands.left):
        source = opened[band.name]
        try:
            sample = sample_source(source, _spec(band), nodata_of(band, source.info))
        except ReadError as error:
            bands.fail(band.name, error)
            continue
        _heed(bands, band, judge(band.name, sample, _spec(band), task.checks))
        if band.name not in bands.failed:
            bands.complete.add(band.name)
    refused = _refusal(task, bands)
    if refused is not None:
        return refused
    made = {}
    for stack in task.stacks:
        inside = [(band, opened[band.name].info) for band in bands.left if band.stack == stack]
        if inside:
            made[stack] = write_overlay(task, stack, inside, grids[stack], store)
    _publish(task, store, made, bands)
    return _done(bands)


def _publish(task: StackTask, store: Store, made: dict[str, MadeStack], bands: _Bands) -> None:
    """The last outputs: a small picture of the first stack if it is wanted, and the item."""
    if task.checks.screenshot:
        stack, first = next(iter(made.items()))
        bands_of = {band.name: (task.stack_path(stack), number) for number, band in enumerate(first.bands, start=1)}
        store.write(task.screenshot_path, draw(look_back(store, bands_of), _spec(first.bands[0]).unit))
    publish_item(task, store, made, bands.missing, bands.warnings)


def _spec(band: StackBand) -> BandSpec:
    assert band.asset is not None, "a band without a file has failed before"
    return spec_of(band.asset)


def _heed(bands: _Bands, band: StackBand, findings: Sequence[Finding]) -> None:
    errors = [finding.message for finding in findings if finding.level == "error"]
    if errors:
        bands.fail(band.name, CheckError("; ".join(errors)))
    else:
        bands.warnings += [f"{finding.band}: {finding.message}" for finding in findings]


def _refusal(task: StackTask, bands: _Bands) -> Outcome | None:
    """Why there can be no stack now; None where there can."""
    needed = [band.name for band in task.bands if band.required and band.name in bands.failed]
    later = [name for name, error in bands.failed.items() if _may_pass(error)]
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
        reason=f"{bands.told}: {told}",
        detail={"complete": sorted(bands.complete), "missing": bands.missing, "warnings": bands.warnings},
    )


def _may_pass(error: SceneBeamError) -> bool:
    """Whether the next run may have better luck."""
    return isinstance(error, StorageError) or (isinstance(error, ReadError) and not error.permanent)


def _done(bands: _Bands) -> Outcome:
    detail = {"complete": sorted(bands.complete), "missing": bands.missing, "warnings": bands.warnings}
    return Outcome(task=bands.task.id, state="done", detail=detail)
