"""The files of a stack's bands: downloaded into its folder for a VRT, and opened."""

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
    """Download the files of the bands into the store, each once.

    Files that exist and are intact are not downloaded again. A file that fails is recorded in
    `bands`, and stops no other.

    Args:
        task: The task.
        store: The output.
        budget: Budget of the task.
        bands: State of the bands.
    """
    by_file: dict[str, list[StackBand]] = {}
    for band in bands.usable:
        if band.file:
            by_file.setdefault(band.file, []).append(band)
    if not by_file:
        return
    existing = store.list(task.files_prefix)
    for file, sharing in by_file.items():
        warning = checksum_warning(sharing[0].asset)
        if warning:
            bands.warnings.append(f"{file}: {warning}")
            log.warning("%s: %s: %s", task.scene.id, file, warning)

    def download(file: str, sharing: list[StackBand]) -> None:
        exists = task.file_key(file) in existing
        error = _try_download(task, store, bands, file, sharing[0], exists=exists)
        for band in sharing:
            if error is None:
                bands.complete_band(band.name)
            else:
                bands.fail(band.name, error)

    with ThreadPoolExecutor(min(len(by_file), budget.download_workers)) as threads:
        list(threads.map(download, by_file, by_file.values()))


def _try_download(
    task: StackTask,
    store: Store,
    bands: BandStates,
    file: str,
    band: StackBand,
    *,
    exists: bool,
) -> SceneBeamError | None:
    """Download one file. Return the error if it fails."""
    try:
        with bands.budgets[band.name].timed():
            download_band(task, store, bands, file, band, exists=exists)
    except SceneBeamError as error:
        return error
    except Exception as error:
        log.exception("%s of %s", file, task.scene.id)
        return StorageError(unexpected(error))
    return None


def download_band(
    task: StackTask,
    store: Store,
    bands: BandStates,
    file: str,
    band: StackBand,
    *,
    exists: bool,
) -> None:
    """Download one file, unless it exists and is intact.

    Raises:
        CheckError: The file is not fit to use.
        ReadError: The file cannot be downloaded.
        StorageError: The file cannot be stored.
    """
    asset, key = band.asset, task.file_key(file)
    if exists:
        damage = find_stored_damage(asset, store, key)
        if not damage:
            log.info("%s: %s already exists, skipping", task.scene.id, file)
            return
        bands.note(f"{file} existed but was damaged, and was downloaded again: {damage}")
        store.delete([key])
    fetch(asset, store, key, bands.budgets[band.name], task.checks)


def open_bands(
    task: StackTask, store: Store, bands: BandStates, files: ExitStack
) -> dict[str, Source]:
    """Open the files of all usable bands. A file that fails is recorded in `bands`.

    Args:
        task: The task.
        store: The output, with the downloaded files.
        bands: State of the bands.
        files: Closes the opened files.

    Returns:
        Name of a band → its open file.
    """

    def open_band(band: StackBand) -> Source:
        asset = band.asset
        budget = bands.budgets[band.name]
        with budget.timed():
            if band.file:
                # Its bytes were counted when it was downloaded: use the budget of the task.
                uri = store.uri_for(task.file_key(band.file))
                source = open_source(uri, asset.index, bands.budget)
            else:
                log.info("%s: reading %s", budget.label, redact_url(asset.href))
                source = open_source(asset.href, asset.index, budget, asset.signing)
        files.callback(source.close)
        resolve_nodata(asset.href, source.info.nodata, asset.nodata)
        return source

    # A header is one round trip: request all of them at once.
    futures = {band.name: io_threads().submit(open_band, band) for band in bands.usable}
    opened = {}
    for name, future in futures.items():
        try:
            opened[name] = future.result()
        except (ReadError, CheckError) as error:
            bands.fail(name, error)
    return opened
