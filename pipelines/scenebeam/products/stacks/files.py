"""The files of a stack's bands: fetched into its folder for a VRT, and opened."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

from scenebeam.errors import CheckError, ReadError, SceneBeamError, StorageError, unexpected
from scenebeam.imaging.bands import resolve_nodata
from scenebeam.imaging.fetch import checksum_warning, fetch, find_stored_damage
from scenebeam.products.stacks.bands import BandStates
from scenebeam.products.stacks.task import StackBand, StackTask
from scenebeam.raster.reader import open_source
from scenebeam.raster.source import Source
from scenebeam.storage import Store
from scenebeam.transfer.pools import io_threads
from scenebeam.transfer.retry import Budget
from scenebeam.transfer.signing import redact_url

log = logging.getLogger("scenebeam.progress")


def fetch_files(task: StackTask, store: Store, budget: Budget, bands: BandStates) -> None:
    """Bring the bands' own files into the store, each once.

    Those that are there already are not fetched again, unless they are damaged.
    """
    by_file: dict[str, list[StackBand]] = {}
    for band in bands.left:
        if band.file:
            by_file.setdefault(band.file, []).append(band)
    if not by_file:
        return
    here = store.list(task.file_key(""))
    for file, sharing in by_file.items():
        told = checksum_warning(sharing[0].asset)
        if told:
            bands.warnings.append(f"{file}: {told}")
            log.warning("%s: %s: %s", task.scene.id, file, told)

    def bring(file: str, sharing: list[StackBand]) -> None:
        fault: SceneBeamError | None = None
        try:
            found = task.file_key(file) in here
            with bands.budgets[sharing[0].name].timed():
                download_band(task, store, bands, file, sharing[0], found=found)
        except SceneBeamError as error:
            fault = error
        except Exception as error:
            log.exception("%s of %s", file, task.scene.id)
            fault = StorageError(unexpected(error))
        for band in sharing:
            if fault is None:
                bands.complete_band(band.name)
            else:
                bands.fail(band.name, fault)

    with ThreadPoolExecutor(min(len(by_file), budget.download_workers)) as threads:
        list(threads.map(bring, by_file, by_file.values()))


def download_band(
    task: StackTask,
    store: Store,
    bands: BandStates,
    file: str,
    band: StackBand,
    *,
    found: bool,
) -> None:
    """Bring one file into the store, or find it there intact."""
    asset, name = band.asset, task.file_key(file)
    if found:
        damage = find_stored_damage(asset, store, name)
        if not damage:
            log.info("%s: %s is there already, skipping", task.scene.id, file)
            return
        bands.note(f"{file} was there already and is damaged, fetched again: {damage}")
        store.delete([name])
    fetch(asset, store, name, bands.budgets[band.name], task.checks)


def open_bands(
    task: StackTask,
    store: Store,
    bands: BandStates,
    files: ExitStack,
) -> dict[str, Source]:
    """Read the header of every band's file, all at once. Returns the open bands by name."""

    def open_one(band: StackBand) -> Source:
        asset = band.asset
        budget = bands.budgets[band.name]
        with budget.timed():
            if band.file:
                # Its bytes were counted when they came.
                path = store.uri_for(task.file_key(band.file))
                source = open_source(path, asset.index, bands.budget)
            else:
                log.info("%s: reading %s", budget.label, redact_url(asset.href))
                source = open_source(asset.href, asset.index, budget, asset.signing)
        files.callback(source.close)
        resolve_nodata(asset.href, source.info.nodata, asset.nodata)
        return source

    futures = {band.name: io_threads().submit(open_one, band) for band in bands.left}
    opened = {}
    for name, future in futures.items():
        try:
            opened[name] = future.result()
        except (ReadError, CheckError) as error:
            bands.fail(name, error)
    return opened
