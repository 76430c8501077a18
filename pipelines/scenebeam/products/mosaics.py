"""Mosaics: for every acquisition and band one COG on the run's grid, with a STAC item per acquisition."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import replace
from datetime import datetime
from typing import Any

import numpy as np
import shapely
from pydantic import BaseModel, ConfigDict
from shapely.geometry import MultiPolygon
from shapely.geometry.base import BaseGeometry

from scenebeam.catalog.scene import Asset, Scene
from scenebeam.catalog.search import records_for, resolve_bands
from scenebeam.catalog.select import Acquisition, Selection, shares_ground
from scenebeam.catalog.signing import sign
from scenebeam.errors import CheckError, ReadError, RequestError
from scenebeam.products import stac
from scenebeam.products.mosaic_estimate import BandProbe, estimate, probe, widest_window
from scenebeam.products.shards import Window, assemble, cut, shard_shapes, shared_levels, write_part
from scenebeam.products.task import GridSpec, Outcome, Task
from scenebeam.raster.cog import CogProfile, Level, write_cog
from scenebeam.raster.compose import BandLayers, Layer, LayerError, compose
from scenebeam.raster.grid import choose_grid, project
from scenebeam.raster.merge import valid_count
from scenebeam.raster.pyramid import Pyramid, level_shapes
from scenebeam.raster.ranges import Budget, io_threads
from scenebeam.raster.reader import Source, open_source
from scenebeam.request import MosaicRequest, RunRequest
from scenebeam.storage import Publication, Store


class TileSource(BaseModel):
    """One scene's file of a band."""

    model_config = ConfigDict(frozen=True)

    scene: str
    href: str
    index: int
    signing: str
    shift: int


class MosaicBand(BaseModel):
    """One band of a mosaic: its tiles, best first."""

    model_config = ConfigDict(frozen=True)

    name: str
    sources: tuple[TileSource, ...]
    absent: tuple[str, ...]
    """Scenes of the acquisition that lack the band."""
    dtype: str
    nodata: float | None
    scale: float
    offset: float
    resampling: str
    categorical: bool


class SceneRef(BaseModel):
    """What a mosaic remembers of a scene."""

    model_config = ConfigDict(frozen=True)

    id: str
    item_href: str | None
    footprint: str | None
    """WKB in hex, in the grid's CRS."""


class MosaicTask(Task):
    """All bands of one acquisition, on the whole grid or on one shard of it."""

    timestamp: str
    acquired: datetime
    collection: str
    scenes: tuple[SceneRef, ...]
    bands: tuple[MosaicBand, ...]
    grid: GridSpec
    windows: tuple[Window, ...]
    shard: int
    cell: int
    method: str
    values: str
    on_missing: str
    codec: str
    properties: dict[str, Any] = {}

    @property
    def window(self) -> Window:
        """Rows and columns of the grid that this task makes."""
        return self.windows[self.shard]

    def band_path(self, band: str) -> str:
        """Name of a band's mosaic in the store."""
        return f"mosaics/{self.timestamp}/{band}.tif"

    def part_path(self, band: str, shard: int) -> str:
        """Name of a shard of a band, until the whole is put together."""
        return f"parts/{self.timestamp}/{band}.{shard:05d}.part"


def plan(selection: Selection, request: RunRequest, area: MultiPolygon | None) -> list[MosaicTask]:
    """One task per acquisition (and shard), all on one grid.

    `area` is in degrees; None takes all that the scenes cover. Reads one header per band, for the estimate.
    """
    product = request.product
    names = resolve_bands(request)
    acquisitions = _with_footprints(selection.acquisitions)
    if area is None:
        area = _union([scene for one in acquisitions for scene in one.scenes])
    resolution = min(
        (record.bands[name].resolution for record in records_for(request) for name in names if name in record.bands)
    )
    grid = choose_grid(area, request.grid, resolution)
    extent = shapely.geometry.shape(stac.grid_footprint(grid))
    bands_of = {one.timestamp: [_band(name, one, product) for name in names] for one in acquisitions}
    probes = _probe_bands(bands_of.values(), names)
    spec = GridSpec.of(grid)
    tasks = []
    for one in acquisitions:
        scenes = [s for s in one.scenes if s.footprint is None or shares_ground(s.footprint, extent)]
        if not scenes and one.scenes:
            continue  # inside the area searched, outside the grid asked for
        refs = tuple(_ref(scene, str(grid.crs)) for scene in scenes)
        bands = tuple(_only(band, {ref.id for ref in refs}) for band in bands_of[one.timestamp])
        windows, cell = cut(spec.shape, widest_window(bands, product.method, request.limits.memory))
        for shard, window in enumerate(windows):
            task = MosaicTask(
                id=one.timestamp if len(windows) == 1 else f"{one.timestamp}.{shard:05d}",
                outputs=(),
                item_path=f"mosaics/{one.timestamp}/{one.timestamp}.json",
                timestamp=one.timestamp,
                acquired=one.acquired,
                collection=request.run,
                scenes=refs,
                bands=bands,
                grid=spec,
                windows=tuple(windows),
                shard=shard,
                cell=cell,
                method=product.method,
                values=product.values,
                on_missing=product.on_missing,
                codec=product.compression,
                properties=_properties(scenes, one),
            )
            outputs = (*(task.band_path(band.name) for band in bands), task.item_path)
            size = estimate(grid, window, bands, probes, refs, product.method)
            tasks.append(task.model_copy(update={"outputs": outputs, "estimate": size}))
    return tasks


def _with_footprints(acquisitions: Sequence[Acquisition]) -> list[Acquisition]:
    """Where the catalogue does not tell footprints (files on disk), the files do."""
    return [
        replace(one, scenes=tuple(s if s.footprint is not None else replace(s, footprint=_outline(s)) for s in one.scenes))
        for one in acquisitions
    ]


def _outline(scene: Scene) -> BaseGeometry | None:
    """The image's outline in degrees, from the first of its files that opens."""
    for asset in scene.assets.values():
        try:
            source = open_source(asset.href, asset.index, Budget())
        except ReadError:
            continue
        info = source.info
        source.close()
        spec = GridSpec(crs=info.crs, transform=tuple(info.transform)[:6], shape=(info.height, info.width))  # type: ignore[arg-type]
        return shapely.geometry.shape(stac.grid_footprint(spec.grid))
    return None


def _union(scenes: Sequence[Scene]) -> MultiPolygon:
    whole = shapely.union_all([scene.footprint for scene in scenes if scene.footprint is not None])
    if whole.is_empty:
        raise RequestError("none of the scenes says where it is: give an area")
    parts = getattr(whole, "geoms", [whole])
    return MultiPolygon([part for part in parts if part.geom_type == "Polygon"])


def _band(name: str, acquisition: Acquisition, product: MosaicRequest) -> MosaicBand:
    """One band of an acquisition. Raises RequestError where its tiles cannot stand in one mosaic."""
    assets = {scene.id: scene.assets[name] for scene in acquisition.scenes if name in scene.assets}
    known: Sequence[Asset] = list(assets.values())
    if len({(asset.nodata, asset.dtype) for asset in known}) > 1:
        raise RequestError(f"{acquisition.timestamp}: the collections give {name} different nodata or dtype; run them apart")
    shifts = {asset.shift for asset in known}
    raw = product.values == "raw"
    if raw and len(shifts) > 1:
        raise RequestError(
            f"{acquisition.timestamp}: some tiles of {name} carry a shift of {max(shifts)} and some do not; "
            "use product.values: harmonized"
        )
    categorical = any(asset.categorical for asset in known)
    scale, offset = (known[0].scale, known[0].offset) if known else (1.0, 0.0)
    return MosaicBand(
        name=name,
        sources=tuple(
            TileSource(
                scene=scene, href=a.href, index=a.index, signing=a.signing, shift=0 if raw else a.shift
            )
            for scene, a in assets.items()
        ),
        absent=tuple(scene.id for scene in acquisition.scenes if name not in scene.assets),
        dtype=known[0].dtype if known else "uint8",
        nodata=known[0].nodata if known else None,
        scale=scale,
        offset=offset - scale * shifts.pop() if raw and shifts else offset,
        resampling="nearest" if categorical else _resampling(name, product),
        categorical=categorical,
    )


def _resampling(name: str, product: MosaicRequest) -> str:
    if isinstance(product.resampling, str):
        return product.resampling
    return {key.lower(): value for key, value in product.resampling.items()}.get(name, "nearest")


def _only(band: MosaicBand, scenes: set[str]) -> MosaicBand:
    return band.model_copy(
        update={
            "sources": tuple(source for source in band.sources if source.scene in scenes),
            "absent": tuple(scene for scene in band.absent if scene in scenes),
        }
    )


def _ref(scene: Scene, crs: str) -> SceneRef:
    footprint = None if scene.footprint is None else shapely.make_valid(project(scene.footprint, crs))
    return SceneRef(
        id=scene.id,
        item_href=scene.item_href,
        footprint=None if footprint is None else shapely.to_wkb(footprint, hex=True),
    )


def _properties(scenes: Sequence[Scene], acquisition: Acquisition) -> dict[str, Any]:
    clouds = [scene.cloud_cover for scene in scenes if scene.cloud_cover is not None]
    platforms = sorted({scene.platform for scene in scenes if scene.platform})
    return {
        **({"platform": platforms[0]} if len(platforms) == 1 else {}),
        **({"eo:cloud_cover": max(clouds)} if clouds else {}),
        **({"scenebeam:coverage": round(acquisition.coverage, 6)} if acquisition.coverage is not None else {}),
    }


def _probe_bands(all_bands: Any, names: list[str]) -> dict[str, BandProbe]:
    """What one header of each band says of block size and bytes per pixel."""
    probes: dict[str, BandProbe] = {}
    for bands in all_bands:
        for band in bands:
            if band.name not in probes and band.sources:
                source = band.sources[0]
                probes[band.name] = probe(sign(source.href, source.signing), source.index)
        if len(probes) == len(names):
            break
    return probes


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
    names = [task.part_path(band.name, task.shard) for band in task.bands]
    if len(task.windows) == 1 or not all(name in store.list(f"parts/{task.timestamp}/") for name in names):
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
        return _refusal(task, missing, "failed_missing_inputs", f"no readable tile of {', '.join(empty)}: {_tell(missing)}")
    return None


def _refusal(task: MosaicTask, missing: Missing, kind: str, reason: str) -> Outcome:
    state = "skipped" if task.on_missing == "skip" else "failed"
    return Outcome(task=task.id, state=state, kind=kind, reason=reason, detail={"missing": missing})  # type: ignore[arg-type]


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
    facts = [
        {"valid": valid[index], "missing": missing[band.name]} for index, band in enumerate(task.bands)
    ]
    if sharded:
        for band, pyramid, fact in zip(task.bands, pyramids, facts, strict=True):
            with store.writing(task.part_path(band.name, task.shard)) as file:
                write_part(file, pyramid, task.window, fact)
        return
    def publish(band: MosaicBand, pyramid: Pyramid, fact: dict[str, Any]) -> dict[str, Any]:
        levels_done = [Level(tiles.height, tiles.width, tiles.sizes, tiles) for tiles in pyramid.finish()]
        with store.writing(task.band_path(band.name)) as file:
            write_cog(file, _profile(task, band, pyramid.dtype, pyramid.nodata), levels_done)  # type: ignore[arg-type]
        return _asset(task, band, file, pyramid.dtype, pyramid.nodata, [fact])

    assets = io_threads().map(publish, task.bands, pyramids, facts)
    _publish_item(task, store, {band.name: asset for band, asset in zip(task.bands, assets, strict=True)})


def _open_all(task: MosaicTask, budget: Budget, missing: Missing) -> dict[str, dict[str, Source]]:
    """Open every file that the window needs, all headers in flight at once: band → scene → source."""
    scenes = _scenes_in_window(task)
    futures: dict[tuple[str, str], Future[Source]] = {
        (band.name, source.scene): io_threads().submit(
            open_source, sign(source.href, source.signing), source.index, budget
        )
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
            fault = CheckError(f"{source.href} declares nodata {info.nodata:g}, its collection {nodata:g}: which is it?")
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
    if not wanted <= store.list(f"parts/{task.timestamp}/"):
        if task.item_path in store.list(f"mosaics/{task.timestamp}/"):
            return Outcome(task=task.id, state="done")  # another worker was faster, and has tidied up
        return Outcome(task=task.id, state="done", detail={"part": True})
    height, width = task.grid.shape
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
        description=band.name,
        scale=band.scale,
        offset=band.offset,
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
        task.grid.grid,
        assets,
        [(ref.id, ref.item_href) for ref in task.scenes],
        {**task.properties, "scenebeam:values": task.values, "scenebeam:complete": not incomplete},
    )
    store.write(task.item_path, stac.dump(item))
