"""Hold tens of thousands of STAC items in little memory, as compressed JSON."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, overload

Item = dict[str, Any]


class PackedItems(Sequence[Item]):
    """STAC items, each stored as compressed JSON and parsed on access.

    A Sentinel-2 item takes 60 KB as Python objects, and 3 KB here. Each access returns a new
    object: changing it does not change the stored item.
    """

    def __init__(self, items: Iterable[Item] = ()) -> None:
        """Pack `items`, one at a time."""
        self._packed: list[bytes] = []
        for item in items:
            self.append(item)

    @classmethod
    def from_lines(cls, lines: Iterable[bytes]) -> PackedItems:
        """Pack items from JSON lines; blank lines are skipped.

        Raises:
            ValueError: A line is not JSON.
        """
        packed_items = cls()
        for line in lines:
            if line.strip():
                json.loads(line)
                packed_items._packed.append(_pack(line.strip()))
        return packed_items

    def append(self, item: Item) -> None:
        """Add an item."""
        self._packed.append(_pack(json.dumps(item).encode()))

    def lines(self) -> Iterator[bytes]:
        """Yield the items as JSON lines."""
        for packed in self._packed:
            yield zlib.decompress(packed) + b"\n"

    def __len__(self) -> int:
        return len(self._packed)

    def __iter__(self) -> Iterator[Item]:
        for line in self.lines():
            yield json.loads(line)

    @overload
    def __getitem__(self, index: int) -> Item: ...

    @overload
    def __getitem__(self, index: slice) -> PackedItems: ...

    def __getitem__(self, index: int | slice) -> Item | PackedItems:
        if isinstance(index, slice):
            part = PackedItems()
            part._packed = self._packed[index]
            return part
        item: Item = json.loads(zlib.decompress(self._packed[index]))
        return item


def links_of(document: dict[str, Any], rel: str | None = None) -> list[dict[str, Any]]:
    """Return the links of an item, a page or a catalog; malformed ones are skipped.

    Args:
        document: A STAC object as JSON.
        rel: The relation type; None for links of all types.
    """
    links = document.get("links")
    if not isinstance(links, list):
        return []
    matching = []
    for link in links:
        if isinstance(link, dict) and (rel is None or link.get("rel") == rel):
            matching.append(link)
    return matching


def _pack(line: bytes) -> bytes:
    # The lowest level is fast, and nearly as small: items are repetitive.
    return zlib.compress(line, 1)
