"""Make mosaics: read, merge, encode and publish one task, and put shards together."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

import numpy as np
import shapely

from scenebeam.errors import CheckError, ReadError
from scenebeam.products import stac
from scenebeam.products.mosaics.task import MosaicBand, MosaicTask
from scenebeam.products.shards import PARTS, assemble, shard_shapes, shared_levels, write_part
from scenebeam.products.task import Outcome
from scenebeam.raster.cog import CogBand, CogProfile, write_cog
from scenebeam.raster.compose import BandLayers, Layer, LayerError, compose
from scenebeam.raster.merge import valid_count
from scenebeam.raster.pyramid import Pyramid, level_shapes
from scenebeam.raster.reader import Source, open_source
from scenebeam.storage import Publication, Store
from scenebeam.transfer.ranges import Budget, io_threads

Missing = dict[str, dict[str, str]]
"""Band → scene → why it is missing."""


def make(task: MosaicTask, store: Store, budget: Budget) -> Outcome:
    """Make the mosaics of one acquisition, or one shard of them, and publish them.

    A tile that is missing or broken for good is left out and named, or ends the task, as `on_missing` says.
    Raises ReadError where a tile may be read later, and StorageError where nothing can be published.
    """
    missing: Missing = {band.name: dict.fromkeys(band.absent, "the scene has no such band") for band in task.bands}
    if not any(band.sources for band in task.bands):
        return _refusal(task, missing, "failed_no_tiles", "no tile of the acquisition has any of the bands")
    parts = {task.part_path(band.name, task.shard) for band in task.bands}
    if len(task.windows) == 1 or not parts <= store.list(f"{PARTS}{task.timestamp}/"):
        while True:
            refused = _check_missing(task, missing)
            if refused is not None:
                return refused
            try:
                _compose(task, store, budget, missing)
                break
            except LayerError as fault:
                # From the start without the tile: the result does not depend on how far it had been read.
                missing[fault.band][fault.name] = str(fault.cause)
    if len(task.windows) > 1:
        return _put_together(task, store)
    return Outcome(task=task.id, state="done")


def _check_missing(task: MosaicTask, missing: Missing) -> Outcome | None:
    if task.on_missing != "best-available" and any(missing.values()):
        return _refusal(task, missing, "failed_missing_inputs", _tell(missing))
    empty = [band.name for band in task.bands if len(missing[band.name]) == len(band.sources) + len(band.absent)]
    if empty:
        return _refusal(
            task,
            missing,
            "failed_missing_inputs",
            f"no readable tile of {', '.join(empty)}: {_tell(missing)}",
        )
    return None


def _refusal(task: MosaicTask, missing: Missing, kind: str, reason: str) -> Outcome:
    state = "skipped" if task.on_missing == "skip" else "failed"
    return Outcome(task=task.id, state=state, kind=kind, reason=reason, detail={"missing": missing})


def _tell(missing: Missing) -> str:
    return "; ".join(f"{band} of {scene}: {why}" for band, scenes in missing.items() for scene, why in scenes.items())


def _compose(task: MosaicTask, store: Store, budget: Budget, missing: Missing) -> None:
    """Read, merge, encode and publish what is not in `missing`. Raises LayerError for one tile more that is broken."""
    top, bottom, left, right = task.window
    grid = task.grid.grid[top:bottom, left:right]
    opened = _open_all(task, budget, missing)
    try:
        bands = [_layers(task, band, opened[band.name]) for band in task.bands]
        sharded = len(task.windows) > 1
        levels = shared_levels(task.grid.shape, task.cell) if sharded else 0
        shapes = shard_shapes(task.window, levels) if sharded else level_shapes(*grid.shape)
        pyramids = [
            Pyramid(
                shapes,
                band.dtype,
                band.nodata,
                codec=task.codec,
                average=not spec.categorical,
                keep_coarse=sharded and levels < len(level_shapes(*task.grid.shape)),
            )
            for band, spec in zip(bands, task.bands, strict=True)
        ]
        valid = [0] * len(bands)
        for index, _, strip in compose(grid, bands):
            valid[index] += valid_count(strip, bands[index].nodata)
            pyramids[index].add(strip)
    finally:
        for sources in opened.values():
            for source in sources.values():
                source.close()
    facts = [{"valid": valid[index], "missing": missing[band.name]} for index, band in enumerate(task.bands)]
    if sharded:
        for band, pyramid, fact in zip(task.bands, pyramids, facts, strict=True):
            with store.writing(task.part_path(band.name, task.shard)) as file:
                write_part(file, pyramid, task.window, fact)
        return

    def publish(band: MosaicBand, pyramid: Pyramid, fact: dict[str, Any]) -> dict[str, Any]:
        with store.writing(task.band_path(band.name)) as file:
            write_cog(file, _profile(task, band, pyramid.dtype, pyramid.nodata), pyramid.finish())  # type: ignore[arg-type]
        return _asset(task, band, file, pyramid.dtype, pyramid.nodata, [fact])

    assets = io_threads().map(publish, task.bands, pyramids, facts)
    _publish_item(task, store, {band.name: asset for band, asset in zip(task.bands, assets, strict=True)})


def _open_all(task: MosaicTask, budget: Budget, missing: Missing) -> dict[str, dict[str, Source]]:
    """Open every file that the window needs, all headers in flight at once: band → scene → source."""
    scenes = _scenes_in_window(task)
    futures: dict[tuple[str, str], Future[Source]] = {
        (band.name, source.scene): io_threads().submit(open_source, source.href, source.index, budget, source.signing)
        for band in task.bands
        for source in band.sources
        if source.scene in scenes and source.scene not in missing[band.name]
    }
    opened: dict[str, dict[str, Source]] = {band.name: {} for band in task.bands}
    fault: Exception | None = None
    for (band, scene), future in futures.items():
        try:
            opened[band][scene] = future.result()
        except ReadError as error:
            if fault is None or not error.permanent:
                fault = LayerError(band, scene, error) if error.permanent else error
    if fault is not None:
        for sources in opened.values():
            for source in sources.values():
                source.close()
        raise fault
    return opened


def _scenes_in_window(task: MosaicTask) -> set[str]:
    top, bottom, left, right = task.window
    extent = shapely.geometry.box(*task.grid.grid[top:bottom, left:right].extent.boundingbox.bbox)
    return {
        ref.id for ref in task.scenes if ref.footprint is None or shapely.from_wkb(ref.footprint).intersects(extent)
    }


def _layers(task: MosaicTask, band: MosaicBand, opened: dict[str, Source]) -> BandLayers:
    """A band ready to compose. Raises LayerError for a tile whose nodata contradicts its collection's."""
    footprints = {ref.id: ref.footprint for ref in task.scenes}
    nodata = band.nodata
    layers = []
    for source in band.sources:
        if source.scene not in opened:
            continue
        info = opened[source.scene].info
        if nodata is None:
            nodata = info.nodata
        elif info.nodata is not None and repr(float(info.nodata)) != repr(float(nodata)):
            fault = CheckError(
                f"{source.href} declares nodata {info.nodata:g}, its collection {nodata:g}: which is it?"
            )
            raise LayerError(band.name, source.scene, fault)
        footprint = footprints[source.scene]
        layers.append(
            Layer(
                name=source.scene,
                source=opened[source.scene],
                shift=source.shift,
                footprint=None if footprint is None else shapely.from_wkb(footprint),
            )
        )
    # Kept, or promoted to what holds every tile's numbers.
    dtype = np.result_type(np.dtype(band.dtype), *(layer.source.info.dtype for layer in layers))
    return BandLayers(band.name, layers, dtype, nodata, band.resampling, task.method)


def _put_together(task: MosaicTask, store: Store) -> Outcome:
    """The last shard to finish puts the whole together; two at once publish the same bytes."""
    shards = range(len(task.windows))
    wanted = {task.part_path(band.name, shard) for band in task.bands for shard in shards}
    if not wanted <= store.list(f"{PARTS}{task.timestamp}/"):
        if task.item_path in store.list(f"mosaics/{task.timestamp}/"):
            return Outcome(task=task.id, state="done")  # another worker was faster, and has tidied up
        return Outcome(task=task.id, state="done", detail={"part": True})
    assets = {}
    for band in task.bands:
        names = [task.part_path(band.name, shard) for shard in shards]
        profile = _profile(task, band, np.dtype(band.dtype), band.nodata)
        file, parts = assemble(store, names, task.band_path(band.name), profile, average=not band.categorical)
        facts = [part.facts for part in parts]
        assets[band.name] = _asset(task, band, file, np.dtype(parts[0].dtype), parts[0].nodata, facts)
    _publish_item(task, store, assets)
    store.delete(sorted(wanted))
    return Outcome(task=task.id, state="done")


def _profile(task: MosaicTask, band: MosaicBand, dtype: np.dtype[Any], nodata: float | None) -> CogProfile:
    return CogProfile(
        height=task.grid.shape[0],
        width=task.grid.shape[1],
        dtype=dtype,
        nodata=nodata,
        crs=task.grid.crs,
        transform=task.grid.grid.transform,
        codec=task.codec,
        bands=(CogBand(band.name, band.scale, band.offset),),
        tags={"SCENEBEAM_VALUES": task.values, "SCENEBEAM_ACQUIRED": stac.rfc3339(task.acquired)},
    )


def _asset(
    task: MosaicTask,
    band: MosaicBand,
    file: Publication,
    dtype: np.dtype[Any],
    nodata: float | None,
    facts: Sequence[dict[str, Any]],
) -> dict[str, Any]:
    height, width = task.grid.shape
    missing: dict[str, str] = {}
    for fact in facts:
        missing.update(fact["missing"])
    valid = sum(fact["valid"] for fact in facts) / (height * width)
    return {
        "href": f"./{band.name}.tif",
        "type": stac.COG_TYPE,
        "roles": ["data"],
        "file:size": file.size,
        "file:checksum": file.checksum,
        "bands": [{"name": band.name}],
        "raster:bands": [
            {
                "data_type": dtype.name,
                "nodata": stac.number_or_name(nodata),
                "scale": band.scale,
                "offset": band.offset,
                "spatial_resolution": abs(task.grid.transform[0]),
                "statistics": {"valid_percent": round(100 * valid, 4)},
            }
        ],
        "scenebeam:scenes": [source.scene for source in band.sources if source.scene not in missing],
        **({"scenebeam:missing": [{"scene": s, "reason": missing[s]} for s in sorted(missing)]} if missing else {}),
    }


def _publish_item(task: MosaicTask, store: Store, assets: dict[str, dict[str, Any]]) -> None:
    incomplete = any("scenebeam:missing" in asset for asset in assets.values())
    item = stac.make_item(
        task.timestamp,
        task.collection,
        task.acquired,
        stac.grid_footprint(task.grid.grid),
        assets,
        [(ref.id, ref.item_href) for ref in task.scenes],
        {
            **stac.grid_properties(task.grid.grid),
            **task.properties,
            "scenebeam:values": task.values,
            "scenebeam:complete": not incomplete,
        },
    )
    store.write(task.item_path, stac.dump(item))
