"""Ledger: what the runs of a deployment have cost, by month, as far as their plans estimate it."""

from __future__ import annotations

import re
from datetime import datetime

from scenebeam.status import RunStatus
from scenebeam.storage import Store

SPENT = "spent/"
_ENTRY = re.compile(rf"{SPENT}(\d{{4}}-\d{{2}})/(.+)\+(.*)\+(\d+)$")
_MICROS = 1_000_000
"""Amounts are whole millionths of a USD, which keys can hold."""


class Ledger:
    """The costs in a state bucket or folder.

    Each job has an empty object that is named by its cost, so that a sum is one listing.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    def enter(self, status: RunStatus) -> None:
        """Enter the cost of a run's job, once. A run without an estimate costs nothing."""
        when = status.started or status.updated
        if not status.cost or when is None:
            return
        job = re.sub("[^A-Za-z0-9_-]", "_", status.job)[:200]
        prefix = f"{SPENT}{when:%Y-%m}/{status.id}+{job}+"
        if not self._store.list(prefix):
            self._store.create(f"{prefix}{round(status.cost * _MICROS)}", b"")

    def spent(self, when: datetime) -> float:
        """Return the sum of a month, in USD."""
        return sum(self._entries(f"{SPENT}{when:%Y-%m}/").values())

    def by_run(self) -> dict[str, float]:
        """Return the sum of each run over all months, in USD."""
        totals: dict[str, float] = {}
        for (run, _), usd in self._entries(SPENT).items():
            totals[run] = totals.get(run, 0.0) + usd
        return totals

    def _entries(self, prefix: str) -> dict[tuple[str, str], float]:
        entries = {}
        for key in self._store.list(prefix):
            match = _ENTRY.match(key)
            if match is not None:
                entries[match[2], match[3]] = int(match[4]) / _MICROS
        return entries
