"""Signer of NASA's Earthdata Cloud: bearer tokens for https, temporary keys for its S3 storage.

The account is EARTHDATA_TOKEN, a token of https://urs.earthdata.nasa.gov. Objects at s3:// can be
read directly only in the region us-west-2 of AWS, so https is preferred elsewhere.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from typing import Any
from urllib.parse import quote, urlsplit

import urllib3

from scenebeam.errors import ReadError
from scenebeam.extras import import_extra
from scenebeam.transfer.signing.accounts import credential, has_credential
from scenebeam.transfer.signing.base import ExpiringToken, SignedRequest
from scenebeam.transfer.signing.s3 import sigv4_headers

EARTHDATA_HOSTS = ("earthdatacloud.nasa.gov", "earthdata.nasa.gov")
"""Tokens are sent only to hosts of these domains, whatever hosts an item names."""
TOKEN_SCHEMES = ("https",)
"""A token is not sent in the clear."""
REGION = "us-west-2"
KEY_SERVICES = {
    "lp-prod-": "https://data.lpdaac.earthdatacloud.nasa.gov/s3credentials",
    "asf-cumulus-": "https://cumulus.asf.earthdatacloud.nasa.gov/s3credentials",
}
"""Beginning of a bucket's name → service that issues temporary keys for it."""
_TOKEN = "EARTHDATA_TOKEN"
_KEYS = ("accessKeyId", "secretAccessKey", "sessionToken")


def preferred_schemes() -> Sequence[str]:
    """Return the schemes that there are credentials for."""
    if not has_credential(_TOKEN):
        return ()
    in_region = os.environ.get("AWS_REGION") == REGION
    return ("s3", "https") if in_region else ("https", "http")


def sign_http(href: str) -> SignedRequest:
    """Add a bearer token, if the host belongs to Earthdata.

    Servers redirect to signed URLs of other hosts, to which the token is not sent on.

    Raises:
        ReadError: There is no token.
    """
    parts = urlsplit(href)
    host = parts.hostname or ""
    if parts.scheme not in TOKEN_SCHEMES or not _is_earthdata(host):
        return SignedRequest(href)
    return SignedRequest(href, {"Authorization": f"Bearer {_token()}"})


def sign_s3(bucket: str, key: str) -> SignedRequest:
    """Sign a request to a protected bucket with temporary keys.

    Raises:
        ReadError: There is no token, or no service issues keys for the bucket.
    """
    url = f"https://{bucket}.s3.{REGION}.amazonaws.com/{quote(key)}"
    service = next((KEY_SERVICES[name] for name in KEY_SERVICES if bucket.startswith(name)), None)
    if service is None:
        raise ReadError(f"s3://{bucket}/{key}: no service of Earthdata issues keys for the bucket")
    credentials = import_extra("botocore.credentials", "aws", "reading s3:// of Earthdata")
    access, secret, session = _keys(service).get().split("\n")
    keys: Any = credentials.Credentials(access, secret, session)
    return SignedRequest(url, sigv4_headers(url, REGION, keys))


def _is_earthdata(host: str) -> bool:
    return any(host == domain or host.endswith(f".{domain}") for domain in EARTHDATA_HOSTS)


def _token() -> str:
    token = credential(_TOKEN)
    if not token:
        raise ReadError(
            "NASA's Earthdata requires an account: create a token at "
            f"https://urs.earthdata.nasa.gov, and set {_TOKEN}"
        )
    return token


@cache
def _keys(service: str) -> ExpiringToken:
    """Return the keys of this process for the buckets of a service."""
    return ExpiringToken(lambda: _fetch_keys(service))


def _fetch_keys(service: str) -> tuple[str, float]:
    """Fetch temporary keys: access key, secret and session token, and the seconds they last."""
    headers = {"Authorization": f"Bearer {_token()}"}
    try:
        response = urllib3.request("GET", service, headers=headers, timeout=30)
    except urllib3.exceptions.HTTPError as error:
        raise ReadError(
            f"{service} cannot be reached: {type(error).__name__}", permanent=False
        ) from None
    if response.status != 200:
        raise ReadError(
            f"{service} returned {response.status}: is {_TOKEN} still valid?",
            permanent=response.status < 500,
        )
    document = response.json()
    keys = "\n".join(str(document[name]) for name in _KEYS)
    expires = datetime.fromisoformat(str(document["expiration"]).replace(" ", "T", 1))
    expires = expires if expires.tzinfo else expires.replace(tzinfo=UTC)
    return keys, max(0.0, (expires - datetime.now(UTC)).total_seconds())
