"""Catalogs: ask STAC APIs for recent items, in little memory and without pixels."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from http.client import HTTPException
from typing import Any
from urllib.parse import urlsplit

from scenebeam.cloud.items import grid_zone_bounds
from scenebeam.cloud.standing import StandingRequest
from scenebeam.errors import CatalogError
from scenebeam.request import KNOWN_CATALOGS, parse_interval

_PAGE_SIZE = 100
_MAX_PAGES = 20
"""Pages of one search: more items than that are found by the next pass itself."""
_TIMEOUT = 20.0
_MAX_BYTES = 50_000_000


def find_items(standing: StandingRequest, lookback_days: int) -> Iterator[Mapping[str, Any]]:
    """Search the catalogs of a standing request for items of the last days.

    Args:
        standing: The standing request.
        lookback_days: How many days back; older items are left to the passes.

    Yields:
        The items.

    Raises:
        CatalogError: No catalog is a STAC API that can be searched now.
    """
    since = datetime.now(UTC) - timedelta(days=lookback_days)
    intervals = []
    for start, end in map(parse_interval, standing.dates):
        if end >= since:
            intervals.append((max(start, since), end))
    faults: list[str] = []
    for catalog in standing.catalogs:
        try:
            for start, end in intervals:
                yield from _search(KNOWN_CATALOGS.get(catalog, catalog), standing, start, end)
        except (OSError, HTTPException, ValueError, KeyError, TypeError, AttributeError) as error:
            faults.append(f"{catalog}: {error}"[:300])
    if faults and len(faults) == len(standing.catalogs):
        raise CatalogError("; ".join(faults))


def _search(
    url: str, standing: StandingRequest, start: datetime, end: datetime
) -> Iterator[Mapping[str, Any]]:
    landing = _read(urllib.request.Request(url))
    host = urlsplit(url)[:2]
    links = [link for link in landing.get("links", ()) if link.get("rel") == "search"]
    if not links:
        raise ValueError("it has no item search")
    times = "/".join(f"{when.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}" for when in (start, end))
    body: dict[str, Any] = {
        "collections": list(standing.collections),
        "datetime": times,
        "limit": _PAGE_SIZE,
    }
    bbox = standing.bbox or grid_zone_bounds(standing.tiles)
    if bbox is not None:
        body["bbox"] = list(bbox)
    request = _post(_on_host(links[0], host), body)
    for _ in range(_MAX_PAGES):
        page = _read(request)
        yield from (item for item in page.get("features") or () if isinstance(item, Mapping))
        following = [link for link in page.get("links", ()) if link.get("rel") == "next"]
        if not following:
            return
        link = following[0]
        if str(link.get("method", "GET")).upper() == "POST":
            merged = {**body, **link.get("body", {})} if link.get("merge") else link.get("body", {})
            request = _post(_on_host(link, host), merged)
        else:
            request = urllib.request.Request(_on_host(link, host))


def _on_host(link: Mapping[str, Any], host: tuple[str, str]) -> str:
    """Return the href of a link, which must stay on the host of the catalog.

    Raises:
        ValueError: It leads elsewhere: a catalog must not make a function ask other servers.
    """
    href = str(link["href"])
    if urlsplit(href)[:2] != host:
        raise ValueError("it links to another host")
    return href


class _SameHost(urllib.request.HTTPRedirectHandler):
    """Follows redirects on one host only."""

    def __init__(self, host: str) -> None:
        self._host = host

    def redirect_request(
        self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        if urlsplit(newurl).netloc != self._host:
            raise ValueError("it redirects to another host")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _post(url: str, body: Mapping[str, Any]) -> urllib.request.Request:
    headers = {"Content-Type": "application/json"}
    return urllib.request.Request(url, json.dumps(body).encode(), headers)


def _read(request: urllib.request.Request) -> dict[str, Any]:
    if not request.full_url.startswith(("http://", "https://")):
        raise ValueError("it is not at an http address")
    opener = urllib.request.build_opener(_SameHost(request.host))
    with opener.open(request, timeout=_TIMEOUT) as response:
        content = response.read(_MAX_BYTES + 1)
    if len(content) > _MAX_BYTES:
        raise ValueError("its answer is too large")
    document = json.loads(content)
    if not isinstance(document, dict):
        raise ValueError("its answer is no JSON object")
    return document
