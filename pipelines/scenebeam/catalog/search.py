"""Search: a STAC API, a file or a static catalogue → items → Scenes. One polite client asks, on the
driver.
"""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import pystac
import pystac_client
import rustac
import shapely
from pystac_client.exceptions import APIError
from pystac_client.warnings import PystacClientWarning
from shapely.geometry import MultiPolygon

from scenebeam.catalog.api import CatalogIO, describe_refusal
from scenebeam.catalog.bucket import BucketIO
from scenebeam.catalog.packed_items import Item, KeptItems, links_of
from scenebeam.catalog.scene import (
    SOURCE_COLLECTION,
    SOURCE_PROVIDER,
    Scene,
    is_archived,
    scene_from_item,
)
from scenebeam.collections import CollectionRecord, known_records
from scenebeam.errors import CatalogError, ReadError, RequestError, SceneBeamError
from scenebeam.request import (
    KNOWN_CATALOGS,
    VISUAL,
    IndexRequest,
    RunRequest,
    StackRequest,
    is_remote,
    is_url,
)
from scenebeam.transfer.ranges import Budget, local_copy
from scenebeam.transfer.signing import effective_limits, redact_url

log = logging.getLogger(__name__)

Bounds = tuple[float, float, float, float]
PAGE_SIZE = 100
_LARGEST_TABLE = 4 * 2**30
"""Bytes of a stac-geoparquet file that is read from the network."""
_NOT_BY_POST = {404, 405, 415, 501}
"""What an API answers that searches by GET alone."""


def records_for(request: RunRequest) -> list[CollectionRecord]:
    """The records that may describe the request's collections, inline ones and ours.

    Raises RequestError for an id that no record knows.
    """
    found: list[CollectionRecord] = []
    for wanted in request.collections:
        if isinstance(wanted, CollectionRecord):
            found.append(wanted)
            continue
        ours = [record for record in known_records() if record.id == wanted]
        at_provider = [record for record in ours if record.provider == request.catalog]
        if not ours:
            known = ", ".join(sorted({record.id for record in known_records()}))
            raise RequestError(
                f"collections: no record of {wanted!r} (known: {known}); give one inline: its bands, dtype and nodata"
            )
        found += at_provider or ours
    return found


def resolve_bands(request: RunRequest) -> list[str]:
    """Our names of the bands asked for, or where none are named the collections' defaults.

    Raises RequestError for one that no record knows, and lists the known.
    """
    records = records_for(request)
    if isinstance(request.product, StackRequest) and request.product.visualization_only:
        return list(VISUAL)
    if not request.product.bands:
        return list(dict.fromkeys(band for record in records for band in record.default_bands))
    names = []
    for typed in request.product.bands:
        name = next((known for record in records if (known := record.band_name(typed))), None)
        if name is None:
            known_names = sorted({band for record in records for band in record.bands})
            raise RequestError(
                f"product.bands: unknown band {typed!r}; known: {', '.join(known_names)}"
            )
        names.append(name)
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice and not isinstance(request.product, IndexRequest):  # an expression may say red and B04
        raise RequestError(f"product.bands: {', '.join(twice)} is asked for under two names")
    return names


def bands_of(record: CollectionRecord, request: RunRequest) -> list[str]:
    """The bands asked for by the names of one collection, those that it knows; its defaults where
    none are named.
    """
    if not request.product.bands:
        return record.default_bands
    return list(
        dict.fromkeys(name for typed in request.product.bands if (name := record.band_name(typed)))
    )


def record_of(scene: Scene, request: RunRequest) -> CollectionRecord:
    """The record that a scene of the request was read by."""
    return next(
        r for r in records_for(request) if (r.id, r.provider) == (scene.collection, scene.provider)
    )


def record_for_item(item: Item, records: Iterable[CollectionRecord]) -> CollectionRecord | None:
    """The record of an item's collection whose asset keys fit it best; None where no record is of
    it.

    Copies of one collection at several hosts differ in their asset keys (`red`, `B04`, `B04_10m`),
    or where they do not, in the catalogue that their links lead to. An item that names no
    collection is taken for the only one asked for.
    """
    candidates = list(records)
    collection = item.get("collection")
    if is_archived(item):
        properties = item["properties"]
        collection, provider = properties[SOURCE_COLLECTION], properties.get(SOURCE_PROVIDER)
        own = [
            record
            for record in candidates
            if (record.id, record.provider) == (collection, provider)
        ]
        candidates = own or candidates
    if collection or len({record.id for record in candidates}) > 1:
        candidates = [record for record in candidates if record.id == collection]
    return max(candidates, key=lambda record: _fit(record, item), default=None)


def _fit(record: CollectionRecord, item: Item) -> tuple[int, bool]:
    keys = set(item.get("assets") or {})
    home = KNOWN_CATALOGS.get(record.provider)
    linked = home is not None and any(
        str(link.get("href")).startswith(home) for link in links_of(item)
    )
    return sum(band.asset in keys for band in record.bands.values()), linked


@dataclass(frozen=True)
class SearchQuery:
    """One search: where and when."""

    bbox: Bounds | None = None
    """West, south, east, north in degrees, not over the antimeridian."""
    interval: tuple[datetime, datetime] | None = None
    collections: tuple[str, ...] | None = None
    """Ids; None: all of the request's."""
    below: Mapping[str, float] = field(default_factory=dict)
    """Property → what it is less than. A catalogue may know no such question: who chooses asks the
    items again.
    """

    @property
    def when(self) -> str | None:
        """The interval as a STAC API wants it."""
        if self.interval is None:
            return None
        return "/".join(
            f"{instant.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}" for instant in self.interval
        )


def queries_for(request: RunRequest, area: MultiPolygon | None) -> list[SearchQuery]:
    """What a request's own area (in degrees) and dates ask: one search per period and part of the
    area.
    """
    intervals: Sequence[tuple[datetime, datetime] | None] = request.intervals or [None]
    cells: Sequence[Any] = area.geoms if area is not None else [None]
    return [
        SearchQuery(None if cell is None else cell.bounds, interval)
        for interval in intervals
        for cell in cells
    ]


def search_items(request: RunRequest, questions: Sequence[SearchQuery]) -> KeptItems:
    """Items of the request's collections, as they came, in the catalogue's order; a file gives all
    that it holds.

    Selection filters them further, and can then say what it left out.

    Raises:
        CatalogError: The catalogue cannot be asked, or its answer is incomplete.
        RequestError: It has more than limits.max_scenes.
    """
    catalog = request.catalog
    assert isinstance(catalog, str), "scenes of a time series are listed, not searched"
    url = KNOWN_CATALOGS.get(catalog, catalog)
    found, seen = KeptItems(), set[tuple[str, str]]()
    try:
        for number, item in enumerate(
            _ask(url, request, questions) if is_url(url) else _read(Path(url)), start=1
        ):
            if not isinstance(item, dict):
                log.warning(
                    "%s: item %d is left out: it is no JSON object", redact_url(url), number
                )
                continue
            key = str(item.get("collection")), str(item.get("id"))
            if key in seen:
                continue
            seen.add(key)
            found.append(
                item if is_remote(catalog) else _with_absolute_hrefs(item, Path(catalog).parent)
            )
            if len(seen) > request.limits.max_scenes:
                raise RequestError(
                    f"the search finds more than limits.max_scenes = {request.limits.max_scenes} scenes; "
                    "narrow the area or the dates, or raise the limit"
                )
    except APIError as error:
        raise CatalogError(
            f"{redact_url(url)} refused the search: {describe_refusal(error)}"
        ) from error
    except (
        OSError,
        ValueError,
        KeyError,
        pystac.STACError,
        rustac.RustacError,
        ReadError,
    ) as error:
        raise CatalogError(f"cannot read the catalogue {redact_url(url)}: {error}") from error
    return found


def _ask(url: str, request: RunRequest, questions: Sequence[SearchQuery]) -> Iterator[Any]:
    """A catalogue on the network: a STAC API, a static catalogue, or one document."""
    limits = effective_limits(request)
    if url.endswith((".parquet", ".geoparquet")):
        with local_copy(url, Budget.of(limits), _LARGEST_TABLE) as path:
            yield from (_located(item, url) for item in _read(path))
        return
    if url.startswith("gs://"):
        yield from _read_bucket(url, BucketIO(Budget.of(limits)))
        return
    stac_io = CatalogIO(limits)
    document = stac_io.read_document(url)
    kind = document.get("type")
    if kind == "FeatureCollection":
        for page in stac_io.get_pages(url, "GET"):
            yield from (_located(item, url) for item in page["features"])
    elif kind == "Feature":
        yield _located(document, url)
    elif kind == "Collection":
        yield from _crawl(pystac.Collection.from_dict(document, href=url), stac_io)
    elif kind == "Catalog":
        yield from _ask_catalog(url, document, stac_io, request, questions)
    else:
        raise CatalogError(
            f"{redact_url(url)} is no STAC API, catalogue, collection, ItemCollection or item"
        )


def _read_bucket(url: str, stac_io: BucketIO) -> Iterator[Any]:
    """A document in a bucket, or the root of a static catalog there."""
    document = json.loads(stac_io.read_text(url))
    kind = document.get("type") if isinstance(document, dict) else None
    if kind == "FeatureCollection" and isinstance(document.get("features"), list):
        yield from (_located(item, url) for item in document["features"])
    elif kind == "Feature":
        yield _located(document, url)
    elif kind in ("Catalog", "Collection"):
        model = pystac.Catalog if kind == "Catalog" else pystac.Collection
        yield from _crawl(model.from_dict(document, href=url), stac_io)
    else:
        raise CatalogError(f"{redact_url(url)} is no ItemCollection, Item, Catalog or Collection")


def _ask_catalog(
    url: str,
    document: Item,
    stac_io: CatalogIO,
    request: RunRequest,
    questions: Sequence[SearchQuery],
) -> Iterator[Item]:
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", PystacClientWarning
        )  # a static catalogue: said below, in our words
        client = pystac_client.Client.from_dict(document, href=url)
        client._stac_io = stac_io
    if not client.conforms_to("ITEM_SEARCH"):
        if not links_of(document, "child") and not links_of(document, "item"):
            raise CatalogError(
                f"{redact_url(url)} offers no item search, and links to no items; is it the root of a STAC API?"
            )
        log.info("%s has no item search: reading it as a static catalogue", url)
        yield from _crawl(pystac.Catalog.from_dict(document, href=url), stac_io)
        return
    where, method = _search_endpoint(url, document)
    for words in _searches(request, questions, client.conforms_to("QUERY")):
        try:
            yield from _pages(client, stac_io, where, method, words)
        except APIError as error:
            if method != "POST" or error.status_code not in _NOT_BY_POST:
                raise
            method = "GET"
            yield from _pages(client, stac_io, where, method, words)


def _pages(
    client: pystac_client.Client, stac_io: CatalogIO, where: str, method: str, words: dict[str, Any]
) -> Iterator[Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PystacClientWarning)
        parameters = client.search(method=method, limit=PAGE_SIZE, **words).get_parameters()
    # Not by the search's own pages, which end at an empty one.
    for page in stac_io.get_pages(where, method, parameters):
        yield from page["features"]


def _search_endpoint(url: str, document: Item) -> tuple[str, str]:
    """Where an API is searched, by its landing page; and POST, unless it offers GET alone."""
    links = links_of(document, "search")
    hrefs = [str(link["href"]) for link in links if link.get("href")]
    methods = {str(link.get("method") or "").upper() for link in links}
    where = urljoin(url, hrefs[0]) if hrefs else f"{url.rstrip('/')}/search"
    return where, "GET" if methods == {"GET"} else "POST"


def _crawl(root: pystac.Catalog, stac_io: CatalogIO | BucketIO) -> Iterator[Item]:
    root._stac_io = stac_io
    for item in root.get_items(recursive=True):
        yield _located(item.to_dict(transform_hrefs=False), item.get_self_href() or "")


def _located(item: Any, url: str) -> Any:
    """An item that says where it is, so that its relative hrefs can be resolved."""
    if not isinstance(item, dict):
        return item
    if links_of(item, "self"):
        return item
    return {**item, "links": [*links_of(item), {"rel": "self", "href": url}]}


def _searches(
    request: RunRequest, questions: Sequence[SearchQuery], queries: bool
) -> Iterator[dict[str, Any]]:
    """The words of each search: by id where scenes are named, else by place and time; `queries`: by
    properties too.
    """
    collections = [
        wanted if isinstance(wanted, str) else wanted.id for wanted in request.collections
    ]
    if request.select.scenes is not None:
        names = sorted({scene.id for scene in request.select.scenes})
        for start in range(0, len(names), PAGE_SIZE):
            yield {"collections": collections, "ids": names[start : start + PAGE_SIZE]}
        return
    for question in questions:
        query = {name: {"lt": value} for name, value in question.below.items()}
        yield {
            "collections": list(question.collections or collections),
            "bbox": question.bbox,
            "datetime": question.when,
            **({"query": query} if queries and query else {}),
        }


def _read(path: Path) -> Iterator[Any]:
    """A file on this machine: ItemCollection, Item, stac-geoparquet, or the root of a static
    catalogue.
    """
    if not path.exists():
        known = ", ".join(KNOWN_CATALOGS)
        raise RequestError(
            f"catalog: {path} does not exist, and is none of {known}, nor the URL of a STAC API"
        )
    if path.suffix in (".parquet", ".geoparquet"):
        yield from rustac.read_sync(str(path))["features"]
        return
    document = json.loads(path.read_text(encoding="utf-8"))
    kind = document.get("type") if isinstance(document, dict) else None
    if kind == "FeatureCollection":
        if not isinstance(document.get("features"), list):
            raise RequestError(f"catalog: {path} is an ItemCollection without a list of features")
        yield from document["features"]
    elif kind == "Feature":
        yield document
    elif kind in ("Catalog", "Collection"):
        root = pystac.read_file(str(path))
        assert isinstance(root, pystac.Catalog)
        for item in root.get_items(recursive=True):
            item.make_asset_hrefs_absolute()
            yield item.to_dict(transform_hrefs=False)
    else:
        raise RequestError(
            f"catalog: {path} is no ItemCollection, Item, Catalog or stac-geoparquet file"
        )


def scenes_from_items(items: Iterable[Item], request: RunRequest) -> list[Scene]:
    """Items → Scenes, by their records. Items of other collections are left out; one that cannot be
    used is, too, and named in the log.
    """
    catalog = request.catalog
    records = records_for(request)
    base = (
        str(Path(catalog).parent) if isinstance(catalog, str) and not is_remote(catalog) else None
    )
    scenes, odd = [], 0
    for item in items:
        try:
            record = record_for_item(item, records)
            if record is not None:
                scenes.append(
                    scene_from_item(
                        item, record, base=base, resolution=request.product.band_resolution
                    )
                )
        except (
            SceneBeamError,
            ValueError,
            TypeError,
            KeyError,
            AttributeError,
            IndexError,
            ArithmeticError,
        ) as error:
            odd += 1
            log.warning("item %s is left out: %s", str(item.get("id"))[:100], error)
        except shapely.errors.ShapelyError as error:
            odd += 1
            log.warning(
                "item %s is left out: its geometry is none: %s", str(item.get("id"))[:100], error
            )
    if odd and not scenes:
        raise CatalogError(f"none of {odd} items can be used: the log says why")
    return scenes


def _with_absolute_hrefs(item: Item, base: Path) -> Item:
    """Return an item that can be read from anywhere: a frozen search lies in another folder than
    its catalog.
    """
    stored = item.get("assets")
    assets = (
        {key: one for key, one in stored.items() if isinstance(one, dict)}
        if isinstance(stored, dict)
        else {}
    )
    self_href = next((str(link.get("href")) for link in links_of(item, "self")), "")
    if not is_url(self_href):
        for key, asset in assets.items():
            href = asset.get("href")
            if isinstance(href, str) and not is_url(href):
                assets[key] = {**asset, "href": str(base / href)}
    return {**item, "assets": assets}
