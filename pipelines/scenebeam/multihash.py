"""Multihash: SHA-256 digests as the file extension of STAC writes them."""

from __future__ import annotations

import hashlib
from pathlib import Path

SHA256_PREFIX = "1220"
"""How the multihash of a SHA-256 begins (0x12: sha2-256, 0x20: 32 bytes)."""


def multihash(sha256: str) -> str:
    """A SHA-256 in hex as `file:checksum` wants it."""
    return f"{SHA256_PREFIX}{sha256}"


def file_multihash(path: Path) -> str:
    """The same of a file's content."""
    with path.open("rb") as file:
        return multihash(hashlib.file_digest(file, "sha256").hexdigest())
