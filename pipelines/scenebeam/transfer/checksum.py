"""Checksums as STAC catalogs write them.

Accepted are multihashes in hex (the file extension's `file:checksum`), also with a `multihash:`
prefix; digests with a prefix such as `md5:`; and bare hex digests.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_MULTIHASH = {
    0x11: ("sha1", 20),
    0x12: ("sha256", 32),
    0x13: ("sha512", 64),
    0x14: ("sha3_512", 64),
    0x15: ("sha3_384", 48),
    0x16: ("sha3_256", 32),
    0x17: ("sha3_224", 28),
    0x20: ("sha384", 48),
    0xD5: ("md5", 16),
}
"""Code → name in hashlib, and size of the digest in bytes.

Source: https://github.com/multiformats/multicodec/blob/master/table.csv
"""
_SIZES = dict(_MULTIHASH.values())
_ALIASES = {
    "sha2256": "sha256",
    "sha2384": "sha384",
    "sha2512": "sha512",
    "sha3224": "sha3_224",
    "sha3256": "sha3_256",
    "sha3384": "sha3_384",
    "sha3512": "sha3_512",
}
"""Names of the multicodec table, without hyphens → the names in hashlib."""
_BARE = {32: "md5", 40: "sha1", 64: "sha256", 96: "sha384", 128: "sha512"}
"""Number of hex digits → the assumed algorithm of a bare digest."""


class Checksum(NamedTuple):
    """The expected digest of a file."""

    algorithm: str
    """Name in hashlib."""
    digest: str
    """Hex, lower case."""


def parse_checksum(text: str) -> Checksum | None:
    """Parse a checksum of a STAC item.

    Args:
        text: The value of `file:checksum`, in any of the accepted forms.

    Returns:
        Algorithm and digest; None if the text is malformed or the algorithm is unknown.
    """
    name, colon, digest = text.strip().lower().rpartition(":")
    if not re.fullmatch(r"(?:[0-9a-f]{2})+", digest):
        return None
    if name == "multihash":
        return _parse_multihash(bytes.fromhex(digest))
    if colon:
        algorithm = name.replace("-", "")
        algorithm = _ALIASES.get(algorithm, algorithm)
        return Checksum(algorithm, digest) if _SIZES.get(algorithm) == len(digest) // 2 else None
    # A bare digest could be mistaken for a multihash only if its first bytes happened to match
    # both a code and its own remaining length.
    bare = Checksum(_BARE[len(digest)], digest) if len(digest) in _BARE else None
    return _parse_multihash(bytes.fromhex(digest)) or bare


def _parse_multihash(content: bytes) -> Checksum | None:
    """Parse <code as varint><size as varint><digest>; the size must be that of the algorithm."""
    code, rest = _read_varint(content)
    size, digest = _read_varint(rest)
    algorithm, expected_size = _MULTIHASH.get(code, ("", -1))
    return Checksum(algorithm, digest.hex()) if size == expected_size == len(digest) else None


def _read_varint(content: bytes) -> tuple[int, bytes]:
    """Read an unsigned LEB128 number of up to nine bytes; returns it and the remaining bytes."""
    value = 0
    for index, byte in enumerate(content[:9]):
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value, content[index + 1 :]
    return -1, b""
