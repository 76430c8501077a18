"""Multihash: SHA-256 digests as the file extension of STAC writes them."""

from __future__ import annotations

import hashlib
from pathlib import Path


def multihash(sha256: str) -> str:
    """A SHA-256 in hex as `file:checksum` wants it (0x12: sha2-256, 0x20: 32 bytes)."""
    return f"1220{sha256}"


def file_multihash(path: Path) -> str:
    """The same of a file's content."""
    with path.open("rb") as file:
        return multihash(hashlib.file_digest(file, "sha256").hexdigest())
