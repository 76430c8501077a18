"""Charts: draw facts as timelines and histograms.

Pure functions. The number of marks is bounded whatever the size of the run: beyond `MAX_MARKS`,
scenes are thinned.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np

from scenebeam.figures.svg import Axes, Figure, Mark, round_ticks
from scenebeam.report.facts import Histogram, Measure, SceneFact

MAX_MARKS = 1500
"""Half the most scenes on the timeline."""
_WIDTH = 720.0
"""Pixels of a figure across the page."""
_SMALL_WIDTH = 340.0
_UNKNOWN_CLOUD = -4.0
"""Where scenes of unknown cloud cover are drawn: below 0 %."""


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
        x_title="date of acquisition",
        y_title="cloud cover" if has_cloud else "",
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
    """Return up to five days at regular intervals, from the first to the last."""
    if last <= first:
        return [first]
    count = min(4, max(1, int(last - first)))
    return [first + (last - first) * number / count for number in range(count + 1)]


def spread(measure: Measure) -> Figure:
    """Draw the distribution of a measure over the products."""
    low, high = min(measure.values), max(measure.values)
    if measure.unit == "%":
        low, high = 0.0, max(100.0, high)
    if low == high:
        high = low + 1
    counts, edges = np.histogram(measure.values, 20, (low, high))
    drawn = _histogram(measure.title, edges.tolist(), counts.tolist(), _WIDTH, 120, measure.unit)
    return replace(drawn, x_title=measure.title.lower(), y_title="products")


def values(histogram: Histogram) -> Figure:
    """Draw the pixel values of a band."""
    drawn = _histogram(histogram.band, histogram.edges, histogram.counts, _SMALL_WIDTH, 90, "")
    return replace(drawn, x_title="pixel value", y_title="pixels")


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
