"""Locate chips: their outlines in degrees, their MGRS square, and the MGRS tile that suits each."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import antimeridian
import numpy as np
import shapely
from mgrs import MGRS
from pyproj import Transformer

from scenebeam.catalog.scene import Scene

Array = np.ndarray[Any, np.dtype[Any]]
_RING = np.array(
    [(0, 0), (0, 0.5), (0, 1), (0.5, 1), (1, 1), (1, 0.5), (1, 0), (0.5, 0), (0.5, 0.5)]
)
"""Shares of width and height, from the upper left corner: the corners and the middles of the sides,
counterclockwise, and the center."""
_ROUNDING = 1e-4
"""Degrees by which a footprint, drawn with rounded coordinates, may be too small."""


class Chip(Protocol):
    """A chip, wherever it comes from."""

    @property
    def crs(self) -> str: ...

    @property
    def transform(self) -> tuple[float, float, float, float, float, float]: ...

    @property
    def shape(self) -> tuple[int, int]: ...


def chip_footprints(chips: Sequence[Chip]) -> tuple[Array, Array]:
    """Compute the outlines and centers of chips in degrees.

    Args:
        chips: n chips, in any CRS.

    Returns:
        Outlines, an object array of shape (n,) of polygons that are split at the antimeridian; and
        longitudes and latitudes of the centers, shape (n, 2).
    """
    outlines = np.empty(len(chips), object)
    centers = np.empty((len(chips), 2))
    # One transformation per CRS, for all its chips at once.
    for crs in sorted({chip.crs for chip in chips}):
        numbers = np.array([number for number, chip in enumerate(chips) if chip.crs == crs])
        rings = np.array([_ring(chips[number]) for number in numbers])
        outlines[numbers], centers[numbers] = _in_degrees(crs, rings)
    return outlines, centers


def window_footprints(crs: str, left: Array, top: Array, side: float) -> tuple[Array, Array]:
    """Compute the outlines and centers of square chips of one CRS in degrees.

    Args:
        crs: Their CRS.
        left: Left edges in units of the CRS, shape (n,).
        top: Top edges, shape (n,).
        side: Side of a chip.

    Returns:
        As `chip_footprints`.
    """
    corners = np.stack([left, top], axis=-1)[:, None, :]
    return _in_degrees(crs, corners + _RING * (side, -side))


def _in_degrees(crs: str, rings: Array) -> tuple[Array, Array]:
    """Return outlines, split at the antimeridian, and centers of rings of shape (n, 9, 2)."""
    to_lonlat = Transformer.from_crs(crs, "EPSG:4326", always_xy=True)
    longitude, latitude = to_lonlat.transform(rings[..., 0], rings[..., 1])
    points = np.stack([longitude, latitude], axis=-1)
    outlines = np.asarray(shapely.polygons(points[:, :-1]), object)
    # Chips are small, so an outline wider than half the Earth crosses the antimeridian.
    bounds = shapely.bounds(outlines)
    for number in np.flatnonzero(bounds[:, 2] - bounds[:, 0] > 180).tolist():
        split = antimeridian.fix_shape(outlines[number], fix_winding=True)
        outlines[number] = shapely.geometry.shape(split)
    return outlines, points[:, -1]


def _ring(chip: Chip) -> Array:
    """Return the points `_RING` of a chip in its CRS, shape (9, 2)."""
    a, b, c, d, e, f = chip.transform
    height, width = chip.shape
    across, down = (_RING * (width, height)).T
    return np.stack([a * across + b * down + c, d * across + e * down + f], axis=-1)


def mgrs_100km_squares(centers: Array) -> list[str]:
    """Return the 100 km MGRS square of each center; scenes are searched square by square.

    Args:
        centers: Longitudes and latitudes in degrees, shape (n, 2).
    """
    grid = MGRS()
    squares: list[str] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        for longitude, latitude in centers:
            squares.append(grid.toMGRS(float(latitude), float(longitude), MGRSPrecision=0))
    return squares


def bounds_by_hemisphere(shapes: Array) -> list[tuple[float, float, float, float]]:
    """Compute the bounds of outlines, one box on each side of the antimeridian if they need two.

    Args:
        shapes: Outlines in degrees, split at the antimeridian.

    Returns:
        One or two boxes: west, south, east and north in degrees.
    """
    parts = shapely.bounds(shapely.get_parts(shapes))
    west, east = parts[:, 0].min(), parts[:, 2].max()
    # Outlines that span more than half the Earth are at both ends of it.
    sides = [parts]
    if east - west > 180:
        sides = [parts[parts[:, 0] < 0], parts[parts[:, 0] >= 0]]
    bounds = []
    for side in sides:
        (west, south), (east, north) = side.min(axis=0)[:2], side.max(axis=0)[2:]
        bounds.append((float(west), float(south), float(east), float(north)))
    return bounds


def assign_tiles(shapes: Array, default: Sequence[str], scenes: Iterable[Scene]) -> list[str]:
    """Assign each chip to the MGRS tile in whose footprint it is closest to the center.

    The chips of one tile are made together, so that each block of its scenes is read once.

    Args:
        shapes: Outlines of n chips in degrees, shape (n,).
        default: Name for each chip that no tile contains entirely.
        scenes: Scenes whose tiles are considered.

    Returns:
        The name of a tile, or the default, for each chip.
    """
    footprints: dict[str, list[Any]] = {}
    for scene in scenes:
        if scene.tile is not None and scene.footprint is not None:
            footprints.setdefault(scene.tile, []).append(scene.footprint)
    best: list[tuple[float, str]] = [(np.inf, name) for name in default]
    tree, middles = shapely.STRtree(shapes), shapely.centroid(shapes)
    for tile, members in sorted(footprints.items()):
        # The buffer counts a chip at the very edge of a tile as inside.
        extent = shapely.buffer(shapely.union_all(members), _ROUNDING)
        inside = tree.query(extent, predicate="contains")
        distances = shapely.distance(extent.centroid, middles[inside])
        for number, distance in zip(inside.tolist(), distances.tolist(), strict=True):
            best[number] = min(best[number], (distance, tile))
    return [tile for _, tile in best]
