"""Connections of the `requests` library that are judged like all others: for clients that bring
their own.
"""

from __future__ import annotations

from typing import Any

import requests
from requests.adapters import HTTPAdapter

from scenebeam.transfer.addresses import pool_classes


class CheckedAdapter(HTTPAdapter):
    """Connects to no address that `check_address` refuses, redirects included."""

    def __init__(self, *, private: bool) -> None:
        """`private`: whether loopback and private addresses are allowed."""
        self._classes = pool_classes(private)
        super().__init__(max_retries=0)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """See HTTPAdapter."""
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = self._classes


def mount_checked(session: requests.Session, *, private: bool) -> None:
    """Let all connections of a session be checked."""
    for scheme in ("http://", "https://"):
        session.mount(scheme, CheckedAdapter(private=private))
