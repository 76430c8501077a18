"""Errors of Google's client, in the words of scenebeam."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from google.api_core.exceptions import Forbidden, GoogleAPIError, NotFound
from google.auth.exceptions import GoogleAuthError

from scenebeam.errors import StorageError

_SIGN_IN = (
    "sign in with `gcloud auth application-default login`, or set GOOGLE_APPLICATION_CREDENTIALS "
    "to the key file of a service account"
)


@contextmanager
def storage_errors(action: str) -> Iterator[None]:
    """Translate each error of Google's client into a StorageError: what failed, and what to try.

    Args:
        action: What failed, as the start of the message.
    """
    try:
        yield
    except Forbidden as error:
        raise StorageError(
            f"{action}: permission denied; give the account access to the bucket"
        ) from error
    except NotFound as error:
        raise StorageError(f"{action}: no such bucket or object") from error
    except GoogleAuthError as error:
        raise StorageError(f"{action}: no valid Google credentials; {_SIGN_IN}") from error
    except GoogleAPIError as error:
        raise StorageError(f"{action}: {error}") from error
