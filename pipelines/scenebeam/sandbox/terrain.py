"""The ground of the synthetic Earth: relief, coast, river, woods and a town, in integers.

Every quantity is a function of the place alone. All arithmetic is on int64, so that pixels are
identical on all machines. Smooth quantities are computed at the nodes of a lattice and interpolated
between them, which takes a thousandth of the time of computing each pixel.

The landscape extends across the edge of two UTM zones. It is defined in meters of the western zone;
eastings of the western half of a zone belong to the eastern one and are converted.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

Integers = np.ndarray[Any, np.dtype[np.int64]]

WATER, SAND, TOWN, FOREST, FIELD, MEADOW, ROCK = range(7)
"""Surfaces."""
FIELD_SIDE = 480
"""Meters of a field."""
_TRACK = 10
"""Meters from the edge of a field to its crop."""
_NODE = 5
"""Nodes are 2 ** 5 = 32 m apart."""
_SMOOTH = 6
"""Number of smooth quantities."""
_ORIGIN = (745_000, 4_502_000)
"""Upper left corner of the tile that most data sets show; the landscape is laid out around it."""
_TOWN_CENTER, _TOWN_RADIUS = (9_300, -5_300), 1_300
_RIVER_NORTHING = -4_300
_CENTRAL_MERIDIAN = 500_000
"""Easting in the middle of a UTM zone."""


@dataclass(frozen=True)
class Ground:
    """What is at each pixel; arrays of the same shape."""

    surface: Integers
    """A surface: `WATER`, `SAND` and so on."""
    height: Integers
    """Centimeters above sea level; the bed of water is below 0."""
    light: Integers
    """Brightness of the slope in the sun, 256 on level ground."""
    mottle: Integers
    """Brightness of patches of some 30 to 100 m, from -65,536 to 65,535."""
    plot: Integers
    """Number of the plot, for fields and the blocks of a town; pixels of a plot are alike."""


def common_meters(easting: Any, northing: Any) -> tuple[Integers, Integers]:
    """Convert coordinates of either UTM zone to meters of the western one.

    The affine transformation was fitted to pyproj's between EPSG:32635 and EPSG:32634 around 24
    degrees east and 40.6 degrees north, where it is accurate to a meter.

    Args:
        easting: Eastings in whole meters.
        northing: Northings in whole meters, broadcastable against the eastings.
    """
    x, y = np.asarray(easting, np.int64), np.asarray(northing, np.int64)
    is_east = x < _CENTRAL_MERIDIAN
    if not is_east.any():
        return x, y
    across, up = x - 249_000, y - 4_497_000
    west_x = 756_791 + (65_386 * across - 4_464 * up >> 16)
    west_y = 4_497_197 + (4_464 * across + 65_386 * up >> 16)
    return np.where(is_east, west_x, x), np.where(is_east, west_y, y)


def ground(easting: Any, northing: Any) -> Ground:
    """Describe the ground at pixels.

    Args:
        easting: Eastings in meters of the western zone: see `common_meters`.
        northing: Northings, broadcastable against the eastings.
    """
    x, y = np.asarray(easting, np.int64), np.asarray(northing, np.int64)
    # The bands of a scene all describe the same pixels.
    return _cached_ground(x.shape, x.tobytes(), y.shape, y.tobytes())


@lru_cache(maxsize=4)
def _cached_ground(
    x_shape: tuple[int, ...], x_bytes: bytes, y_shape: tuple[int, ...], y_bytes: bytes
) -> Ground:
    x = np.frombuffer(x_bytes, np.int64).reshape(x_shape)
    y = np.frombuffer(y_bytes, np.int64).reshape(y_shape)
    height, light, mottle, woods, river, town = _interpolate(x, y)
    surface = np.full(height.shape, FIELD)
    surface[(height > 40_000) | (light < 190)] = MEADOW
    surface[(woods > 46_000) & (height > 1_200)] = FOREST
    surface[height > 40_000 + woods // 4] = ROCK
    surface[town > 0] = TOWN
    surface[(height < 250) | (river < 110)] = SAND
    surface[(height < 0) | (river < 60)] = WATER
    return Ground(surface, height, light, mottle, _plots(x, y, surface))


def noise(x: Integers, y: Integers, bits: int, salt: int) -> Integers:
    """Return smooth noise: random values on a square lattice, blended in between.

    It is value noise with the polynomial 3 t^2 - 2 t^3 of Perlin (1985, doi:10.1145/325165.325247).

    Args:
        x: Meters.
        y: Meters, broadcastable against `x`.
        bits: The lattice has steps of 2 ** bits meters.
        salt: Different salts give independent noise.

    Returns:
        Values from 0 to 65,535.
    """
    column, row = x >> bits, y >> bits
    across, up = _blend(x - (column << bits), bits), _blend(y - (row << bits), bits)
    south = _between(column, row, salt, across)
    north = _between(column, row + 1, salt, across)
    return np.asarray(south * (4096 - up) + north * up >> 24)


def scatter(a: Integers, b: Integers, salt: int) -> Integers:
    """Return pseudo-random integers from 0 to 65,535 for pairs of integers."""
    # 31 bits, so that products stay within 64.
    mixed = (a * 73_856_093 ^ b * 19_349_663 ^ salt * 83_492_791) & 0x7FFFFFFF
    mixed = (mixed ^ mixed >> 13) * 1_274_126_177 & 0x7FFFFFFF
    return np.asarray((mixed ^ mixed >> 16) & 0xFFFF)


def _blend(offset: Integers, bits: int) -> Integers:
    t = (offset << 12) >> bits
    return np.asarray(t * t * (3 * 4096 - 2 * t) >> 24)


def _between(column: Integers, row: Integers, salt: int, share: Integers) -> Integers:
    """Interpolate between the values of two neighboring corners of the lattice."""
    west, east = scatter(column, row, salt), scatter(column + 1, row, salt)
    return np.asarray(west * (4096 - share) + east * share)


def _fractal(x: Integers, y: Integers, salt: int, octaves: tuple[int, ...]) -> Integers:
    """Sum noise of halving height; each octave is turned, which hides the lattice."""
    weight = 0
    total: Integers = np.zeros(np.broadcast_shapes(x.shape, y.shape), np.int64)
    for number, bits in enumerate(octaves):
        share = 1 << (len(octaves) - number)
        total = total + share * noise(x, y, bits, salt + number)
        weight += share
        x, y = (3 * x + 4 * y) // 5 + 7_919, (3 * y - 4 * x) // 5 + 1_299
    return np.asarray(total // weight)


def _height(x: Integers, y: Integers, river: Integers) -> Integers:
    """Return heights: hills in the north and west, a sea in the southeast, a valley between."""
    across, up = x - _ORIGIN[0], y - _ORIGIN[1]
    hills = _fractal(x, y, 11, (13, 12, 11, 10, 9, 8))
    rise = 56_000 + (3 * up - 3 * across) * 3 // 4 - np.maximum(0, across - 11_500) * 5
    heights = (hills - 32_768) * 2 + np.minimum(rise, 30_000)
    heights = np.where(heights > 0, heights * (4_000 + heights) // 32_000, heights // 8)
    # The valley is level near the river and rises to the hills within 2.5 km.
    valley = np.clip(river - 150, 0, 2_500)
    return np.asarray(np.where(heights > 0, heights * (500 + valley) // 3_000 + 260, heights))


def _river(x: Integers, y: Integers) -> Integers:
    """Return the distance from the middle of the river in meters, measured north to south."""
    zero = np.zeros_like(x)
    bends = noise(x, zero, 12, 3) // 38 + noise(x, zero, 10, 4) // 150 + noise(x, zero, 9, 5) // 400
    return np.asarray(np.abs(y - _ORIGIN[1] - _RIVER_NORTHING - bends + 1_000))


def _town(x: Integers, y: Integers) -> Integers:
    """Return how far inside the town a place is, in meters; negative outside."""
    across, up = x - _ORIGIN[0] - _TOWN_CENTER[0], y - _ORIGIN[1] - _TOWN_CENTER[1]
    ragged = _TOWN_RADIUS + (noise(x, y, 9, 21) - 32_768) // 60
    return np.asarray((ragged * ragged - across * across - up * up) // 2_000)


def _at_nodes(x: Integers, y: Integers) -> Integers:
    """Compute the smooth quantities at nodes; shape (`_SMOOTH`, rows, columns)."""
    river = _river(x, y)
    heights = _height(x, y, river)
    east, west = x + 32, x - 32
    slope = _height(east, y, _river(east, y)) - _height(west, y, _river(west, y))
    north, south = y + 32, y - 32
    tilt = _height(x, north, _river(x, north)) - _height(x, south, _river(x, south))
    # The sun is in the southeast: slopes that rise to the northwest are lit. Centimeters of rise
    # in 64 m.
    light = np.clip(256 + (tilt - slope) // 22, 120, 380)
    light = np.where(heights > 0, light, 256)
    woods = _fractal(x, y, 31, (11, 10, 9, 8))
    mottle = noise(x, y, 7, 51) + noise(x, y, 6, 52) - 65_536
    parts = np.broadcast_arrays(heights, light, mottle, woods, river, _town(x, y))
    return np.stack(parts)


def _interpolate(x: Integers, y: Integers) -> Integers:
    """Interpolate the smooth quantities bilinearly between the nodes around pixels."""
    columns, rows = x >> _NODE, y >> _NODE
    shape = np.broadcast_shapes(x.shape, y.shape)
    if 0 in shape:
        return np.zeros((_SMOOTH, *shape), np.int64)
    left, bottom = int(columns.min()), int(rows.min())
    node_x = np.arange(left, int(columns.max()) + 2, dtype=np.int64)[None, :] << _NODE
    node_y = np.arange(bottom, int(rows.max()) + 2, dtype=np.int64)[:, None] << _NODE
    nodes = _at_nodes(node_x, node_y)
    side = 1 << _NODE
    across, up = x - (columns << _NODE), y - (rows << _NODE)
    i, j = rows - bottom, columns - left
    found = []
    for values in nodes:
        south = values[i, j] * (side - across) + values[i, j + 1] * across
        north = values[i + 1, j] * (side - across) + values[i + 1, j + 1] * across
        found.append(south * (side - up) + north * up >> 2 * _NODE)
    return np.stack(found)


def _plots(x: Integers, y: Integers, surface: Integers) -> Integers:
    """Number the plots of fields and of the town; -1 on tracks and streets.

    A field of 480 m is divided into one to four strips of the same width.
    """
    column, row = x // FIELD_SIDE, y // FIELD_SIDE
    inside_x, inside_y = x % FIELD_SIDE, y % FIELD_SIDE
    chance = scatter(column, row, 41)
    strips = 1 + chance % 4
    along = np.where(chance % 8 < 4, inside_x, inside_y)
    plots = scatter(column * 4 + along * strips // FIELD_SIDE, row, 42)
    last = FIELD_SIDE - _TRACK
    is_track = (np.minimum(inside_x, inside_y) < _TRACK) | (np.maximum(inside_x, inside_y) >= last)
    plots = np.where(is_track, -1, plots)
    is_street = (x % 120 < 20) | (y % 160 < 20)
    blocks = np.where(is_street, -1, scatter(x // 40, y // 40, 43))
    return np.asarray(np.where(surface == TOWN, blocks, plots))
