"""Index benchmark: NDVI with clouds masked, of one full-size tile and of the area of four tiles.

    python benchmarks/index.py --rounds 3

Measures core use and peak memory of whole runs on the direct runner, including plan and report but
not imports, and compares them with the serial runner, which does without Beam. Core use is that of
the process and of the whole machine, on which the range server also runs.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

import psutil
from common import (
    TILES,
    full_size_tiles,
    in_fresh_process,
    machine,
    measured,
    median_of,
    print_header,
    print_row,
    range_server,
    spread,
    stats,
)

BANDS = ("red", "nir", "scl")
AREAS = {
    "one tile": (600_000, 4_390_200, 709_800, 4_500_000),
    "four tiles": (600_000, 4_290_200, 809_800, 4_500_000),
}
RUNNERS = ("direct", "serial")
LATENCY = 0.03


def one(config: dict[str, Any]) -> dict[str, Any]:
    """Run once in this process."""
    import apache_beam  # noqa: F401

    from scenebeam.execution.driver import run
    from scenebeam.requestfile import validate_request
    from scenebeam.sandbox.scenes import COLLECTION

    with tempfile.TemporaryDirectory() as folder:
        catalog = Path(folder) / "items.json"
        items = [tile.item(config["url"]) for tile in TILES]
        catalog.write_text(json.dumps({"type": "FeatureCollection", "features": items}))
        request = validate_request(
            {
                "catalog": str(catalog),
                "collections": [COLLECTION],
                "grid": {
                    "crs": "EPSG:32634",
                    "resolution": 10,
                    "bounds": list(AREAS[config["area"]]),
                },
                "product": {"kind": "index", "index": "ndvi"},
                "output": str(Path(folder) / "out"),
                "runner": config["runner"],
            }
        )

        def work() -> None:
            status = run(request)
            assert status.state == "succeeded", status

        before = psutil.cpu_times()
        found = measured(work)
        after = psutil.cpu_times()
        idle = after.idle - before.idle + after.iowait - before.iowait
        return {**found, "busy": 1 - idle / (found["wall"] * (os.cpu_count() or 1))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one")
    args = parser.parse_args()
    if args.one:
        print(json.dumps(one(json.loads(args.one))))
        return
    full_size_tiles(BANDS)
    cores = os.cpu_count() or 1
    print(f"{machine()}; {LATENCY * 1000:.0f} ms\n")
    print_header(
        *("area", "runner", "wall s", "CPU s", "core use, process", "core use, machine"),
        *("peak MB", "requests", "MB read"),
    )
    with range_server(LATENCY) as url:
        runs: dict[tuple[str, str], list[dict[str, Any]]] = {
            (area, runner): [] for area in AREAS for runner in RUNNERS
        }
        for _ in range(args.rounds):
            for area, runner in runs:
                stats(url)
                found = in_fresh_process(
                    __file__, {"way": "index", "area": area, "runner": runner, "url": url}
                )
                runs[area, runner].append({**found, **stats(url)})
    for (area, runner), found_runs in runs.items():
        walls, cpus = ([run[key] for run in found_runs] for key in ("wall", "cpu"))
        busy = median(run["cpu"] / run["wall"] / cores for run in found_runs)
        print_row(
            area,
            runner,
            spread(walls),
            spread(cpus),
            f"{100 * busy:.0f} %",
            f"{100 * median_of(found_runs, 'busy'):.0f} %",
            f"{median_of(found_runs, 'peak_mb'):.0f}",
            f"{median_of(found_runs, 'requests'):.0f}",
            f"{median_of(found_runs, 'bytes') / 1e6:.0f}",
        )


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main()
