"""Records and bands: which collection records a request uses, and which bands it names."""

from __future__ import annotations

from collections.abc import Iterable

from scenebeam.catalog.hosts import HOST
from scenebeam.catalog.item_reader import is_archived
from scenebeam.catalog.packed_items import Item, links_of
from scenebeam.catalog.scene import SOURCE_COLLECTION, SOURCE_PROVIDER, Scene
from scenebeam.collections import CollectionRecord, known_records
from scenebeam.errors import RequestError
from scenebeam.request import KNOWN_CATALOGS, RunRequest
from scenebeam.suggestions import suggest


def records_for(request: RunRequest) -> list[CollectionRecord]:
    """List the records that may describe the collections of a request, inline ones included.

    Raises:
        RequestError: No record has the id of a collection.
    """
    records: list[CollectionRecord] = []
    for collection in request.collections:
        if isinstance(collection, CollectionRecord):
            records.append(collection)
            continue
        matching = [record for record in known_records() if record.id == collection]
        if not matching:
            known = sorted({record.id for record in known_records()})
            raise RequestError(
                f"collections: no record of {collection!r}, and none is given inline (its bands, "
                f"dtype and nodata); {suggest(collection, known)}"
            )
        # A catalog by URL or a file may hold the collection of any provider.
        at_provider = [record for record in matching if record.provider in request.catalogs]
        records += at_provider or matching
    return records


def resolve_bands(request: RunRequest) -> list[str]:
    """Resolve the requested bands to canonical names; default: those of the collections.

    Returns:
        Canonical names, in the order of the request.

    Raises:
        RequestError: No record knows a band, or one band is requested under two names.
    """
    product = request.product
    records = records_for(request)
    if product.fixed_bands:
        return list(product.fixed_bands)
    if not product.requested_bands:
        return list(dict.fromkeys(band for record in records for band in record.default_bands))
    names: list[str] = []
    for typed in product.requested_bands:
        known = [name for record in records if (name := record.band_name(typed)) is not None]
        if not known:
            known_names = sorted({band for record in records for band in record.bands})
            raise RequestError(
                f"product.bands: unknown band {typed!r}; {suggest(typed, known_names)}"
            )
        names.append(known[0])
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice and not product.repeats_bands:
        raise RequestError(f"product.bands: {', '.join(twice)} is requested under two names")
    return names


def bands_of(record: CollectionRecord, request: RunRequest) -> list[str]:
    """The requested bands that one collection has, by canonical name; default: its own defaults."""
    typed_names = request.product.requested_bands
    if not typed_names:
        return record.default_bands
    names: dict[str, None] = {}
    for typed in typed_names:
        name = record.band_name(typed)
        if name is not None:
            names[name] = None
    return list(names)


def record_of(scene: Scene, request: RunRequest) -> CollectionRecord:
    """The record by which a scene of the request was read."""
    key = (scene.collection, scene.provider)
    return next(r for r in records_for(request) if (r.id, r.provider) == key)


def record_for_item(item: Item, records: Iterable[CollectionRecord]) -> CollectionRecord | None:
    """Find the record that fits an item best.

    Copies of one collection at several providers differ in their asset keys (`red`, `B04`,
    `B04_10m`); where they do not, the item's links tell its catalog. An item without a collection
    belongs to the only one requested.

    Returns:
        The record; None if none is of the item's collection.
    """
    candidates = list(records)
    if HOST in item:
        of_host = [record for record in candidates if record.provider == item[HOST]]
        candidates = of_host or candidates
    collection = item.get("collection")
    if is_archived(item):
        properties = item["properties"]
        collection, provider = properties[SOURCE_COLLECTION], properties.get(SOURCE_PROVIDER)
        source = (collection, provider)
        matching = [record for record in candidates if (record.id, record.provider) == source]
        candidates = matching or candidates
    if collection or len({record.id for record in candidates}) > 1:
        candidates = [record for record in candidates if record.id == collection]
    return max(candidates, key=lambda record: _score(record, item), default=None)


def _score(record: CollectionRecord, item: Item) -> tuple[int, bool]:
    """Rank a record by the bands that the item has, then by a link to the record's catalog."""
    keys = set(item.get("assets") or {})
    catalog_url = KNOWN_CATALOGS.get(record.provider)
    linked = False
    if catalog_url is not None:
        hrefs = [str(link.get("href")) for link in links_of(item)]
        linked = any(href.startswith(catalog_url) for href in hrefs)
    return sum(band.asset in keys for band in record.bands.values()), linked
