"""Read from a STAC API: every response is classified, retried if that helps, and verified.

pystac-client builds the searches, but treats an error document or an empty page as the end of a
search. So the pages are read here, and a search is either complete or an error.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator
from typing import Any, NamedTuple
from urllib.parse import urljoin

import pystac
import requests
import tenacity
from pystac_client.exceptions import APIError
from pystac_client.stac_api_io import StacApiIO

from scenebeam.catalog.packed_items import links_of
from scenebeam.errors import CatalogError
from scenebeam.request import Limits
from scenebeam.transfer.http import TRANSIENT, TransientError, retry_after
from scenebeam.transfer.retry import shutdown
from scenebeam.transfer.session import mount_checked
from scenebeam.transfer.signing import redact_url

log = logging.getLogger(__name__)

REQUEST_INTERVAL = 0.1
"""Seconds between two requests to a catalog: catalogs block clients that flood them."""
_TIMEOUT = (10, 60)
"""Seconds to connect, and between two bytes of a response."""
_RESPONSE_SECONDS = 180.0
"""Maximum time for a whole response."""
_LARGEST_RESPONSE = 256 * 2**20
_MAX_EMPTY_PAGES = 20
"""Consecutive empty pages with a next link, after which a search is considered endless."""


class _PageRequest(NamedTuple):
    """The request for one page of a search."""

    url: str
    method: str
    parameters: dict[str, Any] | None


class CatalogIO(StacApiIO):
    """HTTP client for a remote catalog: retries, rate limit, size limits and complete pages.

    It never reads local files.
    """

    def __init__(self, limits: Limits) -> None:
        """Create a client.

        Args:
            limits: The limits of the request; `private_addresses` says whether loopback and
                private addresses are allowed.
        """
        super().__init__(max_retries=None)
        mount_checked(self.session, private=limits.private_addresses)
        self._limits = limits
        self._next_request_at = 0.0

    def read_text(self, source: Any, *args: Any, **kwargs: Any) -> str:
        """Read a document by URL. See StacApiIO.

        Raises:
            CatalogError: `source` is a local file, or no usable response came within the limits.
        """
        href = source.href if isinstance(source, pystac.Link) else str(source)
        if not href.lower().startswith(("http://", "https://")):
            raise CatalogError(
                f"a remote catalog must not refer to the local file {href!r}; refused"
            )
        return super().read_text(source, *args, **kwargs)

    def read_document(
        self, url: str, method: str = "GET", parameters: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Read a JSON object.

        Raises:
            APIError: The server rejects the request with a permanent status.
            CatalogError: The response is not a JSON object, or none came within the limits.
        """
        document = json.loads(self.request(url, method=method, parameters=parameters))
        if not isinstance(document, dict):
            raise CatalogError(f"{redact_url(url)} responded with JSON that is not an object")
        return document

    def request(
        self,
        href: str,
        method: str | None = None,
        headers: dict[str, str] | None = None,
        parameters: dict[str, Any] | None = None,
    ) -> str:
        """Send a request, and retry transient errors with exponential backoff and jitter.

        Args:
            href: The URL.
            method: `GET` (the default) or `POST`.
            headers: Additional headers.
            parameters: The query of a GET, or the JSON body of a POST.

        Returns:
            The text of a JSON document.

        Raises:
            APIError: The server rejects the request with a permanent status.
            CatalogError: No usable response came within the limits.
        """
        retry = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(TransientError),
            stop=tenacity.stop_after_attempt(self._limits.max_attempts)
            | tenacity.stop_after_delay(self._limits.retry_seconds),
            wait=self._backoff,
            sleep=tenacity.sleep_using_event(shutdown),
            reraise=True,
        )
        try:
            return retry(self._send, href, (method or "GET").upper(), headers, parameters)
        except TransientError as error:
            attempts = retry.statistics.get("attempt_number", 1)
            raise CatalogError(
                f"{redact_url(href)}: {error} (after {attempts} attempts); "
                "the catalog is down or overloaded, run again later"
            ) from None

    def _backoff(self, state: tenacity.RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        first = max(self._limits.retry_wait, 0.01)
        exponential = tenacity.wait_exponential_jitter(multiplier=first, max=60, jitter=first)
        # Wait at least as long as the server asks for in Retry-After.
        requested = error.after if isinstance(error, TransientError) else 0.0
        seconds = max(float(exponential(state)), requested)
        log.info("retrying the catalog in %.1f s: %s", seconds, error)
        return seconds

    def _send(
        self,
        href: str,
        method: str,
        headers: dict[str, str] | None,
        parameters: dict[str, Any] | None,
    ) -> str:
        """Send one request. Returns the text of a JSON document."""
        time.sleep(max(0.0, self._next_request_at - time.monotonic()))
        self._next_request_at = time.monotonic() + REQUEST_INTERVAL
        content: dict[str, Any] = (
            {"json": parameters} if method == "POST" else {"params": parameters or {}}
        )
        try:
            response = self.session.request(
                method, href, headers=headers, timeout=_TIMEOUT, stream=True, **content
            )
        except (requests.ConnectionError, requests.Timeout) as error:
            raise TransientError(f"cannot be reached: {type(error).__name__}") from None
        except (requests.RequestException, ValueError) as error:
            raise CatalogError(f"{redact_url(href)} cannot be requested: {error}") from None
        with response:
            self._check_status(href, response)
            return _json_text(_read_body(response))

    def _check_status(self, href: str, response: requests.Response) -> None:
        status = response.status_code
        if status in TRANSIENT or status >= 500:
            after = retry_after(response.headers.get("Retry-After"))
            if after > self._limits.retry_seconds:
                raise CatalogError(
                    f"{redact_url(href)} responded with status {status} and asks to wait "
                    f"{after:,.0f} s, longer than limits.retry_seconds = "
                    f"{self._limits.retry_seconds:g}; run again later"
                )
            raise TransientError(f"responded with status {status}", after)
        if not 200 <= status < 300:
            # Load the body before the response is closed: the error quotes it.
            _ = response.content
            raise APIError.from_response(response)

    def get_pages(
        self, url: str, method: str | None = None, parameters: dict[str, Any] | None = None
    ) -> Iterator[dict[str, Any]]:
        """Yield all pages of a search.

        Args:
            url: The search endpoint, or a FeatureCollection.
            method: `POST` (the default) or `GET`.
            parameters: The body or query of the search.

        Yields:
            FeatureCollections, as the catalog sends them. A page may be empty.

        Raises:
            APIError: The server rejects the request with a permanent status.
            CatalogError: A page is not a FeatureCollection, the pages form a loop or never end, or
                the catalog sent fewer items than it reports to match.
        """
        received, promised, empty_pages = 0, 0, 0
        requested: set[str] = set()
        page_request = _PageRequest(url, (method or "POST").upper(), parameters)
        while True:
            # A next link that leads back to an earlier page would be followed forever.
            key = json.dumps(page_request, sort_keys=True)
            if key in requested:
                raise CatalogError(
                    f"{redact_url(url)}: its pages form a loop after {received:,} items"
                )
            requested.add(key)
            page = self._read_page(page_request)
            promised = max(promised, _number_matched(page))
            received += len(page["features"])
            # An empty page does not end a search: its next link may lead to more items.
            empty_pages = 0 if page["features"] else empty_pages + 1
            if empty_pages > _MAX_EMPTY_PAGES:
                raise CatalogError(
                    f"{redact_url(url)}: {empty_pages} empty pages in a row link to a next page; "
                    "the search does not end"
                )
            yield page
            next_link = _next_link(page)
            if next_link is None:
                break
            page_request = _next_request(page_request, next_link)
        if received < promised:
            raise CatalogError(
                f"{redact_url(url)} reports {promised:,} matching items, and sent {received:,}: "
                "the response is incomplete; run again later"
            )

    def _read_page(self, page_request: _PageRequest) -> dict[str, Any]:
        """Read one page, and retry while the catalog sends an error document with status 200."""
        description = ""
        for _ in range(self._limits.max_attempts):
            page = self.read_document(*page_request)
            if page.get("type") == "FeatureCollection" and isinstance(page.get("features"), list):
                return page
            description = str(
                page.get("description")
                or page.get("message")
                or page.get("detail")
                or page.get("type")
                or ""
            )
            shutdown.wait(self._limits.retry_wait)
        raise CatalogError(
            f"{redact_url(page_request.url)}: the response is not a FeatureCollection: "
            f"{description[:200] or 'no description'}"
        )


def _read_body(response: requests.Response) -> bytes:
    body = bytearray()
    # The timeout of requests only limits the time between two bytes, not the whole response.
    deadline = time.monotonic() + _RESPONSE_SECONDS
    try:
        for content in response.iter_content(2**16):
            body += content
            if len(body) > _LARGEST_RESPONSE:
                raise CatalogError(
                    f"{redact_url(response.url)} sends more than {_LARGEST_RESPONSE:,} bytes "
                    "for one page"
                )
            if time.monotonic() > deadline:
                raise TransientError("the response takes too long")
    except (requests.RequestException, OSError) as error:
        raise TransientError(f"the response was cut off: {type(error).__name__}") from None
    return bytes(body)


def _json_text(body: bytes) -> str:
    """Decode a JSON document. Overloaded servers send HTML or truncated JSON with status 200."""
    try:
        text = body.decode("utf-8")
        json.loads(text)
    except ValueError:
        kind = "an HTML page" if body.lstrip()[:1] == b"<" else "invalid JSON"
        raise TransientError(f"responded with {kind}") from None
    return text


def _number_matched(page: dict[str, Any]) -> int:
    """Return how many items match a search, as the catalog reports it; 0 if it does not.

    OGC API Features has `numberMatched`, the older context extension has `context.matched`.
    """
    context = page.get("context")
    by_context = context.get("matched") if isinstance(context, dict) else None
    matched = page.get("numberMatched", by_context)
    return matched if isinstance(matched, int) else 0


def _next_link(page: dict[str, Any]) -> dict[str, Any] | None:
    for link in links_of(page, "next"):
        if isinstance(link.get("href"), str):
            return link
    return None


def _next_request(current: _PageRequest, link: dict[str, Any]) -> _PageRequest:
    """Follow a next link: STAC API, section "Paging extension"."""
    url = urljoin(current.url, link["href"])
    method = str(link.get("method") or "GET").upper()
    if method != "POST":
        return _PageRequest(url, method, None)
    body = link.get("body")
    body = body if isinstance(body, dict) else {}
    # With `merge`, the body of the link extends that of the previous request.
    parameters = {**(current.parameters or {}), **body} if link.get("merge") else body
    return _PageRequest(url, method, parameters)


def describe_refusal(error: APIError) -> str:
    """Describe the rejection of a request by an API, with a hint on what to try."""
    status, response_text = error.status_code, str(error).strip()[:500]
    hint = {
        401: "it needs an account: put the name and password for this host into ~/.netrc",
        403: "the account may not search here",
        404: "there is no STAC API at this address: is it the root of the API?",
    }.get(status or 0, "")
    parts = [f"status {status}" if status else "", response_text, hint]
    return "; ".join(part for part in parts if part)
