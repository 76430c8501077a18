"""Render: turn the facts of a run into one HTML file."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import jinja2
from shapely.geometry.base import BaseGeometry

from scenebeam.report import figures
from scenebeam.report.facts import Facts, Measure

_OUTPUT_FOLDER = "../"
"""The output, relative to the page."""
_MAX_FAILURES, _MAX_PICTURES = 200, 2400
_UNFOLDED_FAILURES = 10
"""Failures that are shown without unfolding the list."""
_LISTED_PRODUCTS = 10
"""Products that are listed for each measure."""
_PICTURES_PER_PAGE = 24
_MAX_BARS = 20
"""Most bars of a bar chart, and most histograms."""


class Bar(NamedTuple):
    """A bar of a bar chart."""

    label: str
    value: float
    text: str
    """The value as it is shown."""
    color: str = ""


class BarChart(NamedTuple):
    """A bar chart."""

    title: str
    bars: Sequence[Bar]
    most: float
    """Value of a bar of full length."""
    note: str = ""


def render(facts: Facts, area: BaseGeometry | None, uri: str) -> bytes:
    """Render the page of a run.

    The page is self-contained, except for pictures, which are files of the output. Its size is
    bounded whatever the size of the run.

    Args:
        facts: What to show.
        area: The requested area, in degrees.
        uri: URI of the output.

    Returns:
        HTML in UTF-8.
    """
    # A few products are compared one by one, many by their distribution.
    bars, spreads, worst = [], [], []
    for measure in facts.measures:
        if len(measure.values) <= _MAX_BARS:
            bars.append(_bars_by_product(measure))
        else:
            spreads.append(figures.spread(measure))
            worst.append((measure.title, measure.unit, _worst(measure)))
    for title in facts.groups:
        bars.append(_bars_by_group(facts, title))
    drawn = (figures.coverage_map(facts, area), figures.timeline(facts.scenes))
    context: dict[str, Any] = {
        "facts": facts,
        "status": facts.status,
        "record": facts.record,
        "uri": uri,
        "command": f"scenebeam run {shlex.quote(f'{uri}/run.json')}",
        "figures": [figure for figure in drawn if figure is not None],
        "bars": bars,
        "spreads": spreads,
        "worst": worst,
        "histograms": [figures.values(histogram) for histogram in facts.histograms[:_MAX_BARS]],
        "failures": facts.failures[:_MAX_FAILURES],
        "unfolded": _UNFOLDED_FAILURES,
        "pictures": [_OUTPUT_FOLDER + key for key in _sample_pictures(facts.pictures)],
        "per_page": _PICTURES_PER_PAGE,
        "request": json.dumps(facts.record.get("request", {}), indent=2),
    }
    return _templates().get_template("report.html").render(context).encode()


def _sample_pictures(keys: Sequence[str]) -> Sequence[str]:
    """Return at most `_MAX_PICTURES` pictures, at regular intervals."""
    if not keys:
        return []
    step = -(-len(keys) // _MAX_PICTURES)  # rounded up
    return keys[::step]


def _worst(measure: Measure) -> list[tuple[float, str]]:
    """Return the ten products to check first: the cloudiest, or the lowest of another measure."""
    pairs = sorted(zip(measure.values, measure.names, strict=True))
    if measure.title == "Cloud":
        return pairs[: -_LISTED_PRODUCTS - 1 : -1]
    return pairs[:_LISTED_PRODUCTS]


def _bars_by_product(measure: Measure) -> BarChart:
    bars = []
    for value, name in zip(measure.values, measure.names, strict=True):
        bars.append(Bar(name, value, f"{value:.4g} {measure.unit}"))
    most = 100.0 if measure.unit == "%" else max(max(measure.values), 1e-9)
    return BarChart(measure.title, bars, most)


def _bars_by_group(facts: Facts, title: str) -> BarChart:
    """Chart how many products each group has, largest groups first."""
    counts = facts.groups[title]
    shown = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))[:_MAX_BARS]
    total = counts.total()
    bars = []
    for label, count in shown:
        text = f"{count:,} ({100 * count / total:.1f} %)"
        bars.append(Bar(label, count, text, facts.colors.get(label, "")))
    note = f"and {len(counts) - len(shown):,} more" if len(shown) < len(counts) else ""
    return BarChart(title, bars, max(counts.values()), note)


@cache
def _templates() -> jinja2.Environment:
    loader = jinja2.PackageLoader("scenebeam.report", "templates")
    return jinja2.Environment(
        loader=loader,
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
