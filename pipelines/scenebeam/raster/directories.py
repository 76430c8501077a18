"""Directories of a TIFF: how long a file must be to contain everything that its header refers to.

The header is not trusted. Nothing is read from outside the file, a chain of directories that leads
back into itself ends there, and memory is bounded by the size of the file.
"""

from __future__ import annotations

import struct
from io import BytesIO, RawIOBase
from typing import BinaryIO, NamedTuple

import numpy as np

File = BinaryIO | RawIOBase

_TYPE_CODES = {
    **dict.fromkeys((1, 2, 6, 7), "B"),
    **dict.fromkeys((3, 8), "H"),
    **dict.fromkeys((4, 9, 11, 13), "I"),
    **dict.fromkeys((5, 10, 12, 16, 17, 18), "Q"),
}
"""TIFF types (TIFF 6.0 section 2, and BigTIFF) → `struct` codes of integers of the same size."""
_OFFSET_TAGS = (324, 273)
"""TileOffsets, StripOffsets."""
_SIZE_TAGS = (325, 279)
"""TileByteCounts, StripByteCounts."""
_MAX_DIRECTORIES, _MAX_ENTRIES = 1000, 4096


class _Format(NamedTuple):
    """How numbers in directories are written: classic TIFF or BigTIFF, in either byte order."""

    byte_order: str
    entry_count: str
    offset: str
    """`struct` code of an offset, and of the number of values of a tag."""

    def size(self, fields: str) -> int:
        """Return the bytes of some fields, given by `struct` codes."""
        return struct.calcsize(self.byte_order + fields)

    def unpack(self, fields: str, content: bytes, start: int = 0) -> tuple[int, ...]:
        """Decode some fields, given by `struct` codes."""
        return struct.unpack_from(self.byte_order + fields, content, start)


class _Values(NamedTuple):
    """Where the values of a tag lie, and the `struct` code of each."""

    type_code: str
    start: int
    stop: int


def header_end(head: bytes, size: int) -> int:
    """Find the end of the directories that begin in the first bytes of a TIFF, and of their values.

    Args:
        head: The first bytes.
        size: Length of the file in bytes.

    Raises:
        ValueError: The file is not a TIFF.
    """
    file = BytesIO(head)
    form, start = _first_directory(file)
    end, seen = 0, set[int]()
    while 0 < start < len(head) and start not in seen and len(seen) < _MAX_DIRECTORIES:
        seen.add(start)
        try:
            tags, stop, start = _directory(file, start, size, form)
        except struct.error:  # the directory goes on after the head
            return end
        end = max(end, stop, *(values.stop for values in tags.values()))
    return end


def end_of(file: File, size: int) -> int:
    """Find the end of everything that a TIFF's header refers to.

    Args:
        file: The file. Its position changes.
        size: Its length in bytes.

    Returns:
        The byte after the last directory, tag value or block. It is beyond `size` if the file is
        truncated.

    Raises:
        ValueError: The file is not a TIFF.
    """
    form, start = _first_directory(file)
    end, seen = 0, set[int]()
    while start and start not in seen and len(seen) < _MAX_DIRECTORIES:
        seen.add(start)
        tags, stop, start = _directory(file, start, size, form)
        blocks = _blocks_end(file, tags, size, form)
        end = max(end, stop, blocks, *(values.stop for values in tags.values()))
    return end


def _first_directory(file: File) -> tuple[_Format, int]:
    """Return the format of a file, and where its first directory begins."""
    head = _read(file, 0, 16)
    byte_order = {b"II": "<", b"MM": ">"}.get(head[:2])
    if byte_order is None or len(head) < 16:
        raise ValueError("not a TIFF")
    is_big = struct.unpack_from(f"{byte_order}H", head, 2)[0] == 43
    form = _Format(byte_order, "Q", "Q") if is_big else _Format(byte_order, "H", "I")
    return form, form.unpack(form.offset, head, 8 if is_big else 4)[0]


def _directory(
    file: File, start: int, size: int, form: _Format
) -> tuple[dict[int, _Values], int, int]:
    """Read one directory.

    Returns:
        Values by tag, the byte after the directory, and the offset of the next one; 0 for none.
    """
    # A directory is: the number of entries; per entry tag, type, number of values, and the values
    # themselves or their offset; and the offset of the next directory.
    first = start + form.size(form.entry_count)
    if first > size:
        return {}, first, 0
    (count,) = form.unpack(form.entry_count, _read(file, start, first - start))
    entry_size = form.size("HH" + 2 * form.offset)
    last = first + entry_size * count
    stop = last + form.size(form.offset)
    if count > _MAX_ENTRIES:  # these bytes are not a directory
        return {}, 0, 0
    if stop > size:
        return {}, stop, 0
    body = _read(file, first, stop - first)
    tags = {}
    for number in range(count):
        entry = number * entry_size
        tag, tiff_type, values = form.unpack("HH" + form.offset, body, entry)
        if tiff_type not in _TYPE_CODES:
            continue
        type_code = _TYPE_CODES[tiff_type]
        start_of_values = first + entry + form.size("HH" + form.offset)
        # Values that do not fit into the entry lie elsewhere.
        if values * form.size(type_code) > form.size(form.offset):
            (start_of_values,) = form.unpack(form.offset, body, start_of_values - first)
        end_of_values = start_of_values + values * form.size(type_code)
        tags[tag] = _Values(type_code, start_of_values, end_of_values)
    return tags, stop, form.unpack(form.offset, body, last - first)[0]


def _blocks_end(file: File, tags: dict[int, _Values], size: int, form: _Format) -> int:
    """Return the byte after the last block of an image; 0 if its header does not say."""
    offsets, sizes = _first_of(tags, _OFFSET_TAGS), _first_of(tags, _SIZE_TAGS)
    if offsets is None or sizes is None or max(offsets.stop, sizes.stop) > size:
        return 0
    starts, lengths = _numbers(file, offsets, form), _numbers(file, sizes, form)
    count = min(len(starts), len(lengths))
    is_written = lengths[:count] > 0
    if not is_written.any():
        return 0
    starts, lengths = starts[:count][is_written], lengths[:count][is_written]
    # Sums of 64-bit integers can wrap around: compare floats, then add exactly in Python.
    last = int(np.argmax(starts.astype(float) + lengths))
    return int(starts[last]) + int(lengths[last])


def _first_of(tags: dict[int, _Values], candidates: tuple[int, ...]) -> _Values | None:
    for tag in candidates:
        if tag in tags:
            return tags[tag]
    return None


def _numbers(
    file: File, values: _Values, form: _Format
) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
    body = _read(file, values.start, values.stop - values.start)
    dtype = np.dtype(f"{form.byte_order}u{form.size(values.type_code)}")
    return np.frombuffer(body, dtype, len(body) // dtype.itemsize).astype(np.uint64)


def _read(file: File, start: int, size: int) -> bytes:
    file.seek(start)
    return file.read(size) or b""
