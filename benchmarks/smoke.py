"""Smoke benchmark: a small mosaic, compared with the recorded ratios. It takes under two minutes.

    make bench-smoke      (or: python benchmarks/smoke.py [--record])

A mosaic of 30 x 30 km over the corner of four tiles of 3072 px is made by scenebeam and by
rasterio.merge, tuned, in turn. What is compared with `recorded.json` does not depend on the speed
of the machine: requests, bytes over the least possible, CPU time over the floor, and the wall time
of rasterio over that of scenebeam. More requests or bytes than recorded are an error, because they
are the same in every run. Times vary between runs and machines, so they are only printed.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from common import (
    TILES,
    Runs,
    full_size_tiles,
    in_fresh_process,
    machine,
    median_of,
    print_header,
    print_row,
    range_server,
    run_rounds,
)
from mosaic_job import (
    MosaicJob,
    Way,
    measure_floor,
    rasterio_tuned,
    read_bands,
    run_way,
    scenebeam,
)

SIZE = 3072
CORNERS = ((700_000, 4_428_000), (728_000, 4_428_000), (700_000, 4_400_000), (728_000, 4_400_000))
SMALL_TILES = tuple(
    replace(tile, left=left, top=top, acquired=tile.acquired.replace(year=2020), size=SIZE)
    for tile, (left, top) in zip(TILES, CORNERS, strict=True)
)
JOB = MosaicJob(SMALL_TILES, ("red", "nir"), (713_000, 4_384_000, 743_000, 4_414_000))
WAYS: dict[str, Way] = {"scenebeam": scenebeam, "rasterio.merge": rasterio_tuned}
ROUNDS = 3
LATENCY = 0.03
RECORDED = Path(__file__).parent / "recorded.json"
COUNTS = ("requests", "bytes / least")
"""What must not exceed the recorded value."""


def exceeded(found: Mapping[str, float], recorded: Mapping[str, float]) -> list[str]:
    """Return a message for each count that exceeds the recorded one; times never do.

    Args:
        found: Measure → value.
        recorded: The same, from `recorded.json`.
    """
    messages = []
    for name in COUNTS:
        if found[name] > recorded[name]:
            messages.append(f"{name}: {found[name]:g}, recorded are {recorded[name]:g}")
    return messages


def compare_pixels(url: str) -> None:
    """Compare the mosaics of both ways, which also warms the page cache."""
    bands = []
    for way in WAYS:
        with tempfile.TemporaryDirectory() as folder:
            in_fresh_process(__file__, {"way": way, "url": url, "save": folder})
            bands.append(read_bands(JOB, Path(folder)))
    for band, pixels in bands[0].items():
        np.testing.assert_array_equal(pixels, bands[1][band], err_msg=band)


def measure() -> dict[str, float]:
    """Run both ways in turn, and return measure → value."""
    folder = full_size_tiles(JOB.bands, SMALL_TILES)
    with range_server(0.0) as url:
        compare_pixels(url)
    floors = [measure_floor(JOB, folder) for _ in range(ROUNDS)]
    with range_server(LATENCY) as url:
        runs: Runs = run_rounds(__file__, url, dict.fromkeys(WAYS, ROUNDS))
    own, other = runs["scenebeam"], runs["rasterio.merge"]
    return {
        "requests": median_of(own, "requests"),
        "bytes / least": round(median_of(own, "bytes") / floors[0]["bytes"], 4),
        "CPU / floor": round(median_of(own, "cpu") / median_of(floors, "cpu"), 2),
        "wall of rasterio.merge / wall": round(
            median_of(other, "wall") / median_of(own, "wall"), 2
        ),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--record", action="store_true", help="write recorded.json")
    parser.add_argument("--one")
    args = parser.parse_args()
    if args.one:
        print(json.dumps(run_way(json.loads(args.one), JOB, WAYS)))
        return
    found = measure()
    if args.record:
        RECORDED.write_text(json.dumps(found, indent=2) + "\n")
    recorded = json.loads(RECORDED.read_text())
    print(f"{machine()}; medians of {ROUNDS} rounds, {LATENCY * 1000:.0f} ms\n")
    print_header("scenebeam", "measured", "recorded")
    for name, value in found.items():
        print_row(name, f"{value:g}", f"{recorded[name]:g}")
    messages = exceeded(found, recorded)
    if messages:
        sys.exit("scenebeam reads more than it did:\n  " + "\n  ".join(messages))


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main()
