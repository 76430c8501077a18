"""Multihash: checksums as the file extension of STAC writes them (`file:checksum`).

A multihash is the code of the hash function, the size of the digest, and the digest:
https://github.com/multiformats/multihash
"""

from __future__ import annotations

import hashlib
from pathlib import Path

SHA256_PREFIX = "1220"
"""Code and size of SHA-256, in hex (0x12: sha2-256, 0x20: 32 bytes)."""
MD5_PREFIX = "d50110"
"""Code and size of MD5, in hex (0xd5 as a varint, 0x10: 16 bytes)."""


def multihash(sha256: str) -> str:
    """Format a SHA-256 digest in hex as a multihash in hex."""
    return f"{SHA256_PREFIX}{sha256}"


def content_multihash(content: bytes) -> str:
    """Compute the SHA-256 of bytes, as a multihash in hex."""
    return multihash(hashlib.sha256(content).hexdigest())


def file_multihash(path: Path) -> str:
    """Compute the SHA-256 of a file, as a multihash in hex."""
    with path.open("rb") as file:
        return multihash(hashlib.file_digest(file, "sha256").hexdigest())
