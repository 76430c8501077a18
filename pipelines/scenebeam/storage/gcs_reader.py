"""Parts of an object of Google Cloud Storage, as a file."""

from __future__ import annotations

import io
import os
from typing import Any

from scenebeam.storage.gcs_errors import storage_errors


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
