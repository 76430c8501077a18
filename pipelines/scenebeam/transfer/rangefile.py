"""A file, remote or local, that is read piece by piece over range requests and remembers what it
has read.
"""

from __future__ import annotations

import io
import threading
from typing import Any

from scenebeam.errors import ReadError
from scenebeam.transfer.ranges import UNKNOWN_SIZE, Budget, read_range, read_range_and_size
from scenebeam.transfer.signing import redact_url

FIRST = 32 * 1024
"""Bytes of the first read of a file: holds every IFD of a COG of some 1,500 blocks."""
_MOST_AHEAD = 4 * 2**20
_KEPT = 32 * 2**20
"""Bytes of pieces that are kept, beside the first."""


class RangeFile:
    """The bytes of a file. Reading on where the last read ended reads ahead.

    Readers that lose exceptions on their way (GDAL) are asked afterwards: the first error stands in
    `fault`.
    """

    def __init__(
        self, href: str, budget: Budget, signing: str = "none", *, fresh: bool = False
    ) -> None:
        """Read the first bytes.

        Args:
            href: The file's unsigned address, or a path on this machine.
            budget: What the task may spend on tries.
            signing: How its record says that it is signed.
            fresh: Read it independently of earlier reads: see `read_range`.

        Raises:
            ReadError: The file cannot be read, or is empty.
        """
        self.href, self.signing = href, signing
        self.fault: ReadError | None = None
        self._budget, self._fresh = budget, fresh
        self._lock = threading.Lock()
        head, self.size = read_range_and_size(href, 0, FIRST, budget, signing, fresh=fresh)
        if not head:
            raise ReadError(f"{redact_url(href)} is an empty file")
        if self.size == UNKNOWN_SIZE:  # it may have been one bad answer
            self.size = read_range_and_size(href, 0, 1, budget, signing, fresh=True)[1]
        self._pieces = {0: head}
        self._last, self._ahead = 0, FIRST

    @property
    def head(self) -> bytes:
        """The first bytes of the file."""
        return self._pieces[0]

    def open(self, *, silent: bool = False) -> io.RawIOBase:
        """Open the file as an object of Python's, with a position of its own.

        Args:
            silent: Whether a read that fails comes back empty, as at the file's end, instead of
                raising: for callers in C, which cannot carry exceptions. `fault` tells of it.
        """
        return _View(self, silent)

    def read_at(self, start: int, size: int) -> bytes:
        """`size` bytes from byte `start` on, fewer only where the file ends. Raises ReadError."""
        stop = min(start + size, self.size)
        if stop <= start:
            return b""
        with self._lock:
            for first in (self._last, *self._pieces):
                piece = self._pieces[first]
                if first <= start and stop <= first + len(piece):
                    return piece[start - first : stop - first]
            return self._fetched(start, stop)

    def agrees_with(self, other: RangeFile) -> bool:
        """Whether another reading of the same file brought the same bytes, as far as both have
        read.
        """
        if self.size != other.size:
            return False
        for start, piece in self._pieces.items():
            for first, others in other._pieces.items():
                low, high = max(start, first), min(start + len(piece), first + len(others))
                if (
                    low < high
                    and piece[low - start : high - start] != others[low - first : high - first]
                ):
                    return False
        return True

    def _fetched(self, start: int, stop: int) -> bytes:
        # Who reads on where the last piece ended will read further: twice as much at a time.
        reads_on = self._last <= start <= self._last + len(self._pieces[self._last])
        self._ahead = min(2 * self._ahead, _MOST_AHEAD) if reads_on else FIRST
        end = min(max(stop, start + self._ahead), self.size)
        try:
            body = read_range(self.href, start, end, self._budget, self.signing, fresh=self._fresh)
        except ReadError as error:
            self.fault = self.fault or error
            raise
        if len(body) < stop - start:
            self.fault = ReadError(
                f"{redact_url(self.href)} is truncated: it ends at byte {start + len(body):,}"
            )
            raise self.fault
        self._pieces[start], self._last = body, start
        kept = sum(map(len, self._pieces.values()))
        for first in list(self._pieces)[1:-1]:
            if kept > _KEPT:
                kept -= len(self._pieces.pop(first))
        return body[: stop - start]


class _View(io.RawIOBase):
    """A position in a RangeFile."""

    def __init__(self, file: RangeFile, silent: bool) -> None:
        self._file, self._silent, self._position = file, silent, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._file.size}[whence]
        self._position = start + offset
        return self._position

    def read(self, size: int = -1) -> bytes:
        try:
            body = self._file.read_at(self._position, self._file.size if size < 0 else size)
        except ReadError:
            if not self._silent:
                raise
            return b""
        self._position += len(body)
        return body

    def readinto(self, buffer: Any) -> int:
        body = self.read(len(buffer))
        buffer[: len(body)] = body
        return len(body)
