"""Directories of a TIFF: how far a file must reach to hold all that its header speaks of.

The header is not trusted: nothing is read from outside the file, no chain of directories is followed
in a circle, and memory is bounded by the file's size.
"""

from __future__ import annotations

import struct
from io import RawIOBase
from typing import BinaryIO, NamedTuple

import numpy as np

File = BinaryIO | RawIOBase

_LETTERS = {
    **dict.fromkeys((1, 2, 6, 7), "B"),
    **dict.fromkeys((3, 8), "H"),
    **dict.fromkeys((4, 9, 11, 13), "I"),
    **dict.fromkeys((5, 10, 12, 16, 17, 18), "Q"),
}
"""TIFF's types (TIFF 6.0 section 2, and BigTIFF), as `struct` has whole numbers of their size."""
_OFFSETS, _SIZES = (324, 273), (325, 279)
"""Tags that say where tiles or strips lie, and how many bytes they have."""
_MOST_DIRECTORIES, _MOST_ENTRIES = 1000, 4096


class _Format(NamedTuple):
    """How a file writes its directories: classic TIFF and BigTIFF, in both byte orders."""

    order: str
    count_of_entries: str
    offset: str
    """An offset, and the number of values."""

    def size(self, form: str) -> int:
        """Bytes of some fields."""
        return struct.calcsize(self.order + form)

    def read(self, form: str, content: bytes, start: int = 0) -> tuple[int, ...]:
        """Fields out of some bytes."""
        return struct.unpack_from(self.order + form, content, start)


class _Values(NamedTuple):
    """Where the values of a tag lie."""

    letter: str
    start: int
    stop: int


def end_of(file: File, size: int) -> int:
    """Find the byte after the last one that a TIFF's header speaks of.

    Args:
        file: The file; it is read and sought.
        size: Its length in bytes.

    Returns:
        Where directories, values of tags, and blocks end; beyond `size` where the file is truncated.

    Raises:
        ValueError: It is no TIFF.
    """
    head = _read(file, 0, 16)
    order = {b"II": "<", b"MM": ">"}.get(head[:2])
    if order is None or len(head) < 16:
        raise ValueError("it is no TIFF")
    big = struct.unpack_from(f"{order}H", head, 2)[0] == 43
    form = _Format(order, "Q", "Q") if big else _Format(order, "H", "I")
    (start,) = form.read(form.offset, head, 8 if big else 4)
    end, seen = 0, set[int]()
    while start and start not in seen and len(seen) < _MOST_DIRECTORIES:
        seen.add(start)
        tags, stop, start = _directory(file, start, size, form)
        blocks = _blocks_end(file, tags, size, form)
        end = max(end, stop, blocks, *(values.stop for values in tags.values()))
    return end


def _directory(
    file: File, start: int, size: int, form: _Format
) -> tuple[dict[int, _Values], int, int]:
    """Values by tag, the byte after the directory, and where the next one lies; 0 if nowhere."""
    first = start + form.size(form.count_of_entries)
    if first > size:
        return {}, first, 0
    (count,) = form.read(form.count_of_entries, _read(file, start, first - start))
    each = form.size("HH" + 2 * form.offset)
    last = first + each * count
    stop = last + form.size(form.offset)
    if count > _MOST_ENTRIES:  # no directory at all
        return {}, 0, 0
    if stop > size:
        return {}, stop, 0
    body = _read(file, first, stop - first)
    tags = {}
    for number in range(count):
        tag, kind, values = form.read("HH" + form.offset, body, number * each)
        if kind not in _LETTERS:
            continue
        letter = _LETTERS[kind]
        place = first + number * each + form.size("HH" + form.offset)
        if values * form.size(letter) > form.size(form.offset):
            (place,) = form.read(form.offset, body, place - first)
        tags[tag] = _Values(letter, place, place + values * form.size(letter))
    return tags, stop, form.read(form.offset, body, last - first)[0]


def _blocks_end(file: File, tags: dict[int, _Values], size: int, form: _Format) -> int:
    """The byte after the last block of an image; 0 where its header does not say."""
    offsets = next((tags[tag] for tag in _OFFSETS if tag in tags), None)
    sizes = next((tags[tag] for tag in _SIZES if tag in tags), None)
    if offsets is None or sizes is None or max(offsets.stop, sizes.stop) > size:
        return 0
    starts, lengths = _numbers(file, offsets, form), _numbers(file, sizes, form)
    count = min(len(starts), len(lengths))
    written = lengths[:count] > 0
    if not written.any():
        return 0
    starts, lengths = starts[:count][written], lengths[:count][written]
    # Found as floats, whose sums do not wrap around; then added up exactly.
    last = int(np.argmax(starts.astype(float) + lengths))
    return int(starts[last]) + int(lengths[last])


def _numbers(
    file: File, values: _Values, form: _Format
) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
    body = _read(file, values.start, values.stop - values.start)
    dtype = np.dtype(f"{form.order}u{form.size(values.letter)}")
    return np.frombuffer(body, dtype, len(body) // dtype.itemsize).astype(np.uint64)


def _read(file: File, start: int, size: int) -> bytes:
    file.seek(start)
    return file.read(size) or b""
