"""The record of superseded files: see `scenebeam.storage.store.Store`."""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Iterable


class SupersededFiles:
    """The versions of superseded files, by key."""

    def __init__(self, versions: dict[str, str]) -> None:
        self.versions = versions
        self._sorted_keys = sorted(versions)

    def keys(self, prefix: str) -> set[str]:
        """Return the keys that start with `prefix`, by binary search."""
        start, stop = 0, len(self._sorted_keys)
        if prefix:
            start = bisect_left(self._sorted_keys, prefix)
            # The last code point sorts after every key that starts with the prefix.
            stop = bisect_left(self._sorted_keys, f"{prefix}\U0010ffff")
        return {key for key in self._sorted_keys[start:stop] if key in self.versions}

    def forget(self, keys: Iterable[str]) -> None:
        """Drop files that have been replaced or deleted."""
        for key in keys:
            self.versions.pop(key, None)

    def to_bytes(self, uri: str) -> bytes:
        """Serialize the record of the store at `uri`."""
        document = {"uri": uri, "files": self.versions}
        return (json.dumps(document, indent=1, sort_keys=True) + "\n").encode()
