"""Match announced items with standing requests: seconds and memory, on a folder as the state."""

from __future__ import annotations

import random
import resource
import tempfile
import time
from typing import Any

from scenebeam.cloud.standing import StandingRequests
from scenebeam.requestfile import validate_request
from scenebeam.storage import open_store

REQUESTS, ITEMS, MESSAGE = 1000, 10_000, 100
"""Standing requests, items, and items of one message."""


def request(number: int, dice: random.Random) -> Any:
    west, south = dice.uniform(-170, 169), dice.uniform(-60, 69)
    return validate_request(
        {
            "run": f"series{number}",
            "catalog": "earth-search",
            "collections": [dice.choice(["sentinel-2-l2a", "landsat-c2-l2"])],
            "area": {"bbox": [west, south, west + 0.5, south + 0.5]},
            "dates": "2024-01-01/..",
            "select": {"max_cloud_cover": 40},
            "product": {"kind": "mosaic", "bands": ["red"]},
            "series": True,
            "output": f"gs://products/series{number}",
        }
    )


def item(number: int, dice: random.Random) -> dict[str, Any]:
    west, south = dice.uniform(-170, 169), dice.uniform(-60, 69)
    return {
        "type": "Feature",
        "id": f"S2A_{number}",
        "collection": "sentinel-2-l2a",
        "bbox": [west, south, west + 1, south + 1],
        "properties": {"datetime": "2024-06-01T09:20:31Z", "eo:cloud_cover": dice.uniform(0, 100)},
        "assets": {"red": {"href": "https://x/red.tif"}},
    }


def main() -> None:
    dice = random.Random(1)
    with tempfile.TemporaryDirectory() as folder:
        standing = StandingRequests(open_store(folder))
        start = time.perf_counter()
        for number in range(REQUESTS):
            standing.add(f"series-{number:04d}", f"gs://r/{number}.yaml", request(number, dice))
        added = time.perf_counter() - start
        items = [item(number, dice) for number in range(ITEMS)]
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        start = time.perf_counter()
        matched = 0
        for first in range(0, ITEMS, MESSAGE):
            matched += sum(standing.announce(items[first : first + MESSAGE]).values())
        seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"{REQUESTS} standing requests added one by one: {added:.1f} s")
    print(f"{ITEMS} items in messages of {MESSAGE}: {seconds:.1f} s, {matched} matches")
    print(f"peak memory {peak / 1024:.0f} MiB, of which {(peak - before) / 1024:.0f} for matching")


if __name__ == "__main__":
    main()
