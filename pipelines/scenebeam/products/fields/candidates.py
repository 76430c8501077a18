"""List the candidate scenes of a cell: those that may be suitable for some of its chips."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import Any

import numpy as np
import shapely

from scenebeam.catalog.bands import bands_of, record_of
from scenebeam.catalog.scene import Asset, Scene
from scenebeam.collections import CollectionRecord
from scenebeam.imaging.refs import scene_fields
from scenebeam.products.fields.request import FieldsRequest
from scenebeam.products.fields.task import Candidate, ChipRef, Clouds
from scenebeam.products.fields.tiles import bounds_by_hemisphere
from scenebeam.request import RunRequest


def candidates_of(
    chips: Sequence[ChipRef],
    shapes: np.ndarray[Any, np.dtype[Any]],
    crs: str,
    scenes: Sequence[Scene],
    request: RunRequest[FieldsRequest],
) -> Iterator[Candidate]:
    """Yield the scenes that may be suitable for some chips of a cell in one season.

    They are in the widest window of some chip, intersect the bounds of the cell, and have all
    requested bands. Which chips a scene covers is decided later, when scenes are chosen.

    Args:
        chips: The chips, with their dates.
        shapes: Their outlines in degrees, in the same order.
        crs: CRS of the chips, in which footprints are stored.
        scenes: The selected scenes.
        request: The validated request.
    """
    first, last = _widest_window(chips, request.product.reach)
    boxes = [shapely.box(*bounds) for bounds in bounds_by_hemisphere(shapes)]
    extent = shapely.union_all(boxes)
    for scene in scenes:
        if not first <= scene.datetime.date() <= last:
            continue
        if scene.footprint is not None and not scene.footprint.intersects(extent):
            continue
        record = record_of(scene, request)
        bands = _requested_bands(scene, bands_of(record, request))
        if len(bands) < len(request.product.bands):
            continue
        yield Candidate(
            **scene_fields(scene, crs),
            cloud=scene.cloud_cover,
            nodata=scene.nodata,
            own_grid=is_in_utm_zone(scene.tile, crs),
            bands=bands,
            looked_at=_cloud_bands(scene, record),
        )


def _widest_window(chips: Sequence[ChipRef], reach: int) -> tuple[date, date]:
    dates = [datetime.fromisoformat(chip.target).date() for chip in chips]
    return min(dates) - timedelta(days=reach), max(dates) + timedelta(days=reach)


def _requested_bands(scene: Scene, names: Sequence[str]) -> tuple[Asset, ...]:
    """Return the named bands of a scene, or none if it lacks any of them."""
    if any(name not in scene.assets for name in names):
        return ()
    return tuple(scene.assets[name] for name in names)


def is_in_utm_zone(tile: str | None, crs: str) -> bool:
    """Whether the files of an MGRS tile are in the UTM zone of a CRS.

    Files without a tile, or with a tile of another scheme, may be.
    """
    if tile is None or not tile[:2].isdigit():
        return True
    # Latitude bands from N on are in the northern hemisphere.
    base = 32600 if tile[2:3] >= "N" else 32700
    return crs == f"EPSG:{base + int(tile[:2])}"


def _cloud_bands(scene: Scene, record: CollectionRecord) -> tuple[Asset, ...]:
    """Return the bands by which clouds over a chip are measured.

    A cloud probability is preferred to classes, and those to flags. A probability alone cannot tell
    nodata from clear ground, so classes or flags are read beside it.
    """
    probability = _first_asset(scene, record.cloud_probability)
    classes = _first_asset(scene, record.mask_classes) or _first_asset(scene, record.mask_bits)
    return probability + classes


def _first_asset(scene: Scene, bands: Mapping[str, Any]) -> tuple[Asset, ...]:
    for band in bands:
        if band in scene.assets:
            return (scene.assets[band],)
    return ()


def cloud_rules(records: Sequence[CollectionRecord]) -> Clouds:
    """Merge what counts as cloud in the bands of some collections."""
    classes: dict[str, tuple[int, ...]] = {}
    bits: dict[str, tuple[int, ...]] = {}
    probability: dict[str, float] = {}
    for record in records:
        for band, values in record.mask_classes.items():
            classes[band] = tuple(values)
        for band, values in record.mask_bits.items():
            bits[band] = tuple(values)
        probability.update(record.cloud_probability)
    return Clouds(classes=classes, bits=bits, probability=probability)
