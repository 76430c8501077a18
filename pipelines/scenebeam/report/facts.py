"""Facts: collect what a run's own tables say, in the form that the page shows. Reads no pixels."""

from __future__ import annotations

import csv
import io
import json
import posixpath
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import shapely

from scenebeam.catalog.tables import CATALOG_FILE, SELECTED_FILE
from scenebeam.metadata.item_tables import COLLECTION_FILE
from scenebeam.planning.plan import RUN_FILE
from scenebeam.planning.search_cache import SCENES_FILE
from scenebeam.products.base import PageFacts
from scenebeam.report.pictures import Gallery
from scenebeam.report.products import ProductFact, read_products
from scenebeam.status import FAILURES_FILE, RunStatus
from scenebeam.storage import Store

Shapes = np.ndarray[Any, Any]
"""Array of shapely geometries in degrees."""
Row = dict[str, str]

_GROUPS = {"grid:code": "Products by tile", "platform": "Products by platform"}
"""Properties that any STAC item may have → title: products are counted by their values."""
_MEASURES = {"eo:cloud_cover": ("Cloud", 1.0, "%")}
"""Numeric properties that any STAC item may have → title, factor, unit."""
_STATUS_TABLES = "_status.csv"
"""End of the names of tables with the status of each chip."""
_MAX_FAILURES = 200
"""Failures that are shown one by one."""
_MAX_BINS = 64
"""Most bins of a merged histogram."""


@dataclass(frozen=True)
class SceneFact:
    """A scene that the search found."""

    id: str
    acquired: datetime
    cloud: float | None
    """Cloud cover in percent."""
    selected: bool


@dataclass(frozen=True)
class Measure:
    """A number of each product, such as its cloud cover."""

    title: str
    unit: str
    values: Sequence[float]
    names: Sequence[str]
    """Ids of the products, in the order of the values."""


@dataclass(frozen=True)
class Histogram:
    """Pixel values of a band over all products."""

    band: str
    edges: Sequence[float]
    """Edges of the bins, one more than there are counts."""
    counts: Sequence[float]


@dataclass
class Facts:
    """What the page shows of a run."""

    status: RunStatus
    record: Mapping[str, Any]
    """Content of `run.json`."""
    caution: str = ""
    """What people should know before they use the products."""
    scenes: list[SceneFact] = field(default_factory=list)
    scene_footprints: Shapes = field(default_factory=lambda: np.empty(0, object))
    """Footprints of the selected scenes."""
    product_footprints: Shapes = field(default_factory=lambda: np.empty(0, object))
    product_names: list[str] = field(default_factory=list)
    """Ids of the products."""
    groups: dict[str, Counter[str]] = field(default_factory=dict)
    """Title → products by value of a property."""
    colors: dict[str, str] = field(default_factory=dict)
    """Class → its color."""
    measures: list[Measure] = field(default_factory=list)
    histograms: list[Histogram] = field(default_factory=list)
    written_bytes: int = 0
    failures: list[Row] = field(default_factory=list)
    """The first rows of the table of failures."""
    failure_reasons: Counter[str] = field(default_factory=Counter)
    """Reason → failed and skipped tasks."""
    pictures: list[str] = field(default_factory=list)
    """Keys of the PNG files in the output."""
    tables: Sequence[str] = ()
    """Keys of the CSV tables at the top of the output."""
    items: Sequence[str] = ()
    """Keys of the table of items and of the STAC collection, as far as they exist."""
    left_out: Counter[str] = field(default_factory=Counter)
    """Reason → parts of products that were not made for it, such as images of chips."""
    counts: Sequence[tuple[int, str]] = ()
    """How many products there are, and parts of them, each with its name in the plural."""
    selected_count: int = 0
    """Scenes that were selected."""
    scenes_are_used: bool = False
    """Whether `selected` scenes are those that products are made of, of more that were selected."""
    products: Sequence[ProductFact] = ()
    """The newest products, newest first."""
    gallery: Gallery = field(default_factory=Gallery)
    """Pictures that were drawn of them."""


def gather(
    status: RunStatus, items_key: str, page: PageFacts, existing: set[str], store: Store
) -> Facts:
    """Collect the facts of a run from its tables.

    Args:
        status: Final status of the run.
        items_key: Key of the stac-geoparquet table of its products.
        page: Which properties of the products to count and plot.
        existing: All keys in the store.
        store: Output of the run.
    """
    facts = Facts(status, json.loads(store.read(RUN_FILE) or b"{}"))
    columns = ["id", "geometry", "assets", *_GROUPS, *_MEASURES, *page.groups, *page.measures]
    columns += [page.scene_property, page.color_property, page.parts[0] if page.parts else ""]
    products = _read_table(store, items_key, columns)
    selected = {row["id"] for row in _read_rows(store, SELECTED_FILE)}
    facts.selected_count = len(selected)
    if products is not None and page.scene_property in products.column_names:
        # Each product is made from one scene, and tasks choose among the selected scenes. Show the
        # scenes that were used.
        used = products[page.scene_property].to_pylist()
        selected = set(used) - {None}
    for row in _read_rows(store, CATALOG_FILE):
        scene, acquired = row["id"], datetime.fromisoformat(row["datetime"])
        cloud = float(row["cloud_cover"]) if row["cloud_cover"] else None
        facts.scenes.append(SceneFact(scene, acquired, cloud, scene in selected))
    for row in _read_rows(store, FAILURES_FILE):
        facts.failure_reasons[row.get("reason", "")] += 1
        if len(facts.failures) < _MAX_FAILURES:
            facts.failures.append(row)
    facts.pictures = sorted(key for key in existing if key.endswith(".png"))
    facts.products = read_products(store, items_key, existing)
    facts.tables = sorted(key for key in existing if key.endswith(".csv") and "/" not in key)
    collection = posixpath.join(posixpath.dirname(items_key), COLLECTION_FILE)
    # Of failed tasks, the table of failures has the reasons already.
    failed = {*facts.failure_reasons, ""}
    for key in facts.tables:
        if key.endswith(_STATUS_TABLES):
            reasons = (row.get("message", "") for row in _read_rows(store, key))
            facts.left_out.update(reason for reason in reasons if reason not in failed)
    facts.items = [key for key in (items_key, collection) if store.size(key) is not None]
    facts.scenes_are_used = bool(page.scene_property)
    scenes = _read_table(store, SCENES_FILE, ("id", "geometry"))
    if scenes is not None:
        is_selected = [scene in selected for scene in scenes["id"].to_pylist()]
        facts.scene_footprints = _shapes(scenes, np.array(is_selected, bool))
    facts.counts = _counts(products, page)
    if products is not None:
        _add_products(facts, products, page)
    return facts


def _counts(products: pa.Table | None, page: PageFacts) -> list[tuple[int, str]]:
    total = 0 if products is None else len(products)
    if products is None or page.parts is None:
        return [(total, page.noun)]
    property_name, noun = page.parts
    is_known = property_name in products.column_names
    parts = total - products[property_name].null_count if is_known else 0
    return [(total - parts, page.noun), *([(parts, noun)] if parts else [])]


def _read_rows(store: Store, key: str) -> Iterator[Row]:
    """Yield the rows of a CSV table; none if there is no table."""
    if store.size(key) is not None:
        with store.open_read(key) as content:
            yield from csv.DictReader(io.TextIOWrapper(content, "utf-8", newline=""))


def _read_table(store: Store, key: str, columns: Sequence[str]) -> pa.Table | None:
    """Read columns of a parquet table, of `assets` only the fields that are shown.

    None if there is no such table.
    """
    if store.size(key) is None:
        return None
    with store.local_copy(key) as path:
        file = pq.ParquetFile(path)
        # A run can have a hundred thousand chips with many files each. Their hrefs and checksums
        # would need gigabytes, so leaf columns are chosen one by one.
        leaves = set()
        for number in range(len(file.schema)):
            leaf = file.schema.column(number).path
            if leaf.partition(".")[0] in columns and _is_shown(leaf):
                leaves.add(leaf)
        return file.read(sorted(leaves))


def _is_shown(leaf: str) -> bool:
    """Return whether a leaf column, given by its dotted path, is needed for the page."""
    parts = leaf.split(".")
    return (
        parts[0] != "assets"
        or parts[-1] == "file:size"
        or bool({"statistics", "histogram"} & set(parts))
        or ("bands" in parts and parts[-1] == "name")
    )


def _shapes(table: pa.Table, rows: np.ndarray[Any, np.dtype[np.bool_]]) -> Shapes:
    """Return the geometries of some rows of a table, without those that are missing."""
    # Not by `to_numpy`, which would import pandas: that takes as long as a small run.
    geometries = np.array(table["geometry"].to_pylist(), object)
    shapes = shapely.from_wkb(geometries[rows])
    return np.asarray(shapes[~shapely.is_missing(shapes)])


def _add_products(facts: Facts, products: pa.Table, page: PageFacts) -> None:
    """Add the facts of the products' table: footprints, counts, measures and assets."""
    facts.product_footprints = _shapes(products, np.ones(len(products), bool))
    facts.product_names = products["id"].to_pylist()
    for column, title in {**page.groups, **_GROUPS}.items():
        if column not in products.column_names:
            continue
        values = [str(value) for value in products[column].to_pylist() if value is not None]
        counts = Counter(values)
        # A single group says nothing, except for classes.
        if len(counts) > 1 or column == page.class_property:
            facts.groups[title] = counts
    if {page.class_property, page.color_property} <= set(products.column_names):
        names = products[page.class_property].to_pylist()
        colors = products[page.color_property].to_pylist()
        for name, color in zip(names, colors, strict=True):
            if color:
                facts.colors[str(name)] = str(color)
    for column, (title, factor, unit) in {**page.measures, **_MEASURES}.items():
        if column in products.column_names:
            _add_measure(facts, title, unit, products[column].to_pylist(), factor)
    if "assets" in products.column_names:
        _add_assets(facts, products["assets"].combine_chunks())


def _add_measure(
    facts: Facts, title: str, unit: str, numbers: Sequence[float | None], factor: float
) -> None:
    """Add a measure of the products that have it, if any has."""
    values, names = [], []
    for number, name in zip(numbers, facts.product_names, strict=True):
        if number is not None:
            values.append(factor * number)
            names.append(name)
    if values:
        facts.measures.append(Measure(title, unit, values, names))


def _add_assets(facts: Facts, assets: pa.StructArray) -> None:
    """Add sizes, valid fractions and histograms of the products' files."""
    valid: dict[str, float] = {}
    histograms: dict[str, list[Mapping[str, Any]]] = {}
    for asset in assets.type:
        column = assets.field(asset.name)
        fields = _field_names(asset.type)
        if "file:size" in fields:
            facts.written_bytes += pc.sum(column.field("file:size")).as_py() or 0
        if "raster:bands" not in fields:
            continue
        labels = column.field("bands").to_pylist() if "bands" in fields else [None] * len(column)
        bands = column.field("raster:bands").to_pylist()
        for product, names, statistics in zip(facts.product_names, labels, bands, strict=True):
            for number, band in enumerate(statistics or ()):
                percent = (band.get("statistics") or {}).get("valid_percent")
                if percent is not None:
                    valid[product] = min(percent, valid.get(product, 100.0))
                if band.get("histogram"):
                    # Assets with a single band are named like the band.
                    is_named = names and number < len(names)
                    name = names[number]["name"] if is_named else asset.name
                    histograms.setdefault(name, []).append(band["histogram"])
    if valid:
        title = "Valid pixels (minimum over bands)"
        facts.measures.append(Measure(title, "%", [*valid.values()], [*valid]))
    for band, parts in histograms.items():
        facts.histograms.append(merge_histograms(band, parts))


def _field_names(kind: pa.DataType) -> set[str]:
    return {field.name for field in kind} if pa.types.is_struct(kind) else set()


def merge_histograms(band: str, histograms: Sequence[Mapping[str, Any]]) -> Histogram:
    """Merge histograms with different bins, as if values were spread evenly within each bin.

    Args:
        band: Name of the band.
        histograms: Objects of the STAC raster extension: `count`, `min`, `max`, `buckets`.

    Returns:
        A histogram over the whole range, with the finest bins of all but at most 64.
    """
    low, high = histograms[0]["min"], histograms[0]["max"]
    finest = 0.0
    for histogram in histograms:
        low, high = min(low, histogram["min"]), max(high, histogram["max"])
        density = histogram["count"] / (histogram["max"] - histogram["min"])
        finest = max(finest, density)
    bins = min(max(1, round((high - low) * finest)), _MAX_BINS)
    edges = np.linspace(low, high, bins + 1)
    # Cumulative counts are linear within a bin if its values are spread evenly. So each histogram's
    # cumulative counts are interpolated at the new edges, and their sum is differenced again.
    cumulative = np.zeros(len(edges))
    for histogram in histograms:
        own_edges = np.linspace(histogram["min"], histogram["max"], histogram["count"] + 1)
        own_counts = np.concatenate([[0], np.cumsum(histogram["buckets"])])
        cumulative += np.interp(edges, own_edges, own_counts)
    return Histogram(band, edges.tolist(), np.diff(cumulative).tolist())
