"""The two thread pools of a process: one waits on the network, the other decodes and encodes."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from functools import cache

from scenebeam.transfer.http import MAX_CONCURRENT_REQUESTS


@cache
def io_threads() -> ThreadPoolExecutor:
    """Return the process's pool for network requests: one thread per concurrent request."""
    return ThreadPoolExecutor(MAX_CONCURRENT_REQUESTS, thread_name_prefix="read")


@cache
def cpu_threads() -> ThreadPoolExecutor:
    """Return the process's pool for decoding and encoding: one thread per core.

    Threads suffice because the codecs release the GIL.
    """
    return ThreadPoolExecutor(max(2, os.cpu_count() or 2), thread_name_prefix="codec")
