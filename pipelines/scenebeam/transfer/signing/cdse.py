"""Signer of the Copernicus Data Space (CDSE): bearer tokens for https, keys for its S3 storage.

Its credentials (see `signing.accounts`) are CDSE_ACCESS_TOKEN, or CDSE_USERNAME and CDSE_PASSWORD,
for https; CDSE_S3_ACCESS_KEY and CDSE_S3_SECRET_KEY for s3.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import urllib3

from scenebeam.errors import ReadError
from scenebeam.extras import import_extra
from scenebeam.transfer.signing.accounts import credential, has_credential
from scenebeam.transfer.signing.base import ExpiringToken, SignedRequest
from scenebeam.transfer.signing.s3 import sigv4_headers

CDSE_HOST = "dataspace.copernicus.eu"
"""Tokens are sent only to hosts of this domain, whatever hosts an item names."""
CDSE_S3 = "https://eodata.dataspace.copernicus.eu"
CDSE_TOKENS = (
    "https://identity.dataspace.copernicus.eu/auth/realms/CDSE/protocol/openid-connect/token"
)
_FORM = {"Content-Type": "application/x-www-form-urlencoded"}
_RETRIES = urllib3.Retry(
    4,
    status_forcelist=(429, 500, 502, 503, 504),
    allowed_methods=None,
    backoff_factor=0.5,
    raise_on_status=False,
)


def preferred_schemes() -> Sequence[str]:
    """Return the schemes that there are credentials for."""
    if has_credential("CDSE_S3_ACCESS_KEY") and has_credential("CDSE_S3_SECRET_KEY"):
        return ("s3",)
    return ("https", "http") if _has_account() else ()


def sign_http(href: str) -> SignedRequest:
    """Add a bearer token, if the host belongs to CDSE.

    Raises:
        ReadError: There are no credentials, or the login has failed.
    """
    host = urlsplit(href).hostname or ""
    if host != CDSE_HOST and not host.endswith(f".{CDSE_HOST}"):
        return SignedRequest(href)
    return SignedRequest(href, {"Authorization": f"Bearer {_access_token()}"})


def sign_s3(bucket: str, key: str) -> SignedRequest:
    """Sign a request to the S3 storage of CDSE, with AWS signature version 4.

    Raises:
        ReadError: The environment has no keys.
    """
    url = f"{CDSE_S3}/{bucket}/{quote(key)}"
    credentials = _s3_credentials()
    if credentials is None:
        raise ReadError(
            f"s3://{bucket}/{key} requires a signature, and there are no credentials: "
            "set CDSE_S3_ACCESS_KEY and CDSE_S3_SECRET_KEY"
        )
    return SignedRequest(url, sigv4_headers(url, "default", credentials))


def _s3_credentials() -> Any:
    names = ("CDSE_S3_ACCESS_KEY", "CDSE_S3_SECRET_KEY")
    if not all(map(has_credential, names)):
        return None
    key, secret = map(credential, names)
    credentials = import_extra("botocore.credentials", "aws", "reading with CDSE_S3_ACCESS_KEY")
    return credentials.Credentials(key, secret)


def _has_account() -> bool:
    has_login = has_credential("CDSE_USERNAME") and has_credential("CDSE_PASSWORD")
    return has_login or has_credential("CDSE_ACCESS_TOKEN")


def _access_token() -> str:
    if token := credential("CDSE_ACCESS_TOKEN"):
        return token
    if not _has_account():
        raise ReadError(
            "the Copernicus Data Space requires an account: set CDSE_USERNAME and CDSE_PASSWORD, "
            "or CDSE_ACCESS_TOKEN; to read from its S3 storage instead, set CDSE_S3_ACCESS_KEY and "
            "CDSE_S3_SECRET_KEY when planning"
        )
    return _login().get()


@cache
def _login() -> ExpiringToken:
    """Return the token of this process."""
    return ExpiringToken(_fetch_token)


def _fetch_token() -> tuple[str, float]:
    fields = {
        "client_id": "cdse-public",
        "grant_type": "password",
        "username": credential("CDSE_USERNAME"),
        "password": credential("CDSE_PASSWORD"),
    }
    try:
        response = urllib3.request(
            "POST", CDSE_TOKENS, body=urlencode(fields), headers=_FORM, timeout=30, retries=_RETRIES
        )
    except urllib3.exceptions.HTTPError as error:
        raise ReadError(
            f"{CDSE_TOKENS} cannot be reached: {type(error).__name__}", permanent=False
        ) from None
    if response.status != 200:
        raise ReadError(
            f"{CDSE_TOKENS} returned {response.status}: check CDSE_USERNAME and CDSE_PASSWORD",
            permanent=response.status < 500,
        )
    document = response.json()
    return str(document["access_token"]), float(document.get("expires_in", 600))
