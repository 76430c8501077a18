"""Series pages: what each standing request has made, what it waits for, and what it has cost."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from statistics import median
from typing import Any

from scenebeam.cloud.guard import is_below
from scenebeam.cloud.ledger import Ledger
from scenebeam.cloud.runs import Runs
from scenebeam.cloud.settings import CloudSettings
from scenebeam.cloud.standing import Mark, StandingRequest, StandingRequests
from scenebeam.errors import StorageError
from scenebeam.status import SERIES_FILE, now
from scenebeam.storage import open_store

_MAX_BYTES = 30_000_000
_MAX_MONTHS = 36
"""Months of the calendar, newest first."""
_WORST = ("failed", "waiting", "late", "gone", "made")
"""States of a day with several products: the first one of these is shown."""


def list_series(runs: Runs, settings: CloudSettings) -> dict[str, Any]:
    """Describe all series of a deployment, without reading their outputs."""
    standing, ledger = StandingRequests(runs.store), Ledger(runs.store)
    marks, costs = standing.pending(), ledger.by_run()
    series = []
    for one in standing.list():
        series.append(_summary(one, runs, marks, costs))
    return {
        "series": series,
        "spent_this_month": round(ledger.spent(now()), 2),
        "max_monthly_cost": settings.max_monthly_cost,
    }


def describe_series(name: str, runs: Runs, settings: CloudSettings) -> dict[str, Any] | None:
    """Describe one series with its products; None if there is none of the id."""
    standing = StandingRequests(runs.store)
    one = standing.get(name)
    if one is None:
        return None
    summary = _summary(one, runs, standing.pending(), Ledger(runs.store).by_run())
    products = read_products(one, settings)
    delays = [row["delay_hours"] for row in products if row["delay_hours"] is not None]
    return {
        **summary,
        "counts": dict(Counter(row["state"] for row in products)),
        "median_delay_hours": round(median(delays), 1) if delays else None,
        "calendar": _calendar(products),
        "products": products,
    }


def _summary(
    one: StandingRequest, runs: Runs, marks: Mapping[str, Mark], costs: Mapping[str, float]
) -> dict[str, Any]:
    status = runs.status(one.id)
    return {
        "id": one.id,
        "run": one.run,
        "source": one.source,
        "output": one.output,
        "collections": list(one.collections),
        "dates": list(one.dates),
        "waiting": one.id in marks,
        "state": status.state if status is not None else None,
        "done": status.done if status is not None else 0,
        "updated": f"{status.updated:%Y-%m-%dT%H:%M:%SZ}" if status and status.updated else None,
        "message": status.message if status is not None else "",
        "cost": round(costs.get(one.id, 0.0), 2),
        "links": {
            "self": f"/series/{one.id}",
            "run": f"/runs/{one.id}" if status is not None else None,
        },
    }


def read_products(one: StandingRequest, settings: CloudSettings) -> list[dict[str, Any]]:
    """Read what the runs of a series have written of its products, if they have."""
    if not is_below(one.output, settings.outputs):
        return []
    try:
        store = open_store(one.output)
        size = store.size(SERIES_FILE)
        if size is None or size > _MAX_BYTES:
            return []
        rows = json.loads(store.read(SERIES_FILE) or b"{}").get("products")
    except (StorageError, ValueError, AttributeError):
        return []
    if not isinstance(rows, list):
        return []
    products = []
    for row in rows:
        if isinstance(row, dict) and row.get("state") in _WORST:
            products.append(_product(row))
    return sorted(products, key=lambda row: str(row["datetime"]), reverse=True)


def _product(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row with all fields; the file was written by a run, and may hold anything."""
    delay, scenes = row.get("delay_hours"), row.get("scenes")
    return {
        "product": str(row.get("product", "")),
        "datetime": row.get("datetime"),
        "state": row["state"],
        "reason": str(row.get("reason", "")),
        "made": _time(row.get("made")),
        "delay_hours": delay if isinstance(delay, int | float) else None,
        "scenes": scenes if isinstance(scenes, list) else [],
    }


def _calendar(products: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Group products by month and day, newest month first."""
    days: dict[date, list[Mapping[str, Any]]] = {}
    for row in products:
        try:
            day = date.fromisoformat(str(row.get("datetime"))[:10])
        except ValueError:
            continue
        days.setdefault(day, []).append(row)
    months = []
    for first in sorted({day.replace(day=1) for day in days}, reverse=True)[:_MAX_MONTHS]:
        following = (first + timedelta(days=32)).replace(day=1)
        cells = []
        for number in range((following - first).days):
            rows = days.get(first + timedelta(days=number), [])
            states = {str(row["state"]) for row in rows}
            cells.append(
                {
                    "day": number + 1,
                    "state": next((state for state in _WORST if state in states), ""),
                    "products": [str(row.get("product")) for row in rows],
                }
            )
        months.append({"month": f"{first:%Y-%m}", "days": cells})
    return months


def _time(text: object) -> str | None:
    try:
        return f"{datetime.fromisoformat(str(text)).astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
    except ValueError:
        return None
