"""Maps: draw where products and scenes are, and where on Earth that is.

Maps are equirectangular, with one scale in both directions at their middle latitude. The number of
marks is bounded: beyond `MAX_MARKS`, products are counted per cell of a grid.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import shapely
from shapely import affinity
from shapely.geometry.base import BaseGeometry

from scenebeam.figures.svg import (
    Axes,
    Draped,
    Figure,
    Mark,
    Tick,
    inner_width,
    round_ticks,
)
from scenebeam.figures.world import world_lines

MAX_MARKS = 1500
"""Most footprints of one kind."""
_MAX_DRAPED = 60
"""Most pictures on the map."""
_WIDTH, _LEAST_HEIGHT, _MOST_HEIGHT = 720.0, 240.0, 560.0
"""Pixels."""
_LOCATOR = (340.0, 190.0)
"""Width and height of the map that shows where on Earth the area is, in pixels."""
_LOCATOR_DEGREES = 22.0
"""Degrees of latitude of that map, unless the area takes more."""
_GRID_COLUMNS = 64
_SHADES = 5
_KM_PER_DEGREE = 111.32
"""Of latitude, and of longitude at the equator."""
_COASTS_FROM = 4.0
"""Degrees that a map must span for coasts and borders at 1 : 110 million to help on it."""


Shapes = np.ndarray[Any, Any]
"""Array of shapely geometries in degrees."""
_NONE = np.empty(0, object)


@dataclass(frozen=True)
class MapPicture:
    """A picture that may be draped over its footprint."""

    webp: bytes
    """The picture, small."""
    corners: Sequence[tuple[float, float]]
    """Longitude and latitude of its upper left, upper right and lower left corner."""
    title: str


def coverage_map(
    *,
    products: Shapes = _NONE,
    scenes: Shapes = _NONE,
    area: BaseGeometry | None = None,
    names: Sequence[str] = (),
    pictures: Sequence[MapPicture] = (),
) -> Figure | None:
    """Draw the footprints of products and scenes, and the area of interest.

    Args:
        products: Footprints of products.
        scenes: Footprints of scenes.
        area: The requested area, in degrees.
        names: Names of the products.
        pictures: Pictures of products; the first of each footprint is draped over it.

    Returns:
        The map; None if there is nothing to draw.
    """
    requested = np.asarray([] if area is None else [area], object)
    products, scenes, requested = _unwrap((products, scenes, requested))
    # Scenes are much larger than most products, so they alone do not widen the map.
    extent = np.concatenate([products, requested]) if len(products) or len(requested) else scenes
    if not len(extent):
        return None
    axes = _map_axes(tuple(shapely.total_bounds(extent).tolist()), 0.12)
    xs, ys = round_ticks(*axes.x, 6), round_ticks(*axes.y, 5)
    marks = [Mark(axes.line([(x, axes.y[0]), (x, axes.y[1])]), "graticule") for x in xs]
    marks += [Mark(axes.line([(axes.x[0], y), (axes.x[1], y)]), "graticule") for y in ys]
    if axes.x[1] - axes.x[0] >= _COASTS_FROM:
        marks += _context(axes)
    marks += _outlines(axes, scenes[:MAX_MARKS], "scene")
    draped = _drape(axes, pictures)
    note = ""
    if len(products) > MAX_MARKS:
        marks += _density(axes, products)
        note = f"{len(products):,} products, counted per grid cell"
    else:
        kind = "outline" if draped else "product"
        marks += _outlines(axes, products, kind, names)
    marks += _outlines(axes, requested, "area", ["area of interest"] * len(requested))
    legend = []
    if len(products):
        legend.append(("product", "products"))
    if len(scenes):
        legend.append(("scene", "scenes"))
    if len(requested):
        legend.append(("area", "area of interest"))
    return Figure(
        title="Map",
        width=axes.width,
        height=axes.height,
        frame=axes.frame,
        marks=[mark for mark in marks if mark.path],
        below=axes.ticks_below(xs, _longitude),
        beside=axes.ticks_beside(ys, _latitude),
        legend=legend,
        note=note,
        draped=draped,
        scale_bar=_scale_bar(axes),
    )


def locator_map(*candidates: Shapes) -> Figure | None:
    """Draw where on Earth something is, between coasts and borders.

    Args:
        *candidates: Shapes that say where; those of the first array that has any are shown.

    Returns:
        The map; None if nothing says where.
    """
    filled = [shapes for shapes in candidates if len(shapes)]
    if not filled:
        return None
    filled = [_unwrap(filled[:1])[0]]
    west, south, east, north = shapely.total_bounds(np.concatenate(filled)).tolist()
    middle = ((west + east) / 2, (south + north) / 2)
    half = max(_LOCATOR_DEGREES / 2, (north - south) * 0.75, (east - west) * 0.4)
    lowest = min(max(middle[1], -90 + half), 90 - half) if half < 90 else 0.0
    width, height = _LOCATOR
    stretch = _stretch(middle[1])
    degrees = half * inner_width(width) / height * stretch
    x = (middle[0] - degrees, middle[0] + degrees)
    axes = Axes(x, (max(lowest - half, -90), min(lowest + half, 90)), width, height)
    marks = _context(axes)
    box = axes.box(
        *(max(west, x[0]), max(south, axes.y[0])), *(min(east, x[1]), min(north, axes.y[1]))
    )
    marks += [Mark(box, "area"), Mark(axes.dot(*middle, 5), "here", "the area")]
    title = f"{_latitude(round(middle[1], 2))} {_longitude(round(middle[0], 2))}"
    return Figure(title, axes.width, axes.height, axes.frame, [m for m in marks if m.path])


def _unwrap(arrays: Sequence[Shapes]) -> Sequence[Shapes]:
    """Move shapes west of the antimeridian by 360 degrees if there are shapes on both sides.

    Otherwise the map of an area that crosses the antimeridian would span the whole Earth.
    """
    filled = [shapes for shapes in arrays if len(shapes)]
    if not filled:
        return arrays
    west, _, east, _ = shapely.total_bounds(np.concatenate(filled))
    if east - west <= 180:
        return arrays

    def move(points: Shapes) -> Shapes:
        return np.asarray(points + [360, 0] * (points[:, :1] < 0))

    return [np.asarray(shapely.transform(shapes, move)) for shapes in arrays]


def _map_axes(bounds: tuple[float, ...], margin: float) -> Axes:
    """Create the axes of a map around bounds, with one scale in both directions.

    The extent is widened to the shape of the frame, rather than stretched.
    """
    west, south, east, north = bounds
    stretch = _stretch((south + north) / 2)
    # In degrees of latitude.
    across, up = (east - west) / stretch, north - south
    pad = max(across, up, 0.01) * margin
    across, up = across + 2 * pad, up + 2 * pad
    width = inner_width(_WIDTH)
    height = min(max(width * up / across, _LEAST_HEIGHT), _MOST_HEIGHT)
    degrees = max(across / width, up / height)
    middle_x, middle_y = (west + east) / 2, (south + north) / 2
    half_x, half_y = degrees * width / 2 * stretch, degrees * height / 2
    x, y = (middle_x - half_x, middle_x + half_x), (middle_y - half_y, middle_y + half_y)
    return Axes(x, y, _WIDTH, height)


def _stretch(latitude: float) -> float:
    """Return how many degrees of longitude are as long as one of latitude."""
    return 1 / max(math.cos(math.radians(latitude)), 0.1)


def _outlines(axes: Axes, shapes: Shapes, kind: str, titles: Sequence[str] = ()) -> list[Mark]:
    """Draw shapes, clipped to the axes and simplified to half a pixel."""
    if not len(shapes):
        return []
    clipped = shapely.clip_by_rect(shapely.make_valid(shapes), *_corners(axes))
    marks = []
    for number, shape in enumerate(clipped):
        title = titles[number] if titles else ""
        marks.append(Mark(axes.outline(shapely.simplify(shape, _pixel(axes) / 2)), kind, title))
    return marks


def _context(axes: Axes) -> list[Mark]:
    """Draw coasts and borders, also where the map goes beyond 180 degrees."""
    marks = []
    for kind, lines in world_lines().items():
        path = ""
        for turn in (-360, 0, 360):
            if axes.x[1] < turn - 180 or axes.x[0] > turn + 180:
                continue
            moved = np.array([affinity.translate(line, turn) for line in lines], object)
            clipped = shapely.clip_by_rect(moved, *_corners(axes))
            for line in shapely.get_parts(shapely.simplify(clipped, _pixel(axes) / 2)):
                if line.geom_type == "LineString" and not line.is_empty:
                    path += axes.line(list(line.coords))
        marks.append(Mark(path, kind))
    return marks


def _corners(axes: Axes) -> tuple[float, float, float, float]:
    (west, east), (south, north) = axes.x, axes.y
    return west, south, east, north


def _pixel(axes: Axes) -> float:
    """Return the width of a pixel in degrees."""
    return (axes.x[1] - axes.x[0]) / axes.frame[2]


def _drape(axes: Axes, pictures: Sequence[MapPicture]) -> list[Draped]:
    """Place pictures by the corners of their grids: the first of each footprint."""
    draped: dict[tuple[tuple[float, float], ...], Draped] = {}
    for picture in pictures:
        corners = tuple(picture.corners)
        if not corners or corners in draped or len(draped) >= _MAX_DRAPED:
            continue
        (x0, y0), (x1, y1), (x2, y2) = [axes.point(*corner) for corner in corners]
        # Moves the unit square to the grid. Over a grid of some degrees, meridians are nearly
        # parallel.
        matrix = (x1 - x0, y1 - y0, x2 - x0, y2 - y0, x0, y0)
        content = base64.b64encode(picture.webp).decode()
        draped[corners] = Draped(content, matrix, picture.title)
    return list(draped.values())


def _density(axes: Axes, shapes: Shapes) -> list[Mark]:
    """Count the centroids of shapes per cell of a grid, and draw the counts in shades."""
    centroids = shapely.get_coordinates(shapely.centroid(shapes))
    rows = max(1, round(_GRID_COLUMNS * axes.frame[3] / axes.frame[2]))
    bins = (_GRID_COLUMNS, rows)
    counts, xs, ys = np.histogram2d(centroids[:, 0], centroids[:, 1], bins, (axes.x, axes.y))
    shades = np.ceil(_SHADES * counts / counts.max()).astype(int)
    marks = []
    for i, j in np.argwhere(counts).tolist():
        path = axes.box(xs[i], ys[j], xs[i + 1], ys[j + 1])
        marks.append(Mark(path, f"shade{shades[i, j]}", f"{counts[i, j]:.0f} products"))
    return marks


def _scale_bar(axes: Axes) -> Tick:
    """Choose a round length of at most a quarter of the map."""
    km_per_pixel = (axes.y[1] - axes.y[0]) * _KM_PER_DEGREE / axes.frame[3]
    longest = km_per_pixel * axes.frame[2] / 4
    power = 10.0 ** math.floor(math.log10(longest))
    length = max(power * factor for factor in (1, 2, 5) if power * factor <= longest)
    text = f"{length:g} km" if length >= 1 else f"{1000 * length:g} m"
    return Tick(length / km_per_pixel, text)


def _longitude(value: float) -> str:
    # Shapes across the antimeridian have longitudes beyond 180 degrees.
    return _degrees(value - 360 if value > 180 else value, "E", "W")


def _latitude(value: float) -> str:
    return _degrees(value, "N", "S")


def _degrees(value: float, positive: str, negative: str) -> str:
    if value == 0:
        return "0°"
    return f"{abs(value):g}°{positive if value > 0 else negative}"
