"""Checked addresses for clients that are built on `requests`, such as pystac-client."""

from __future__ import annotations

from typing import Any

import requests
from requests.adapters import HTTPAdapter

from scenebeam.transfer.addresses import pool_classes


class CheckedAdapter(HTTPAdapter):
    """Connects only to addresses that `check_address` allows, after redirects too."""

    def __init__(self, *, private: bool) -> None:
        """Create an adapter without retries.

        Args:
            private: Whether loopback and private addresses are allowed.
        """
        self._classes = pool_classes(private)
        super().__init__(max_retries=0)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """Create the pool manager with pools whose connections are checked."""
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = self._classes


def mount_checked(session: requests.Session, *, private: bool) -> None:
    """Check the addresses of all connections of a session.

    Args:
        session: The session to change.
        private: Whether loopback and private addresses are allowed.
    """
    for scheme in ("http://", "https://"):
        session.mount(scheme, CheckedAdapter(private=private))
