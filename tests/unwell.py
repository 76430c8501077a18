"""The storage emulator behind a proxy that answers 429 and 503, and loses answers on their way."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from storage_proxy import Answer, Request, Upstream, proxied, refusal


@dataclass
class Weather:
    """What befalls the next requests that write: `503` and the like, or `lost`: done, and the answer never comes."""

    coming: list[Any] = field(default_factory=list)
    seen: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def next(self, method: str) -> Any:
        with self.lock:
            self.seen.append(method)
            return self.coming.pop(0) if self.coming and method == "POST" else None


@contextmanager
def unwell(emulator: str) -> Iterator[Weather]:
    """The proxy, which Google's clients use as long as the block lasts."""
    now = Weather()

    def answer(request: Request, upstream: Upstream) -> Answer | None:
        fault = now.next(request.method)
        if isinstance(fault, int):
            return refusal(fault, "not now")
        answered = upstream.answer(request)
        return None if fault == "lost" else answered

    with proxied(emulator, answer):
        yield now
