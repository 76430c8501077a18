"""STAC API item search: which requests to send, and the pages of each answer."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import urljoin

import pystac
import pystac_client
from pystac_client.exceptions import APIError
from pystac_client.warnings import PystacClientWarning

from scenebeam.catalog.api import CatalogIO
from scenebeam.catalog.documents import crawl
from scenebeam.catalog.packed_items import Item, links_of
from scenebeam.catalog.queries import SearchQuery
from scenebeam.errors import CatalogError
from scenebeam.request import RunRequest
from scenebeam.transfer.signing import redact_url

log = logging.getLogger(__name__)

Bounds = tuple[float, float, float, float]
PAGE_SIZE = 100
_GET_ONLY_STATUSES = {404, 405, 415, 501}
"""Answers to a POST by APIs that support search by GET alone."""


def search_api(
    url: str,
    landing_page: Item,
    stac_io: CatalogIO,
    request: RunRequest,
    queries: Sequence[SearchQuery],
) -> Iterator[Any]:
    """Yield the items of each query; of a catalog without item search, all of its items.

    Args:
        url: URL of the landing page.
        landing_page: Its content.
        stac_io: Reads pages with the limits of the request.
        request: The validated request.
        queries: What to search for.

    Raises:
        CatalogError: The catalog has neither item search nor links to items.
        APIError: The API refuses a search.
    """
    with warnings.catch_warnings():
        # pystac-client warns of static catalogs, which are read below.
        warnings.simplefilter("ignore", PystacClientWarning)
        client = pystac_client.Client.from_dict(landing_page, href=url)
        client._stac_io = stac_io
    if not client.conforms_to("ITEM_SEARCH"):
        if not links_of(landing_page, "child") and not links_of(landing_page, "item"):
            raise CatalogError(
                f"{redact_url(url)} has neither item search nor links to items; is it the root of "
                "a STAC API?"
            )
        log.info("%s has no item search: reading it as a static catalog", url)
        yield from crawl(pystac.Catalog.from_dict(landing_page, href=url), stac_io)
        return
    endpoint, method = _search_endpoint(url, landing_page)
    for parameters in _search_parameters(request, queries, client.conforms_to("QUERY")):
        try:
            yield from _pages(client, stac_io, endpoint, method, parameters)
        except APIError as error:
            if method != "POST" or error.status_code not in _GET_ONLY_STATUSES:
                raise
            method = "GET"
            yield from _pages(client, stac_io, endpoint, method, parameters)


def _pages(
    client: pystac_client.Client,
    stac_io: CatalogIO,
    endpoint: str,
    method: str,
    parameters: dict[str, Any],
) -> Iterator[Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PystacClientWarning)
        search = client.search(method=method, limit=PAGE_SIZE, **parameters)
        body = search.get_parameters()
    # Not `search.pages()`: it stops at the first empty page, which some APIs send in the middle.
    for page in stac_io.get_pages(endpoint, method, body):
        yield from page["features"]


def _search_endpoint(url: str, landing_page: Item) -> tuple[str, str]:
    """The search URL by the landing page, and POST unless only GET is offered."""
    links = links_of(landing_page, "search")
    hrefs = [str(link["href"]) for link in links if link.get("href")]
    methods = {str(link.get("method") or "").upper() for link in links}
    endpoint = urljoin(url, hrefs[0]) if hrefs else f"{url.rstrip('/')}/search"
    return endpoint, "GET" if methods == {"GET"} else "POST"


def _search_parameters(
    request: RunRequest, queries: Sequence[SearchQuery], has_query_extension: bool
) -> Iterator[dict[str, Any]]:
    """The parameters of each search: by id where scenes are listed, else by place and time."""
    collections = [
        collection if isinstance(collection, str) else collection.id
        for collection in request.collections
    ]
    if request.select.scenes is not None:
        ids = sorted({scene.id for scene in request.select.scenes})
        for start in range(0, len(ids), PAGE_SIZE):
            yield {"collections": collections, "ids": ids[start : start + PAGE_SIZE]}
        return
    for query in queries:
        parameters: dict[str, Any] = {
            "collections": list(query.collections or collections),
            "bbox": query.bbox,
            "datetime": query.datetime_interval,
        }
        bounds = {name: {"lt": value} for name, value in query.below.items()}
        if has_query_extension and bounds:
            parameters["query"] = bounds
        yield parameters
