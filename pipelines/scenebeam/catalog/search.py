"""Search: a STAC API, a file or a static catalogue → items → Scenes. One polite client asks, on the driver."""

from __future__ import annotations

import csv
import json
import logging
import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
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

from scenebeam.catalog.scene import Asset, Scene, scene_from_item
from scenebeam.collections import CollectionRecord, known_records
from scenebeam.errors import CatalogError, RequestError
from scenebeam.request import KNOWN_CATALOGS, RunRequest, TimeSeries, is_url, parse_interval

log = logging.getLogger(__name__)

Item = dict[str, Any]
PAGE_SIZE = 100
_RETRY = Retry(
    total=6,
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
    """Our names of the bands asked for. Raises RequestError for one that no record knows, and lists the known."""
    records = records_for(request)
    names = []
    for typed in request.product.bands:
        name = next((known for record in records if (known := record.band_name(typed))), None)
        if name is None:
            known_names = sorted({band for record in records for band in record.bands})
            raise RequestError(f"product.bands: unknown band {typed!r}; known: {', '.join(known_names)}")
        names.append(name)
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise RequestError(f"product.bands: {', '.join(twice)} is asked for under two names")
    return names


def record_for_item(item: Item, records: Iterable[CollectionRecord]) -> CollectionRecord | None:
    """The record of an item's collection whose asset keys fit it best; None where no record is of it.

    Copies of one collection at several hosts differ in their asset keys (`red`, `B04`, `B04_10m`).
    An item that names no collection is taken for the only one asked for.
    """
    candidates = list(records)
    collection = item.get("collection")
    if collection or len({record.id for record in candidates}) > 1:
        candidates = [record for record in candidates if record.id == collection]
    keys = set(item.get("assets") or {})
    return max(candidates, key=lambda record: _fit(record, keys), default=None)


def _fit(record: CollectionRecord, keys: set[str]) -> int:
    return sum(band.asset in keys for band in record.bands.values())


def search_items(request: RunRequest, area: MultiPolygon | None) -> list[Item]:
    """Items of the request's collections in its area and dates, as JSON, in the catalogue's order.

    `area` is in degrees. No other filter of the request is applied: selection does that, and can
    then say what it left out. Raises CatalogError where the catalogue cannot be asked.
    """
    catalog = request.catalog
    assert isinstance(catalog, str), "scenes of a time series are listed, not searched"
    url = KNOWN_CATALOGS.get(catalog, catalog)
    try:
        items = list(_ask(url, request, area)) if is_url(url) else list(_read(Path(url)))
    except APIError as error:
        raise CatalogError(_blame(url, error)) from error
    except (OSError, ValueError, KeyError, pystac.STACError, rustac.RustacError) as error:
        raise CatalogError(f"cannot read the catalogue {url}: {error}") from error
    seen: dict[tuple[str, str], Item] = {}
    for item in items:
        if not _remote(catalog):
            item = _with_absolute_hrefs(item, Path(catalog).parent)
        seen.setdefault((str(item.get("collection")), str(item.get("id"))), item)
    if len(seen) > request.limits.max_scenes:
        raise RequestError(
            f"the search finds more than limits.max_scenes = {request.limits.max_scenes} scenes; "
            "narrow the area or the dates, or raise the limit"
        )
    return list(seen.values())


def _ask(url: str, request: RunRequest, area: MultiPolygon | None) -> Iterator[Item]:
    if url.endswith(".parquet"):
        yield from rustac.read_sync(url)["features"]
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PystacClientWarning)  # a static catalogue: said below, in our words
        client = pystac_client.Client.open(url, stac_io=StacApiIO(max_retries=_RETRY, timeout=60))
        if not client.conforms_to("ITEM_SEARCH"):
            log.info("%s has no item search: reading it as a static catalogue", url)
            yield from [item.to_dict(transform_hrefs=False) for item in client.get_items(recursive=True)]
            return
    ids = [wanted if isinstance(wanted, str) else wanted.id for wanted in request.collections]
    found = 0
    periods: Sequence[str | None] = request.dates or [None]
    for period in periods:
        for cell in area.geoms if area is not None else [None]:
            search = client.search(
                collections=ids,
                bbox=cell.bounds if cell is not None else None,
                datetime=_rfc3339(period),
                limit=PAGE_SIZE,
            )
            for item in search.items_as_dicts():
                yield item
                found += 1
                if found > 2 * request.limits.max_scenes:
                    return  # far beyond the limit already: do not page through the rest of the archive


def _rfc3339(period: str | None) -> str | None:
    if period is None:
        return None
    return "/".join(f"{instant:%Y-%m-%dT%H:%M:%SZ}" for instant in parse_interval(period))


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
        return f"{url} answers 429 (too many requests) after {_RETRY.total} tries: wait some minutes, and run again"
    return f"{url} refused the search: {error}"


def scenes_from_items(items: Iterable[Item], request: RunRequest) -> list[Scene]:
    """Items → Scenes, by their records. Items of other collections are left out; an unusable one is an error."""
    catalog = request.catalog
    records = records_for(request)
    base = str(Path(catalog).parent) if isinstance(catalog, str) and not _remote(catalog) else None
    scenes = []
    for item in items:
        record = record_for_item(item, records)
        if record is not None:
            scenes.append(scene_from_item(item, record, base=base))
    return scenes


def _with_absolute_hrefs(item: Item, base: Path) -> Item:
    """An item that can be read from anywhere: a frozen search lies in another folder than its catalogue."""
    self_href = next((str(link["href"]) for link in item.get("links") or [] if link.get("rel") == "self"), "")
    if is_url(self_href):
        return item
    assets = {
        key: {**asset, "href": asset["href"] if is_url(asset["href"]) else str(base / asset["href"])}
        for key, asset in (item.get("assets") or {}).items()
    }
    return {**item, "assets": assets}


def _remote(catalog: str) -> bool:
    return catalog in KNOWN_CATALOGS or is_url(catalog)


def scenes_from_time_series(source: TimeSeries, records: list[CollectionRecord], bands: list[str]) -> list[Scene]:
    """The scenes that a time-series table names, with their files under `<root>/<scene_id>/<band>.tif`.

    A band's file may bear any of the band's names in any case. Bands without a file are left out of the scene's
    assets: a missing tile, for the product to judge. Raises RequestError for a table that is not one.
    """
    record = records[0]
    scenes: dict[str, Scene] = {}
    for acquired, ids in _time_series_rows(Path(source.time_series)):
        for name in ids:
            if not re.fullmatch(r"[A-Za-z0-9._-]+", name) or name.startswith("."):
                raise RequestError(f"{source.time_series}: {name!r} is not the id of a scene")
            files = {file.stem.lower(): file for file in sorted((Path(source.root) / name).glob("*.tif*"))}
            scenes[name] = Scene(
                id=name,
                collection=record.id,
                provider=record.provider,
                datetime=acquired,
                acquired=acquired,
                assets={band: asset for band in bands if (asset := _local_asset(band, files, record)) is not None},
            )
    return list(scenes.values())


def _local_asset(band: str, files: dict[str, Path], record: CollectionRecord) -> Asset | None:
    known = record.bands[band]
    names = [band, known.asset, *known.alias]
    file = next((files[name.lower()] for name in names if name.lower() in files), None)
    if file is None:
        return None
    scale, offset = record.band_scaling(band)
    return Asset(
        band=band,
        href=str(file),
        index=1,
        resolution=known.resolution,
        dtype=record.band_dtype(band),
        nodata=record.band_nodata(band),
        scale=scale,
        offset=offset,
        shift=0,  # without an item nothing says that the pixels carry one: they are taken as they are
        categorical=known.categorical,
    )


def _time_series_rows(path: Path) -> Iterator[tuple[datetime, list[str]]]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except OSError as error:
        raise RequestError(f"catalog.time_series: cannot read {path}: {error}") from None
    missing = {"acq_datetime", "tile_ids"} - set(rows[0] if rows else ())
    if missing:
        raise RequestError(f"{path} lacks the columns {', '.join(sorted(missing))} (or has no rows)")
    for number, row in enumerate(rows, start=2):
        try:
            acquired = datetime.fromisoformat(row["acq_datetime"])
        except ValueError:
            raise RequestError(f"{path} line {number}: acq_datetime {row['acq_datetime']!r} is no time") from None
        ids = [part.strip() for part in re.split(r"[|,;]", row["tile_ids"].strip("[]")) if part.strip()]
        yield acquired, list(dict.fromkeys(ids))
