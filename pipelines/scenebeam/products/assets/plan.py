"""Plan assets: a manifest of all scenes, and one task per scene to download."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scenebeam.catalog.bands import resolve_bands
from scenebeam.catalog.scene import SOURCE_COLLECTION, SOURCE_PROVIDER, Scene
from scenebeam.catalog.selection import Selection
from scenebeam.csvtable import Table
from scenebeam.errors import RequestError
from scenebeam.imaging.probes import FileSizes
from scenebeam.imaging.refs import scene_ref
from scenebeam.products.assets.request import AssetsRequest
from scenebeam.products.assets.task import DROP, RAW, AssetsTask, BandFile
from scenebeam.products.base import Planned, SearchScope
from scenebeam.request import RunRequest, parse_interval
from scenebeam.storage import checked_key
from scenebeam.tasks import Estimate
from scenebeam.transfer.signing import effective_limits

MANIFEST = "assets_manifest_selected.csv"
_FILE_MEMORY = 24 * 2**20
"""Bytes per file in flight: what is received, and the blocks that are decoded to verify it."""


def plan_assets(
    selection: Selection, request: RunRequest[AssetsRequest], search_scope: SearchScope
) -> Planned:
    """Plan one row of the manifest per scene, and a task for the first `download_n` of them.

    Args:
        selection: The selected acquisitions.
        request: The request.
        search_scope: Whether sizes are requested from servers.

    Raises:
        RequestError: No scene is left.
    """
    product = request.product
    bands = dict(zip(product.bands, resolve_bands(request), strict=True))
    scenes = _manifest_order(selection.scenes, product)
    if not scenes:
        raise RequestError(
            f"product.date_start: no scene is left, all are before {product.date_start}"
        )
    sizes = FileSizes(effective_limits(request), measure=search_scope.measure)
    tasks: list[AssetsTask] = []
    for scene in scenes:
        is_downloaded = product.download_n is None or len(tasks) < product.download_n
        # The others are only listed, which is not worth a request for their sizes.
        tasks.append(_plan_scene(scene, bands, request, sizes if is_downloaded else None))
    columns, rows = _manifest(scenes, tasks, request.output)
    rows += _absent_rows(selection, request, columns)
    return Planned(tasks[: product.download_n], {MANIFEST: Table(columns, rows)})


def _manifest_order(scenes: Sequence[Scene], product: AssetsRequest) -> list[Scene]:
    """Return the scenes of the manifest in its order, each once."""
    since = parse_interval(product.date_start)[0] if product.date_start is not None else None
    kept = {scene.id: scene for scene in scenes if since is None or scene.datetime >= since}

    def by_time(scene: Scene) -> tuple[Any, ...]:
        return scene.datetime, scene.id

    def by_cloud(scene: Scene) -> tuple[Any, ...]:
        # Unknown cloud cover comes last.
        return scene.cloud_cover is None, scene.cloud_cover or 0.0, *by_time(scene)

    ordered = sorted(kept.values(), key=by_time if product.sort_mode == "time" else by_cloud)
    return ordered[: product.max_scenes]


def _plan_scene(
    scene: Scene,
    bands: Mapping[str, str],
    request: RunRequest[AssetsRequest],
    sizes: FileSizes | None,
) -> AssetsTask:
    """Plan the task of a scene; without `sizes`, of one that is not downloaded."""
    storage = _storage_of(request)
    files = []
    for label, band in bands.items():
        files.append(BandFile(label=label, band=band, asset=scene.assets.get(band)))
    assets = [file.asset for file in files if file.asset is not None]
    size = sum(sizes.of(asset) for asset in assets) if sizes is not None else 0
    item_path = checked_key(f"{RAW}/{scene.id}/{scene.id}.json")
    task = AssetsTask(
        id=scene.id,
        outputs=(item_path,),
        item_path=item_path,
        estimate=Estimate(
            blocks=size // 2**20,
            requests=len(assets),
            most_requests=2 * len(assets),
            read_bytes=size,
            write_bytes=size,
            memory=_FILE_MEMORY * len(files),
        ),
        scene=scene_ref(scene),
        collection=request.run,
        files=tuple(files),
        mode=storage.mode,
        gcs=storage.gcs,
        checks=request.checks,
        properties=_properties(scene),
    )
    if storage.mode == DROP:
        return task
    outputs = (*(task.local_key(file) for file in files), item_path)
    return task.model_copy(update={"outputs": outputs})


@dataclass(frozen=True)
class _Storage:
    """Where files are stored."""

    mode: str
    gcs: str | None
    """`gs://bucket/prefix` without a slash at the end."""


def _storage_of(request: RunRequest[AssetsRequest]) -> _Storage:
    product = request.product
    in_cloud = request.output.startswith("gs://")
    mode = product.raw_storage_mode or (DROP if in_cloud else "url_to_local")
    gcs = product.gcs or (f"{request.output.rstrip('/')}/{RAW}" if in_cloud else None)
    return _Storage(mode, gcs.rstrip("/") if gcs else None)


def _properties(scene: Scene) -> dict[str, Any]:
    """Return the properties of the STAC item: those of the catalog, normalized."""
    normalized = {
        "eo:cloud_cover": scene.cloud_cover,
        "platform": scene.platform,
        "constellation": scene.constellation,
        "grid:code": f"MGRS-{scene.tile}" if scene.tile else None,
    }
    properties = dict(scene.properties)
    properties[SOURCE_COLLECTION] = scene.collection
    properties[SOURCE_PROVIDER] = scene.provider
    properties.update((name, value) for name, value in normalized.items() if value is not None)
    return properties


def _manifest(
    scenes: Sequence[Scene], tasks: Sequence[AssetsTask], output: str
) -> tuple[list[str], list[dict[str, Any]]]:
    """Return the columns of the manifest and its rows."""
    kinds = ["href", "local", "gcs", "available"]
    if tasks[0].gcs is None:
        kinds.remove("gcs")
    if tasks[0].mode == DROP:
        kinds.remove("local")
    columns = ["scene_id", "datetime", "cloud_cover"]
    for kind in kinds:
        columns += [f"{kind}_{file.column}" for file in tasks[0].files]
    rows = []
    for scene, task in zip(scenes, tasks, strict=True):
        row: dict[str, Any] = {
            "scene_id": scene.id,
            "datetime": scene.datetime,
            "cloud_cover": scene.cloud_cover,
        }
        for file in task.files:
            places = _places(task, file, output)
            row.update((f"{kind}_{file.column}", places[kind]) for kind in kinds)
        rows.append(row)
    return columns, rows


def _places(task: AssetsTask, file: BandFile, output: str) -> dict[str, Any]:
    """Return where a file is, or will be."""
    if file.asset is None:
        return {"href": None, "local": None, "gcs": None, "available": False}
    return {
        "href": file.asset.href,
        "local": f"{output.rstrip('/')}/{task.local_key(file)}",
        "gcs": f"{task.gcs}/{task.cloud_key(file)}",
        "available": True,
    }


def _absent_rows(
    selection: Selection, request: RunRequest[AssetsRequest], columns: Sequence[str]
) -> list[dict[str, Any]]:
    """Return rows of requested scenes that the catalog does not have."""
    requested = {chosen.id for chosen in request.select.scenes or ()}
    absent = requested - {scene.id for scene in selection.found}
    unavailable = {name: False for name in columns if name.startswith("available_")}
    return [{"scene_id": scene, **unavailable} for scene in sorted(absent)]
