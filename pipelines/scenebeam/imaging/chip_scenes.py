"""Scenes that chips may be made of: their bands, and what shows clouds over a chip."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import shapely
from pydantic import BaseModel, ConfigDict

from scenebeam.catalog.scene import Asset, Scene
from scenebeam.collections import CollectionRecord
from scenebeam.imaging.refs import SceneRef, scene_fields
from scenebeam.raster.validity import Array


class ChipScene(SceneRef):
    """A scene that may be suitable for some chips of a task."""

    cloud: float | None
    """Cloud cover of the whole scene in percent."""
    nodata: float | None
    """Share of nodata of the whole scene in percent."""
    own_grid: bool = True
    """Whether its files can share the chips' grid: those of another UTM zone are resampled."""
    bands: tuple[Asset, ...]
    """The requested bands, in the order of the request."""
    looked_at: tuple[Asset, ...]
    """Bands that show clouds: probability, classes or flags; after a probability, classes that
    show nodata."""


class Clouds(BaseModel):
    """What counts as cloud in the bands that show clouds. All keys are names of bands."""

    model_config = ConfigDict(frozen=True)

    classes: dict[str, tuple[int, ...]] = {}
    """Values of a scene classification that count as cloud."""
    bits: dict[str, tuple[int, ...]] = {}
    """Bits of a quality band that flag cloud."""
    probability: dict[str, float] = {}
    """Smallest probability that counts as cloud."""


def chip_scene(
    scene: Scene, crs: str, record: CollectionRecord, names: Sequence[str]
) -> ChipScene | None:
    """Describe a scene for the chips of a task.

    Args:
        scene: The scene.
        crs: CRS of the chips, in which footprints are stored.
        record: The record of its collection.
        names: Canonical names of the bands that are read.

    Returns:
        The scene; None if it lacks one of the bands.
    """
    if any(name not in scene.assets for name in names):
        return None
    return ChipScene(
        **scene_fields(scene, crs),
        cloud=scene.cloud_cover,
        nodata=scene.nodata,
        own_grid=is_in_utm_zone(scene.tile, crs),
        bands=tuple(scene.assets[name] for name in names),
        looked_at=_cloud_bands(scene, record),
    )


def covers(scene: ChipScene, boxes: Array, max_nodata: float, pixel: float) -> Array:
    """Return which chips a scene covers according to its footprint.

    Args:
        scene: The scene; without a footprint it covers all chips.
        boxes: Outlines of n chips, in the CRS of the footprint.
        max_nodata: Percent of a chip that may be outside of the footprint.
        pixel: Size of a pixel.

    Returns:
        Boolean array of shape (n,).
    """
    footprint = scene.geometry
    if footprint is None:
        return np.ones(len(boxes), bool)
    # Footprints are drawn in degrees and rounded. Without a margin of one pixel, chips at the edge
    # of a scene would be lost.
    footprint = shapely.buffer(footprint, pixel)
    shapely.prepare(footprint)
    if max_nodata == 0:
        return np.asarray(shapely.covers(footprint, boxes))
    inside = shapely.area(shapely.intersection(footprint, boxes))
    return np.asarray(inside >= (1 - max_nodata / 100) * shapely.area(boxes))


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
