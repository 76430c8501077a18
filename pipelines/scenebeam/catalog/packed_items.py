"""Items as they came: tens of thousands of them in little memory."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, overload

Item = dict[str, Any]


class KeptItems(Sequence[Item]):
    """STAC items, each kept as compressed JSON and parsed when it is asked for.

    An item of Sentinel-2 takes 60 KB as Python objects, and 3 KB here. Changing what is given
    changes nothing.
    """

    def __init__(self, items: Iterable[Item] = ()) -> None:
        """Keep `items`, which may come one by one."""
        self._packed = [_pack(json.dumps(item).encode()) for item in items]

    @classmethod
    def of_lines(cls, lines: Iterable[bytes]) -> KeptItems:
        """Keep items that come as JSON, one a line. Raises ValueError for a line that is none."""
        found = cls()
        for line in lines:
            if line.strip():
                json.loads(line)
                found._packed.append(_pack(line.strip()))
        return found

    def append(self, item: Item) -> None:
        """Keep one more."""
        self._packed.append(_pack(json.dumps(item).encode()))

    def lines(self) -> Iterator[bytes]:
        """The items as JSON, one a line."""
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
    def __getitem__(self, index: slice) -> KeptItems: ...

    def __getitem__(self, index: int | slice) -> Item | KeptItems:
        if isinstance(index, slice):
            part = KeptItems()
            part._packed = self._packed[index]
            return part
        found: Item = json.loads(zlib.decompress(self._packed[index]))
        return found


def links_of(document: dict[str, Any], rel: str | None = None) -> list[dict[str, Any]]:
    """Links of an item, a page or a catalog, those of one relation or all; what is no link is passed over."""
    stored = document.get("links")
    links = [link for link in stored if isinstance(link, dict)] if isinstance(stored, list) else []
    return [link for link in links if rel is None or link.get("rel") == rel]


def _pack(line: bytes) -> bytes:
    return zlib.compress(line, 1)
