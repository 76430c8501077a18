"""Render: facts → one HTML file."""

from __future__ import annotations

import json
import shlex
from collections import Counter
from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import jinja2
from shapely.geometry.base import BaseGeometry

from scenebeam.report import figures
from scenebeam.report.facts import Facts, Measure

_TOP = "../"
"""The output's folder, seen from the page."""
_ROWS, _FEW, _PICTURES, _AT_ONCE = 200, 10, 2400, 24
_BARS = 20


class Bar(NamedTuple):
    """A line of a bar chart."""

    label: str
    value: float
    text: str
    color: str = ""


class Bars(NamedTuple):
    """A bar chart, whose longest bar is `most`."""

    title: str
    bars: Sequence[Bar]
    most: float
    note: str = ""


def render(facts: Facts, area: BaseGeometry | None, uri: str) -> bytes:
    """The page: self-contained but for the pictures, which lie beside it. Of a bounded size, whatever the run's.

    `area` is what was asked for, in degrees; `uri` where the output lies.
    """
    small = [measure for measure in facts.measures if len(measure.values) <= _BARS]
    pictures = facts.pictures[:: -(-len(facts.pictures) // _PICTURES)] if facts.pictures else []
    context: dict[str, Any] = {
        "facts": facts,
        "status": facts.status,
        "record": facts.record,
        "uri": uri,
        "command": f"scenebeam run {shlex.quote(f'{uri}/run.json')}",
        "figures": [
            one
            for one in (figures.coverage_map(facts, area), figures.timeline(facts.scenes))
            if one
        ],
        "bars": [*map(_by_product, small), *(_by_group(facts, title) for title in facts.groups)],
        "spreads": [figures.spread(measure) for measure in facts.measures if measure not in small],
        "lowest": [
            (measure.title, measure.unit, _worst(measure))
            for measure in facts.measures
            if measure not in small
        ],
        "histograms": [figures.values(histogram) for histogram in facts.histograms[:_BARS]],
        "failures": facts.failures[:_ROWS],
        "few": _FEW,
        "pictures": [_TOP + name for name in pictures],
        "at_once": _AT_ONCE,
        "request": json.dumps(facts.record.get("request", {}), indent=2),
    }
    return _templates().get_template("report.html").render(context).encode()


def _worst(measure: Measure) -> list[tuple[float, str]]:
    """The ten products that most need a look: those with the most cloud, or the least of anything else."""
    pairs = sorted(zip(measure.values, measure.names, strict=True))
    return pairs[: -_FEW - 1 : -1] if measure.title == "Cloud" else pairs[:_FEW]


def _by_product(measure: Measure) -> Bars:
    bars = [
        Bar(name, value, f"{value:.4g} {measure.unit}")
        for value, name in zip(measure.values, measure.names, strict=True)
    ]
    most = 100.0 if measure.unit == "%" else max(max(measure.values), 1e-9)
    return Bars(measure.title, bars, most)


def _by_group(facts: Facts, title: str) -> Bars:
    counted: Counter[str] = facts.groups[title]
    shown = sorted(counted.items(), key=lambda pair: (-pair[1], pair[0]))[:_BARS]
    total = counted.total()
    bars = [
        Bar(label, count, f"{count:,} ({100 * count / total:.1f} %)", facts.colors.get(label, ""))
        for label, count in shown
    ]
    note = f"and {len(counted) - len(shown):,} more" if len(shown) < len(counted) else ""
    return Bars(title, bars, max(counted.values()), note)


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
