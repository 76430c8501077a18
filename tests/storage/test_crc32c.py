"""CRC32C of joined bytes, without the bytes."""

from __future__ import annotations

from pathlib import Path

import google_crc32c
from hypothesis import given
from hypothesis import strategies as st

from scenebeam.storage import open_store
from scenebeam.storage.composer import Piece, join
from scenebeam.storage.crc32c import combine, file_crc32c


@given(st.binary(), st.binary())
def test_of_two_byte_strings(first: bytes, second: bytes) -> None:
    of_both = combine(google_crc32c.value(first), google_crc32c.value(second), len(second))
    assert of_both == google_crc32c.value(first + second)


def test_of_bytes_too_many_to_hash() -> None:
    """A terabyte of zeros, doubled 40 times, appended twice, is two terabytes appended once."""
    first = google_crc32c.value(b"first")
    zeros, size = google_crc32c.value(b"\0"), 1
    for _ in range(40):
        zeros, size = combine(zeros, zeros, size), 2 * size
    twice = combine(combine(first, zeros, size), zeros, size)
    assert twice == combine(first, combine(zeros, zeros, size), 2 * size)


@given(st.lists(st.binary(max_size=50), max_size=8))
def test_of_pieces(contents: list[bytes]) -> None:
    pieces = [Piece("", len(content), google_crc32c.value(content)) for content in contents]
    whole = b"".join(contents)
    assert join(pieces, "x") == ("x", len(whole), google_crc32c.value(whole))


def test_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "check"
    path.write_bytes(b"123456789")
    # The check value of https://reveng.sourceforge.io/crc-catalogue/all.htm
    assert file_crc32c(path) == open_store(str(tmp_path)).crc32c("check") == 0xE3069283
