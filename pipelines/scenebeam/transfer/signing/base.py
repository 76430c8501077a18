"""What all signers share: the signed request, tokens that expire, and hrefs in parts."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from urllib.parse import SplitResult, urlsplit

from scenebeam.errors import ReadError

_RENEW_BEFORE = 60.0
"""Seconds before its expiry at which a token is renewed."""


@dataclass(frozen=True)
class SignedRequest:
    """The URL and headers that open a file now. They hold secrets, and are left out of its repr."""

    url: str = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    trusted: bool = False
    """Whether the settings of this machine name the server (an emulator, an own S3), which may
    then have a private address.
    """


class ExpiringToken:
    """A token that is fetched when it is first needed, and renewed before it expires."""

    def __init__(self, fetch: Callable[[], tuple[str, float]]) -> None:
        """Fetch nothing yet.

        Args:
            fetch: Returns a new token, and the seconds for which it is valid.
        """
        self._fetch, self._lock = fetch, threading.Lock()
        self._value, self._expires = "", 0.0

    def get(self) -> str:
        """Return a valid token. Of several threads that need a new one, one fetches it."""
        with self._lock:
            if time.monotonic() > self._expires - _RENEW_BEFORE:
                self._value, seconds = self._fetch()
                self._expires = time.monotonic() + seconds
            return self._value


def split_url(href: str) -> SplitResult:
    """Split an href into its parts.

    Raises:
        ReadError: It is neither a valid URL nor a path.
    """
    try:
        parts = urlsplit(href)
        _ = parts.port  # parsed on access
    except ValueError as error:
        raise ReadError(f"{redact_url(href)!r} is not a valid URL: {error}") from None
    # urllib3 ends the host at a backslash, as browsers do, while urlsplit does not. In
    # https://evil.example\@trusted.example, they see different hosts, and the credentials for
    # trusted.example would be sent to evil.example.
    if "\\" in parts.netloc:
        raise ReadError(f"{redact_url(href)!r} is not a valid URL: its host contains a backslash")
    return parts


def redact_url(href: str) -> str:
    """Remove user, password and query from an href: messages must not contain signatures."""
    try:
        parts = urlsplit(href)
    except ValueError:
        return href.partition("?")[0].rpartition("@")[2]
    if not parts.scheme:
        return href
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()
