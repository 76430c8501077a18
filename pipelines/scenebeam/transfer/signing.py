"""Access: an unsigned href → the URL and headers that open it now. Secrets are read here, and go no
further.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any
from urllib.parse import SplitResult, quote, urlencode, urlsplit

import urllib3

from scenebeam.errors import ReadError
from scenebeam.request import KNOWN_CATALOGS, Limits, RunRequest, is_remote
from scenebeam.transfer.addresses import is_metadata, is_private

CDSE_HOST = "dataspace.copernicus.eu"
"""A CDSE token is sent to hosts of this domain and to no other, whatever an item names."""
CDSE_S3 = "https://eodata.dataspace.copernicus.eu"
CDSE_TOKENS = (
    "https://identity.dataspace.copernicus.eu/auth/realms/CDSE/protocol/openid-connect/token"
)
_FORM = {"Content-Type": "application/x-www-form-urlencoded"}
_TRIES = urllib3.Retry(
    4,
    status_forcelist=(429, 500, 502, 503, 504),
    allowed_methods=None,
    backoff_factor=0.5,
    raise_on_status=False,
)
_RENEW_BEFORE = 60.0
"""Seconds before its end at which a token is renewed."""


@dataclass(frozen=True)
class SignedRequest:
    """How to ask for a file now. What it holds is secret: it has no text form."""

    url: str = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    trusted: bool = False
    """Whether this machine's own settings name the server (an emulator), which may then be at a
    private address.
    """


def sign(href: str, signing: str = "none") -> SignedRequest | None:
    """What opens `href` at this moment; None for a file of this machine. Ask anew for each request:
    tokens expire.

    `signing` is a record's: `none`; `planetary-computer` (its package fetches and renews SAS
    tokens); `cdse` (CDSE_ACCESS_TOKEN, or CDSE_USERNAME and CDSE_PASSWORD, for https;
    CDSE_S3_ACCESS_KEY and CDSE_S3_SECRET_KEY for s3); `s3` and `s3-requester-pays` (AWS credentials
    wherever botocore finds them). Raises ReadError where a secret is missing (and names it), or the
    href is of an unknown kind.
    """
    parts = split_url(href)
    if parts.scheme in ("", "file"):
        return None
    if parts.scheme == "s3":
        return _s3(parts.netloc, parts.path.lstrip("/"), signing)
    if parts.scheme == "gs":
        host = os.environ.get("STORAGE_EMULATOR_HOST")
        headers = {} if host else _google_headers()
        server = (host or "https://storage.googleapis.com").rstrip("/")
        return SignedRequest(
            f"{server}/{parts.netloc}{quote(parts.path)}", headers, trusted=host is not None
        )
    if parts.scheme not in ("http", "https"):
        raise ReadError(
            f"{redact_url(href)}: scenebeam reads http(s), gs, s3 and local files, not {parts.scheme}"
        )
    if is_metadata(parts.hostname or ""):
        raise ReadError(
            f"{redact_url(href)} is no place for images: it is where a machine in the cloud finds its own keys"
        )
    if signing == "planetary-computer":
        return SignedRequest(_planetary_computer(href))
    if signing == "cdse" and _is_cdse(parts.hostname or ""):
        return SignedRequest(href, {"Authorization": f"Bearer {_cdse_token()}"})
    return SignedRequest(href)


def split_url(href: str) -> SplitResult:
    """Split an href into its parts. Raises ReadError where it is not a URL, nor a path."""
    try:
        parts = urlsplit(href)
        _ = parts.port
    except ValueError as error:
        raise ReadError(f"{redact_url(href)!r} is not a URL: {error}") from None
    # urllib3 ends a host at a backslash, as browsers do, and would send the keys of the host that
    # stands here behind it to another one.
    if "\\" in parts.netloc:
        raise ReadError(f"{redact_url(href)!r} is not a URL: there is a backslash in its host")
    return parts


def effective_limits(request: RunRequest) -> Limits:
    """The request's limits, with private addresses allowed where its own catalog is at one.

    A file of this machine is its user's own catalog: whatever it names was meant.
    """
    limits = request.limits
    if (
        limits.private_addresses
        or not isinstance(request.catalog, str)
        or not is_remote(request.catalog)
    ):
        return limits.model_copy(update={"private_addresses": True})
    where = sign(KNOWN_CATALOGS.get(request.catalog, request.catalog))
    host = urlsplit(where.url).hostname if where is not None else None
    return limits.model_copy(update={"private_addresses": host is None or is_private(host)})


def redact_url(href: str) -> str:
    """An href for messages: without user, password and query, where signatures stand."""
    try:
        parts = urlsplit(href)
    except ValueError:
        return href.partition("?")[0].rpartition("@")[2]
    if not parts.scheme:
        return href
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()


def preferred_href(hrefs: Sequence[str], signing: str) -> str:
    """Of the places where one file lies, the first that this machine has the keys for; else the
    first of all.
    """
    if signing == "cdse":
        wanted = ["s3"] if _cdse_keys() else ["https", "http"] if _has_cdse_token() else []
    elif signing in ("s3", "s3-requester-pays"):
        wanted = ["s3"]
    else:
        # Without a signature, s3 is read only where nothing else is offered; Azure signs its own addresses alone.
        wanted = ["https", "http", "gs", "", "file"]
    return next((href for href in hrefs if urlsplit(href).scheme in wanted), hrefs[0])


def _planetary_computer(href: str) -> str:
    import planetary_computer

    try:
        signed: str = planetary_computer.sign_url(href)
    except Exception as error:
        raise ReadError(
            f"{redact_url(href)} cannot be signed at the Planetary Computer ({type(error).__name__}): run again later",
            permanent=False,
        ) from None
    return signed


class _Token:
    """A secret that lasts for a while, fetched when it is needed and renewed before it ends."""

    def __init__(self, fetch: Callable[[], tuple[str, float]]) -> None:
        self._fetch, self._lock = fetch, threading.Lock()
        self._value, self._until = "", 0.0

    def __call__(self) -> str:
        with self._lock:
            if time.monotonic() > self._until - _RENEW_BEFORE:
                self._value, seconds = self._fetch()
                self._until = time.monotonic() + seconds
            return self._value


def _is_cdse(host: str) -> bool:
    return host == CDSE_HOST or host.endswith(f".{CDSE_HOST}")


def _has_cdse_token() -> bool:
    return (
        "CDSE_ACCESS_TOKEN" in os.environ or {"CDSE_USERNAME", "CDSE_PASSWORD"} <= os.environ.keys()
    )


def _cdse_token() -> str:
    if "CDSE_ACCESS_TOKEN" in os.environ:
        return os.environ["CDSE_ACCESS_TOKEN"]
    if not _has_cdse_token():
        raise ReadError(
            "the Copernicus Data Space wants an account: set CDSE_USERNAME and CDSE_PASSWORD, or CDSE_ACCESS_TOKEN; "
            "or CDSE_S3_ACCESS_KEY and CDSE_S3_SECRET_KEY when planning, to read from its S3"
        )
    return _cdse_login()()


@cache
def _cdse_login() -> _Token:
    return _Token(_fetch_cdse_token)


def _fetch_cdse_token() -> tuple[str, float]:
    fields = {
        "client_id": "cdse-public",
        "grant_type": "password",
        "username": os.environ["CDSE_USERNAME"],
        "password": os.environ["CDSE_PASSWORD"],
    }
    try:
        answer = urllib3.request(
            "POST", CDSE_TOKENS, body=urlencode(fields), headers=_FORM, timeout=30, retries=_TRIES
        )
    except urllib3.exceptions.HTTPError as error:
        raise ReadError(
            f"{CDSE_TOKENS} cannot be asked: {type(error).__name__}", permanent=False
        ) from None
    if answer.status != 200:
        raise ReadError(
            f"{CDSE_TOKENS} answers {answer.status}: are CDSE_USERNAME and CDSE_PASSWORD right?",
            permanent=answer.status < 500,
        )
    document = answer.json()
    return str(document["access_token"]), float(document.get("expires_in", 600))


def _google_headers() -> dict[str, str]:
    """A token of the account that this machine runs as; none where there is no account: public
    buckets need none.
    """
    token = _google_login()()
    return {"Authorization": f"Bearer {token}"} if token else {}


@cache
def _google_login() -> _Token:
    import google.auth
    from google.auth.exceptions import DefaultCredentialsError, GoogleAuthError
    from google.auth.transport.requests import Request

    try:
        credentials, _ = google.auth.default(
            scopes=["https://www.googleapis.com/auth/devstorage.read_only"]
        )
    except DefaultCredentialsError:
        return _Token(lambda: ("", 1e9))

    def fetch() -> tuple[str, float]:
        try:
            credentials.refresh(Request())
        except GoogleAuthError as error:
            raise ReadError(
                f"Google Cloud gives no token: {type(error).__name__}", permanent=False
            ) from None
        return credentials.token, 3000.0

    return _Token(fetch)


def _s3(bucket: str, key: str, signing: str) -> SignedRequest:
    """An object of S3 by its plain URL, with AWS signature version 4 in the headers where it must
    be signed.
    """
    if signing == "cdse":
        endpoint, region, credentials = CDSE_S3, "default", _cdse_keys()
        wanted = "CDSE_S3_ACCESS_KEY and CDSE_S3_SECRET_KEY"
    else:
        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
        region = os.environ.get("AWS_REGION", "us-east-1") if endpoint else _bucket_region(bucket)
        credentials = None if signing == "none" else _aws_keys()
        wanted = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
    place = (
        f"{endpoint.rstrip('/')}/{bucket}"
        if endpoint
        else f"https://{bucket}.s3.{region}.amazonaws.com"
    )
    url = f"{place}/{quote(key)}"
    trusted = bool(endpoint) and signing != "cdse"
    if signing not in ("cdse", "s3", "s3-requester-pays"):
        return SignedRequest(url, trusted=trusted)
    if credentials is None:
        raise ReadError(f"s3://{bucket}/{key} must be signed, and there are no keys: set {wanted}")
    from botocore.auth import S3SigV4Auth
    from botocore.awsrequest import AWSRequest

    payer = {"x-amz-request-payer": "requester"} if signing == "s3-requester-pays" else {}
    request = AWSRequest(method="GET", url=url, headers=payer)
    S3SigV4Auth(credentials, "s3", region).add_auth(request)
    return SignedRequest(url, dict(request.headers.items()), trusted=trusted)


def _cdse_keys() -> Any:
    from botocore.credentials import Credentials

    key, secret = os.environ.get("CDSE_S3_ACCESS_KEY"), os.environ.get("CDSE_S3_SECRET_KEY")
    return Credentials(key, secret) if key and secret else None


def _aws_keys() -> Any:
    return _aws_session().get_credentials()


@cache
def _aws_session() -> Any:
    import botocore.session

    return botocore.session.Session()


@cache
def _bucket_region(bucket: str) -> str:
    """AWS tells a bucket's region to everybody, even with a refusal."""
    try:
        answer = urllib3.request(
            "HEAD", f"https://{bucket}.s3.amazonaws.com", redirect=False, timeout=30
        )
    except urllib3.exceptions.HTTPError as error:
        raise ReadError(
            f"s3://{bucket} cannot be found: {type(error).__name__}", permanent=False
        ) from None
    return answer.headers.get("x-amz-bucket-region") or os.environ.get("AWS_REGION", "us-east-1")
