"""Items behind a URL: of a STAC API, a static catalog, or one document.

Apart from the search of local files, because pystac and pystac-client are slow to import.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pystac
from pystac_client.exceptions import APIError

from scenebeam.catalog.api import CatalogIO, describe_refusal
from scenebeam.catalog.bucket import BucketIO
from scenebeam.catalog.documents import (
    crawl,
    read_bucket_items,
    read_remote_table,
    with_self_link,
)
from scenebeam.catalog.item_search import search_api
from scenebeam.catalog.local import TABLE_SUFFIXES
from scenebeam.catalog.queries import SearchQuery
from scenebeam.errors import CatalogError
from scenebeam.request import RunRequest
from scenebeam.transfer.retry import Budget
from scenebeam.transfer.signing import effective_limits, redact_url


def read_remote_items(
    url: str, request: RunRequest, queries: Sequence[SearchQuery]
) -> Iterator[Any]:
    """Yield the items behind a URL.

    Raises:
        CatalogError: There is no catalog, or it refuses or breaks the search.
    """
    try:
        yield from _read_items(url, request, queries)
    except APIError as error:
        message = f"{redact_url(url)} refused the search: {describe_refusal(error)}"
        raise CatalogError(message) from error
    except pystac.STACError as error:
        raise CatalogError(f"cannot read the catalog {redact_url(url)}: {error}") from error


def _read_items(url: str, request: RunRequest, queries: Sequence[SearchQuery]) -> Iterator[Any]:
    """The items behind a URL: of a STAC API, a static catalog, or one document."""
    limits = effective_limits(request)
    if url.endswith(TABLE_SUFFIXES):
        yield from read_remote_table(url, Budget.of(limits))
        return
    if url.startswith("gs://"):
        yield from read_bucket_items(url, BucketIO(Budget.of(limits)))
        return
    stac_io = CatalogIO(limits)
    document = stac_io.read_document(url)
    kind = document.get("type")
    if kind == "FeatureCollection":
        for page in stac_io.get_pages(url, "GET"):
            for item in page["features"]:
                yield with_self_link(item, url)
    elif kind == "Feature":
        yield with_self_link(document, url)
    elif kind == "Collection":
        yield from crawl(pystac.Collection.from_dict(document, href=url), stac_io)
    elif kind == "Catalog":
        yield from search_api(url, document, stac_io, request, queries)
    else:
        raise CatalogError(
            f"{redact_url(url)} is not a STAC API, catalog, collection, ItemCollection or item"
        )
