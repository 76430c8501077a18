"""Read ahead by bytes: keep the network busy, whatever the CPU does and however slow a server is.

The blocks that a grid needs are known before the first of them is read. Their compressed bytes are
requested in the order in which the output needs them, as many as fit into a number of bytes that
are in flight or wait to be decoded. Compressed blocks are small; decoded ones are bounded
separately, by the chunks of rows that are computed.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

from scenebeam.raster.source import Block, Source

MAX_IN_FLIGHT = 32 * 2**20
"""Most bytes of compressed blocks that are requested ahead.

A line of 1 Gbit/s delivers less in 200 ms, so a distant server does not keep the CPU waiting.
"""
IN_FLIGHT_ROWS = 1024
"""Rows of an output that take as many bytes as are requested ahead for it, if those are fewer."""


class Request(NamedTuple):
    """Blocks of one source that are needed at the same time."""

    source: Source
    blocks: list[Block]


class ReadAhead:
    """Requests the compressed bytes of blocks in order. Safe to share between threads."""

    def __init__(self, requests: Iterable[Request], max_bytes: int) -> None:
        """Start to read.

        Args:
            requests: What is read, in the order in which it is needed. Each block must be fetched
                from its source in the end, which takes its bytes.
            max_bytes: Bytes that may be in flight, or wait to be fetched. A single request may
                exceed it.
        """
        self._waiting = deque(requests)
        self._max_bytes = max_bytes
        self._in_flight = 0
        self._lock = threading.Lock()
        self._advance()

    def stop(self) -> None:
        """Request nothing more."""
        with self._lock:
            self._waiting.clear()

    def _advance(self) -> None:
        # To prefetch only submits work: nothing waits or is released under the lock.
        with self._lock:
            while self._waiting and self._in_flight < self._max_bytes:
                source, blocks = self._waiting.popleft()
                self._in_flight += source.prefetch(blocks, self._release)

    def _release(self, size: int) -> None:
        """Note that the bytes of a block have been fetched."""
        with self._lock:
            self._in_flight -= size
        self._advance()
