"""Headers that this process has read, so that planning and making do not both ask for them.

A header is remembered with its validator (ETag or date) and the size of its file. Every later
response of the server is compared with them, see `RangeFile`. Nothing is remembered of files on
disk, which cost no round trip, and of servers that send no validator.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import NamedTuple

_MAX_FILES, _MAX_BYTES = 4096, 64 * 2**20
"""Limits of what is remembered; the least recently used header is dropped."""
_MAX_HEADER = 2**20
"""Bytes of one header: enough for 50,000 blocks."""


class Header(NamedTuple):
    """The first bytes of a file, and whatever else of its header was read."""

    size: int
    """Bytes of the file."""
    validator: str
    ranges: dict[int, bytes]
    """Bytes by the first of them; one entry is for byte 0."""

    @property
    def length(self) -> int:
        """Bytes that it holds."""
        return sum(map(len, self.ranges.values()))


_Key = tuple[str, str]
_headers: OrderedDict[_Key, Header] = OrderedDict()
_lock = threading.Lock()


def recall(href: str, signing: str) -> Header | None:
    """Return the header of a file, if it is remembered."""
    with _lock:
        header = _headers.get((href, signing))
        if header is not None:
            _headers.move_to_end((href, signing))
        return header


def remember(href: str, signing: str, header: Header) -> None:
    """Remember the header of a file, in place of what was known of it."""
    with _lock:
        _headers.pop((href, signing), None)
        if not header.validator or header.length > _MAX_HEADER:
            return
        _headers[href, signing] = header
        held = sum(known.length for known in _headers.values())
        while held > _MAX_BYTES or len(_headers) > _MAX_FILES:
            held -= _headers.popitem(last=False)[1].length


def forget(href: str, signing: str) -> None:
    """Forget the header of a file that has been replaced."""
    with _lock:
        _headers.pop((href, signing), None)


def forget_all() -> None:
    """Forget all headers: a new run reads files as they are now."""
    with _lock:
        _headers.clear()
