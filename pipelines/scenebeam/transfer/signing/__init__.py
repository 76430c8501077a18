"""Signing: an unsigned href → the URL and headers that open the file now.

The hrefs of STAC items and of plans are unsigned. They are signed when a file is opened, and again
for each request, because tokens expire. The `signing` value of the collection record selects the
signer:

    none                 no signature
    planetary-computer   SAS tokens, from the planetary_computer package
    cdse                 bearer tokens for https, keys for s3: see `signing.cdse`
    earthdata            bearer tokens for https, temporary keys for s3: `signing.earthdata`
    s3                   AWS signature version 4: see `signing.s3`
    s3-requester-pays    the same, and the reader accepts the charges

Objects of Google Cloud Storage (`gs://`) are opened with the account of this machine, whatever the
value. Only the signers read secrets, and secrets leave them only in a SignedRequest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from scenebeam.errors import ReadError
from scenebeam.request import KNOWN_CATALOGS, Limits, RunRequest, is_remote
from scenebeam.transfer.addresses import is_metadata, is_private
from scenebeam.transfer.signing import cdse, earthdata, google, planetary_computer, s3
from scenebeam.transfer.signing.base import SignedRequest, redact_url, split_url

__all__ = [
    "SignedRequest",
    "effective_limits",
    "preferred_href",
    "redact_url",
    "sign",
    "split_url",
]


def _prefer_unsigned() -> Sequence[str]:
    # s3 is the last choice: without a signature, only public buckets can be read. The Planetary
    # Computer, too, signs only https URLs.
    return ("https", "http", "gs", "", "file")


def _prefer_s3() -> Sequence[str]:
    return ("s3",)


@dataclass(frozen=True)
class Signer:
    """How the files of a collection are opened, by the scheme of their hrefs."""

    sign_http: Callable[[str], SignedRequest] = SignedRequest
    """Signs an http(s) URL."""
    sign_s3: Callable[[str, str], SignedRequest] = s3.unsigned
    """Signs a bucket and a key."""
    preferred_schemes: Callable[[], Sequence[str]] = _prefer_unsigned
    """Returns the schemes that can be read, given the credentials of this machine."""


_UNSIGNED = Signer()
_SIGNERS = {
    "none": _UNSIGNED,
    "planetary-computer": Signer(sign_http=planetary_computer.sign_http),
    "cdse": Signer(cdse.sign_http, cdse.sign_s3, cdse.preferred_schemes),
    "earthdata": Signer(earthdata.sign_http, earthdata.sign_s3, earthdata.preferred_schemes),
    "s3": Signer(sign_s3=s3.sign, preferred_schemes=_prefer_s3),
    "s3-requester-pays": Signer(sign_s3=s3.sign_requester_pays, preferred_schemes=_prefer_s3),
}


def sign(href: str, signing: str = "none") -> SignedRequest | None:
    """Sign an href. Call it anew for each request, because tokens expire.

    Args:
        href: Unsigned address of a file, or a local path.
        signing: The signing method of the file's collection record; an unknown one signs nothing.

    Returns:
        The URL and headers that open the file now; None for a local file.

    Raises:
        ReadError: Credentials are missing (the message names them), the scheme is not supported,
            or the host is a metadata server.
    """
    parts = split_url(href)
    signer = _SIGNERS.get(signing, _UNSIGNED)
    if parts.scheme in ("", "file"):
        return None
    if parts.scheme == "s3":
        return signer.sign_s3(parts.netloc, parts.path.lstrip("/"))
    if parts.scheme == "gs":
        return google.sign_gs(parts.netloc, parts.path)
    if parts.scheme not in ("http", "https"):
        raise ReadError(
            f"{redact_url(href)}: scenebeam reads http(s), gs, s3 and local files, "
            f"not {parts.scheme}"
        )
    # Connections check the address as well. This check comes before any token is fetched.
    if is_metadata(parts.hostname or ""):
        raise ReadError(
            f"{redact_url(href)} is at a link-local or cloud metadata address, where machines "
            "obtain their own credentials: refused"
        )
    return signer.sign_http(href)


def preferred_href(hrefs: Sequence[str], signing: str) -> str:
    """Choose among alternate hrefs of one file.

    Args:
        hrefs: The hrefs, in the order of the item.
        signing: The signing method of the file's collection record.

    Returns:
        The first href that this machine has the credentials for; without one, the first of all.
    """
    schemes = _SIGNERS.get(signing, _UNSIGNED).preferred_schemes()
    return next((href for href in hrefs if urlsplit(href).scheme in schemes), hrefs[0])


def effective_limits(request: RunRequest) -> Limits:
    """Return a request's limits, which allow private addresses if its own catalog has one.

    The items of a local catalog may refer to private addresses too: it is the user's own.
    """
    limits = request.limits
    # Of several catalogs, one at a public address decides for all of them.
    allowed = limits.private_addresses or all(map(_is_private_catalog, request.catalogs))
    return limits.model_copy(update={"private_addresses": allowed})


def _is_private_catalog(catalog: str) -> bool:
    if not is_remote(catalog):
        return True
    signed = sign(KNOWN_CATALOGS.get(catalog, catalog))
    host = urlsplit(signed.url).hostname if signed is not None else None
    return host is None or is_private(host)
