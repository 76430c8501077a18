"""Plan mosaics: scenes → tasks, on one grid for the whole series."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import shapely
from shapely.geometry import MultiPolygon
from shapely.geometry.base import BaseGeometry

from scenebeam.catalog.acquisition import Acquisition
from scenebeam.catalog.scene import Asset, Scene
from scenebeam.catalog.search import records_for, resolve_bands
from scenebeam.catalog.select import Selection, shares_ground
from scenebeam.errors import ReadError, RequestError
from scenebeam.products import stac
from scenebeam.products.mosaics.estimate import BandProbe, estimate, probe, widest_window
from scenebeam.products.mosaics.task import MosaicBand, MosaicTask, SceneRef, TileSource
from scenebeam.products.product import Planned
from scenebeam.products.shards import cut
from scenebeam.products.task import GridSpec
from scenebeam.raster.grid import choose_grid, project
from scenebeam.raster.reader import open_source
from scenebeam.request import MosaicRequest, RunRequest
from scenebeam.transfer.ranges import Budget


def plan(selection: Selection, request: RunRequest, area: MultiPolygon | None) -> Planned:
    """One task per acquisition (and shard), all on one grid.

    `area` is in degrees; None takes all that the scenes cover. Reads one header per band, for the estimate.
    """
    product = request.product
    assert isinstance(product, MosaicRequest)
    names = resolve_bands(request)
    acquisitions = _with_footprints(selection.acquisitions)
    if area is None and request.grid.bounds is None:
        area = _union([scene for one in acquisitions for scene in one.scenes])
    resolution = min(
        record.bands[name].resolution for record in records_for(request) for name in names if name in record.bands
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
    if not tasks:
        raise RequestError("none of the scenes selected lies on the grid asked for: see grid.bounds")
    return Planned(tasks, {})


def _with_footprints(acquisitions: Sequence[Acquisition]) -> list[Acquisition]:
    """Where the catalogue does not tell footprints (files on disk), the files do."""
    return [
        replace(
            one,
            scenes=tuple(s if s.footprint is not None else replace(s, footprint=_outline(s)) for s in one.scenes),
        )
        for one in acquisitions
    ]


def _outline(scene: Scene) -> BaseGeometry | None:
    """The image's outline in degrees, from the first of its files that opens."""
    for asset in scene.assets.values():
        try:
            source = open_source(asset.href, asset.index, Budget(), asset.signing)
        except ReadError:
            continue
        info = source.info
        source.close()
        spec = GridSpec(crs=info.crs, transform=tuple(info.transform)[:6], shape=(info.height, info.width))
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
        raise RequestError(
            f"{acquisition.timestamp}: the collections give {name} different nodata or dtype; run them apart"
        )
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
            TileSource(scene=scene, href=a.href, index=a.index, signing=a.signing, shift=0 if raw else a.shift)
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


def _probe_bands(all_bands: Iterable[Sequence[MosaicBand]], names: list[str]) -> dict[str, BandProbe]:
    """What one header of each band says of block size and bytes per pixel."""
    probes: dict[str, BandProbe] = {}
    for bands in all_bands:
        for band in bands:
            if band.name not in probes and band.sources:
                source = band.sources[0]
                probes[band.name] = probe(source.href, source.index, source.signing)
        if len(probes) == len(names):
            break
    return probes
