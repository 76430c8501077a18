"""Plan mosaics: scenes → tasks, on one grid for the whole series."""

from __future__ import annotations

import shapely

from scenebeam.catalog.bands import resolve_bands
from scenebeam.catalog.select import Selection, shares_ground
from scenebeam.errors import RequestError
from scenebeam.imaging.bands import (
    Band,
    common_properties,
    covered_area,
    declared_values,
    describe_band,
    fill_footprints,
    keep_scenes,
)
from scenebeam.imaging.estimate import estimate_task, finest_resolution, max_window_width, probe_bands
from scenebeam.imaging.gridded_task import item_key
from scenebeam.imaging.pixel_origin import shared_origin
from scenebeam.imaging.refs import scene_ref
from scenebeam.imaging.shards import cut_windows
from scenebeam.metadata import stac_items
from scenebeam.products.base import Planned, SearchScope
from scenebeam.products.mosaics.request import MosaicRequest
from scenebeam.products.mosaics.task import MosaicTask
from scenebeam.raster.grid import choose_grid
from scenebeam.request import RunRequest
from scenebeam.tasks import GridSpec
from scenebeam.transfer.signing import effective_limits


def plan_mosaics(
    selection: Selection, request: RunRequest[MosaicRequest], search_scope: SearchScope
) -> Planned:
    """One task per acquisition (and shard), all on one grid.

    Without an area it takes all that the scenes cover. Reads one header per band, for the estimate.
    """
    product = request.product
    names = resolve_bands(request)
    # Files bear the names that the request has for their bands.
    labels = dict(zip(names, product.bands, strict=True))
    limits = effective_limits(request)
    acquisitions = fill_footprints(selection.acquisitions, limits)
    area = search_scope.area
    if area is None and request.grid.bounds is None:
        area = covered_area(scene for one in acquisitions for scene in one.scenes)
    scenes = [scene for one in acquisitions for scene in one.scenes]
    grid = choose_grid(
        area,
        request.grid,
        finest_resolution(request, names),
        origin=shared_origin(scenes, names, request),
        max_pixels=limits.max_pixels,
    )
    extent = shapely.geometry.shape(stac_items.grid_footprint(grid))
    bands_of: dict[str, list[Band]] = {}
    for one in acquisitions:
        bands_of[one.timestamp] = [
            describe_band(
                name,
                one,
                request.checks,
                label=labels[name],
                values=product.values,
                resampling=product.resampling,
            )
            for name in names
        ]
    probes = probe_bands(bands_of.values(), limits)
    spec = GridSpec.of(grid)
    tasks = []
    for one in acquisitions:
        scenes = [
            s for s in one.scenes if s.footprint is None or shares_ground(s.footprint, extent)
        ]
        if not scenes and one.scenes:
            continue  # inside the area searched, outside the grid asked for
        refs = tuple(scene_ref(scene, str(grid.crs)) for scene in scenes)
        bands = tuple(keep_scenes(band, {ref.id for ref in refs}) for band in bands_of[one.timestamp])
        windows, cell = cut_windows(
            spec.shape, max_window_width(bands, product.method, request.limits.memory, len(bands))
        )
        for shard, window in enumerate(windows):
            task = MosaicTask(
                id=one.timestamp if len(windows) == 1 else f"{one.timestamp}.{shard:05d}",
                outputs=(),
                item_path=item_key("mosaics", one.timestamp),
                name=one.timestamp,
                when=one.acquired,
                folder="mosaics",
                collection=request.run,
                scenes=refs,
                bands=bands,
                grid=spec,
                window=window,
                shard=shard,
                shards=len(windows),
                cell=cell,
                method=product.method,
                values=declared_values(product.values, scenes, names),
                on_missing=product.on_missing,
                codec=product.compression,
                properties={
                    **common_properties(scenes),
                    **(
                        {}
                        if one.coverage is None
                        else {"scenebeam:coverage": round(one.coverage, 6)}
                    ),
                },
            )
            images = [task.output_key(band.label) for band in task.made]
            outputs = (*images, task.thumbnail_key, task.item_path)
            size = estimate_task(grid, window, bands, probes, refs, product.method, len(bands))
            tasks.append(task.model_copy(update={"outputs": outputs, "estimate": size}))
    if not tasks:
        raise RequestError(
            "none of the scenes selected lies on the grid asked for: see grid.bounds"
        )
    return Planned(tasks, {})
