"""Make assets: fetch, check and publish the files of one scene, each band on its own."""

from __future__ import annotations

import json
import logging
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
from scenebeam.products.assets.task import DROP, RAW, AssetsTask, BandFile
from scenebeam.storage import Store, open_store
from scenebeam.tasks import Outcome
from scenebeam.transfer.retry import Budget

log = logging.getLogger(__name__)
progress = logging.getLogger("scenebeam.progress")


@dataclass(frozen=True)
class DownloadResult:
    """What became of one band."""

    status: str
    """`success`, or the status that the band gives its scene."""
    message: str = ""
    size: int = 0
    checksum: str = ""
    spending: dict[str, Any] = field(default_factory=dict)
    """`seconds`, `bytes` and `retries` that it took."""

    @property
    def ok(self) -> bool:
        """Whether its file is where it is to be."""
        return self.status == "success"


STATUSES = (
    "exception",
    "validation_failed",
    "download_incomplete",
    "skipped_missing_href",
    "success",
)
"""The worst first: a scene has the status of its worst band."""


def download_scene(task: AssetsTask, store: Store, budget: Budget) -> Outcome:
    """Bring all files of a scene to where they are to lie, and publish its item when all are there.

    A band that fails is named, and loses none of the others: what is there already is not fetched again.
    """
    bucket = open_store(task.gcs) if task.gcs else None
    place = Destinations(
        store=store,
        bucket=bucket,
        here=store.list(f"{RAW}/{task.scene.id}/"),
        there=bucket.list(f"{task.scene.id}/") if bucket is not None else set(),
    )
    results = _workers(budget.download_workers).map(
        lambda file: download_band(task, file, place, budget), task.files
    )
    brought = dict(zip(task.files, results, strict=True))
    status = min((one.status for one in brought.values()), key=STATUSES.index)
    detail = {}
    for file, one in brought.items():
        detail[file.column] = {"ok": one.ok, "message": one.message, **one.spending}
    if status == "success":
        _publish_item(task, store, brought)
        return Outcome(task=task.id, state="done", detail=detail)
    reason = "; ".join(
        f"{file.label}: {one.message}" for file, one in brought.items() if not one.ok
    )
    missing = status == "skipped_missing_href"
    state = "skipped" if missing else "failed"
    return Outcome(
        task=task.id, state=state, kind=status, reason=reason, permanent=missing, detail=detail
    )


@cache
def _workers(count: int) -> ThreadPoolExecutor:
    """The process's pool for whole files: as many as are fetched at once, and as many that are checked meanwhile."""
    return ThreadPoolExecutor(2 * count, thread_name_prefix="download")


class Destinations(NamedTuple):
    """The stores of a task, and what lies in them."""

    store: Store
    bucket: Store | None
    here: set[str]
    there: set[str]


def download_band(
    task: AssetsTask, file: BandFile, place: Destinations, budget: Budget
) -> DownloadResult:
    if file.asset is None:
        return DownloadResult(
            "skipped_missing_href",
            f"the item has no file of {file.band}; choose another band or scene",
        )
    own = BandBudget(budget, f"{task.scene.id}: {file.label}")
    notes: list[str] = []
    try:
        with own.timed():
            size, checksum = place_file(task, file, file.asset, place, own, notes)
    except CheckError as error:
        return DownloadResult("validation_failed", str(error), spending=own.spending)
    except (ReadError, StorageError) as error:
        return DownloadResult("download_incomplete", str(error), spending=own.spending)
    except Exception as error:
        log.exception("%s of %s", file.label, task.scene.id)
        return DownloadResult("exception", unexpected(error), spending=own.spending)
    progress.info("%s: %s is done", task.scene.id, file.label)
    return DownloadResult("success", "; ".join(notes), size, checksum, own.spending)


def place_file(
    task: AssetsTask,
    file: BandFile,
    asset: Asset,
    place: Destinations,
    budget: BandBudget,
    notes: list[str],
) -> tuple[int, str]:
    """Bring one file to where the mode wants it. Only what has been checked is published.

    One that is there already is not fetched again, unless it is damaged; then `notes` say so.

    Returns:
        Its size and checksum.
    """
    store, bucket = place.store, place.bucket
    local, cloud = task.local_key(file), task.cloud_key(file)
    here = local in place.here and _is_intact(asset, store, local, notes)
    if task.mode == DROP:
        assert bucket is not None
        if here:
            copy_to_bucket(store, local, bucket, cloud)
            store.delete([local])
        elif cloud not in place.there or not _is_intact(asset, bucket, cloud, notes):
            return fetch(asset, bucket, cloud, budget, task.checks)
        return bucket.checksum(cloud)
    if here:
        found = store.checksum(local)
    elif task.mode == "gcs_to_local":
        found = fetch(asset, store, local, budget, task.checks, f"{task.gcs}/{cloud}", "none")
    else:
        found = fetch(asset, store, local, budget, task.checks)
    if task.mode == "url_to_gcs_keep_local":
        assert bucket is not None
        copy_to_bucket(store, local, bucket, cloud)
    return found


def _is_intact(asset: Asset, store: Store, name: str, notes: list[str]) -> bool:
    """Check a file that is there already. A damaged one is deleted with a warning."""
    damage = find_stored_damage(asset, store, name)
    if damage:
        notes.append(f"{name} was there already and is damaged, fetched again: {damage}")
        log.warning("%s", notes[-1])
        store.delete([name])
    return not damage


def copy_to_bucket(store: Store, local: str, bucket: Store, cloud: str) -> None:
    """Copy a file into the bucket, and see that it has arrived. Raises StorageError where it has not."""
    with store.local_copy(local) as path:
        if bucket.matches(cloud, path):
            return
        bucket.upload(cloud, path)
        if not bucket.matches(cloud, path):
            raise StorageError(
                f"{bucket.uri_for(cloud)} has another checksum than {path}, which is kept: run again"
            )


def _publish_item(task: AssetsTask, store: Store, brought: dict[BandFile, DownloadResult]) -> None:
    footprint = task.scene.geometry
    assets: dict[str, dict[str, Any]] = {}
    warnings: list[str] = []
    for file, one in brought.items():
        asset = file.asset
        assert asset is not None, "all files of the scene are there"
        cloud = f"{task.gcs}/{task.cloud_key(file)}"
        elsewhere = task.mode == DROP and cloud != store.uri_for(task.local_key(file))
        href = cloud if elsewhere else f"./{file.name}"
        assets[file.label] = file_asset(href, [(file.band, asset)], one.size, one.checksum)
        told = checksum_warning(asset)
        if told:
            warnings.append(f"{file.label}: {told}")
    geometry = None if footprint is None else json.loads(shapely.to_geojson(footprint))
    sources = [(task.scene.id, task.scene.item_href)]
    properties = {**task.properties, "scenebeam:values": "raw"}
    if warnings:
        properties["scenebeam:warnings"] = warnings
    item = stac_items.make_item(
        task.scene.id, task.collection, task.scene.when, geometry, assets, sources, properties
    )
    store.write(task.item_path, stac_items.to_bytes(item))
