"""Download benchmark: 60 band files of 20 scenes, with 30 ms of latency and limited bandwidth.

    make bench            (or: python benchmarks/assets.py --rounds 5)

Ways are interleaved round by round, and each run starts a fresh interpreter. Imports and planning
are not timed. scenebeam's time includes the downloads, SHA-256, decoding blocks to check them,
items and tables; the other ways only download. All files are compared with the served ones byte for
byte.
"""

from __future__ import annotations

import argparse
import asyncio
import filecmp
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from common import (
    DATA,
    in_fresh_process,
    machine,
    measured,
    range_server,
    spread,
    stats,
)

from scenebeam.sandbox.scenes import COLLECTION, SandboxScene

BANDS = ("red", "green", "nir")
SCENES = 20
SIZE = 4000
LATENCY, RATE = 0.03, 10e6
AT_ONCE = 8
LOOP = "requests, loop"


def scenes() -> list[SandboxScene]:
    """Return twenty scenes of a tile that no other benchmark uses. They share three files."""
    first = datetime(2021, 6, 10, 9, 20, 31)
    return [
        SandboxScene(
            "34TFM", 32634, 600_000, 4_500_000, first + timedelta(days=5 * number), size=SIZE
        )
        for number in range(SCENES)
    ]


def prepare() -> int:
    """Write the files to serve, and return their total size in bytes."""
    first, *others = scenes()
    missing = [band for band in BANDS if not (DATA / first.id / f"{band}.tif").exists()]
    if missing:
        first.write(DATA, missing, block=1024)
    for other in others:
        (DATA / other.id).mkdir(exist_ok=True)
        for band in BANDS:
            link = DATA / other.id / f"{band}.tif"
            if not link.exists():
                os.link(DATA / first.id / f"{band}.tif", link)
    return SCENES * sum((DATA / first.id / f"{band}.tif").stat().st_size for band in BANDS)


def items(url: str) -> list[dict[str, Any]]:
    found = []
    for scene in scenes():
        item = scene.item(url)
        item["assets"] = {band: item["assets"][band] for band in BANDS}
        found.append(item)
    return found


def scenebeam(url: str, out: Path) -> Callable[[], None]:
    """A run of the assets product, with a plan that was frozen before."""
    from scenebeam.execution.driver import run
    from scenebeam.planning.reuse import load_or_create_plan
    from scenebeam.requestfile import validate_request
    from scenebeam.storage import open_store

    catalog = out / "items.json"
    catalog.write_text(json.dumps({"type": "FeatureCollection", "features": items(url)}))
    request = validate_request(
        {
            "catalog": str(catalog),
            "collections": [COLLECTION],
            "product": {"kind": "assets", "bands": list(BANDS)},
            "limits": {"max_download_workers": AT_ONCE, "max_per_host": AT_ONCE},
            "output": str(out),
        }
    )

    start = time.perf_counter()
    load_or_create_plan(request, open_store(request.output))
    print(f"planned in {time.perf_counter() - start:.2f} s", file=sys.stderr)

    def work() -> None:
        status = run(request)
        assert status.state == "succeeded", status
        for folder in (out / "raw").iterdir():
            folder.rename(out / folder.name)

    return work


def stac_asset(url: str, out: Path) -> Callable[[], None]:
    """stac_asset.download_item_collection, with its own concurrency."""
    import pystac
    import stac_asset

    collection = pystac.ItemCollection(items(url))
    config = stac_asset.Config(warn=False)

    def work() -> None:
        asyncio.run(
            stac_asset.download_item_collection(
                collection, out, config=config, max_concurrent_downloads=AT_ONCE
            )
        )

    return work


def fetch(session: Any, href: str, path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    with session.get(href, stream=True) as answer, path.open("wb") as file:
        answer.raise_for_status()
        for data in answer.iter_content(2**20):
            file.write(data)


def places(url: str, out: Path) -> list[tuple[str, Path]]:
    return [
        (f"{url}/{scene.id}/{band}.tif", out / scene.id / f"{band}.tif")
        for scene in scenes()
        for band in BANDS
    ]


def requests_loop(url: str, out: Path) -> Callable[[], None]:
    """A plain loop over requests.get."""
    import requests

    def work() -> None:
        with requests.Session() as session:
            for href, path in places(url, out):
                fetch(session, href, path)

    return work


def requests_threads(url: str, out: Path) -> Callable[[], None]:
    """The same loop on threads, with as many connections as the other ways."""
    import requests

    def work() -> None:
        with requests.Session() as session, ThreadPoolExecutor(AT_ONCE) as threads:
            list(threads.map(lambda place: fetch(session, *place), places(url, out)))

    return work


WAYS = {
    "scenebeam": scenebeam,
    "stac-asset": stac_asset,
    "requests, threads": requests_threads,
    LOOP: requests_loop,
}


def one(config: dict[str, Any]) -> dict[str, Any]:
    out = Path(config["out"])
    return measured(WAYS[config["way"]](config["url"], out))


def compare(out: Path) -> None:
    for scene in scenes():
        for band in BANDS:
            served = DATA / scene.id / f"{band}.tif"
            assert filecmp.cmp(served, out / scene.id / f"{band}.tif", shallow=False), (
                f"{out}/{scene.id}/{band}"
            )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--loop", action="store_true", help="time a plain loop too: two minutes")
    parser.add_argument("--one")
    args = parser.parse_args()
    if args.one:
        print(json.dumps(one(json.loads(args.one))))
        return
    size = prepare()
    ways = [way for way in WAYS if args.loop or way != LOOP]
    found: dict[str, list[dict[str, Any]]] = {way: [] for way in ways}
    with range_server(LATENCY, RATE) as url:
        for number in range(args.rounds):
            for way in ways:
                if way == LOOP and number:
                    continue  # one round suffices: it takes two minutes and hardly varies
                with tempfile.TemporaryDirectory(dir=DATA) as folder:
                    out = Path(folder)
                    stats(url)
                    result = in_fresh_process(__file__, {"way": way, "url": url, "out": str(out)})
                    found[way].append({**result, **stats(url)})
                    compare(out)
                print(f"round {number + 1}: {way}: {found[way][-1]['wall']:.2f} s", file=sys.stderr)
    best = RATE * AT_ONCE
    print(f"{machine()}, Python {platform.python_version()}")
    print(f"{SCENES * len(BANDS)} files, {size / 1e6:.0f} MB")
    print(f"minimum at {AT_ONCE} x {RATE / 1e6:.0f} MB/s: {size / best:.2f} s\n")
    print(
        "| way | wall s | CPU s | peak MB | requests | bytes / least |\n|---|---|---|---|---|---|"
    )
    for way, rounds in found.items():
        peak, requests = max(r["peak_mb"] for r in rounds), max(r["requests"] for r in rounds)
        ratio = max(r["bytes"] for r in rounds) / size
        walls, cpus = spread([r["wall"] for r in rounds]), spread([r["cpu"] for r in rounds])
        print(f"| {way} | {walls} | {cpus} | {peak:.0f} | {requests} | {ratio:.3f} |")


if __name__ == "__main__":
    main()
