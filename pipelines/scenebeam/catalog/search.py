"""Search: a STAC API, a file or a static catalogue → items → Scenes. One polite client asks, on the driver."""

from __future__ import annotations

import json
import logging
import re
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pystac
import pystac_client
import rustac
from pystac_client.exceptions import APIError
from pystac_client.stac_api_io import StacApiIO
from pystac_client.warnings import PystacClientWarning
from shapely.geometry import MultiPolygon
from urllib3.util.retry import Retry

from scenebeam.catalog.scene import Scene, scene_from_item
from scenebeam.collections import CollectionRecord, known_records
from scenebeam.errors import CatalogError, ReadError, RequestError
from scenebeam.request import (
    KNOWN_CATALOGS,
    VISUAL,
    IndexRequest,
    RunRequest,
    StackRequest,
    is_remote,
    is_url,
)
from scenebeam.transfer.access import effective_limits
from scenebeam.transfer.ranges import Budget, fetched
from scenebeam.transfer.session import mount_checked

log = logging.getLogger(__name__)

Item = dict[str, Any]
Bounds = tuple[float, float, float, float]
PAGE_SIZE = 100
_LARGEST_TABLE = 4 * 2**30
"""Bytes of a stac-geoparquet file that is read from the network."""
APART = 0.1
"""Seconds between two requests to a catalogue."""
_RETRY = Retry(
    backoff_factor=1.0,
    backoff_jitter=0.5,
    status_forcelist=(429, 500, 502, 503, 504),
    allowed_methods=None,  # a search is a POST, and asking twice does no harm
    respect_retry_after_header=True,
)


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
            raise RequestError(f"product.bands: unknown band {typed!r}; known: {', '.join(known_names)}")
        names.append(name)
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice and not isinstance(request.product, IndexRequest):  # an expression may say red and B04
        raise RequestError(f"product.bands: {', '.join(twice)} is asked for under two names")
    return names


def bands_of(record: CollectionRecord, request: RunRequest) -> list[str]:
    """The bands asked for by the names of one collection, those that it knows; its defaults where none are named."""
    if not request.product.bands:
        return record.default_bands
    return list(dict.fromkeys(name for typed in request.product.bands if (name := record.band_name(typed))))


def record_of(scene: Scene, request: RunRequest) -> CollectionRecord:
    """The record that a scene of the request was read by."""
    return next(r for r in records_for(request) if (r.id, r.provider) == (scene.collection, scene.provider))


def record_for_item(item: Item, records: Iterable[CollectionRecord]) -> CollectionRecord | None:
    """The record of an item's collection whose asset keys fit it best; None where no record is of it.

    Copies of one collection at several hosts differ in their asset keys (`red`, `B04`, `B04_10m`), or where they do
    not, in the catalogue that their links lead to. An item that names no collection is taken for the only one asked
    for.
    """
    candidates = list(records)
    collection = item.get("collection")
    if collection or len({record.id for record in candidates}) > 1:
        candidates = [record for record in candidates if record.id == collection]
    return max(candidates, key=lambda record: _fit(record, item), default=None)


def _fit(record: CollectionRecord, item: Item) -> tuple[int, bool]:
    keys = set(item.get("assets") or {})
    home = KNOWN_CATALOGS.get(record.provider)
    linked = home is not None and any(str(link.get("href")).startswith(home) for link in item.get("links") or [])
    return sum(band.asset in keys for band in record.bands.values()), linked


@dataclass(frozen=True)
class Question:
    """One search: where and when."""

    bbox: Bounds | None = None
    """West, south, east, north in degrees, not over the antimeridian."""
    interval: tuple[datetime, datetime] | None = None
    collections: tuple[str, ...] | None = None
    """Ids; None: all of the request's."""
    below: Mapping[str, float] = field(default_factory=dict)
    """Property → what it is less than. A catalogue may know no such question: who chooses asks the items again."""

    @property
    def when(self) -> str | None:
        """The interval as a STAC API wants it."""
        if self.interval is None:
            return None
        return "/".join(f"{instant.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}" for instant in self.interval)


def questions_of(request: RunRequest, area: MultiPolygon | None) -> list[Question]:
    """What a request's own area (in degrees) and dates ask: one search per period and part of the area."""
    intervals: Sequence[tuple[datetime, datetime] | None] = request.intervals or [None]
    cells: Sequence[Any] = area.geoms if area is not None else [None]
    return [Question(None if cell is None else cell.bounds, interval) for interval in intervals for cell in cells]


def search_items(request: RunRequest, questions: Sequence[Question]) -> list[Item]:
    """Items of the request's collections, as JSON, in the catalogue's order; a file gives all that it holds.

    Selection filters them further, and can then say what it left out. Raises CatalogError where the catalogue cannot
    be asked.
    """
    catalog = request.catalog
    assert isinstance(catalog, str), "scenes of a time series are listed, not searched"
    url = KNOWN_CATALOGS.get(catalog, catalog)
    try:
        items = list(_ask(url, request, questions)) if is_url(url) else list(_read(Path(url)))
    except APIError as error:
        raise CatalogError(_blame(url, error)) from error
    except (OSError, ValueError, KeyError, pystac.STACError, rustac.RustacError, ReadError) as error:
        raise CatalogError(f"cannot read the catalogue {url}: {error}") from error
    seen: dict[tuple[str, str], Item] = {}
    for item in items:
        item = _readable(item)
        if not is_remote(catalog):
            item = _with_absolute_hrefs(item, Path(catalog).parent)
        seen.setdefault((str(item.get("collection")), str(item.get("id"))), item)
    if len(seen) > request.limits.max_scenes:
        raise RequestError(
            f"the search finds more than limits.max_scenes = {request.limits.max_scenes} scenes; "
            "narrow the area or the dates, or raise the limit"
        )
    return list(seen.values())


def _ask(url: str, request: RunRequest, questions: Sequence[Question]) -> Iterator[Item]:
    if url.endswith(".parquet"):
        with fetched(url, Budget.of(effective_limits(request)), _LARGEST_TABLE) as path:
            yield from rustac.read_sync(str(path))["features"]
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PystacClientWarning)  # a static catalogue: said below, in our words
        # Given to `open`, which would take them from the StacApiIO again.
        client = pystac_client.Client.open(
            url,
            stac_io=_stac_io(request),
            request_modifier=_Pace(APART),
            timeout=60,
        )
        if not client.conforms_to("ITEM_SEARCH"):
            log.info("%s has no item search: reading it as a static catalogue", url)
            yield from [item.to_dict(transform_hrefs=False) for item in client.get_items(recursive=True)]
            return
    found = 0
    for words in _searches(request, questions, client.conforms_to("QUERY")):
        for item in client.search(limit=PAGE_SIZE, **words).items_as_dicts():
            yield item
            found += 1
            if found > 2 * request.limits.max_scenes:
                return  # far beyond the limit already: do not page through the rest of the archive


class _RemoteStacIO(StacApiIO):
    """Reads what a catalog on the network names, and never a file of this machine."""

    def read_text(self, source: Any, *args: Any, **kwargs: Any) -> str:
        href = source.href if isinstance(source, pystac.Link) else str(source)
        if not href.lower().startswith(("http://", "https://")):
            raise CatalogError(f"a catalog on the network names the local file {href!r}; refused")
        return super().read_text(source, *args, **kwargs)


def _stac_io(request: RunRequest) -> StacApiIO:
    retries = _RETRY.new(total=request.limits.max_attempts - 1)
    stac_io = _RemoteStacIO(max_retries=retries)
    mount_checked(stac_io.session, retries, private=effective_limits(request).private_addresses)
    return stac_io


def _searches(request: RunRequest, questions: Sequence[Question], queries: bool) -> Iterator[dict[str, Any]]:
    """The words of each search: by id where scenes are named, else by place and time; `queries`: by properties too."""
    collections = [wanted if isinstance(wanted, str) else wanted.id for wanted in request.collections]
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


class _Pace:
    """Lets requests go `seconds` apart: catalogues ban those who storm them."""

    def __init__(self, seconds: float) -> None:
        self._seconds, self._next = seconds, 0.0

    def __call__(self, request: Any) -> None:
        time.sleep(max(0.0, self._next - time.monotonic()))
        self._next = time.monotonic() + self._seconds


def _read(path: Path) -> Iterator[Item]:
    """A file on this machine: ItemCollection, Item, stac-geoparquet, or the root of a static catalogue."""
    if not path.exists():
        known = ", ".join(KNOWN_CATALOGS)
        raise RequestError(f"catalog: {path} does not exist, and is none of {known}, nor the URL of a STAC API")
    if path.suffix in (".parquet", ".geoparquet"):
        yield from rustac.read_sync(str(path))["features"]
        return
    document = json.loads(path.read_text(encoding="utf-8"))
    kind = document.get("type") if isinstance(document, dict) else None
    if kind == "FeatureCollection":
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
        raise RequestError(f"catalog: {path} is no ItemCollection, Item, Catalog or stac-geoparquet file")


def _blame(url: str, error: APIError) -> str:
    status = getattr(error, "status_code", None)
    if status == 429 or "429" in str(error):
        return f"{url} answers 429 (too many requests) after all tries: wait some minutes, and run again"
    return f"{url} refused the search: {error}"


def scenes_from_items(items: Iterable[Item], request: RunRequest) -> list[Scene]:
    """Items → Scenes, by their records. Items of other collections are left out; an unusable one is an error."""
    catalog = request.catalog
    records = records_for(request)
    base = str(Path(catalog).parent) if isinstance(catalog, str) and not is_remote(catalog) else None
    scenes = []
    for item in items:
        record = record_for_item(item, records)
        if record is not None:
            scenes.append(scene_from_item(item, record, base=base, resolution=request.product.band_resolution))
    return scenes


def _readable(item: Item) -> Item:
    """Return an item that can be stored.

    Assets without an href name no file and are left out. A date without a time becomes midnight UTC, as STAC
    requires a time.
    """
    properties = item.get("properties") or {}
    when = properties.get("datetime")
    if isinstance(when, str) and re.fullmatch(r"\d{4}-\d{2}-\d{2}", when):
        item = {**item, "properties": {**properties, "datetime": f"{when}T00:00:00Z"}}
    stored = (item.get("assets") or {}).items()
    assets = {key: asset for key, asset in stored if isinstance(asset, dict) and asset.get("href")}
    return {**item, "assets": assets}


def _with_absolute_hrefs(item: Item, base: Path) -> Item:
    """Return an item that can be read from anywhere: a frozen search lies in another folder than its catalog."""
    assets = dict(item["assets"])
    self_href = next((str(link["href"]) for link in item.get("links") or [] if link.get("rel") == "self"), "")
    if not is_url(self_href):
        for key, asset in assets.items():
            href = str(asset["href"])
            assets[key] = {**asset, "href": href if is_url(href) else str(base / href)}
    return {**item, "assets": assets}
