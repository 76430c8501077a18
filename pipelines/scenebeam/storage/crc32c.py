"""CRC32C, the checksum that Google Cloud Storage keeps of every object, and of joined bytes.

The CRC of two byte strings one after the other follows from their CRCs and the length of the
second, without the bytes: a CRC is the remainder of a polynomial over GF(2), and appending n bits
multiplies the polynomial of what comes before by x^n. This is `crc32_combine` of zlib
(https://github.com/madler/zlib/blob/v1.3.1/crc32.c), with the polynomial of Castagnoli
(https://www.rfc-editor.org/rfc/rfc3720#appendix-B.4).
"""

from __future__ import annotations

import base64
from functools import cache
from pathlib import Path

from google_crc32c import Checksum

_POLYNOMIAL = 0x82F63B78
"""Bits are reflected, as CRC32C has them: bit 31 is the coefficient of x^0, bit 30 that of x^1."""
_ONE, _X = 1 << 31, 1 << 30


def file_crc32c(path: Path) -> int:
    """Compute the CRC32C of a file."""
    checksum = Checksum()
    with path.open("rb") as file:
        for _ in checksum.consume(file, 2**20):
            pass
    return int.from_bytes(checksum.digest(), "big")


def decode_crc32c(text: str) -> int:
    """Decode a CRC32C as Cloud Storage writes it: big-endian, in base64."""
    return int.from_bytes(base64.b64decode(text), "big")


def combine(first: int, second: int, size: int) -> int:
    """Compute the CRC32C of two byte strings one after the other.

    Args:
        first: CRC32C of the first one.
        second: CRC32C of the second one.
        size: Bytes of the second one.
    """
    return _multiply(_power_of_x(8 * size), first) ^ second


def _power_of_x(exponent: int) -> int:
    """Return x^exponent modulo the polynomial."""
    power, bit = _ONE, 0
    while exponent >> bit:
        if exponent >> bit & 1:
            power = _multiply(_squared_x(bit), power)
        bit += 1
    return power


@cache
def _squared_x(times: int) -> int:
    """Return x^(2^times) modulo the polynomial: x, squared that many times."""
    if times == 0:
        return _X
    root = _squared_x(times - 1)
    return _multiply(root, root)


def _multiply(left: int, right: int) -> int:
    """Multiply two polynomials modulo the polynomial of the CRC."""
    product = 0
    for bit in range(31, -1, -1):
        if left >> bit & 1:
            product ^= right
        # Multiply by x: what grows to x^32 is reduced.
        right = right >> 1 ^ (_POLYNOMIAL if right & 1 else 0)
    return product
