"""STAC items of an output as a mapping: read when they are used, some at a time."""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

from scenebeam.metadata.stac_items import Item
from scenebeam.storage import Store

_BATCH = 250
"""Items that are read together, as those of neighboring keys are mostly used one after another."""
_KEPT_BATCHES = 8
_READ_THREADS = 16


class StoredItems(Mapping[str, Item]):
    """Items by key, in the order of the keys."""

    def __init__(self, keys: Iterable[str], store: Store) -> None:
        """Describe the items; nothing is read yet.

        Args:
            keys: Keys of files that exist.
            store: Where they are.
        """
        self._keys = sorted(keys)
        self._store = store
        self._read = lru_cache(_KEPT_BATCHES)(self._read_batch)

    def __len__(self) -> int:
        return len(self._keys)

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __contains__(self, key: object) -> bool:
        return self._place(key) is not None

    def __getitem__(self, key: str) -> Item:
        place = self._place(key)
        if place is None:
            raise KeyError(key)
        return self._read(place // _BATCH)[key]

    def _place(self, key: object) -> int | None:
        place = bisect_left(self._keys, key) if isinstance(key, str) else len(self._keys)
        return place if place < len(self._keys) and self._keys[place] == key else None

    def _read_batch(self, number: int) -> dict[str, Item]:
        keys = self._keys[number * _BATCH : (number + 1) * _BATCH]
        items = {}
        with ThreadPoolExecutor(_READ_THREADS) as threads:
            for key, content in zip(keys, threads.map(self._store.read, keys), strict=True):
                items[key] = json.loads(content or b"{}")
        return items
