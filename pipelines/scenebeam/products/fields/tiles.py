"""Place: where chips lie on the Earth, which cell of the search each belongs to, and which tile shows it best."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import antimeridian
import numpy as np
import shapely
from mgrs import MGRS
from pyproj import Transformer

from scenebeam.catalog.scene import Scene
from scenebeam.products.fields.chips import Chip

Array = np.ndarray[Any, np.dtype[Any]]


def chip_footprints(chips: Sequence[Chip]) -> tuple[Array, Array]:
    """Outlines of chips in degrees, split at the antimeridian; and (n, 2) longitudes and latitudes of their centres."""
    found = np.empty(len(chips), object)
    centres = np.empty((len(chips), 2))
    for crs in sorted({chip.crs for chip in chips}):
        own = np.array([number for number, chip in enumerate(chips) if chip.crs == crs])
        rings = np.array([_ring(chips[number]) for number in own])
        to_lonlat = Transformer.from_crs(crs, "EPSG:4326", always_xy=True)
        longitude, latitude = to_lonlat.transform(rings[..., 0], rings[..., 1])
        found[own] = shapely.polygons(np.stack([longitude[:, :-1], latitude[:, :-1]], axis=-1))
        centres[own] = np.stack([longitude[:, -1], latitude[:, -1]], axis=-1)
    bounds = shapely.bounds(found)
    for number in np.flatnonzero(bounds[:, 2] - bounds[:, 0] > 180).tolist():
        found[number] = shapely.geometry.shape(
            antimeridian.fix_shape(found[number], fix_winding=True)
        )
    return found, centres


def _ring(chip: Chip) -> Array:
    """Corners and middles of the sides of a chip, counterclockwise, and its centre; (9, 2), in its CRS."""
    a, b, c, d, e, f = chip.transform
    height, width = chip.shape
    across = np.array([0, 0, 0, 0.5, 1, 1, 1, 0.5, 0.5]) * width
    down = np.array([0, 0.5, 1, 1, 1, 0.5, 0, 0, 0.5]) * height
    return np.stack([a * across + b * down + c, d * across + e * down + f], axis=-1)


def mgrs_100km_squares(centres: Array) -> list[str]:
    """The MGRS square of 100 km that each centre lies in: the cell in which scenes are searched."""
    grid = MGRS()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return [
            grid.toMGRS(float(latitude), float(longitude), MGRSPrecision=0)
            for longitude, latitude in centres
        ]


def bounds_by_hemisphere(shapes: Array) -> list[tuple[float, float, float, float]]:
    """The bounds of some outlines; of both sides apart, where they lie on both sides of the antimeridian."""
    parts = shapely.bounds(shapely.get_parts(shapes))
    west, south, east, north = (
        parts[:, 0].min(),
        parts[:, 1].min(),
        parts[:, 2].max(),
        parts[:, 3].max(),
    )
    if east - west <= 180:
        return [(float(west), float(south), float(east), float(north))]
    bounds = []
    for side in (parts[parts[:, 0] < 0], parts[parts[:, 0] >= 0]):
        (west, south), (east, north) = side.min(axis=0)[:2], side.max(axis=0)[2:]
        bounds.append((float(west), float(south), float(east), float(north)))
    return bounds


def assign_tiles(shapes: Array, default: Sequence[str], scenes: Iterable[Scene]) -> list[str]:
    """For each chip the tile whose scenes show it deepest inside; where none shows all of it, its `default`.

    Chips of one tile are made together, so that what they read of its scenes is read once.
    """
    by_tile: dict[str, list[Any]] = {}
    for scene in scenes:
        if scene.tile is not None and scene.footprint is not None:
            by_tile.setdefault(scene.tile, []).append(scene.footprint)
    best: list[tuple[float, str]] = [(np.inf, name) for name in default]
    tree, middles = shapely.STRtree(shapes), shapely.centroid(shapes)
    for tile, footprints in sorted(by_tile.items()):
        # Footprints are drawn in degrees, and rounded: a chip at the very edge of a tile is inside.
        whole = shapely.buffer(shapely.union_all(footprints), 1e-4)
        inside = tree.query(whole, predicate="contains")
        for number, away in zip(
            inside.tolist(), shapely.distance(whole.centroid, middles[inside]), strict=True
        ):
            best[number] = min(best[number], (float(away), tile))
    return [tile for _, tile in best]
