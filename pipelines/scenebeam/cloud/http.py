"""HTTP: requests and responses of the status function, without a web framework."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

SECURITY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'unsafe-inline'; img-src 'self'; form-action 'self'; "
        "base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


@dataclass(frozen=True)
class HttpResponse:
    """An HTTP response."""

    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class HttpRequest:
    """The parts of an HTTP request that matter here."""

    method: str
    path: str
    query: Mapping[str, str]
    accept: str = ""
    """Header `Accept`."""
    etag: str = ""
    """Header `If-None-Match`."""

    @property
    def wants_html(self) -> bool:
        """Whether the client is a browser."""
        return "text/html" in self.accept


def respond(
    body: bytes,
    content_type: str,
    cache_control: str,
    request: HttpRequest,
    headers: Mapping[str, str] | None = None,
) -> HttpResponse:
    """Serve a body, or 304 if the client already has it.

    Args:
        body: The body.
        content_type: Header `Content-Type`.
        cache_control: Header `Cache-Control`.
        request: The request.
        headers: Headers that replace the usual ones.
    """
    etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    complete = {
        "Content-Type": content_type,
        "ETag": etag,
        "Cache-Control": cache_control,
        "Vary": "Accept",
        **SECURITY_HEADERS,
        **(headers or {}),
    }
    # If-None-Match compares weakly (RFC 9110 section 13.1.2), so the prefix W/ is ignored.
    known = [tag.strip().removeprefix("W/") for tag in request.etag.split(",")]
    if etag in known:
        return HttpResponse(304, b"", complete)
    return HttpResponse(200, body, complete)
