"""Objects of Google Cloud Storage: their errors, and parts of them as a file."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from google.api_core.exceptions import Forbidden, GoogleAPIError, NotFound
from google.auth.exceptions import GoogleAuthError

from scenebeam.errors import StorageError

_SIGN_IN = (
    "sign in with `gcloud auth application-default login`, or set GOOGLE_APPLICATION_CREDENTIALS "
    "to the key file of a service account"
)


class ObjectReader(io.RawIOBase):
    """Parts of one generation of an object, as a file."""

    def __init__(self, blob: Any, uri: str) -> None:
        self._blob, self._uri, self._position = blob, uri, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._blob.size}[whence]
        self._position = start + offset
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: Any) -> int:
        end = min(self._position + len(buffer), self._blob.size)
        if end <= self._position:
            return 0
        with storage_errors(f"cannot read {self._uri}"):
            # The end is inclusive. A part has no checksum of its own.
            data = self._blob.download_as_bytes(
                start=self._position, end=end - 1, raw_download=True, checksum=None
            )
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)


@contextmanager
def storage_errors(action: str) -> Iterator[None]:
    """Translate each error of Google's client into a StorageError: what failed, and what to try."""
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
