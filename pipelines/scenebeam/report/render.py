"""Render: turn the facts of a run into one HTML file."""

from __future__ import annotations

import base64
import json
import shlex
from collections import Counter
from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple
from urllib.parse import quote

import jinja2
import numpy as np
from markupsafe import Markup
from shapely.geometry.base import BaseGeometry

from scenebeam.figures.maps import MapPicture, coverage_map, locator_map
from scenebeam.figures.svg import Figure
from scenebeam.raster.render import RAMP
from scenebeam.report import charts
from scenebeam.report.facts import Facts, Measure
from scenebeam.report.script import page_script

_OUTPUT_FOLDER = "../"
"""The output, relative to the page."""
_UNFOLDED_FAILURES = 10
"""Failures that are shown without unfolding the list."""
_MAX_REASONS = 8
"""Most reasons of failures, with how many tasks have each."""
_MAX_INCOMPLETE = 20
"""Most incomplete products that are listed with what they lack."""
_LISTED_TO_CHECK = 10
"""Products that are listed for each measure."""
_LISTED_PRODUCTS = 100
"""Products in the table of products."""
_PICTURES_PER_PAGE = 24
_MAX_BARS = 20
"""Most bars of a bar chart, and most histograms."""
_MEDIA_TYPES = {"webp": "image/webp", "png": "image/png"}


class Bar(NamedTuple):
    """A bar of a bar chart."""

    label: str
    value: float
    text: str
    """The value as it is shown."""
    color: str = ""
    kind: str = ""
    """CSS class of the bar."""


class PictureEntry(NamedTuple):
    """A picture as the page refers to it."""

    source: str
    """Data URI or relative path."""
    href: str
    """Relative path of the file."""
    alt: str
    caption: str
    number: int
    """Its place among all pictures."""
    size: tuple[int, int]
    """Width and height in pixels; zeros if they are not known."""


class BarChart(NamedTuple):
    """A bar chart."""

    title: str
    bars: Sequence[Bar]
    most: float
    """Value of a bar of full length."""
    note: str = ""


def render(facts: Facts, area: BaseGeometry | None, uri: str) -> bytes:
    """Render the page of a run.

    The page needs no network. Its first pictures are part of it; the others are files of the
    output. Its size is bounded whatever the size of the run.

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
            spreads.append(charts.spread(measure))
            worst.append((measure.title, measure.unit, _worst(measure)))
    for title in facts.groups:
        bars.append(_bars_by_group(facts, title))
    pictures = _picture_entries(facts)
    # Pictures that were drawn for the page begin with the best, which is shown by itself.
    hero = pictures[0] if pictures and facts.gallery.legends else None
    in_gallery = pictures[1:] if hero else pictures
    drawn = _maps(facts, area)
    context: dict[str, Any] = {
        "facts": facts,
        "status": facts.status,
        "record": facts.record,
        "uri": uri,
        "lead": _lead(facts),
        "command": f"scenebeam run {shlex.quote(f'{uri}/run.json')}",
        "maps": [figure for figure in drawn if figure is not None],
        "timeline": charts.timeline(facts.scenes),
        "funnel": _funnel(facts),
        "bars": bars,
        "spreads": spreads,
        "worst": worst,
        "histograms": [charts.values(histogram) for histogram in facts.histograms[:_MAX_BARS]],
        "reasons": _reasons(facts),
        "incomplete": _incomplete(facts),
        "status_tables": [key for key in facts.tables if "status" in key or "report" in key],
        "failures": facts.failures,
        "all_failures": facts.failure_reasons.total(),
        "unfolded": _UNFOLDED_FAILURES,
        "listed": _LISTED_PRODUCTS,
        "ramp": RAMP,
        "script": Markup(page_script()),
        "hero": hero,
        "pictures": in_gallery[:_PICTURES_PER_PAGE],
        "all_pictures": [_without_content(entry) for entry in pictures],
        "total_pictures": facts.gallery.total,
        "per_page": _PICTURES_PER_PAGE,
        "request": json.dumps(facts.record.get("request", {}), indent=2),
    }
    return _templates().get_template("report.html").render(context).encode()


def _maps(facts: Facts, area: BaseGeometry | None) -> list[Figure | None]:
    """Draw a map of the run, and one that shows where on Earth it is."""
    on_map = []
    for picture in facts.gallery.pictures:
        if picture.on_map:
            on_map.append(MapPicture(picture.on_map, picture.corners, picture.caption))
    requested = np.asarray([] if area is None else [area], object)
    return [
        coverage_map(
            products=facts.product_footprints,
            scenes=facts.scene_footprints,
            area=area,
            names=facts.product_names,
            pictures=on_map,
        ),
        locator_map(facts.product_footprints, requested, facts.scene_footprints),
    ]


def _lead(facts: Facts) -> str:
    """Return one sentence about the run."""
    request = facts.record.get("request", {})
    kind = request.get("product", {}).get("kind", "")
    catalog = request.get("catalog", "")
    if isinstance(catalog, list):
        catalog = " and ".join(catalog)
    source = catalog if isinstance(catalog, str) and catalog else "a table"
    counts = []
    for count, noun in facts.counts:
        counts.append(f"{count:,} {noun.removesuffix('s') if count == 1 else noun}")
    # "4 mosaic products", but "4 chips": what chips are of is plain.
    if facts.counts and facts.counts[0][1] == "products":
        counts[0] = counts[0].replace(" product", f" {kind} product".rstrip())
    what = " and ".join(counts)
    times = sorted(scene.acquired for scene in facts.scenes if scene.selected)
    if not times:
        return f"{what} from {source}."
    span = f"{times[0]:%Y-%m-%d}"
    if times[-1].date() != times[0].date():
        span += f" to {times[-1]:%Y-%m-%d}"
    scenes = f"{len(times):,} scene{'' if len(times) == 1 else 's'}"
    return f"{what} of {scenes} from {source}, {span}."


def _reasons(facts: Facts) -> list[tuple[int, str]]:
    """Return the most common reasons of what was not made, most common first."""
    counts = Counter(facts.left_out)
    if len(facts.failure_reasons) < facts.failure_reasons.total():  # the table says the same
        counts.update(facts.failure_reasons)
    return [(count, reason) for reason, count in counts.most_common(_MAX_REASONS)]


def _incomplete(facts: Facts) -> list[tuple[str, Sequence[str]]]:
    """Return products that lack something, and what."""
    lacking = [(product.id, product.missing) for product in facts.products if product.missing]
    return lacking[:_MAX_INCOMPLETE]


def _funnel(facts: Facts) -> BarChart | None:
    """Chart how scenes became fewer: found, left out by each step, selected."""
    found = len(facts.scenes)
    if not found:
        return None
    bars = [Bar("found", found, f"{found:,}")]
    for step, count in facts.record.get("left_out", {}).items():
        if count:
            bars.append(Bar(step, count, f"{count:,} left out", kind="out"))
    selected = sum(scene.selected for scene in facts.scenes)
    word = "used" if facts.scenes_are_used else "selected"
    if facts.scenes_are_used:
        bars.append(Bar("selected", facts.selected_count, f"{facts.selected_count:,}"))
    bars.append(Bar(word, selected, f"{selected:,}"))
    return BarChart(f"From found to {word}", bars, found)


def _picture_entries(facts: Facts) -> list[PictureEntry]:
    entries = []
    for number, picture in enumerate(facts.gallery.pictures):
        href = _OUTPUT_FOLDER + picture.key
        source = quote(href)
        if picture.embedded:
            media_type = _MEDIA_TYPES[picture.key.rpartition(".")[2]]
            source = f"data:{media_type};base64,{base64.b64encode(picture.embedded).decode()}"
        entries.append(
            PictureEntry(
                source, quote(href), picture.description, picture.caption, number, picture.size
            )
        )
    return entries


def _without_content(entry: PictureEntry) -> dict[str, str | int]:
    """Return an entry for the script, which finds embedded pictures in the page."""
    source = "" if entry.source.startswith("data:") else entry.source
    return {
        "source": source,
        "href": entry.href,
        "alt": entry.alt,
        "caption": entry.caption,
        "width": entry.size[0],
        "height": entry.size[1],
    }


def _worst(measure: Measure) -> list[tuple[float, str]]:
    """Return the ten products to check first: the cloudiest, or the lowest of another measure."""
    pairs = sorted(zip(measure.values, measure.names, strict=True))
    if measure.title == "Cloud":
        return pairs[: -_LISTED_TO_CHECK - 1 : -1]
    return pairs[:_LISTED_TO_CHECK]


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
    packages = ("scenebeam.report", "scenebeam.figures")
    loader = jinja2.ChoiceLoader([jinja2.PackageLoader(name, "templates") for name in packages])
    return jinja2.Environment(
        loader=loader,
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
