"""A STAC API as it behaves: every answer is classified, retried where that helps, and held against
what was promised.

pystac-client asks; what it takes for the end of a search (an error document, an empty page) is
looked at here.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator
from typing import Any
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
from scenebeam.transfer.ranges import shutdown
from scenebeam.transfer.session import mount_checked
from scenebeam.transfer.signing import redact_url

log = logging.getLogger(__name__)

APART = 0.1
"""Seconds between two requests to a catalog: catalogs ban those who storm them."""
_TIMEOUT = (10, 60)
"""Seconds for a connection, and between two bytes of an answer."""
_ANSWER_SECONDS = 180.0
"""After which a whole answer must have come."""
_LARGEST_ANSWER = 256 * 2**20
_EMPTY_PAGES = 20
"""Empty pages in a row that still name a next one, before the search is taken for endless."""


class CatalogIO(StacApiIO):
    """Reads a catalog on the network: with retries, pace, bounds and complete pages, and never a
    file of this machine.
    """

    def __init__(self, limits: Limits) -> None:
        """`limits`: of the request, with private addresses as they are allowed."""
        super().__init__(max_retries=None)
        mount_checked(self.session, private=limits.private_addresses)
        self._limits = limits
        self._next = 0.0

    def read_text(self, source: Any, *args: Any, **kwargs: Any) -> str:
        """See StacApiIO. Raises CatalogError for a local file."""
        href = source.href if isinstance(source, pystac.Link) else str(source)
        if not href.lower().startswith(("http://", "https://")):
            raise CatalogError(f"a catalog on the network names the local file {href!r}; refused")
        return super().read_text(source, *args, **kwargs)

    def read_document(
        self, url: str, method: str = "GET", parameters: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Read a JSON object. Raises CatalogError where the answer is none."""
        document = json.loads(self.request(url, method=method, parameters=parameters))
        if not isinstance(document, dict):
            raise CatalogError(f"{redact_url(url)} answers with JSON that is not an object")
        return document

    def request(
        self,
        href: str,
        method: str | None = None,
        headers: dict[str, str] | None = None,
        parameters: dict[str, Any] | None = None,
    ) -> str:
        """Ask, and ask again where that may help; gives the text of a JSON document.

        Raises:
            APIError: The server refuses, with a status that will not change.
            CatalogError: No usable answer came within the limits.
        """
        patience = self._limits.retry_seconds
        retry = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(TransientError),
            stop=tenacity.stop_after_attempt(self._limits.max_attempts)
            | tenacity.stop_after_delay(patience),
            wait=self._wait,
            sleep=tenacity.sleep_using_event(shutdown),
            reraise=True,
        )
        try:
            return retry(self._ask, href, (method or "GET").upper(), headers, parameters)
        except TransientError as fault:
            tries = retry.statistics.get("attempt_number", 1)
            raise CatalogError(
                f"{redact_url(href)}: {fault} (after {tries} tries); the catalog is unwell or busy, run again later"
            ) from None

    def _wait(self, state: tenacity.RetryCallState) -> float:
        fault = state.outcome.exception() if state.outcome else None
        first = max(self._limits.retry_wait, 0.01)
        backoff = float(
            tenacity.wait_exponential_jitter(multiplier=first, max=60, jitter=first)(state)
        )
        seconds = max(backoff, fault.after if isinstance(fault, TransientError) else 0.0)
        log.info("the catalog is asked again in %.1f s: %s", seconds, fault)
        return seconds

    def _ask(
        self,
        href: str,
        method: str,
        headers: dict[str, str] | None,
        parameters: dict[str, Any] | None,
    ) -> str:
        time.sleep(max(0.0, self._next - time.monotonic()))
        self._next = time.monotonic() + APART
        sent: dict[str, Any] = (
            {"json": parameters} if method == "POST" else {"params": parameters or {}}
        )
        try:
            answer = self.session.request(
                method, href, headers=headers, timeout=_TIMEOUT, stream=True, **sent
            )
        except (requests.ConnectionError, requests.Timeout) as error:
            raise TransientError(f"it cannot be reached: {type(error).__name__}") from None
        except (requests.RequestException, ValueError) as error:
            raise CatalogError(f"{redact_url(href)} cannot be asked: {error}") from None
        with answer:
            self._check_status(href, answer)
            return _json_text(_body(answer))

    def _check_status(self, href: str, answer: requests.Response) -> None:
        if answer.status_code in TRANSIENT or answer.status_code >= 500:
            after = retry_after(answer.headers.get("Retry-After"))
            if after > self._limits.retry_seconds:
                raise CatalogError(
                    f"{redact_url(href)} answers {answer.status_code} and asks to wait {after:,.0f} s, longer than "
                    f"limits.retry_seconds = {self._limits.retry_seconds:g}; run again later"
                )
            raise TransientError(f"it answers {answer.status_code}", after)
        if not 200 <= answer.status_code < 300:
            _ = answer.content
            raise APIError.from_response(answer)

    def get_pages(
        self, url: str, method: str | None = None, parameters: dict[str, Any] | None = None
    ) -> Iterator[dict[str, Any]]:
        """Yield all pages of a search.

        Raises:
            CatalogError: A page is not a FeatureCollection, the pages lead in a circle or nowhere,
                or fewer items came than the catalog says that there are.
        """
        received, promised, empty = 0, 0, 0
        asked: set[str] = set()
        where: tuple[str, str, dict[str, Any] | None] = url, (method or "POST").upper(), parameters
        while True:
            question = json.dumps(where, sort_keys=True)
            if question in asked:
                raise CatalogError(
                    f"{redact_url(url)}: its pages lead in a circle after {received:,} items"
                )
            asked.add(question)
            page = self._page(*where)
            promised = max(promised, _matched(page))
            received += len(page["features"])
            empty = 0 if page["features"] else empty + 1
            if empty > _EMPTY_PAGES:
                raise CatalogError(
                    f"{redact_url(url)}: {empty} empty pages in a row name a next one; its search has no end"
                )
            yield page
            following = next(
                (one for one in links_of(page, "next") if isinstance(one.get("href"), str)), None
            )
            if following is None:
                break
            where = _next_page(where, following)
        if received < promised:
            raise CatalogError(
                f"{redact_url(url)} says that {promised:,} items match, and sent {received:,}: its answer is incomplete; "
                "run again later"
            )

    def _page(self, url: str, method: str, parameters: dict[str, Any] | None) -> dict[str, Any]:
        """One page that is a FeatureCollection; an error document with status 200 is asked for
        again.
        """
        told = ""
        for _ in range(self._limits.max_attempts):
            page = self.read_document(url, method, parameters)
            if page.get("type") == "FeatureCollection" and isinstance(page.get("features"), list):
                return page
            told = str(
                page.get("description")
                or page.get("message")
                or page.get("detail")
                or page.get("type")
                or ""
            )
            shutdown.wait(self._limits.retry_wait)
        raise CatalogError(
            f"{redact_url(url)}: the answer is not a FeatureCollection: {told[:200] or 'no description'}"
        )


def _body(answer: requests.Response) -> bytes:
    body = bytearray()
    until = time.monotonic() + _ANSWER_SECONDS
    try:
        for piece in answer.iter_content(2**16):
            body += piece
            if len(body) > _LARGEST_ANSWER:
                raise CatalogError(
                    f"{redact_url(answer.url)} sends more than {_LARGEST_ANSWER:,} bytes for one page"
                )
            if time.monotonic() > until:
                raise TransientError("its answer takes too long")
    except (requests.RequestException, OSError) as error:
        raise TransientError(f"its answer broke off: {type(error).__name__}") from None
    return bytes(body)


def _json_text(body: bytes) -> str:
    try:
        text = body.decode("utf-8")
        json.loads(text)
    except ValueError:
        kind = "an HTML page" if body.lstrip()[:1] == b"<" else "what is not JSON"
        raise TransientError(f"it answers with {kind}") from None
    return text


def _matched(page: dict[str, Any]) -> int:
    """Items that match, as the catalog says: by OGC API Features, or the older context
    extension.
    """
    context = page.get("context")
    told = page.get("numberMatched", context.get("matched") if isinstance(context, dict) else None)
    return told if isinstance(told, int) else 0


def _next_page(
    where: tuple[str, str, dict[str, Any] | None], link: dict[str, Any]
) -> tuple[str, str, dict[str, Any] | None]:
    """Where a next link leads: STAC API, section "Paging extension"."""
    url, _, parameters = where
    href, method = urljoin(url, link["href"]), str(link.get("method") or "GET").upper()
    if method != "POST":
        return href, method, None
    body = link.get("body")
    body = body if isinstance(body, dict) else {}
    return href, method, {**(parameters or {}), **body} if link.get("merge") else body


def describe_refusal(error: APIError) -> str:
    """What an API's refusal comes to, and what to try."""
    status, told = error.status_code, str(error).strip()[:500]
    hint = {
        401: "it needs an account: see docs/catalogs.md for the variables that hold its name and password",
        403: "the account may not search here",
        404: "there is no STAC API at this address: is it the root of the API?",
    }.get(status or 0, "")
    return "; ".join(part for part in (f"status {status}" if status else "", told, hint) if part)
