"""PartialDownload: a file that comes in piece by piece from elsewhere, and is looked at before it appears under its name."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable

from scenebeam.multihash import multihash


class PartialDownload(ABC):
    """The bytes so far of one file, and their digests."""

    offset: int = 0
    """Bytes that are there."""
    total: int | None = None
    """Bytes of the whole file, where its server has said."""
    validator: str = ""
    """ETag or date of the file that they are of."""

    def __init__(self, algorithms: Iterable[str]) -> None:
        self._algorithms = {"sha256", *algorithms}
        self._hashes = {name: hashlib.new(name) for name in self._algorithms}

    def write(self, data: bytes) -> None:
        """The next bytes."""
        self._append(data)
        self.update_digest(data)

    def update_digest(self, data: bytes) -> None:
        """Count bytes that are there already."""
        for one in self._hashes.values():
            one.update(data)
        self.offset += len(data)

    def restart(self, validator: str, total: int | None) -> None:
        """Forget what is there: another file comes."""
        self._hashes = {name: hashlib.new(name) for name in self._algorithms}
        self.offset, self.validator, self.total = 0, validator, total
        self._empty()

    def digest(self, algorithm: str) -> str:
        """In hex, of all that is there."""
        return self._hashes[algorithm].hexdigest()

    @property
    def checksum(self) -> str:
        """SHA-256 of all that is there, as `file:checksum` wants it: multihash in hex."""
        return multihash(self.digest("sha256"))

    @abstractmethod
    def check_free_space(self) -> None:
        """Make sure that there is room for the rest. Raises StorageError."""

    @abstractmethod
    def finish(self) -> str:
        """All has come: where it can be read while it is not published yet."""

    @abstractmethod
    def publish(self) -> None:
        """Let the file appear under its name, whole."""

    @abstractmethod
    def _append(self, data: bytes) -> None: ...

    @abstractmethod
    def _empty(self) -> None: ...
