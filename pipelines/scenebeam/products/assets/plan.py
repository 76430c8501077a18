"""Plan assets: scenes → a manifest, and one task per scene to download."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from scenebeam.catalog.bands import resolve_bands
from scenebeam.catalog.scene import SOURCE_COLLECTION, SOURCE_PROVIDER, Scene
from scenebeam.catalog.select import Selection
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
_MEMORY = 24 * 2**20
"""Per file in flight: what has come in, and blocks that are decoded to be checked."""


def plan_assets(
    selection: Selection, request: RunRequest[AssetsRequest], search_scope: SearchScope
) -> Planned:
    """One row of the manifest per scene, and a task for each of the first `download_n` of them."""
    product = request.product
    bands = dict(zip(product.bands, resolve_bands(request), strict=True))
    scenes = _in_order(selection.scenes, product)
    sizes = FileSizes(effective_limits(request), measure=search_scope.measure)
    tasks = [_task(scene, bands, product, request, sizes) for scene in scenes[: product.download_n]]
    tasks += [_task(scene, bands, product, request, None) for scene in scenes[len(tasks) :]]
    if not tasks:
        raise RequestError(
            f"product.date_start: no scene is left that is not before {product.date_start}"
        )
    manifest = _manifest(scenes, tasks, request.output)
    absent = {one.id for one in request.select.scenes or ()} - {
        scene.id for scene in selection.found
    }
    unavailable = dict.fromkeys(
        (name for name in manifest.columns if name.startswith("available_")), False
    )
    rows = [*manifest.rows, *({"scene_id": name, **unavailable} for name in sorted(absent))]
    return Planned(tasks[: product.download_n], {MANIFEST: Table(manifest.columns, rows)})


def _in_order(scenes: Sequence[Scene], product: AssetsRequest) -> list[Scene]:
    """Scenes as the manifest lists them: by cloud, unknown last, and then time; or by time."""
    since = parse_interval(product.date_start)[0] if product.date_start is not None else None
    kept = {scene.id: scene for scene in scenes if since is None or scene.datetime >= since}

    def by_time(scene: Scene) -> tuple[Any, ...]:
        return scene.datetime, scene.id

    def by_cloud(scene: Scene) -> tuple[Any, ...]:
        return scene.cloud_cover is None, scene.cloud_cover or 0.0, *by_time(scene)

    ordered = sorted(kept.values(), key=by_time if product.sort_mode == "time" else by_cloud)
    return ordered[: product.max_scenes]


def _task(
    scene: Scene,
    bands: dict[str, str],
    product: AssetsRequest,
    request: RunRequest[AssetsRequest],
    sizes: FileSizes | None,
) -> AssetsTask:
    """The task of a scene; without `sizes` of one that is listed, and not downloaded."""
    in_cloud = request.output.startswith("gs://")
    mode = product.raw_storage_mode or (DROP if in_cloud else "url_to_local")
    gcs = product.gcs or (f"{request.output.rstrip('/')}/{RAW}" if in_cloud else None)
    files = tuple(
        BandFile(label=label, band=band, asset=scene.assets.get(band))
        for label, band in bands.items()
    )
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
            memory=_MEMORY * len(files),
        ),
        scene=scene_ref(scene),
        collection=request.run,
        files=files,
        mode=mode,
        gcs=gcs.rstrip("/") if gcs else None,
        checks=request.checks,
        properties={
            **scene.properties,
            SOURCE_COLLECTION: scene.collection,
            SOURCE_PROVIDER: scene.provider,
        }
        | {
            name: value
            for name, value in (
                ("eo:cloud_cover", scene.cloud_cover),
                ("platform", scene.platform),
                ("constellation", scene.constellation),
                ("grid:code", f"MGRS-{scene.tile}" if scene.tile else None),
            )
            if value is not None
        },
    )
    if mode == DROP:
        return task
    return task.model_copy(
        update={"outputs": (*(task.local_key(file) for file in files), item_path)}
    )


def _manifest(scenes: Sequence[Scene], tasks: Sequence[AssetsTask], output: str) -> Table:
    kinds = ["href", "local", "gcs", "available"]
    if tasks[0].gcs is None:
        kinds.remove("gcs")
    if tasks[0].mode == DROP:
        kinds.remove("local")
    labels = [file.column for file in tasks[0].files]
    columns = [
        "scene_id",
        "datetime",
        "cloud_cover",
        *(f"{kind}_{label}" for kind in kinds for label in labels),
    ]
    rows = []
    for scene, task in zip(scenes, tasks, strict=True):
        row: dict[str, Any] = {
            "scene_id": scene.id,
            "datetime": scene.datetime,
            "cloud_cover": scene.cloud_cover,
        }
        for file in task.files:
            there = file.asset is not None
            places = {
                "href": file.asset.href if file.asset is not None else None,
                "local": f"{output.rstrip('/')}/{task.local_key(file)}" if there else None,
                "gcs": f"{task.gcs}/{task.cloud_key(file)}" if there else None,
                "available": there,
            }
            row.update({f"{kind}_{file.column}": places[kind] for kind in kinds})
        rows.append(row)
    return Table(columns, rows)
