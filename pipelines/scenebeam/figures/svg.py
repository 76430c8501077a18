"""SVG: figures as data (marks, ticks, legend), and axes that convert numbers to pixels."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import shapely
from shapely.geometry.base import BaseGeometry

Interval = tuple[float, float]
_LEFT, _TOP, _BOTTOM, _RIGHT = 78.0, 20.0, 22.0, 46.0
"""Margins around the axes in pixels, with room for labels on the left, below and above."""


@dataclass(frozen=True)
class Mark:
    """A shape: SVG path data, the CSS class that styles it, and its tooltip."""

    path: str
    kind: str
    title: str = ""


@dataclass(frozen=True)
class Tick:
    """A label on an axis, at a position in pixels."""

    at: float
    text: str


@dataclass(frozen=True)
class Draped:
    """A picture that is part of a figure."""

    webp: str
    """The picture in base64."""
    matrix: tuple[float, float, float, float, float, float]
    """Affine transform of the unit square to pixels, as SVG's `matrix` has it."""
    title: str


@dataclass(frozen=True)
class Figure:
    """A figure, in pixels from its upper left corner."""

    title: str
    width: float
    height: float
    frame: tuple[float, float, float, float]
    """Left, top, width and height of the area inside the axes."""
    marks: Sequence[Mark]
    below: Sequence[Tick] = ()
    """Labels of the horizontal axis."""
    beside: Sequence[Tick] = ()
    """Labels of the vertical axis."""
    legend: Sequence[tuple[str, str]] = ()
    """CSS class of a mark, and what it stands for."""
    note: str = ""
    draped: Sequence[Draped] = ()
    scale_bar: Tick | None = None
    """Length of the scale bar in pixels, and what it stands for."""
    x_title: str = ""
    y_title: str = ""
    """Titles of the axes."""


class Axes:
    """Converts numbers to pixels, and shapes in numbers to SVG path data."""

    def __init__(self, x: Interval, y: Interval, width: float, height: float) -> None:
        """Create axes.

        Args:
            x: Numbers at the left and right edges.
            y: Numbers at the bottom and top edges.
            width: Width of the whole figure in pixels, with margins.
            height: Height of the area inside the axes in pixels.
        """
        self.x, self.y = x, y
        self.width, self.height = width, height + _TOP + _BOTTOM
        self.frame = (_LEFT, _TOP, inner_width(width), height)

    def across(self, value: float) -> float:
        """Convert a number of the horizontal axis to pixels."""
        left, _, width, _ = self.frame
        return left + (value - self.x[0]) / (self.x[1] - self.x[0]) * width

    def down(self, value: float) -> float:
        """Convert a number of the vertical axis to pixels, which count from the top."""
        _, top, _, height = self.frame
        return top + (self.y[1] - value) / (self.y[1] - self.y[0]) * height

    def ticks_below(self, values: Iterable[float], label: Callable[[float], str]) -> list[Tick]:
        """Label numbers on the horizontal axis."""
        return [Tick(self.across(value), label(value)) for value in values]

    def ticks_beside(self, values: Iterable[float], label: Callable[[float], str]) -> list[Tick]:
        """Label numbers on the vertical axis."""
        return [Tick(self.down(value), label(value)) for value in values]

    def box(self, x0: float, y0: float, x1: float, y1: float) -> str:
        """Return the path of a rectangle."""
        left, top, right, bottom = self.across(x0), self.down(y1), self.across(x1), self.down(y0)
        return f"M{left:.1f} {top:.1f}H{right:.1f}V{bottom:.1f}H{left:.1f}Z"

    def dot(self, x: float, y: float, radius: float = 3.5) -> str:
        """Return the path of a dot with a radius in pixels, as two half circles."""
        left, middle = self.across(x) - radius, self.down(y)
        return (
            f"M{left:.1f} {middle:.1f}a{radius} {radius} 0 1 0 {2 * radius} 0"
            f"a{radius} {radius} 0 1 0 {-2 * radius} 0Z"
        )

    def point(self, x: float, y: float) -> tuple[float, float]:
        """Convert a point to pixels."""
        return self.across(x), self.down(y)

    def line(self, points: Sequence[tuple[float, ...]]) -> str:
        """Return the path of a line."""
        pixels = [f"{self.across(x):.1f} {self.down(y):.1f}" for x, y, *_ in points]
        return "M" + "L".join(dict.fromkeys(pixels))

    def outline(self, shape: BaseGeometry) -> str:
        """Return the path of a shape's polygons, holes included; empty if it has none."""
        path = ""
        for part in shapely.get_parts(shape):
            if part.geom_type != "Polygon":
                continue
            for ring in (part.exterior, *part.interiors):
                points = [f"{self.across(x):.1f} {self.down(y):.1f}" for x, y in ring.coords[:-1]]
                # Neighboring points often round to the same pixel.
                path += "M" + "L".join(dict.fromkeys(points)) + "Z"
        return path


def inner_width(width: float) -> float:
    """Return the width inside the axes of a figure, in pixels."""
    return width - _LEFT - _RIGHT


def round_ticks(low: float, high: float, count: float) -> list[float]:
    """Choose round numbers for an axis, with steps of 1, 2 or 5 times a power of ten.

    Args:
        low: First number of the axis.
        high: Last number of the axis, greater than `low`.
        count: How many ticks there should be, approximately.
    """
    rough = (high - low) / max(count, 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = 10 * power
    for factor in (1, 2, 5):
        if power * factor >= rough:
            step = power * factor
            break
    numbers = range(math.ceil(low / step), math.floor(high / step) + 1)
    return [round(number * step, 10) for number in numbers]
