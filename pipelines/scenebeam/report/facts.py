"""Facts: what a run's own tables say, in the shapes that the page shows. No pixel is read."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import shapely

from scenebeam.catalog.tables import CATALOG_FILE, SELECTED_FILE
from scenebeam.planning.plan import RUN_FILE
from scenebeam.planning.search_cache import SCENES_FILE
from scenebeam.products.base import PageFacts
from scenebeam.status import FAILURES_FILE, RunStatus
from scenebeam.storage import Store

Shapes = np.ndarray[Any, Any]
"""Of shapely geometries, in degrees."""
Row = dict[str, str]

_GROUPS = {"grid:code": "Products by tile", "platform": "Products by platform"}
"""Properties that any STAC item may have, by which products are counted: title."""
_MEASURES = {"eo:cloud_cover": ("Cloud", 1.0, "%")}
"""Numeric properties that any STAC item may have: title, factor, unit."""
_BARS = 64
"""Of a histogram, at most."""


@dataclass(frozen=True)
class SceneFact:
    """A scene that the search found."""

    id: str
    acquired: datetime
    cloud: float | None
    taken: bool


@dataclass(frozen=True)
class Measure:
    """A number that each product has."""

    title: str
    unit: str
    values: Sequence[float]
    names: Sequence[str]
    """Of the products."""


@dataclass(frozen=True)
class Histogram:
    """Of a band, over all products."""

    band: str
    edges: Sequence[float]
    counts: Sequence[float]


@dataclass
class Facts:
    """What the page shows."""

    status: RunStatus
    record: Mapping[str, Any]
    """`run.json`."""
    scenes: list[SceneFact] = field(default_factory=list)
    footprints: Shapes = field(default_factory=lambda: np.empty(0, object))
    """Of scenes that were taken."""
    products: Shapes = field(default_factory=lambda: np.empty(0, object))
    names: list[str] = field(default_factory=list)
    """Of the products."""
    groups: dict[str, Counter[str]] = field(default_factory=dict)
    colors: dict[str, str] = field(default_factory=dict)
    """Of classes, by name."""
    measures: list[Measure] = field(default_factory=list)
    histograms: list[Histogram] = field(default_factory=list)
    written_bytes: int = 0
    failures: list[Row] = field(default_factory=list)
    pictures: list[str] = field(default_factory=list)
    """Names in the output."""


def gather(
    status: RunStatus, items: str, page: PageFacts, existing: set[str], store: Store
) -> Facts:
    """Collect what the tables of a run say.

    Args:
        status: The final status of the run.
        items: Key of the table of items.
        page: Which properties of items to count and plot.
        existing: All keys in the store.
        store: Where the tables are.
    """
    facts = Facts(status, json.loads(store.read(RUN_FILE) or b"{}"))
    columns = ["id", "geometry", "assets", *_GROUPS, *_MEASURES, *page.groups, *page.measures]
    columns += [page.scene_property, page.color_property]
    products = _table(store, items, columns)
    taken = {row["id"] for row in _rows(store, SELECTED_FILE)}
    if products is not None and page.scene_property in products.column_names:
        # Each item is of one scene: only some of the selected scenes may have been used.
        used = products[page.scene_property].to_pylist()
        taken = {scene for scene in used if scene is not None}
    facts.scenes = [
        SceneFact(
            row["id"],
            datetime.fromisoformat(row["datetime"]),
            _number(row["cloud_cover"]),
            row["id"] in taken,
        )
        for row in _rows(store, CATALOG_FILE)
    ]
    facts.failures = _rows(store, FAILURES_FILE)
    facts.pictures = sorted(name for name in existing if name.endswith(".png"))
    scenes = _table(store, SCENES_FILE, ("id", "geometry"))
    if scenes is not None:
        ids = scenes["id"].to_pylist()
        facts.footprints = _shapes(
            scenes.filter(pa.array([one in taken for one in ids], pa.bool_()))
        )
    if products is not None:
        _count(facts, products, page)
    return facts


def _rows(store: Store, name: str) -> list[Row]:
    content = store.read(name)
    return [] if content is None else list(csv.DictReader(io.StringIO(content.decode())))


def _number(text: str) -> float | None:
    return float(text) if text else None


def _table(store: Store, name: str, columns: Sequence[str]) -> pa.Table | None:
    """Some columns of a table in the store, of `assets` just what is counted; None where there is none."""
    if store.size(name) is None:
        return None
    with store.local_copy(name) as path:
        file = pq.ParquetFile(path)
        leaves = [file.schema.column(number).path for number in range(len(file.schema))]
        # Of many chips with many files the hrefs and checksums alone would fill the memory.
        wanted = {
            leaf for leaf in leaves if leaf.partition(".")[0] in columns and _is_counted(leaf)
        }
        return file.read(sorted(wanted))


def _is_counted(leaf: str) -> bool:
    parts = leaf.split(".")
    return (
        parts[0] != "assets"
        or parts[-1] == "file:size"
        or bool({"statistics", "histogram"} & set(parts))
        or ("bands" in parts and parts[-1] == "name")
    )


def _shapes(table: pa.Table) -> Shapes:
    found = shapely.from_wkb(table["geometry"].to_numpy(zero_copy_only=False))
    return np.asarray(found[[one is not None for one in found]])


def _count(facts: Facts, products: pa.Table, page: PageFacts) -> None:
    facts.products = _shapes(products)
    facts.names = products["id"].to_pylist()
    for column, title in {**page.groups, **_GROUPS}.items():
        if column in products.column_names:
            values = [str(value) for value in products[column].to_pylist() if value is not None]
            counted = Counter(values)
            if len(counted) > 1 or column == page.class_property:
                facts.groups[title] = counted
    if {page.class_property, page.color_property} <= set(products.column_names):
        names = products[page.class_property].to_pylist()
        colors = products[page.color_property].to_pylist()
        for name, color in zip(names, colors, strict=True):
            if color:
                facts.colors[str(name)] = str(color)
    for column, (title, factor, unit) in {**page.measures, **_MEASURES}.items():
        if column in products.column_names:
            pairs = zip(products[column].to_pylist(), facts.names, strict=True)
            known = [(factor * value, name) for value, name in pairs if value is not None]
            facts.measures += [_measure(title, unit, known)] if known else []
    if "assets" in products.column_names:
        _count_assets(facts, products["assets"].combine_chunks())


def _measure(title: str, unit: str, known: Sequence[tuple[float, str]]) -> Measure:
    return Measure(title, unit, [value for value, _ in known], [name for _, name in known])


def _count_assets(facts: Facts, assets: pa.StructArray) -> None:
    """Sizes, valid fractions and histograms of the products' files."""
    valid: dict[str, float] = {}
    buckets: dict[str, list[Mapping[str, Any]]] = {}
    for asset in assets.type:
        kinds = {one.name for one in asset.type} if pa.types.is_struct(asset.type) else set()
        column = assets.field(asset.name)
        if "file:size" in kinds:
            facts.written_bytes += pc.sum(column.field("file:size")).as_py() or 0
        if "raster:bands" not in kinds:
            continue
        names = column.field("bands").to_pylist() if "bands" in kinds else [None] * len(column)
        for name, labels, bands in zip(
            facts.names, names, column.field("raster:bands").to_pylist(), strict=True
        ):
            for number, band in enumerate(bands or ()):
                percent = (band.get("statistics") or {}).get("valid_percent")
                if percent is not None:
                    valid[name] = min(percent, valid.get(name, 100.0))
                if band.get("histogram"):
                    label = (
                        labels[number]["name"] if labels and number < len(labels) else asset.name
                    )
                    buckets.setdefault(label, []).append(band["histogram"])
    if valid:
        facts.measures.append(
            Measure("Valid pixels, of the band that has fewest", "%", [*valid.values()], [*valid])
        )
    facts.histograms = [_joined(band, told) for band, told in buckets.items()]


def _joined(band: str, told: Sequence[Mapping[str, Any]]) -> Histogram:
    """Many histograms as one: the numbers of a bucket lie evenly in it."""
    low, high = min(one["min"] for one in told), max(one["max"] for one in told)
    finest = max(one["count"] / (one["max"] - one["min"]) for one in told)
    edges = np.linspace(low, high, min(max(1, round((high - low) * finest)), _BARS) + 1)
    below = np.zeros(len(edges))
    for one in told:
        own = np.linspace(one["min"], one["max"], one["count"] + 1)
        below += np.interp(edges, own, np.concatenate([[0], np.cumsum(one["buckets"])]))
    return Histogram(band, edges.tolist(), np.diff(below).tolist())
