"""Fuzz items and the answers of catalogs: whatever they hold, a search ends in scenes or in an error of ours.

    python tests/fuzz_catalogs.py --seconds 60 --seed 0

Items of the sandbox are taken apart and put together wrongly: values of other types, missing and doubled keys, odd
numbers, texts and geometries, and pages that are cut or hold other documents. Exit code 1 if anything was found.
"""

from __future__ import annotations

import argparse
import copy
import json
import logging
import random
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from bad_api import serve_bad_api
from resident import reset_peak, resident_bytes
from scenebeam.catalog.queries import SearchQuery
from scenebeam.catalog.search import scenes_from_items, search_items
from scenebeam.catalog.select import select
from scenebeam.errors import SceneBeamError
from scenebeam.planning.search_cache import read_search, write_search
from scenebeam.request import RunRequest
from scenebeam.requestfile import validate_request
from scenebeam.sandbox.scenes import SCENES
from scenebeam.storage import open_store

SLOWEST = 5.0
"""Seconds that one input may take."""
LARGEST_GROWTH = 2**29
"""Bytes of memory that one input may take."""
ODD: list[Any] = [
    None, True, 0, -1, 1.5, 1e308, float("nan"), float("inf"), 2**70, "", " ", "x" * 5000, "\u2028\x00", "2021-06-10", "²",
    "2021-13-45T99:99:99Z", "0000-00-00", [], [[]], {}, {"a": {}}, [1, "a", None], "http://[::1/x", "file:///etc/passwd", "s3:/",
    {"type": "Polygon", "coordinates": [[[0, 0], [1, 1]]]}, {"type": "Polygon", "coordinates": [[[1e9, 1e9]] * 5]},
    {"type": "MultiPolygon", "coordinates": []}, {"type": "GeometryCollection", "geometries": [{"type": "Point", "coordinates": []}]},
    {"href": None}, {"href": 7}, {"href": "a.tif", "file:size": "x", "file:checksum": 9}, [{"rel": "self"}], [{"href": 1, "rel": "self"}],
]  # fmt: skip


def mutated(rng: random.Random, value: Any, times: int) -> Any:
    """A document with some of its parts replaced, removed, doubled or moved."""
    document = json.loads(json.dumps(value))
    for _ in range(times):
        holder, key = document, None
        while True:
            keys = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
            if not keys:
                break
            key = rng.choice(keys)
            if isinstance(holder[key], dict | list) and holder[key] and rng.random() < 0.7:
                holder = holder[key]
                continue
            break
        if key is None:
            continue
        action = rng.random()
        if action < 0.2:
            del holder[key]
        elif action < 0.3 and isinstance(holder, dict):
            holder[str(rng.choice(ODD))[:40]] = holder[key]
        else:
            holder[key] = copy.deepcopy(rng.choice(ODD))
    return document


def request_on(catalog: str, folder: Path) -> RunRequest:
    return validate_request(
        {
            "catalog": catalog, "collections": ["sentinel-2-l2a"], "area": {"bbox": [23.9, 40.5, 24.0, 40.6]}, "dates": "2021",
            "product": {"kind": "assets", "bands": ["red", "scl"]}, "output": str(folder / "out"),
            "limits": {"max_attempts": 2, "retry_wait": 0.0},
        }
    )  # fmt: skip


def check_items(rng: random.Random, folder: Path) -> None:
    """A file of items, to scenes, a selection and a cache."""
    items = [
        mutated(rng, scene.item("https://example.com"), rng.randint(0, 6)) for scene in SCENES[:4]
    ]
    document: Any = {"type": "FeatureCollection", "features": items}
    if rng.random() < 0.2:
        document = mutated(rng, document, 2)
    (folder / "items.json").write_text(json.dumps(document))
    request = request_on(str(folder / "items.json"), folder)
    found = search_items(request, [])
    scenes = scenes_from_items(found, request)
    select(scenes, request, None, "acquisition")
    store = open_store(str(folder / "out"))
    write_search(request, found, store)


def check_answers(rng: random.Random, folder: Path) -> None:
    """An API whose pages and items are wrong."""
    items = [mutated(rng, scene.item("https://example.com"), rng.randint(0, 3)) for scene in SCENES]
    items = [
        item
        for item in items
        if isinstance(item, dict) and isinstance(item.get("geometry"), dict | None) and "id" in item
    ]
    modes = [
        "good",
        "nulls",
        "dup",
        "emptymid",
        "merge",
        "relnext",
        "context",
        "nolinks",
        "loop",
        "error200p2",
        "list",
        "badjson",
    ]
    for item in items:
        item["geometry"] = SCENES[0].item("https://example.com")["geometry"]
    with serve_bad_api(rng.choice(modes), items, page=3) as api:
        request = request_on(api.url, folder)
        found = search_items(request, [SearchQuery((23.9, 40.5, 24.0, 40.6))])
        scenes_from_items(found, request)
        store = open_store(str(folder / "out"))
        write_search(request, found, store)
        kept = read_search(request, store)
        if kept is not None and json.dumps(list(kept)) != json.dumps(list(found)):
            raise AssertionError("what was kept is not what came")


CHECKS: list[Callable[[random.Random, Path], None]] = [
    check_items,
    check_items,
    check_items,
    check_answers,
]


def fuzz(seconds: float, seed: int) -> list[str]:
    """What was found wrong in so many seconds."""
    logging.disable(logging.CRITICAL)
    found: list[str] = []
    until, count, number = time.monotonic() + seconds, 0, seed * 1_000_000
    refused, growth = 0, 0
    with TemporaryDirectory() as name:
        while time.monotonic() < until and len(found) < 20:
            number += 1
            rng = random.Random(number)
            began = time.monotonic()
            reset_peak()
            before = resident_bytes("VmRSS")
            try:
                rng.choice(CHECKS)(rng, Path(name))
            except SceneBeamError:
                refused += 1
            except Exception:
                found.append(f"seed {number}: {traceback.format_exc()[-1500:]}")
            if time.monotonic() - began > SLOWEST:
                found.append(f"seed {number}: took {time.monotonic() - began:.1f} s")
            growth = max(growth, resident_bytes("VmHWM") - before)
            if resident_bytes("VmHWM") - before > LARGEST_GROWTH:
                found.append(f"seed {number}: {resident_bytes('VmHWM') - before:,} bytes of memory")
            count += 1
    logging.disable(logging.NOTSET)
    print(
        f"{count} inputs, {refused} refused in words; most memory {growth // 2**20} MiB; {len(found)} findings"
    )
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    words = parser.parse_args()
    found = fuzz(words.seconds, words.seed)
    print("\n".join(found))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
