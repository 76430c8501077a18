"""Plan stacks: one task per scene."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import shapely
from shapely.geometry import MultiPolygon
from shapely.geometry.base import BaseGeometry

from scenebeam.catalog.bands import bands_of, record_of, resolve_bands
from scenebeam.catalog.scene import Asset, Scene
from scenebeam.catalog.selection import Selection
from scenebeam.collections import CollectionRecord
from scenebeam.errors import RequestError
from scenebeam.imaging.bands import (
    common_properties,
    covered_area,
    declared_values,
    requested_resampling,
)
from scenebeam.imaging.estimate import finest_resolution
from scenebeam.imaging.fetch import file_suffix
from scenebeam.imaging.pixel_origin import shared_origin
from scenebeam.imaging.probes import ProbeCache
from scenebeam.imaging.refs import scene_ref
from scenebeam.products.base import Planned, SearchScope
from scenebeam.products.stacks.estimate import estimate_stack, plan_memory, stack_shape
from scenebeam.products.stacks.request import StackRequest
from scenebeam.products.stacks.task import STACKS, BandSlot, StackBand, StackTask
from scenebeam.raster.grid import choose_grid
from scenebeam.request import RunRequest, is_url
from scenebeam.request.product import VISUAL
from scenebeam.storage import checked_key
from scenebeam.tasks import GridSpec
from scenebeam.transfer.signing import effective_limits


def plan_stacks(
    selection: Selection, request: RunRequest[StackRequest], search_scope: SearchScope
) -> Planned:
    """Plan one task per scene. Without an area, a stack covers all of its scene.

    Args:
        selection: The selected acquisitions.
        request: The request.
        search_scope: The area that was searched.

    Raises:
        RequestError: A scene has none of the bands, or the format does not fit the files.
        ReadError: A header that decides the grid may be readable later.
    """
    area = search_scope.area
    grid = _requested_grid(selection, request, area)
    probes = ProbeCache(effective_limits(request), measure=search_scope.measure)
    tasks = [_plan_scene(scene, request, grid, area, probes) for scene in selection.scenes]
    return Planned(tasks, {})


def _requested_grid(
    selection: Selection, request: RunRequest[StackRequest], area: MultiPolygon | None
) -> GridSpec | None:
    """Return the grid of all stacks; None if each scene has its own."""
    is_given = request.grid.crs or request.grid.resolution or request.grid.bounds
    if not is_given and request.product.store_format is None:
        return None
    if request.product.resolution_mode == "preserve":
        raise RequestError(
            "product.resolution_mode: preserve keeps the scene's own grids: leave grid out"
        )
    names = resolve_bands(request)
    grid = choose_grid(
        area or covered_area(selection.scenes),
        request.grid,
        finest_resolution(request, names),
        origin=shared_origin(selection.scenes, names, request),
        max_pixels=request.limits.max_pixels,
    )
    return GridSpec.of(grid)


def _plan_scene(
    scene: Scene,
    request: RunRequest[StackRequest],
    grid: GridSpec | None,
    area: MultiPolygon | None,
    probes: ProbeCache,
) -> StackTask:
    product = request.product
    bands = _bands(scene, record_of(scene, request), request)
    form = _choose_format(bands, request)
    if form == "geotiff":
        # Bands are read from their sources by range: nothing is downloaded.
        bands = [_without_file(band) for band in bands]
    with_files = [band for band in bands if isinstance(band, StackBand)]
    shape = stack_shape(scene, with_files, grid, area)
    memory = plan_memory(scene.id, with_files, len(bands), shape, request.limits.memory, form)
    properties = common_properties([scene])
    if scene.tile:
        properties["grid:code"] = f"MGRS-{scene.tile}"
    task = StackTask(
        id=scene.id,
        outputs=(),
        item_path=checked_key(f"{STACKS}/{scene.id}/{scene.id}.json"),
        estimate=estimate_stack(with_files, shape, memory.memory, form, probes),
        scene=scene_ref(scene),
        collection=request.run,
        bands=tuple(bands),
        format=form,
        intersect=product.resolution_mode == "intersect",
        grid=grid,
        area=_hex_wkb(area),
        values=declared_values(product.values, [scene], [band.name for band in bands]),
        codec=product.compression,
        checks=request.checks,
        visualization=product.visualization_only,
        at_once=memory.at_once,
        properties=properties,
    )
    files = [task.file_key(band.file) for band in with_files if band.file and band.required]
    thumbnails = [task.screenshot_key] if request.checks.screenshot else []
    stacks = [task.stack_key(stack) for stack in task.stacks]
    outputs = (*stacks, *dict.fromkeys(files), *thumbnails, task.item_path)
    return task.model_copy(update={"outputs": outputs})


def _choose_format(
    bands: Sequence[StackBand | BandSlot], request: RunRequest[StackRequest]
) -> Literal["vrt", "geotiff"]:
    """Return the format of the stacks, and check that it is possible."""
    product = request.product
    in_cloud = request.output.startswith("gs://")
    is_remote = [bool(band.file) for band in bands if isinstance(band, StackBand)]
    if product.store_format is not None:
        return "geotiff"
    form: Literal["vrt", "geotiff"] = "geotiff" if in_cloud or any(is_remote) else "vrt"
    if product.format in ("vrt", "geotiff"):
        form = product.format
    if form == "vrt" and in_cloud and not all(is_remote):
        raise RequestError(
            "product.format: a VRT in a bucket cannot refer to files on this machine; use geotiff"
        )
    if form == "vrt" and product.compression != "deflate":
        raise RequestError("product.compression: a VRT holds no pixels; use format: geotiff")
    return form


def _without_file(band: StackBand | BandSlot) -> StackBand | BandSlot:
    return band.model_copy(update={"file": ""}) if isinstance(band, StackBand) else band


def _hex_wkb(geometry: BaseGeometry | None) -> str | None:
    return None if geometry is None else shapely.to_wkb(geometry, hex=True)


def _bands(
    scene: Scene, record: CollectionRecord, request: RunRequest[StackRequest]
) -> list[StackBand | BandSlot]:
    """Return the bands of a scene's stacks in canonical order, each with its file if it has one."""
    product = request.product
    names: Sequence[str]
    required: Sequence[str]
    if product.visualization_only:
        names = required = VISUAL
    else:
        names = record.canonical(bands_of(record, request))
        required = _required_bands(names, record, request)
    if not names:
        raise RequestError(
            f"product.bands: {scene.id} of {record.id} has none of {', '.join(product.bands)}"
        )
    assets = {name: scene.assets.get(name) for name in names}
    bands: list[StackBand | BandSlot] = []
    for name, asset in assets.items():
        resolution = record.bands[name].resolution if asset is None else asset.resolution
        stack = f"_{resolution:g}m" if product.resolution_mode == "preserve" else ""
        if asset is None:
            bands.append(BandSlot(name=name, required=name in required, stack=stack))
            continue
        resampling = requested_resampling(name, product.resampling)
        band = StackBand(
            name=name,
            required=name in required,
            stack=stack,
            asset=asset,
            resampling="nearest" if asset.categorical else resampling,
            file=_file_name(name, asset, assets),
        )
        bands.append(band)
    return bands


def _required_bands(
    names: Sequence[str], record: CollectionRecord, request: RunRequest[StackRequest]
) -> Sequence[str]:
    """Return the bands without which a scene has no stack: the request's, else the record's."""
    product = request.product
    if product.required is None:
        return record.required
    required: list[str] = []
    for typed in product.required:
        name = record.band_name(typed)
        if name is None and len(request.collections) > 1:
            continue  # a band of another collection
        if name is None or name not in names:
            raise RequestError(
                f"product.required: {typed!r} is not among the bands of the stack "
                f"({', '.join(names)}); add it to product.bands, or leave it out"
            )
        required.append(name)
    return required


def _file_name(name: str, asset: Asset, assets: Mapping[str, Asset | None]) -> str:
    """Return the name under which a band's file is downloaded; empty if it is on this machine.

    It is `red.tif`, or `visual.tif` if several bands, such as `visual_red`, are in one file.
    """
    if not is_url(asset.href):
        return ""
    sharing = 0
    for other in assets.values():
        if other is not None and other.href == asset.href:
            sharing += 1
    stem = name if sharing == 1 else name.partition("_")[0]
    return f"{stem}{file_suffix(asset)}"
