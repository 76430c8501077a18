"""Plan land-cover chips: what to ask for each area of interest, and a task for each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import shapely

from scenebeam.catalog.acquisition import Acquisition, square_meters
from scenebeam.catalog.bands import records_for
from scenebeam.catalog.item_search import SearchQuery
from scenebeam.catalog.scene import Asset, Scene
from scenebeam.catalog.select import Selection
from scenebeam.collections import CollectionRecord, LandClass
from scenebeam.errors import CheckError, RequestError
from scenebeam.imaging.estimate import PROCESS, Probing
from scenebeam.imaging.refs import scene_fields
from scenebeam.products.base import Planned, SearchScope
from scenebeam.products.landcover.aois import Aoi, read_aois
from scenebeam.products.landcover.dates import Chosen, choose_dates
from scenebeam.products.landcover.request import LandcoverRequest, Modality, Platform
from scenebeam.products.landcover.tables import AOIS_FILE, aoi_metadata
from scenebeam.products.landcover.task import ONCE, LandcoverTask, Layer, Recipe, SceneFiles
from scenebeam.raster.grid import choose_grid
from scenebeam.raster.windows import ROWS_AHEAD
from scenebeam.request import RunRequest, parse_interval
from scenebeam.tasks import Estimate, GridSpec
from scenebeam.transfer.signing import effective_limits

Interval = tuple[datetime, datetime]
_SHOWN = 3
"""Areas whose faults a message names."""


@dataclass(frozen=True)
class LandcoverScope(SearchScope):
    """The areas of interest."""

    aois: Sequence[Aoi] = ()


def scope_of_areas(request: RunRequest[LandcoverRequest]) -> LandcoverScope:
    """Read the areas, and settle what the catalogue is asked: for each a question a modality and time.

    Raises RequestError where there is no area that can be used, or a modality names what its collection has not.
    """
    product = request.product
    aois = read_aois(product)
    questions = [
        SearchQuery(part.bounds, interval, (modality.collection,), below)
        for name, modality in product.modalities.items()
        for interval, below in _when(name, product)
        for aoi in aois
        if aoi.area is not None
        for part in aoi.area.geoms
    ]
    for name, modality in product.modalities.items():
        for record in _records(modality, request):
            _bands(name, modality, record)
    hint = "Are there scenes of the areas in product.periods, and does product.aois hold degrees?"
    return LandcoverScope(None, questions, hint, aois)


def _when(
    name: Platform, product: LandcoverRequest
) -> Iterator[tuple[Interval | None, Mapping[str, float]]]:
    """When a modality's scenes are wanted, and how little cloud they have."""
    if name in ONCE:
        yield (
            parse_interval(product.lulc.dates) if name == "lulc" and product.lulc.dates else None,
            {},
        )
        return
    asked = product.modalities[name]
    days = timedelta(days=asked.reach)
    spans = [(start - days, end + days) for start, end in map(parse_interval, product.periods)]
    for span in _joined(spans):
        yield span, {} if asked.cloud_below is None else {"eo:cloud_cover": asked.cloud_below}


def _joined(spans: Iterable[Interval]) -> list[Interval]:
    """Spans in order, those that meet made one."""
    found: list[Interval] = []
    for start, end in sorted(spans):
        if found and start <= found[-1][1] + timedelta(seconds=1):
            found[-1] = found[-1][0], max(end, found[-1][1])
        else:
            found.append((start, end))
    return found


def _records(modality: Modality, request: RunRequest[LandcoverRequest]) -> list[CollectionRecord]:
    return [record for record in records_for(request) if record.id == modality.collection]


def _bands(
    name: Platform, modality: Modality, record: CollectionRecord
) -> tuple[list[str], str | None]:
    """The bands of a modality by their names in a collection, and the mask that tells clear ground."""
    names = [record.band_name(band) or "" for band in modality.bands] or record.default_bands
    if not all(names):
        unknown = [band for band in modality.bands if record.band_name(band) is None]
        known = ", ".join(sorted(record.bands))
        raise RequestError(
            f"product.{name}.bands: {record.id} has no band {', '.join(unknown)}; known: {known}"
        )
    if not (modality.kept_classes or modality.rejected_bits):
        return names, None
    masks = [*(record.mask_classes if modality.kept_classes else record.mask_bits)]
    if not masks:
        field, key = (
            ("keep_classes", "mask_classes") if modality.kept_classes else ("reject", "mask_bits")
        )
        raise RequestError(
            f"product.{name}.{field}: the record of {record.id} names no band in {key} to go by"
        )
    return names, masks[0]


def plan_areas(
    selection: Selection, request: RunRequest[LandcoverRequest], search_scope: LandcoverScope
) -> Planned:
    """A task for each area of interest; one that cannot be made says why. Raises RequestError where none can be."""
    product = request.product
    scenes = {
        name: _Scenes(name, modality, selection.scenes, request)
        for name, modality in product.modalities.items()
    }
    shared = _shared_fields(request)
    probing = Probing(effective_limits(request), ask=search_scope.measure)
    tasks = [_task(aoi, scenes, request, shared, probing) for aoi in search_scope.aois]
    faults = [f"area {task.aoi}: {task.fault}" for task in tasks if task.fault]
    if len(faults) == len(tasks):
        more = f"; and {len(faults) - _SHOWN} more" if len(faults) > _SHOWN else ""
        raise RequestError(f"no area of interest can be made: {'; '.join(faults[:_SHOWN])}{more}")
    return Planned(tasks, {AOIS_FILE: aoi_metadata(tasks, {}, {})})


class _Scenes:
    """The scenes of a modality that have all its bands, to be found by place."""

    def __init__(
        self,
        name: Platform,
        modality: Modality,
        scenes: Sequence[Scene],
        request: RunRequest[LandcoverRequest],
    ) -> None:
        self._bands = {
            (r.id, r.provider): _bands(name, modality, r) for r in _records(modality, request)
        }
        self._whole = [
            scene
            for scene in scenes
            if scene.collection == modality.collection
            and self._names(scene) <= scene.assets.keys()
            and (not modality.of_platforms or scene.platform in modality.of_platforms)
        ]
        self._partial = [
            scene
            for scene in scenes
            if scene.collection == modality.collection
            and not self._names(scene) <= scene.assets.keys()
        ]
        nowhere = shapely.Polygon()
        self._tree = shapely.STRtree([scene.footprint or nowhere for scene in self._whole])
        self._anywhere = [
            number for number, scene in enumerate(self._whole) if scene.footprint is None
        ]

    def _names(self, scene: Scene) -> set[str]:
        names, mask = self._bands[scene.collection, scene.provider]
        return {*names} | ({mask} if mask else set())

    def near(self, area: Any) -> list[Scene]:
        """Scenes that share ground with an area, in order of time and id."""
        met = self._tree.query(area, predicate="intersects").tolist()
        found = [self._whole[number] for number in {*met, *self._anywhere}]
        shared = [one for one in found if one.footprint is None or not one.footprint.touches(area)]
        return sorted(shared, key=lambda scene: (scene.datetime, scene.id))

    def lacking(self, area: Any) -> str:
        """What is to be said of scenes near an area that lack bands; empty where there is none."""
        near = [
            one for one in self._partial if one.footprint is None or one.footprint.intersects(area)
        ]
        bands = sorted(
            {name for scene in near for name in self._names(scene) - scene.assets.keys()}
        )
        return f"{len(near)} scenes of {near[0].collection} lack {', '.join(bands)}" if near else ""

    def files(self, scene: Scene) -> SceneFiles:
        """A scene as a task knows it."""
        names, mask = self._bands[scene.collection, scene.provider]
        return SceneFiles(
            **{**scene_fields(scene), "when": scene.acquired},
            bands=tuple(scene.assets[name] for name in names),
            mask=scene.assets[mask] if mask else None,
        )


def _shared_fields(request: RunRequest[LandcoverRequest]) -> dict[str, Any]:
    """What all tasks of a request have in common."""
    product = request.product
    record = _records(product.lulc, request)[0]
    unknown = [
        number for number in product.lulc.classes if record.classes and number not in record.classes
    ]
    if unknown:
        known = ", ".join(f"{number} {one.name}" for number, one in record.classes.items())
        raise RequestError(
            f"product.lulc.classes: {record.id} has no class {unknown}; known: {known}"
        )
    return {
        "grid": GridSpec.of(choose_grid(None, request.grid, product.side))
        if request.grid.bounds
        else None,
        "recipes": {name: _recipe(modality) for name, modality in product.modalities.items()},
        "side": product.side,
        "classes": {
            n: record.classes.get(n, LandClass(name=f"class {n}")) for n in product.lulc.classes
        },
        "min_share": product.lulc.min_share,
        "chips_per_class": product.chips_per_class,
        "seed": product.seed,
        "thumbnails": product.thumbnails,
        "checks": request.checks,
    }


def _recipe(modality: Modality) -> Recipe:
    return Recipe(
        resolution=modality.resolution,
        dtype=modality.dtype,
        nodata=modality.nodata,
        resampling=modality.resampling,
        keep_classes=modality.kept_classes,
        reject_bits=modality.rejected_bits,
    )


def _task(
    aoi: Aoi,
    scenes: Mapping[Platform, _Scenes],
    request: RunRequest[LandcoverRequest],
    shared: Mapping[str, Any],
    probing: Probing,
) -> LandcoverTask:
    task = LandcoverTask(
        id=aoi.id, outputs=(), item_path="", aoi=aoi.id, name=aoi.name, fault=aoi.fault, **shared
    )
    task = task.model_copy(update={"outputs": (task.record,), "item_path": task.record})
    if aoi.area is None:
        return task
    near = {name: known.near(aoi.area) for name, known in scenes.items()}
    told = {
        "outline": shapely.to_wkb(aoi.area, hex=True),
        "found": {name: len(found) for name, found in near.items()},
    }
    try:
        chosen = choose_dates(aoi.area, near, request.product)
    except CheckError as error:
        lacking = [text for known in scenes.values() if (text := known.lacking(aoi.area))]
        return task.model_copy(update={**told, "fault": "; ".join([str(error), *lacking])})
    layers = tuple(_layers(chosen, scenes))
    return task.model_copy(
        update={
            **told,
            "area": shapely.to_wkb(chosen.common, hex=True),
            "tile": chosen.tile,
            "orbit": chosen.orbit,
            "wrs": chosen.wrs,
            "layers": layers,
            "estimate": _estimate(layers, task, square_meters(chosen.common), probing),
        }
    )


def _layers(chosen: Chosen, scenes: Mapping[Platform, _Scenes]) -> Iterator[Layer]:
    for name, acquisitions in chosen.dates.items():
        for index, one in enumerate(acquisitions):
            files = tuple(scenes[name].files(scene) for scene in one.scenes)
            yield Layer(platform=name, index=index, date=_date(name, one), scenes=files)


def _date(name: Platform, acquisition: Acquisition) -> str:
    return "" if name in ONCE else f"{acquisition.acquired:%Y%m%d}"


def _estimate(
    layers: Sequence[Layer], task: LandcoverTask, square_metres: float, probing: Probing
) -> Estimate:
    """At least, the map is read all over. At most, so is all else, and as many chips are made as may be."""
    chips = min(int(square_metres / task.side**2), len(task.classes) * task.chips_per_class)
    side = square_metres**0.5
    blocks = least = most = pixels = written = row = 0
    for layer in layers:
        recipe, own = task.recipes[layer.platform], 0
        assets: list[Asset] = [
            *layer.scenes[0].bands,
            *([layer.scenes[0].mask] if layer.scenes[0].mask else []),
        ]
        for asset in assets:
            # A resolution in degrees says little here: the rasters' own is near enough.
            known = asset if asset.resolution > 1 else replace(asset, resolution=recipe.resolution)
            fewest, count = probing.blocks(known, side, side)
            block = probing.of(asset)
            blocks += count
            most += int(2 * count * block.block_bytes) * len(layer.scenes)
            least += int(fewest * block.block_bytes) if layer.platform == "lulc" else 0
            own += (
                int(side / (known.resolution * block.block[1]) + 1)
                * block.block[0]
                * block.block[1]
                * _item(asset)
            )
        row = max(row, own)
        count = chips * task.chip_side(layer.platform) ** 2 * len(layer.scenes[0].bands)
        pixels += count
        written += count * np.dtype(recipe.dtype).itemsize
    files = sum(len(layer.scenes) * (len(layer.scenes[0].bands) + 1) for layer in layers)
    return Estimate(
        blocks=blocks,
        requests=2,
        most_requests=4 * blocks + 3 * files,
        read_bytes=least,
        most_read_bytes=most,
        most_write_bytes=int(1.5 * written),
        pixels=pixels,
        # A row of blocks for the chips across its edge, one that is read, and those on their way.
        memory=PROCESS + (2 + ROWS_AHEAD) * row,
    )


def _item(asset: Asset) -> int:
    return int(np.dtype(asset.dtype).itemsize)
