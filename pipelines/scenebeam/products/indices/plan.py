"""Plan indices: scenes → one task per image and shard, on one grid."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import shapely
from shapely.geometry.base import BaseGeometry

from scenebeam.catalog.acquisition import Acquisition
from scenebeam.catalog.bands import record_of, resolve_bands
from scenebeam.catalog.select import Selection, shares_ground
from scenebeam.collections import CollectionRecord
from scenebeam.errors import RequestError
from scenebeam.imaging.bands import (
    Band,
    common_properties,
    covered_area,
    declared_values,
    describe_band,
    fill_footprints,
)
from scenebeam.imaging.estimate import (
    PROCESS_MEMORY,
    estimate_task,
    finest_resolution,
    max_window_width,
)
from scenebeam.imaging.gridded_task import item_key
from scenebeam.imaging.pixel_origin import shared_origin
from scenebeam.imaging.probes import BandProbe, compression_gain, probe_bands
from scenebeam.imaging.refs import scene_ref
from scenebeam.imaging.shards import cut_windows
from scenebeam.imaging.thumbnails import THUMBNAIL
from scenebeam.metadata import stac_items
from scenebeam.products.base import Planned, SearchScope
from scenebeam.products.indices.periods import Group, groups
from scenebeam.products.indices.request import IndexRequest
from scenebeam.products.indices.task import INDICES, IndexTask, MaskRule, label
from scenebeam.raster.compose import ROW_CHUNK
from scenebeam.raster.grid import Grid, choose_grid
from scenebeam.request import RunRequest
from scenebeam.storage import checked_key
from scenebeam.tasks import GridSpec
from scenebeam.transfer.signing import effective_limits

_AT_ONCE = 3
"""Tasks that share `limits.memory`: two compute while another waits for its reads."""


def plan_indices(
    selection: Selection, request: RunRequest[IndexRequest], search_scope: SearchScope
) -> Planned:
    """One task per image (and shard), all on one grid; without an area it takes all that the scenes cover."""
    product = request.product
    variables = dict(zip(product.requested_bands, resolve_bands(request), strict=True))
    limits = effective_limits(request)
    acquisitions = fill_footprints(selection.acquisitions, limits)
    area = search_scope.area
    if area is None and request.grid.bounds is None:
        area = covered_area(scene for one in acquisitions for scene in one.scenes)
    scenes = [scene for one in acquisitions for scene in one.scenes]
    grid = choose_grid(
        area,
        request.grid,
        finest_resolution(request, list(variables.values())),
        origin=shared_origin(scenes, list(variables.values()), request),
        max_pixels=limits.max_pixels,
    )
    extent = shapely.geometry.shape(stac_items.grid_footprint(grid))
    found = groups(
        [on for one in acquisitions if (on := _on(one, extent)) is not None],
        product,
        request.intervals,
    )
    if not found:
        raise RequestError(
            "dates: the two periods do not both have scenes on the grid"
            if product.formula.differenced
            else "none of the scenes selected lies on the grid asked for: see grid.bounds"
        )
    described = {
        _key(one): _bands(one, variables, request) for group in found for one in group.acquisitions
    }
    probes = probe_bands((bands for bands, _ in described.values()), limits)
    tasks = []
    for group in found:
        masks = tuple(
            dict.fromkeys(rule for one in group.acquisitions for rule in described[_key(one)][1])
        )
        bands = tuple(band for one in group.acquisitions for band in described[_key(one)][0])
        tasks += _tasks(group, bands, masks, variables, request, grid, probes)
    return Planned(tasks, {})


def _key(one: Acquisition) -> str:
    return one.timestamp + "".join(scene.id for scene in one.scenes[:1])


def _on(one: Acquisition, extent: BaseGeometry) -> Acquisition | None:
    """The acquisition without the scenes that lie beside the grid; None where all do."""
    scenes = tuple(
        s for s in one.scenes if s.footprint is None or shares_ground(s.footprint, extent)
    )
    return replace(one, scenes=scenes) if scenes or not one.scenes else None


def _bands(
    one: Acquisition, variables: dict[str, str], request: RunRequest[IndexRequest]
) -> tuple[list[Band], tuple[MaskRule, ...]]:
    product = request.product
    rules = _rules(record_of(one.scenes[0], request)) if product.mask and one.scenes else ()
    names = dict.fromkeys((*variables.values(), *(rule.band for rule in rules)))
    bands = [
        describe_band(
            name,
            one,
            request.checks,
            label=label(one.timestamp, name),
            values="harmonized",
            resampling=product.resampling,
        )
        for name in names
    ]
    return bands, rules


def _rules(record: CollectionRecord) -> tuple[MaskRule, ...]:
    by_class = [
        MaskRule(band=band, classes=tuple(values)) for band, values in record.mask_classes.items()
    ]
    by_bit = [MaskRule(band=band, bits=tuple(values)) for band, values in record.mask_bits.items()]
    return (*by_class, *by_bit)


def _tasks(
    group: Group,
    bands: tuple[Band, ...],
    masks: tuple[MaskRule, ...],
    variables: dict[str, str],
    request: RunRequest[IndexRequest],
    grid: Grid,
    probes: dict[str, BandProbe],
) -> list[IndexTask]:
    product = request.product
    spec = GridSpec.of(grid)
    scenes = list({scene.id: scene for one in group.acquisitions for scene in one.scenes}.values())
    refs = tuple(scene_ref(scene, str(grid.crs)) for scene in scenes)
    composite = product.composite if len(group.acquisitions) > 1 else "first"
    # Floats of each variable and of the result, and of all images that a median is taken of.
    layers = len(variables) + 4 + (6 * len(group.acquisitions) if composite == "median" else 6)
    held = 4 * ROW_CHUNK * layers
    memory = (request.limits.memory + (_AT_ONCE - 1) * PROCESS_MEMORY) // _AT_ONCE
    windows, cell = cut_windows(spec.shape, max_window_width(bands, "first", memory, 1, held))
    name = checked_key(group.name)
    tasks = []
    packed = min(
        (compression_gain(one, abs(grid.transform.a)) for one in probes.values()), default=1.0
    )
    for shard, window in enumerate(windows):
        size = (window[1] - window[0]) * (window[3] - window[2])
        least = int(2 * size / packed)
        task = IndexTask(
            id=name if len(windows) == 1 else f"{name}.{shard:05d}",
            outputs=(
                f"{INDICES}/{name}/{product.name}.tif",
                f"{INDICES}/{name}/{THUMBNAIL}",
                item_key(INDICES, name),
            ),
            item_path=item_key(INDICES, name),
            estimate=estimate_task(grid, window, bands, probes, refs, "first", 1, held).model_copy(
                # One image of floats, of which a quarter can be packed away, and its overviews; more of a masked one,
                # or one that is finer than its bands.
                update={"write_bytes": least, "most_write_bytes": 4 * size}
            ),
            name=name,
            when=group.when,
            collection=request.run,
            folder=INDICES,
            scenes=refs,
            bands=bands,
            grid=spec,
            window=window,
            shard=shard,
            shards=len(windows),
            cell=cell,
            values=declared_values("harmonized", scenes, variables.values()),
            on_missing=product.on_missing,
            codec=product.compression,
            properties=_properties(group, scenes, product, masks),
            index=product.name,
            expression=product.formula.expression,
            variables=variables,
            acquisitions=tuple(one.timestamp for one in group.acquisitions),
            before=tuple(one.timestamp for one in group.before),
            masks=masks,
            composite=composite,
        )
        tasks.append(task)
    return tasks


def _properties(
    group: Group, scenes: list[Any], product: IndexRequest, masks: tuple[MaskRule, ...]
) -> dict[str, Any]:
    period = {}
    if group.interval is not None:
        start, end = group.interval
        period = {
            "start_datetime": stac_items.rfc3339(start),
            "end_datetime": stac_items.rfc3339(end),
        }
    return {
        **common_properties(scenes),
        **period,
        "scenebeam:index": product.name,
        "scenebeam:expression": product.formula.expression,
        "scenebeam:acquisitions": len(group.acquisitions),
        "scenebeam:masked_by": [rule.band for rule in masks],
        **({"scenebeam:composite": product.composite} if len(group.acquisitions) > 1 else {}),
        **(
            {"scenebeam:period": "quarter, for months with too few acquisitions"}
            if group.fallback
            else {}
        ),
    }
