"""Plan stacks: one task per scene."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import shapely
from shapely.geometry import MultiPolygon
from shapely.geometry.base import BaseGeometry

from scenebeam.catalog.area import TILE_METERS
from scenebeam.catalog.bands import bands_of, record_of, resolve_bands
from scenebeam.catalog.scene import Asset, Scene
from scenebeam.catalog.select import Selection
from scenebeam.collections import CollectionRecord
from scenebeam.errors import RequestError
from scenebeam.imaging.bands import (
    common_properties,
    covered_area,
    declared_values,
    requested_resampling,
)
from scenebeam.imaging.estimate import (
    ENCODED_MEMORY,
    PROCESS_MEMORY,
    column_bytes,
    finest_resolution,
)
from scenebeam.imaging.fetch import file_suffix
from scenebeam.imaging.pixel_origin import shared_origin
from scenebeam.imaging.probes import ProbeCache, compression_gain
from scenebeam.imaging.refs import scene_ref
from scenebeam.products.base import Planned, SearchScope
from scenebeam.products.stacks.request import StackRequest
from scenebeam.products.stacks.task import STACKS, BandSlot, StackBand, StackTask
from scenebeam.raster.compose import AHEAD
from scenebeam.raster.grid import choose_grid, project, utm_crs
from scenebeam.request import RunRequest, is_url
from scenebeam.request.product import VISUAL
from scenebeam.storage import checked_key
from scenebeam.tasks import Estimate, GridSpec
from scenebeam.transfer.signing import effective_limits

_FAR_AHEAD = 3
"""Strips read ahead where memory allows: over a slow line a small area is then asked for at once."""


def plan_stacks(
    selection: Selection, request: RunRequest[StackRequest], search_scope: SearchScope
) -> Planned:
    """One task per scene; without an area it takes all of each scene."""
    area = search_scope.area
    product = request.product
    names = resolve_bands(request)
    grid = None
    if request.grid.crs or request.grid.resolution or request.grid.bounds:
        if product.resolution_mode == "preserve":
            raise RequestError(
                "product.resolution_mode: preserve keeps the scene's own grids: leave grid out"
            )
        whole = area or covered_area(selection.scenes)
        grid = GridSpec.of(
            choose_grid(
                whole,
                request.grid,
                finest_resolution(request, names),
                origin=shared_origin(selection.scenes, names, request),
                max_pixels=request.limits.max_pixels,
            )
        )
    probing = ProbeCache(effective_limits(request), measure=search_scope.measure)
    return Planned([_task(scene, request, grid, area, probing) for scene in selection.scenes], {})


def _task(
    scene: Scene,
    request: RunRequest[StackRequest],
    grid: GridSpec | None,
    area: MultiPolygon | None,
    probing: ProbeCache,
) -> StackTask:
    product = request.product
    in_cloud = request.output.startswith("gs://")
    bands = _bands(scene, record_of(scene, request), request)
    with_files = [band for band in bands if isinstance(band, StackBand)]
    has_remote = any(band.file for band in with_files)
    form = product.format or ("geotiff" if in_cloud or has_remote else "vrt")
    if form == "geotiff":
        # Bands are read from their sources: nothing is downloaded.
        bands = tuple(
            band.model_copy(update={"file": ""}) if isinstance(band, StackBand) else band
            for band in bands
        )
        with_files = [band for band in bands if isinstance(band, StackBand)]
    if form == "vrt" and in_cloud and not all(band.file for band in with_files):
        raise RequestError(
            "product.format: a VRT in a bucket cannot name files on this machine; take geotiff"
        )
    if form == "vrt" and product.compression != "deflate":
        raise RequestError("product.compression: a VRT holds no pixels; take format: geotiff")
    size, at_once, ahead = _estimate(
        scene, with_files, len(bands), form, request, grid, area, probing
    )
    task = StackTask(
        id=scene.id,
        outputs=(),
        item_path=checked_key(f"{STACKS}/{scene.id}/{scene.id}.json"),
        estimate=size,
        scene=scene_ref(scene),
        collection=request.run,
        bands=bands,
        format=form,
        intersect=product.resolution_mode == "intersect",
        grid=grid,
        area=_hex(area),
        values=declared_values(product.values, [scene], [band.name for band in bands]),
        codec=product.compression,
        checks=request.checks,
        visualization=product.visualization_only,
        at_once=at_once,
        ahead=ahead,
        properties={
            **common_properties([scene]),
            **({"grid:code": f"MGRS-{scene.tile}"} if scene.tile else {}),
        },
    )
    files = [task.file_key(band.file) for band in with_files if band.file and band.required]
    pictures = [task.screenshot_key] if request.checks.screenshot else []
    outputs = (*map(task.stack_key, task.stacks), *dict.fromkeys(files), *pictures, task.item_path)
    return task.model_copy(update={"outputs": outputs})


def _hex(geometry: BaseGeometry | None) -> str | None:
    return None if geometry is None else shapely.to_wkb(geometry, hex=True)


def _bands(
    scene: Scene, record: CollectionRecord, request: RunRequest[StackRequest]
) -> tuple[StackBand | BandSlot, ...]:
    product = request.product
    required: Sequence[str]
    if product.visualization_only:
        names, required = list(VISUAL), VISUAL
    else:
        names = record.canonical(bands_of(record, request))
        required = _required(names, record, request)
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
        bands.append(
            StackBand(
                name=name,
                required=name in required,
                stack=stack,
                asset=asset,
                resampling="nearest" if asset.categorical else resampling,
                file=_file_name(name, asset, assets),
            )
        )
    return tuple(bands)


def _required(
    names: Sequence[str], record: CollectionRecord, request: RunRequest[StackRequest]
) -> Sequence[str]:
    """Return the bands without which a scene has no stack: the request's, else the record's."""
    product = request.product
    if product.required is None:
        return record.required
    found: list[str] = []
    for typed in product.required:
        name = record.band_name(typed)
        if name is None and len(request.collections) > 1:
            continue  # a band of another collection
        if name is None or name not in names:
            raise RequestError(
                f"product.required: {typed!r} is not among the bands of the stack "
                f"({', '.join(names)}); add it to product.bands, or leave it out"
            )
        found.append(name)
    return found


def _file_name(name: str, asset: Asset, assets: Mapping[str, Asset | None]) -> str:
    """`red.tif`; of a file with several of the bands the word that their names begin with: `visual.tif`.

    Empty where the file is on this machine already.
    """
    if not is_url(asset.href):
        return ""
    sharing = [other for other, one in assets.items() if one is not None and one.href == asset.href]
    return f"{name if len(sharing) == 1 else name.partition('_')[0]}{file_suffix(asset)}"


def _estimate(
    scene: Scene,
    bands: Sequence[StackBand],
    count: int,
    form: str,
    request: RunRequest[StackRequest],
    grid: GridSpec | None,
    area: MultiPolygon | None,
    probing: ProbeCache,
) -> tuple[Estimate, int, int]:
    """What the task will take, how many bands are made at once, and how many strips are read ahead."""
    there = [band.asset for band in bands]
    width, height = _extent(scene, area)
    finest_pixel = min((asset.resolution for asset in there), default=10.0)
    columns = grid.shape[1] if grid is not None else int(width / finest_pixel) + 1
    rows = grid.shape[0] if grid is not None else int(height / finest_pixel) + 1
    encoded = 0 if form == "vrt" else ENCODED_MEMORY
    for ahead in (_FAR_AHEAD, AHEAD):
        widths = [columns * column_bytes(asset.dtype, ahead=ahead) for asset in there]
        each = max((encoded + width for width in widths), default=1)
        at_once = min(count, (request.limits.memory - PROCESS_MEMORY) // each)
        if at_once == count:
            break
    if at_once < 1:
        raise RequestError(
            f"limits.memory: a stack of {scene.id}, {columns:,} pixels wide, takes {(PROCESS_MEMORY + each) / 1e6:,.0f} MB; "
            "raise it, or narrow the area"
        )
    blocks = most_blocks = 0
    read = most_read = 0.0
    for asset in there:
        least, most = probing.blocks(asset, width, height)
        blocks, most_blocks = blocks + least, most_blocks + most
        size_each = probing.of(asset).block_bytes
        read, most_read = read + least * size_each, most_read + most * size_each
    if form == "vrt":
        # The files come whole, and are looked at where they lie.
        coming = sum(probing.sizes.of(band.asset) for band in bands if band.file)
        size = Estimate(
            blocks=blocks,
            requests=2 * len(there),
            most_requests=4 * len(there) + most_blocks,
            read_bytes=coming,
            most_read_bytes=coming + int(most_read),
            write_bytes=coming,
            memory=PROCESS_MEMORY + at_once * each,
        )
        return size, at_once, ahead
    pixel = grid.transform[0] if grid is not None else finest_pixel
    known_of = [probing.of(asset) for asset in there]
    outputs = [(rows * columns * 4 / 3 * known.bytes_per_pixel, known) for known in known_of]
    size = Estimate(
        blocks=blocks,
        requests=2 * len(there),
        most_requests=4 * len(there) + most_blocks,
        read_bytes=int(read),
        most_read_bytes=int(most_read),
        write_bytes=int(sum(each / compression_gain(known, pixel) for each, known in outputs)),
        most_write_bytes=int(sum(each for each, _ in outputs)),
        pixels=rows * columns * len(there),
        memory=PROCESS_MEMORY + at_once * each,
    )
    return size, at_once, ahead


def _extent(scene: Scene, area: MultiPolygon | None) -> tuple[float, float]:
    """Width and height in metres of what is wanted of a scene."""
    seen: BaseGeometry | None = scene.footprint
    if area is not None:
        seen = area if seen is None else shapely.intersection(seen, area)
    if seen is None or seen.is_empty:
        return TILE_METERS, TILE_METERS
    parts = [part for part in getattr(seen, "geoms", [seen]) if part.geom_type == "Polygon"]
    left, bottom, right, top = project(seen, utm_crs(MultiPolygon(parts))).bounds
    return right - left, top - bottom
