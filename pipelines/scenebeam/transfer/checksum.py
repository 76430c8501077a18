"""Checksums as STAC catalogs write them: multihash in hex (also after `multihash:`), `md5:`, bare hex."""

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
"""Code → name in hashlib and bytes of the digest: https://github.com/multiformats/multicodec/blob/master/table.csv"""
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
"""Names of the multihash table, without hyphens, that hashlib spells otherwise."""
_BARE = {32: "md5", 40: "sha1", 64: "sha256", 96: "sha384", 128: "sha512"}
"""Hex digits → what a digest without a name is taken for."""


class Checksum(NamedTuple):
    """A digest that a file must have."""

    algorithm: str
    """Its name in hashlib."""
    digest: str
    """Hex, lower case."""


def parse_checksum(text: str) -> Checksum | None:
    """What a catalogue's `file:checksum` asks for; None where it is malformed, or of an unknown algorithm."""
    name, colon, digest = text.strip().lower().rpartition(":")
    if not re.fullmatch(r"(?:[0-9a-f]{2})+", digest):
        return None
    if name == "multihash":
        return _multihash(bytes.fromhex(digest))
    if colon:
        algorithm = name.replace("-", "")
        algorithm = _ALIASES.get(algorithm, algorithm)
        return Checksum(algorithm, digest) if _SIZES.get(algorithm) == len(digest) // 2 else None
    return _multihash(bytes.fromhex(digest)) or (
        Checksum(_BARE[len(digest)], digest) if len(digest) in _BARE else None
    )


def _multihash(content: bytes) -> Checksum | None:
    """<code as varint><length as varint><digest>; the length must be what is there."""
    code, rest = _varint(content)
    size, digest = _varint(rest)
    algorithm, wanted = _MULTIHASH.get(code, ("", -1))
    return Checksum(algorithm, digest.hex()) if size == wanted == len(digest) else None


def _varint(content: bytes) -> tuple[int, bytes]:
    value = 0
    for index, byte in enumerate(content[:9]):
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value, content[index + 1 :]
    return -1, b""
