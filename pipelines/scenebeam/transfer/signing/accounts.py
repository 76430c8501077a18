"""Accounts: the credentials of catalogs, from the environment or from Google's Secret Manager.

A request names secrets by reference (`secret:projects/p/secrets/s/versions/latest`), which is all
that plans, options and logs hold. The secret itself is fetched where a file is opened, with the
account of the machine, and stays in this process.
"""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Mapping
from functools import cache
from typing import Any

from scenebeam.errors import ReadError

REFERENCE = "secret:"
_SERVER = "https://secretmanager.googleapis.com"
_SCOPE = "https://www.googleapis.com/auth/cloud-platform"
_references: dict[str, str] = {}
"""Name of a credential → reference, of the request that this process works on."""


def use_accounts(references: Mapping[str, str]) -> None:
    """Use the references of a request in this process, in place of the environment.

    Args:
        references: Name of a credential → `secret:projects/…/secrets/…/versions/…`.
    """
    # Each task says it again, while other threads look references up.
    if _references != references:
        _references.clear()
        _references.update(references)


def has_credential(name: str) -> bool:
    """Return whether a credential is given, without fetching it."""
    return bool(_references.get(name) or os.environ.get(name))


def credential(name: str) -> str:
    """Return a credential; empty if it is not given.

    Args:
        name: Its name, which is also that of the environment variable, such as `CDSE_PASSWORD`.

    Raises:
        ReadError: Its secret cannot be read: permanent if there is none of the name, or no access.
    """
    given = _references.get(name) or os.environ.get(name, "")
    return _fetch(given) if given.startswith(REFERENCE) else given


@cache
def _fetch(reference: str) -> str:
    from google.auth.exceptions import GoogleAuthError

    name = reference.removeprefix(REFERENCE)
    server = os.environ.get("SECRET_MANAGER_EMULATOR_HOST")
    url = f"{(server or _SERVER).rstrip('/')}/v1/{name}:access"
    try:
        response = _session(is_emulator=server is not None).get(url, timeout=30)
        status = response.status_code
    except (OSError, GoogleAuthError) as error:
        raise ReadError(
            f"{reference} cannot be read: {type(error).__name__}", permanent=False
        ) from None
    if status != 200:
        raise ReadError(
            f"{reference} cannot be read: Secret Manager returned {status}; does the account of "
            "the workers have roles/secretmanager.secretAccessor?",
            permanent=status < 500 and status != 429,
        )
    try:
        return base64.b64decode(response.json()["payload"]["data"]).decode().strip()
    except (KeyError, TypeError, ValueError, binascii.Error):
        raise ReadError(f"{reference} is no text") from None


def _session(*, is_emulator: bool) -> Any:
    """Return a session that sends the token of this machine's account."""
    import google.auth
    import requests
    from google.auth.transport.requests import AuthorizedSession

    if is_emulator:
        return requests.Session()
    credentials, _ = google.auth.default(scopes=[_SCOPE])
    return AuthorizedSession(credentials)
