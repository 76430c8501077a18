"""Join stored pieces into one file inside the store, without downloading them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from scenebeam.storage.crc32c import combine


class Piece(NamedTuple):
    """Consecutive bytes of a file that is composed later, stored under a key of their own."""

    key: str
    size: int
    crc32c: int


class Composer(ABC):
    """Composes files of a store from pieces. What it does can be repeated at any time."""

    @abstractmethod
    def write_piece(self, stem: str, chunks: Iterable[bytes]) -> Piece:
        """Store a piece.

        Args:
            stem: Start of its key. The CRC32C of its content follows, so a piece is never replaced
                by one with other bytes.
            chunks: Its content.
        """

    @abstractmethod
    def find_damaged(self, prefix: str, pieces: Iterable[Piece]) -> set[Piece]:
        """Return the pieces that do not exist, or differ in size or CRC32C.

        Args:
            prefix: Start of all keys.
            pieces: The pieces.
        """

    @abstractmethod
    def compose(self, pieces: Sequence[Piece], key: str, temporary: str) -> Piece:
        """Publish a file that consists of pieces, one after the other.

        The file appears complete, or not at all. If another worker publishes the same file at the
        same time, either one stays.

        Args:
            pieces: The pieces in order. They are kept.
            key: Key of the file.
            temporary: Start of the keys of temporary files, which the caller deletes afterward.

        Returns:
            The file, with its size and CRC32C.

        Raises:
            StorageError: A piece does not exist, or what is composed differs from what the sizes
                and checksums of the pieces foretell. The file is not published then.
        """


def join(pieces: Sequence[Piece], key: str) -> Piece:
    """Return what pieces are together, as a file of a given key: its size and CRC32C."""
    size, crc32c = 0, 0
    for piece in pieces:
        crc32c = combine(crc32c, piece.crc32c, piece.size)
        size += piece.size
    return Piece(key, size, crc32c)
