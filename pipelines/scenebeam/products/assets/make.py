"""Make assets: fetch, check and publish the files of one scene, each band on its own."""

from __future__ import annotations

import json
import logging
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any, NamedTuple

import shapely

from scenebeam.catalog.scene import Asset
from scenebeam.errors import CheckError, ReadError, StorageError, unexpected
from scenebeam.products import stac
from scenebeam.products.assets.task import DROP, RAW, AssetsTask, BandFile
from scenebeam.products.fetch import fetch
from scenebeam.products.task import Outcome
from scenebeam.storage import Store, open_store
from scenebeam.transfer.ranges import Budget

log = logging.getLogger(__name__)


class Brought(NamedTuple):
    """What became of one band."""

    status: str
    """`success`, or the status that the band gives its scene."""
    message: str = ""
    size: int = 0
    checksum: str = ""

    @property
    def ok(self) -> bool:
        """Whether its file is where it is to be."""
        return self.status == "success"


STATUSES = ("exception", "validation_failed", "download_incomplete", "skipped_missing_href", "success")
"""The worst first: a scene has the status of its worst band."""


def make(task: AssetsTask, store: Store, budget: Budget) -> Outcome:
    """Bring all files of a scene to where they are to lie, and publish its item when all are there.

    A band that fails is named, and loses none of the others: what is there already is not fetched again.
    """
    bucket = open_store(task.gcs) if task.gcs else None
    place = _Place(
        store=store,
        bucket=bucket,
        here=store.list(f"{RAW}/{task.scene}/"),
        there=bucket.list(f"{task.scene}/") if bucket is not None else set(),
    )
    results = _workers(budget.download_workers).map(lambda file: _bring(task, file, place, budget), task.files)
    brought = dict(zip(task.files, results, strict=True))
    status = min((one.status for one in brought.values()), key=STATUSES.index)
    detail = {file.column: {"ok": one.ok, "message": one.message} for file, one in brought.items()}
    if status == "success":
        _publish_item(task, store, brought)
        return Outcome(task=task.id, state="done", detail=detail)
    reason = "; ".join(f"{file.label}: {one.message}" for file, one in brought.items() if not one.ok)
    state = "skipped" if status == "skipped_missing_href" else "failed"
    return Outcome(task=task.id, state=state, kind=status, reason=reason, detail=detail)


@cache
def _workers(count: int) -> ThreadPoolExecutor:
    """The process's pool for whole files: as many as are fetched at once, and as many that are checked meanwhile."""
    return ThreadPoolExecutor(2 * count, thread_name_prefix="download")


class _Place(NamedTuple):
    """The stores of a task, and what lies in them."""

    store: Store
    bucket: Store | None
    here: set[str]
    there: set[str]


def _bring(task: AssetsTask, file: BandFile, place: _Place, budget: Budget) -> Brought:
    if file.asset is None:
        return Brought("skipped_missing_href", f"the item has no file of {file.band}; choose another band or scene")
    try:
        size, checksum = _settle(task, file, file.asset, place, budget)
    except CheckError as error:
        return Brought("validation_failed", str(error))
    except (ReadError, StorageError) as error:
        return Brought("download_incomplete", str(error))
    except Exception as error:
        log.exception("%s of %s", file.label, task.scene)
        return Brought("exception", unexpected(error))
    return Brought("success", "", size, checksum)


def _settle(task: AssetsTask, file: BandFile, asset: Asset, place: _Place, budget: Budget) -> tuple[int, str]:
    """Bring one file to where the mode wants it; its size and checksum. Only what has been checked is published."""
    store, bucket, here, there = place
    local, cloud = task.local_name(file), task.cloud_name(file)
    if task.mode == DROP:
        assert bucket is not None
        if local in here:
            _send(store, local, bucket, cloud)
            store.delete([local])
        elif cloud not in there:
            return fetch(asset, bucket, cloud, budget, task.checks)
        return bucket.checksum(cloud)
    if local in here:
        found = store.checksum(local)
    elif task.mode == "gcs_to_local":
        found = fetch(asset, store, local, budget, task.checks, f"{task.gcs}/{cloud}", "none")
    else:
        found = fetch(asset, store, local, budget, task.checks)
    if task.mode == "url_to_gcs_keep_local":
        assert bucket is not None
        _send(store, local, bucket, cloud)
    return found


def _send(store: Store, local: str, bucket: Store, cloud: str) -> None:
    """Copy a file into the bucket, and see that it has arrived. Raises StorageError where it has not."""
    with store.fetched(local) as path:
        if bucket.holds(cloud, path):
            return
        bucket.upload(cloud, path)
        if not bucket.holds(cloud, path):
            raise StorageError(f"{bucket.path(cloud)} has another checksum than {path}, which is kept: run again")


def _publish_item(task: AssetsTask, store: Store, brought: dict[BandFile, Brought]) -> None:
    footprint = None if task.footprint is None else shapely.from_wkb(task.footprint)
    assets: dict[str, dict[str, Any]] = {}
    for file, one in brought.items():
        asset = file.asset
        assert asset is not None, "all files of the scene are there"
        assets[file.label] = {
            "href": f"{task.gcs}/{task.cloud_name(file)}" if task.mode == DROP else f"./{file.name}",
            "type": asset.media_type or ("image/jp2" if file.suffix == ".jp2" else stac.COG_TYPE),
            "roles": ["data"],
            "file:size": one.size,
            "file:checksum": one.checksum,
            "scenebeam:index": asset.index,
            "scenebeam:shift": asset.shift,
            "bands": [{"name": file.band}],
            "raster:bands": [
                {
                    "data_type": asset.dtype,
                    "nodata": stac.number_or_name(asset.nodata),
                    "scale": asset.scale,
                    # As the file holds it: what harmonizing would take out is still in its numbers.
                    "offset": asset.offset - asset.scale * asset.shift,
                    "spatial_resolution": asset.resolution,
                }
            ],
        }
    geometry = None if footprint is None else json.loads(shapely.to_geojson(footprint))
    sources = [(task.scene, task.item_href)]
    properties = {**task.properties, "scenebeam:values": "raw"}
    item = stac.make_item(task.scene, task.collection, task.when, geometry, assets, sources, properties)
    store.write(task.item_path, stac.dump(item))
