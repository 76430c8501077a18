"""Figures: draw facts as maps, timelines and histograms.

Pure functions. The number of marks is bounded whatever the size of the run: beyond `MAX_MARKS`,
products are counted per cell of a grid, and scenes are thinned.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime

import numpy as np
import shapely
from shapely.geometry.base import BaseGeometry

from scenebeam.report.facts import Facts, Histogram, Measure, SceneFact, Shapes
from scenebeam.report.svg import Axes, Figure, Mark, inner_width, round_ticks

MAX_MARKS = 1500
"""Most footprints of one kind on the map; half the most scenes on the timeline."""
_WIDTH = 720.0
"""Pixels of a figure across the page."""
_SMALL_WIDTH = 340.0
_GRID_COLUMNS = 64
_SHADES = 5
_UNKNOWN_CLOUD = -4.0
"""Where scenes of unknown cloud cover are drawn: below 0 %."""


def coverage_map(facts: Facts, area: BaseGeometry | None) -> Figure | None:
    """Draw the footprints of the products and of the selected scenes, and the area of interest.

    Args:
        facts: The facts.
        area: The requested area, in degrees.

    Returns:
        The map; None if there is nothing to draw.
    """
    requested = np.asarray([] if area is None else [area], object)
    products, scenes, requested = _unwrap(
        (facts.product_footprints, facts.scene_footprints, requested)
    )
    # Scenes are much larger than most products, so they alone do not widen the map.
    extent = np.concatenate([products, requested]) if len(products) or len(requested) else scenes
    if not len(extent):
        return None
    axes = _map_axes(extent)
    marks = _outlines(axes, scenes[:MAX_MARKS], "scene")
    note = ""
    if len(products) > MAX_MARKS:
        marks += _density(axes, products)
        note = f"{len(products):,} products, counted per grid cell"
    else:
        marks += _outlines(axes, products, "product", facts.product_names)
    marks += _outlines(axes, requested, "area", ["area of interest"] * len(requested))
    legend = [("product", "products"), ("scene", "selected scenes")]
    if len(requested):
        legend.append(("area", "area of interest"))
    return Figure(
        title="Footprints",
        width=axes.width,
        height=axes.height,
        frame=axes.frame,
        marks=[mark for mark in marks if mark.path],
        below=axes.ticks_below(round_ticks(*axes.x, 6), _longitude),
        beside=axes.ticks_beside(round_ticks(*axes.y, 4), _latitude),
        legend=legend,
        note=note,
    )


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


def _map_axes(extent: Shapes) -> Axes:
    """Create the axes of a map around shapes, with an equal scale at its middle latitude."""
    west, south, east, north = shapely.total_bounds(extent)
    pad = max(east - west, north - south, 0.01) * 0.12
    west, east = west - pad, east + pad
    south, north = max(south - pad, -90), min(north + pad, 90)
    # A degree of latitude is 1 / cos(latitude) times as long as a degree of longitude.
    stretch = 1 / max(math.cos(math.radians((south + north) / 2)), 0.1)
    height = inner_width(_WIDTH) * (north - south) * stretch / (east - west)
    return Axes((west, east), (south, north), _WIDTH, min(max(height, 120), 620))


def _outlines(axes: Axes, shapes: Shapes, kind: str, titles: Sequence[str] = ()) -> list[Mark]:
    """Draw shapes, clipped to the axes and simplified to half a pixel."""
    if not len(shapes):
        return []
    (west, east), (south, north) = axes.x, axes.y
    pixel = (east - west) / axes.frame[2]
    clipped = shapely.clip_by_rect(shapely.make_valid(shapes), west, south, east, north)
    marks = []
    for number, shape in enumerate(clipped):
        title = titles[number] if titles else ""
        marks.append(Mark(axes.outline(shapely.simplify(shape, pixel / 2)), kind, title))
    return marks


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


def timeline(scenes: Sequence[SceneFact]) -> Figure | None:
    """Draw all scenes that were found by date and cloud cover.

    Args:
        scenes: The scenes.

    Returns:
        The timeline; None if there are no scenes.
    """
    if not scenes:
        return None
    # Selected scenes come last, so that they are drawn on top of the others.
    ordered = sorted(scenes, key=lambda scene: (scene.selected, scene.id))
    shown = _thin(ordered, 2 * MAX_MARKS)
    days = [scene.acquired.timestamp() / 86400 for scene in shown]
    first, last = min(days), max(days)
    margin = max((last - first) * 0.02, 0.5)
    has_cloud = any(scene.cloud is not None for scene in scenes)
    height = 180 if has_cloud else 60
    axes = Axes((first - margin, last + margin), (-8, 104), _WIDTH, height)
    marks = []
    for day, scene in zip(days, shown, strict=True):
        cloud = _UNKNOWN_CLOUD if scene.cloud is None else scene.cloud
        kind = "selected" if scene.selected else "unselected"
        marks.append(Mark(axes.dot(day, cloud), kind, _scene_title(scene)))
    selected = sum(scene.selected for scene in scenes)
    legend = [
        ("selected", f"selected ({selected:,})"),
        ("unselected", f"not selected ({len(scenes) - selected:,})"),
    ]
    return Figure(
        title="Scenes by date and cloud cover",
        width=axes.width,
        height=axes.height,
        frame=axes.frame,
        marks=marks,
        below=axes.ticks_below(_day_ticks(first, last), _date),
        beside=axes.ticks_beside((0, 50, 100), "{} %".format) if has_cloud else [],
        legend=legend,
        note=f"showing {len(shown):,} of {len(scenes):,}" if len(shown) < len(scenes) else "",
    )


def _thin(scenes: Sequence[SceneFact], most: int) -> Sequence[SceneFact]:
    """Return at most `most` scenes, at regular intervals."""
    return scenes[:: math.ceil(len(scenes) / most)]


def _scene_title(scene: SceneFact) -> str:
    cloud = "" if scene.cloud is None else f", {scene.cloud:g} % cloud"
    return f"{scene.id}, {scene.acquired:%Y-%m-%d %H:%M}{cloud}"


def _date(day: float) -> str:
    return f"{datetime.fromtimestamp(day * 86400, UTC):%Y-%m-%d}"


def _day_ticks(first: float, last: float) -> list[float]:
    """Return up to six days at regular intervals, from the first to the last."""
    if last <= first:
        return [first]
    count = min(5, max(1, int(last - first)))
    return [first + (last - first) * number / count for number in range(count + 1)]


def spread(measure: Measure) -> Figure:
    """Draw the distribution of a measure over the products."""
    low, high = min(measure.values), max(measure.values)
    if measure.unit == "%":
        low, high = 0.0, max(100.0, high)
    if low == high:
        high = low + 1
    counts, edges = np.histogram(measure.values, 20, (low, high))
    return _histogram(measure.title, edges.tolist(), counts.tolist(), _WIDTH, 120, measure.unit)


def values(histogram: Histogram) -> Figure:
    """Draw the pixel values of a band."""
    return _histogram(histogram.band, histogram.edges, histogram.counts, _SMALL_WIDTH, 90, "")


def _histogram(
    title: str,
    edges: Sequence[float],
    counts: Sequence[float],
    width: float,
    height: float,
    unit: str,
) -> Figure:
    top = max([*counts, 1e-9])
    axes = Axes((edges[0], edges[-1]), (0, top * 1.04), width, height)
    suffix = f" {unit}" if unit else ""
    marks = []
    for low, high, count in zip(edges, edges[1:], counts, strict=False):
        if count:
            label = f"{low:g} to {high:g}{suffix}: {count:,.0f}"
            marks.append(Mark(axes.box(low, 0, high, count), "product", label))
    numbers = round_ticks(edges[0], edges[-1], width / 110)
    below = axes.ticks_below(numbers, lambda number: f"{number:g}{suffix}")
    return Figure(title, axes.width, axes.height, axes.frame, marks, below)


def _longitude(value: float) -> str:
    # Shapes across the antimeridian have longitudes beyond 180 degrees.
    return _degrees(value - 360 if value > 180 else value, "E", "W")


def _latitude(value: float) -> str:
    return _degrees(value, "N", "S")


def _degrees(value: float, positive: str, negative: str) -> str:
    if value == 0:
        return "0°"
    return f"{abs(value):g}°{positive if value > 0 else negative}"
