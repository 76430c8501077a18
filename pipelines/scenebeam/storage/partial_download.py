"""A file that arrives in pieces, is verified, and is published only when it is complete."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable

from scenebeam.multihash import multihash


class PartialDownload(ABC):
    """The bytes of one file received so far, and their digests.

    The sequence is: `write` until the file is complete, `finish`, verify, `publish`. It is the
    target of `scenebeam.transfer.download`.
    """

    offset: int = 0
    """Bytes received so far."""
    total: int | None = None
    """Size of the whole file in bytes, if the server has declared it."""
    validator: str = ""
    """ETag or date of the file that the bytes belong to."""

    def __init__(self, algorithms: Iterable[str]) -> None:
        """Start with no bytes.

        Args:
            algorithms: Names in hashlib of the digests to compute, besides SHA-256.
        """
        self._algorithms = {"sha256", *algorithms}
        self._reset_digests()

    def write(self, data: bytes) -> None:
        """Append the next bytes."""
        self._append(data)
        self.update_digest(data)

    def update_digest(self, data: bytes) -> None:
        """Count and hash bytes that are stored already."""
        for digest in self._digests.values():
            digest.update(data)
        self.offset += len(data)

    def restart(self, validator: str, total: int | None) -> None:
        """Discard what has been received, as another file or version follows."""
        self._reset_digests()
        self.offset, self.validator, self.total = 0, validator, total
        self._discard()

    def digest(self, algorithm: str) -> str:
        """Return a digest of all bytes received so far, in hex."""
        return self._digests[algorithm].hexdigest()

    @property
    def checksum(self) -> str:
        """SHA-256 of all bytes received so far, as a multihash in hex (STAC's `file:checksum`)."""
        return multihash(self.digest("sha256"))

    @abstractmethod
    def check_free_space(self) -> None:
        """Raise StorageError if there is no space for the rest of the file."""

    @abstractmethod
    def finish(self) -> str:
        """Store the complete file, and return the URI where it can be read before it is published.

        Raises:
            StorageError: What is stored is not what was written.
        """

    @abstractmethod
    def publish(self) -> None:
        """Move the complete file to its key, atomically."""

    def _reset_digests(self) -> None:
        self._digests = {name: hashlib.new(name) for name in self._algorithms}

    @abstractmethod
    def _append(self, data: bytes) -> None: ...

    @abstractmethod
    def _discard(self) -> None:
        """Drop all stored bytes; `validator` and `total` are those of the next file."""
