"""A remote or local file that is read by byte ranges and caches what it has read."""

from __future__ import annotations

import io
import threading
from typing import Any

from scenebeam.errors import ReadError
from scenebeam.transfer import headers
from scenebeam.transfer.headers import Header
from scenebeam.transfer.ranges import UNKNOWN_SIZE, read_range_and_size, request_range
from scenebeam.transfer.retry import Budget
from scenebeam.transfer.signing import redact_url

FIRST = 32 * 1024
"""Bytes of the first read of a file: enough for every IFD of a COG of about 1,500 blocks."""
_MAX_READ_AHEAD = 4 * 2**20
_CACHE_BYTES = 32 * 2**20
"""Bytes of ranges that are cached, in addition to the first."""
_MAX_VALIDATORS = 4
"""Validators of the same content, from as many servers, after which they mean nothing."""


class RangeFile:
    """Random access to the bytes of a file, with sequential read-ahead and a cache of ranges.

    Thread-safe. The first ReadError is kept in `fault`, for readers such as GDAL that lose
    exceptions on their way through C.

    The header may be one that this process has read before. So each response is compared with its
    validator, and a file that has been replaced since then is noticed.
    """

    def __init__(
        self, href: str, budget: Budget, signing: str = "none", *, fresh: bool = False
    ) -> None:
        """Open a file and read its first bytes.

        Args:
            href: Unsigned address of the file, or a local path.
            budget: The task's budget for retries.
            signing: The signing method of the file's collection record.
            fresh: Read independently of earlier reads: see `read_range`. No header is taken from
                memory either.

        Raises:
            ReadError: The file cannot be read, or is empty.
        """
        self.href, self.signing = href, signing
        self.fault: ReadError | None = None
        self._budget, self._fresh = budget, fresh
        self._lock = threading.Lock()
        header = None if fresh else headers.recall(href, signing)
        if header is None:
            header = self._read_header()
            headers.remember(href, signing, header)
        self.size = header.size
        self._validators = [header.validator]
        # Ranges read so far, by their first byte. `_last` is the most recent of them.
        self._ranges = dict(header.ranges)
        self._last, self._read_ahead = 0, FIRST

    def _read_header(self) -> Header:
        head, size, validator = request_range(
            self.href, 0, FIRST, self._budget, self.signing, fresh=self._fresh
        )
        if not head:
            raise ReadError(f"{redact_url(self.href)} is an empty file")
        if size == UNKNOWN_SIZE:
            # This may be one bad response, e.g. of a proxy: ask again, past all caches.
            size = read_range_and_size(self.href, 0, 1, self._budget, self.signing, fresh=True)[1]
        return Header(size, validator, {0: head})

    @property
    def head(self) -> bytes:
        """The first bytes of the file: `FIRST`, or as many as `read_header_to` has read."""
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

    def read_range(self, start: int, stop: int, *, fresh: bool = False) -> bytes:
        """Read bytes [start, stop) from the server; they are not cached.

        Raises:
            ReadError: See `ranges.read_range`. Transient if the file was replaced since its header
                was read.
        """
        response = request_range(
            self.href, start, stop, self._budget, self.signing, fresh=fresh or self._fresh
        )
        self._check_unchanged(response.validator)
        return response.body

    def _check_unchanged(self, validator: str) -> None:
        known = self._validators
        if validator in known or not all(known) or not validator or len(known) > _MAX_VALIDATORS:
            return
        # Servers that share a file may have a validator each: compare the header itself.
        again = RangeFile(self.href, self._budget, self.signing, fresh=True)
        if not self.agrees_with(again):
            headers.forget(self.href, self.signing)
            raise ReadError(
                f"{redact_url(self.href)} was replaced while it was being read; run again later",
                permanent=False,
            )
        known.append(validator)

    def read_header_to(self, stop: int) -> None:
        """Read the header up to byte `stop` in one request, and remember it."""
        with self._lock:
            length = len(self.head)
            if not length < stop <= self.size:
                return
            rest = self.read_range(length, stop)
            if len(rest) == stop - length:
                self._ranges[0] = self.head + rest
                header = Header(self.size, self._validators[0], {0: self._ranges[0]})
                headers.remember(self.href, self.signing, header)

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
            body = self.read_range(start, end)
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
