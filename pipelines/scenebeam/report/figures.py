"""Figures: facts → shapes of an SVG, of a bounded number whatever the run's size. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import shapely
from shapely.geometry.base import BaseGeometry

from scenebeam.report.facts import Facts, Histogram, Measure, SceneFact, Shapes

MOST = 1500
"""Shapes of one kind in a figure; beyond that they are counted by cell, or thinned."""
_WIDE, _FRAME = 720.0, (56.0, 8.0, 22.0, 34.0)
"""Width in pixels; room on the left, above, below and on the right."""
_CELLS = 64
_SHADES = 5
_NOBODY = -4.0
"""Where a scene is drawn of whose cloud nobody knows: below all others."""


@dataclass(frozen=True)
class Mark:
    """A shape: SVG path data, the class that says how it is drawn, and what is told of it."""

    path: str
    kind: str
    title: str = ""


@dataclass(frozen=True)
class Tick:
    """A label on an axis, at so many pixels."""

    at: float
    text: str


@dataclass(frozen=True)
class Figure:
    """A picture of numbers, in pixels from the upper left."""

    title: str
    width: float
    height: float
    frame: tuple[float, float, float, float]
    """Left, top, width and height of the part inside the axes."""
    marks: Sequence[Mark]
    below: Sequence[Tick] = ()
    beside: Sequence[Tick] = ()
    legend: Sequence[tuple[str, str]] = ()
    """Class of a mark, and what it stands for."""
    note: str = ""


@dataclass(frozen=True)
class _Axes:
    """Numbers → pixels."""

    x: tuple[float, float]
    y: tuple[float, float]
    """Bottom, top."""
    frame: tuple[float, float, float, float]

    def across(self, value: float) -> float:
        left, _, width, _ = self.frame
        return left + (value - self.x[0]) / (self.x[1] - self.x[0]) * width

    def down(self, value: float) -> float:
        _, top, _, height = self.frame
        return top + (self.y[1] - value) / (self.y[1] - self.y[0]) * height

    def box(self, x0: float, y0: float, x1: float, y1: float) -> str:
        left, top, right, bottom = self.across(x0), self.down(y1), self.across(x1), self.down(y0)
        return f"M{left:.1f} {top:.1f}H{right:.1f}V{bottom:.1f}H{left:.1f}Z"

    def dot(self, x: float, y: float, radius: float = 3.5) -> str:
        return (
            f"M{self.across(x) - radius:.1f} {self.down(y):.1f}a{radius} {radius} 0 1 0 {2 * radius} 0"
            f"a{radius} {radius} 0 1 0 {-2 * radius} 0Z"
        )

    def outline(self, shape: BaseGeometry) -> str:
        drawn = []
        for part in shapely.get_parts(shape):
            if part.geom_type != "Polygon":
                continue
            for ring in (part.exterior, *part.interiors):
                points = [f"{self.across(x):.1f} {self.down(y):.1f}" for x, y in ring.coords[:-1]]
                drawn.append("M" + "L".join(dict.fromkeys(points)) + "Z")
        return "".join(drawn)


def _axes(
    x: tuple[float, float], y: tuple[float, float], width: float, height: float
) -> tuple[_Axes, float, float]:
    """Axes of so many pixels, and the size of the figure with room for labels."""
    left, top, bottom, right = _FRAME
    return _Axes(x, y, (left, top, width - left - right, height)), width, height + top + bottom


def coverage_map(facts: Facts, area: BaseGeometry | None) -> Figure | None:
    """Footprints of the scenes taken and of the products, and the area asked for; None where nothing is known."""
    asked = np.asarray([] if area is None else [area], object)
    products, scenes, asked = _together((facts.products, facts.footprints, asked))
    inner = np.concatenate([products, asked]) if len(products) or len(asked) else scenes
    if not len(inner):
        return None
    west, south, east, north = shapely.total_bounds(inner)
    pad = max(east - west, north - south, 0.01) * 0.12
    west, south, east, north = west - pad, max(south - pad, -90), east + pad, min(north + pad, 90)
    stretch = 1 / max(math.cos(math.radians((south + north) / 2)), 0.1)
    inside = _WIDE - _FRAME[0] - _FRAME[3]
    height = min(max(inside * (north - south) * stretch / (east - west), 120), 620)
    axes, width, whole = _axes((west, east), (south, north), _WIDE, height)
    marks = [Mark(path, "scene") for path in _outlines(axes, scenes[:MOST])]
    if len(products) > MOST:
        marks += _density(axes, products)
    else:
        marks += [
            Mark(path, "product", name)
            for path, name in zip(_outlines(axes, products), facts.names, strict=False)
        ]
    marks += [Mark(path, "area", "the area asked for") for path in _outlines(axes, asked)]
    legend = [
        ("product", "products"),
        ("scene", "scenes taken"),
        *([("area", "area")] if len(asked) else []),
    ]
    note = f"{len(products):,} products, by how many lie in a cell" if len(products) > MOST else ""
    ticks = (_ticks(west, east, 6), _ticks(south, north, 4))
    return Figure(
        "Where", width, whole, axes.frame, [mark for mark in marks if mark.path],
        [Tick(axes.across(x), _degrees(x, "E", "W")) for x in ticks[0]],
        [Tick(axes.down(y), _degrees(y, "N", "S")) for y in ticks[1]], legend, note,
    )  # fmt: skip


def _together(shapes: Sequence[Shapes]) -> Sequence[Shapes]:
    """West of the antimeridian moved on by a turn, where they lie on both sides of it."""
    there = [one for one in shapes if len(one)]
    if not there:
        return shapes
    west, _, east, _ = shapely.total_bounds(np.concatenate(there))
    if east - west <= 180:
        return shapes
    return [
        np.asarray(shapely.transform(one, lambda points: points + [360, 0] * (points[:, :1] < 0)))
        for one in shapes
    ]


def _outlines(axes: _Axes, shapes: Shapes) -> Iterable[str]:
    (west, east), (south, north) = axes.x, axes.y
    pixel = (east - west) / axes.frame[2]
    for shape in (
        shapely.clip_by_rect(shapely.make_valid(shapes), west, south, east, north)
        if len(shapes)
        else ()
    ):
        yield axes.outline(shapely.simplify(shape, pixel / 2))


def _density(axes: _Axes, shapes: Shapes) -> list[Mark]:
    """How many of them lie in each cell, in five shades."""
    middles = shapely.get_coordinates(shapely.centroid(shapes))
    rows = max(1, round(_CELLS * axes.frame[3] / axes.frame[2]))
    counts, xs, ys = np.histogram2d(middles[:, 0], middles[:, 1], (_CELLS, rows), (axes.x, axes.y))
    shade = np.ceil(_SHADES * counts / counts.max()).astype(int)
    return [
        Mark(
            axes.box(xs[i], ys[j], xs[i + 1], ys[j + 1]),
            f"shade{shade[i, j]}",
            f"{counts[i, j]:.0f} products",
        )
        for i, j in np.argwhere(counts).tolist()
    ]


def timeline(scenes: Sequence[SceneFact]) -> Figure | None:
    """Every scene found, by its day and its cloud; None where there is none."""
    if not scenes:
        return None
    shown = _thinned(sorted(scenes, key=lambda one: (one.taken, one.id)), 2 * MOST)
    days = [scene.acquired.timestamp() / 86400 for scene in shown]
    first, last = min(days), max(days)
    margin = max((last - first) * 0.02, 0.5)
    clear = any(scene.cloud is not None for scene in scenes)
    axes, width, height = _axes(
        (first - margin, last + margin), (-8, 104), _WIDE, 180 if clear else 60
    )
    marks = [
        Mark(
            axes.dot(day, -4 if scene.cloud is None else scene.cloud),
            "taken" if scene.taken else "left",
            _told(scene),
        )
        for day, scene in zip(days, shown, strict=True)
    ]
    taken = sum(scene.taken for scene in scenes)
    note = f"{len(shown):,} of {len(scenes):,} scenes are drawn" if len(shown) < len(scenes) else ""
    return Figure(
        "When", width, height, axes.frame, marks,
        [Tick(axes.across(day), f"{datetime.fromtimestamp(day * 86400, UTC):%Y-%m-%d}") for day in _days(first, last)],
        [Tick(axes.down(value), f"{value} %") for value in (0, 50, 100)] if clear else [],
        [("taken", f"taken ({taken:,})"), ("left", f"left out ({len(scenes) - taken:,})")], note,
    )  # fmt: skip


def _kind(scene: SceneFact) -> str:
    return "taken" if scene.taken else "left"


def _told(scene: SceneFact) -> str:
    cloud = "" if scene.cloud is None else f", {scene.cloud:g} % cloud"
    return f"{scene.id}, {scene.acquired:%Y-%m-%d %H:%M}{cloud}"


def spread(measure: Measure) -> Figure:
    """How a number that products have spreads."""
    low, high = min(measure.values), max(measure.values)
    if measure.unit == "%":
        low, high = 0.0, max(100.0, high)
    if low == high:
        high = low + 1
    counts, edges = np.histogram(measure.values, 20, (low, high))
    return _bars(measure.title, edges.tolist(), counts.tolist(), _WIDE, 120, measure.unit)


def values(histogram: Histogram) -> Figure:
    """The numbers of a band."""
    return _bars(histogram.band, histogram.edges, histogram.counts, 340.0, 90, "")


def _bars(
    title: str,
    edges: Sequence[float],
    counts: Sequence[float],
    width: float,
    height: float,
    unit: str,
) -> Figure:
    top = max([*counts, 1e-9])
    axes, wide, whole = _axes((edges[0], edges[-1]), (0, top * 1.04), width, height)
    marks = [
        Mark(
            axes.box(low, 0, high, count),
            "product",
            f"{low:g} to {high:g}{unit and ' ' + unit}: {count:,.0f}",
        )
        for low, high, count in zip(edges, edges[1:], counts, strict=False)
        if count
    ]
    below = [
        Tick(axes.across(x), f"{x:g}{unit and ' ' + unit}")
        for x in _ticks(edges[0], edges[-1], width / 110)
    ]
    return Figure(title, wide, whole, axes.frame, marks, below)


def _thinned(scenes: Sequence[SceneFact], most: int) -> Sequence[SceneFact]:
    step = math.ceil(len(scenes) / most)
    return scenes[::step]


def _ticks(low: float, high: float, count: float) -> list[float]:
    """Round numbers between two, about so many: steps of 1, 2 or 5 times a power of ten."""
    rough = (high - low) / max(count, 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough)
    first = math.ceil(low / step)
    return [round(number * step, 10) for number in range(first, math.floor(high / step) + 1)]


def _days(first: float, last: float) -> list[float]:
    """A few days, evenly between the first and the last."""
    count = min(5, max(1, int(last - first)))
    return (
        [first + (last - first) * number / count for number in range(count + 1)]
        if last > first
        else [first]
    )


def _degrees(value: float, plus: str, minus: str) -> str:
    value = value - 360 if value > 180 else value
    return f"{abs(value):g}°{plus if value > 0 else minus if value < 0 else ''}"
