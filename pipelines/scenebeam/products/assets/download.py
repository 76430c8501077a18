"""Download, verify and publish the files of one scene, each band on its own."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from typing import Any, NamedTuple

import shapely

from scenebeam.catalog.scene import Asset
from scenebeam.errors import CheckError, ReadError, StorageError, unexpected
from scenebeam.imaging.band_budget import BandBudget
from scenebeam.imaging.fetch import checksum_warning, fetch, file_asset, find_stored_damage
from scenebeam.metadata import stac_items
from scenebeam.products.assets.task import DROP, AssetsTask, BandFile
from scenebeam.storage import Store, open_store
from scenebeam.tasks import Outcome
from scenebeam.transfer.retry import Budget

log = logging.getLogger(__name__)
progress = logging.getLogger("scenebeam.progress")

STATUSES = (
    "exception",
    "validation_failed",
    "download_incomplete",
    "skipped_missing_href",
    "success",
)
"""Statuses from worst to best: a scene has that of its worst band."""


@dataclass(frozen=True)
class DownloadResult:
    """The result of one band."""

    status: str
    """One of STATUSES."""
    message: str = ""
    size: int = 0
    """Bytes of the file."""
    checksum: str = ""
    """Its `file:checksum`."""
    spending: dict[str, Any] = field(default_factory=dict)
    """`seconds`, `bytes` and `retries` that it took."""

    @property
    def ok(self) -> bool:
        return self.status == "success"


class Destinations(NamedTuple):
    """The stores of a task, and the keys of the scene's files that exist in them."""

    store: Store
    """The run's own store."""
    bucket: Store | None
    """The store at `gcs`, for the modes that need one."""
    store_keys: set[str]
    bucket_keys: set[str]


def download_scene(task: AssetsTask, store: Store, budget: Budget) -> Outcome:
    """Download all files of a scene, and publish its item when all of them are complete.

    A band that fails does not stop the others. Files that exist and are intact are not downloaded
    again.

    Args:
        task: The task.
        store: The output.
        budget: Retries and waiting time of the whole task.

    Returns:
        The outcome; `detail` has the result of each band.

    Raises:
        StorageError: The item cannot be published.
    """
    bucket = open_store(task.gcs) if task.gcs else None
    places = Destinations(
        store=store,
        bucket=bucket,
        store_keys=store.list(task.files_prefix),
        bucket_keys=bucket.list(task.cloud_prefix) if bucket is not None else set(),
    )
    downloads = _threads(budget.download_workers).map(
        lambda file: download_band(task, file, places, budget), task.files
    )
    results = dict(zip(task.files, downloads, strict=True))
    detail, reasons = {}, []
    for file, result in results.items():
        detail[file.column] = {"ok": result.ok, "message": result.message, **result.spending}
        if not result.ok:
            reasons.append(f"{file.label}: {result.message}")
    if not reasons:
        _publish_item(task, store, results)
        return Outcome(task=task.id, state="done", detail=detail)
    status = min((result.status for result in results.values()), key=STATUSES.index)
    is_missing = status == "skipped_missing_href"
    return Outcome(
        task=task.id,
        state="skipped" if is_missing else "failed",
        kind=status,
        reason="; ".join(reasons),
        permanent=is_missing,
        detail=detail,
    )


@cache
def _threads(download_workers: int) -> ThreadPoolExecutor:
    """Return the pool of the process for whole files.

    It has twice as many threads as downloads: while the next files are downloaded, as many are
    verified.
    """
    return ThreadPoolExecutor(2 * download_workers, thread_name_prefix="download")


def download_band(
    task: AssetsTask, file: BandFile, places: Destinations, budget: Budget
) -> DownloadResult:
    """Download the file of one band to where the storage mode wants it. Errors become a result.

    Args:
        task: The task.
        file: The file.
        places: Where files are stored.
        budget: Budget of the task.
    """
    if file.asset is None:
        return DownloadResult(
            "skipped_missing_href",
            f"the item has no file of {file.band}; choose another band or scene",
        )
    band_budget = BandBudget(budget, f"{task.scene.id}: {file.label}")
    notes: list[str] = []
    try:
        with band_budget.timed():
            size, checksum = place_file(task, file, file.asset, places, band_budget, notes)
    except CheckError as error:
        return DownloadResult("validation_failed", str(error), spending=band_budget.spending)
    except (ReadError, StorageError) as error:
        return DownloadResult("download_incomplete", str(error), spending=band_budget.spending)
    except Exception as error:
        log.exception("%s of %s", file.label, task.scene.id)
        return DownloadResult("exception", unexpected(error), spending=band_budget.spending)
    progress.info("%s: %s is done", task.scene.id, file.label)
    return DownloadResult("success", "; ".join(notes), size, checksum, band_budget.spending)


def place_file(
    task: AssetsTask,
    file: BandFile,
    asset: Asset,
    places: Destinations,
    budget: BandBudget,
    notes: list[str],
) -> tuple[int, str]:
    """Bring one file to where the storage mode wants it. It is verified before it is published.

    Args:
        task: The task.
        file: The file.
        asset: Its asset.
        places: Where files are stored.
        budget: Budget of the band.
        notes: Receives a note if a stored file was damaged and is downloaded again.

    Returns:
        Size in bytes, and `file:checksum`.

    Raises:
        CheckError: The file is not fit to use.
        ReadError: The file cannot be downloaded.
        StorageError: The file cannot be stored.
    """
    store, bucket = places.store, places.bucket
    local, cloud = task.local_key(file), task.cloud_key(file)
    is_local = local in places.store_keys and _is_intact(asset, store, local, notes)
    if task.mode == DROP:
        bucket = _required(bucket, task)
        if is_local:
            # An earlier run of another mode has left it here.
            copy_to_bucket(store, local, bucket, cloud)
            store.delete([local])
        elif cloud not in places.bucket_keys or not _is_intact(asset, bucket, cloud, notes):
            return fetch(asset, bucket, cloud, budget, task.checks)
        return bucket.checksum(cloud)
    if is_local:
        size, checksum = store.checksum(local)
    elif task.mode == "gcs_to_local":
        href = f"{task.gcs}/{cloud}"
        size, checksum = fetch(asset, store, local, budget, task.checks, href, "none")
    else:
        size, checksum = fetch(asset, store, local, budget, task.checks)
    if task.mode == "url_to_gcs_keep_local":
        copy_to_bucket(store, local, _required(bucket, task), cloud)
    return size, checksum


def _required(bucket: Store | None, task: AssetsTask) -> Store:
    if bucket is None:
        raise ValueError(f"{task.id}: {task.mode} needs a gs://bucket/prefix")
    return bucket


def _is_intact(asset: Asset, store: Store, key: str, notes: list[str]) -> bool:
    """Verify a file that exists. Delete it with a warning if it is damaged."""
    damage = find_stored_damage(asset, store, key)
    if damage:
        notes.append(f"{key} existed but was damaged, and was downloaded again: {damage}")
        log.warning("%s", notes[-1])
        store.delete([key])
    return not damage


def copy_to_bucket(store: Store, local: str, bucket: Store, cloud: str) -> None:
    """Copy a file into a bucket, and verify the copy. An equal one that exists is kept.

    Args:
        store: Where the file is.
        local: Its key there.
        bucket: Where it is copied to.
        cloud: Its key there.

    Raises:
        StorageError: The copy cannot be made, or its checksum differs.
    """
    with store.local_copy(local) as path:
        if bucket.matches(cloud, path):
            return
        bucket.upload(cloud, path)
        if not bucket.matches(cloud, path):
            raise StorageError(
                f"the checksum of {bucket.uri_for(cloud)} differs from that of {path}, which is "
                "kept; run again"
            )


def _publish_item(
    task: AssetsTask, store: Store, results: Mapping[BandFile, DownloadResult]
) -> None:
    assets: dict[str, dict[str, Any]] = {}
    warnings: list[str] = []
    for file, result in results.items():
        if file.asset is None:
            raise ValueError(f"{task.id}: {file.label} has no file, but a result")
        bands = [(file.band, file.asset)]
        assets[file.label] = file_asset(
            _href(task, file, store), bands, result.size, result.checksum
        )
        warning = checksum_warning(file.asset)
        if warning:
            warnings.append(f"{file.label}: {warning}")
    footprint = task.scene.geometry
    geometry = None if footprint is None else json.loads(shapely.to_geojson(footprint))
    sources = [(task.scene.id, task.scene.item_href)]
    properties = {**task.properties, "scenebeam:values": "raw"}
    if warnings:
        properties["scenebeam:warnings"] = warnings
    item = stac_items.make_item(
        task.scene.id, task.collection, task.scene.when, geometry, assets, sources, properties
    )
    store.write(task.item_path, stac_items.to_bytes(item))


def _href(task: AssetsTask, file: BandFile, store: Store) -> str:
    """Return the href of a file in the item: relative, unless it is in another store."""
    uri = f"{task.gcs}/{task.cloud_key(file)}"
    is_elsewhere = task.mode == DROP and uri != store.uri_for(task.local_key(file))
    return uri if is_elsewhere else f"./{file.name}"
