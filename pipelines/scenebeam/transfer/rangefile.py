"""A remote or local file that is read by byte ranges and caches what it has read."""

from __future__ import annotations

import io
import threading
from typing import Any

from scenebeam.errors import ReadError
from scenebeam.transfer.ranges import UNKNOWN_SIZE, read_range, read_range_and_size
from scenebeam.transfer.retry import Budget
from scenebeam.transfer.signing import redact_url

FIRST = 32 * 1024
"""Bytes of the first read of a file: enough for every IFD of a COG of about 1,500 blocks."""
_MAX_READ_AHEAD = 4 * 2**20
_CACHE_BYTES = 32 * 2**20
"""Bytes of ranges that are cached, in addition to the first."""


class RangeFile:
    """Random access to the bytes of a file, with sequential read-ahead and a cache of ranges.

    Thread-safe. The first ReadError is kept in `fault`, for readers such as GDAL that lose
    exceptions on their way through C.
    """

    def __init__(
        self, href: str, budget: Budget, signing: str = "none", *, fresh: bool = False
    ) -> None:
        """Open a file and read its first bytes.

        Args:
            href: Unsigned address of the file, or a local path.
            budget: The task's budget for retries.
            signing: The signing method of the file's collection record.
            fresh: Read independently of earlier reads: see `read_range`.

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
        if self.size == UNKNOWN_SIZE:
            # This may be one bad response, e.g. of a proxy: ask again, past all caches.
            self.size = read_range_and_size(href, 0, 1, budget, signing, fresh=True)[1]
        # Ranges read so far, by their first byte. `_last` is the most recent of them.
        self._ranges = {0: head}
        self._last, self._read_ahead = 0, FIRST

    @property
    def head(self) -> bytes:
        """The first bytes of the file: up to `FIRST`."""
        return self._ranges[0]

    def open(self, *, silent: bool = False) -> io.RawIOBase:
        """Open the file as a Python file object with a position of its own.

        Args:
            silent: Return no bytes, as at the end of the file, when a read fails, instead of
                raising. For callers in C, which cannot pass on exceptions; they check `fault`.
        """
        return _View(self, silent)

    def read_at(self, start: int, size: int) -> bytes:
        """Read `size` bytes from byte `start` on; fewer only if the file ends.

        Raises:
            ReadError: The range cannot be read, or the file is shorter than its declared size.
        """
        stop = min(start + size, self.size)
        if stop <= start:
            return b""
        with self._lock:
            # The most recent range first: sequential reads find their bytes there.
            for first in (self._last, *self._ranges):
                content = self._ranges[first]
                if first <= start and stop <= first + len(content):
                    return content[start - first : stop - first]
            return self._read_uncached(start, stop)

    def agrees_with(self, other: RangeFile) -> bool:
        """Compare with another reading of the same file, wherever both have read.

        Returns:
            Whether the sizes and all overlapping bytes are equal.
        """
        if self.size != other.size:
            return False
        for start, content in self._ranges.items():
            for other_start, other_content in other._ranges.items():
                low = max(start, other_start)
                high = min(start + len(content), other_start + len(other_content))
                if low >= high:
                    continue
                ours = content[low - start : high - start]
                if ours != other_content[low - other_start : high - other_start]:
                    return False
        return True

    def _read_uncached(self, start: int, stop: int) -> bytes:
        # A reader that continues where the last range ended is likely to continue further, so
        # the read-ahead doubles with each sequential read, and starts small after each seek.
        sequential = self._last <= start <= self._last + len(self._ranges[self._last])
        self._read_ahead = min(2 * self._read_ahead, _MAX_READ_AHEAD) if sequential else FIRST
        end = min(max(stop, start + self._read_ahead), self.size)
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
        self._ranges[start], self._last = body, start
        self._evict()
        return body[: stop - start]

    def _evict(self) -> None:
        """Drop the oldest ranges beyond the cache size; the first and the last range stay."""
        cached = sum(map(len, self._ranges.values()))
        for first in list(self._ranges)[1:-1]:
            if cached > _CACHE_BYTES:
                cached -= len(self._ranges.pop(first))


class _View(io.RawIOBase):
    """A file object on a RangeFile."""

    def __init__(self, file: RangeFile, silent: bool) -> None:
        self._file, self._silent, self._position = file, silent, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        origins = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._file.size}
        self._position = origins[whence] + offset
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
