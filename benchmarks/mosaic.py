"""Mosaic benchmark: 40 x 40 km over four overlapping full-size tiles.

Three bands, first valid pixel, COGs with overviews.

    make bench            (or: python benchmarks/mosaic.py --rounds 5)

Ways are interleaved round by round, and each run starts a fresh interpreter. Imports and planning
are not timed. The pixels of all ways are compared before anything is timed. Slow ways take part in
one round only.
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

import numpy as np
from common import (
    CORE_COLUMNS,
    CORES,
    DATA,
    READ_COLUMNS,
    TILES,
    TIME_COLUMNS,
    Runs,
    core_cells,
    full_size_tiles,
    in_fresh_process,
    machine,
    median_of,
    print_all_ratios,
    print_header,
    print_row,
    print_timelines,
    range_server,
    read_cells,
    run_rounds,
    spread,
    time_cells,
)
from mosaic_job import (
    MosaicJob,
    Way,
    async_geotiff,
    measure_floor,
    odc_stac_dask,
    rasterio_tuned,
    read_bands,
    reference,
    rio_tiler,
    run_way,
    scenebeam,
)

JOB = MosaicJob(TILES, ("red", "green", "nir"), (680_000, 4_375_000, 720_000, 4_415_000))
LATENCIES = (0.0, 0.03, 0.1)
FROM_DISK = "scenebeam, files on disk"
WAYS: dict[str, Way] = {
    "scenebeam": scenebeam,
    "async-geotiff": async_geotiff,
    "rasterio tuned": rasterio_tuned,
    "odc-stac + dask": odc_stac_dask,
    "rio-tiler": rio_tiler,
    "reference": reference,
    FROM_DISK: scenebeam,
}
SLOW = ("odc-stac + dask", "rio-tiler", "reference")
"""Ways that are so far from the fastest ones that one round shows it."""


def compare(url: str, ways: list[str]) -> None:
    """Compare the pixels of all ways with those of the first."""
    expected: dict[str, np.ndarray] = {}
    for way in ways:
        with tempfile.TemporaryDirectory() as folder:
            in_fresh_process(__file__, {"way": way, "url": url, "save": folder})
            found = read_bands(JOB, Path(folder))
        expected = expected or found
        for band, pixels in found.items():
            np.testing.assert_array_equal(pixels, expected[band], err_msg=f"{way}: {band}")
    print(f"all ways give the same pixels; {machine()}")


def floors_of(folder: Path) -> tuple[float, float]:
    """Measure and print the floor. Returns its CPU seconds on one thread and on all cores."""
    found = []
    for threads in (1, CORES):
        runs = [measure_floor(JOB, folder, threads) for _ in range(3)]
        walls, cpus = ([run[key] for run in runs] for key in ("wall", "cpu"))
        print(f"floor on {threads} threads: {spread(walls)} wall s, {spread(cpus)} CPU s")
        found.append(median(cpus))
    return found[0], found[1]


def print_table(runs: Runs, latency: str, floors: tuple[float, float], least: float) -> None:
    """Print the rows of one latency."""
    for way, found in runs.items():
        cpu = median_of(found, "cpu")
        print_row(
            way,
            latency,
            *time_cells(found),
            f"{cpu / floors[0]:.2f}, {cpu / floors[1]:.2f}",
            *core_cells(found),
            *read_cells(found, least),
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--slow-rounds", type=int, default=1, help=f"of {', '.join(SLOW)}")
    parser.add_argument("--ways", default=",".join(way for way in WAYS if way != FROM_DISK))
    parser.add_argument("--one")
    args = parser.parse_args()
    if args.one:
        print(json.dumps(one(json.loads(args.one))), flush=True)
        os._exit(0)  # obstore's threads can abort an interpreter that exits normally
    folder = full_size_tiles(JOB.bands)
    ways = args.ways.split(",")
    with range_server(0.0) as url:
        compare(url, ways)
    least = measure_floor(JOB, folder)
    floors = floors_of(folder)
    print(f"least: {least['bytes'] / 1e6:.1f} MB", end=", ")
    print(f"{least['requests']} requests, {least['blocks']} blocks\n")
    print("CPU / floor: relative to the floor on one thread, and to the floor on all cores\n")
    print_header("way", "latency ms", *TIME_COLUMNS, "CPU / floor", *CORE_COLUMNS, *READ_COLUMNS)
    rounds = {way: args.slow_rounds if way in SLOW else args.rounds for way in ways}
    all_runs: dict[str, Runs] = {}
    for latency in LATENCIES:
        with range_server(latency) as url:
            runs = run_rounds(__file__, url, rounds)
            if not latency:
                on_disk = run_rounds(__file__, url, {FROM_DISK: args.rounds})
        all_runs[f"{latency * 1000:.0f} ms"] = runs
        print_table(runs, f"{latency * 1000:.0f}", floors, least["bytes"])
    print_table(on_disk, "disk", floors, least["bytes"])
    print()
    print_all_ratios(all_runs)
    for name, runs in all_runs.items():
        print_timelines(f"scenebeam, {name}", runs.get("scenebeam", []))
    print_timelines(FROM_DISK, on_disk[FROM_DISK])


def one(config: dict[str, Any]) -> dict[str, Any]:
    """Run one way once in this process."""
    base = str(DATA) if config["way"] == FROM_DISK else config["url"]
    return run_way({**config, "url": base}, JOB, WAYS)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main()
