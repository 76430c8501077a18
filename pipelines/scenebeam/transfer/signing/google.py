"""Signer of Google Cloud Storage: an OAuth token of the account that this machine runs as.

STORAGE_EMULATOR_HOST names an emulator, which needs no token.
"""

from __future__ import annotations

import os
from functools import cache
from urllib.parse import quote

from scenebeam.errors import ReadError
from scenebeam.transfer.signing.base import ExpiringToken, SignedRequest

_SERVER = "https://storage.googleapis.com"
_READ_ONLY = "https://www.googleapis.com/auth/devstorage.read_only"
_TOKEN_SECONDS = 3000.0
"""After which a token is fetched anew. Google's tokens are valid for an hour."""


def sign_gs(bucket: str, path: str) -> SignedRequest:
    """Return the URL of an object, and a token if this machine has a Google Cloud account.

    Args:
        bucket: Name of the bucket.
        path: Path of the object, with its leading slash.

    Raises:
        ReadError: Google's token service is unavailable (not permanent).
    """
    emulator = os.environ.get("STORAGE_EMULATOR_HOST")
    server = (emulator or _SERVER).rstrip("/")
    # Without an account there is no token: public buckets need none.
    token = None if emulator else _login().get()
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    return SignedRequest(f"{server}/{bucket}{quote(path)}", headers, trusted=emulator is not None)


@cache
def _login() -> ExpiringToken:
    """Return the token of this process; without an account, one that is always empty."""
    import google.auth
    from google.auth.exceptions import DefaultCredentialsError, GoogleAuthError
    from google.auth.transport.requests import Request

    try:
        credentials, _ = google.auth.default(scopes=[_READ_ONLY])
    except DefaultCredentialsError:
        return ExpiringToken(lambda: ("", 1e9))

    def fetch() -> tuple[str, float]:
        try:
            credentials.refresh(Request())
        except GoogleAuthError as error:
            raise ReadError(
                f"Google Cloud did not issue a token: {type(error).__name__}", permanent=False
            ) from None
        return credentials.token, _TOKEN_SECONDS

    return ExpiringToken(fetch)
