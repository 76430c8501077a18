"""Timestamp benchmark: a whole recorded acquisition, three full-size tiles in two UTM zones.

    python benchmarks/timestamp.py

The tiles are those of an acquisition of a recorded time series (34TFL, 35TKF and 34TFK): red and
nir at 10 m and the scene classification at 20 m, one mosaic per band, nearest neighbor, on one 10 m
grid of zone 34 that holds all tiles. The server adds no latency.

scenebeam is a whole run on its serial runner, with plan and report. rasterio.merge reads the tile
of the other zone through a WarpedVRT, tuned: all bands in parallel, or one after another, which
takes less memory. Each run starts a fresh interpreter; imports are not timed. The mosaics that were
timed are compared: only a share of `TOLERATED` may differ. GDAL approximates coordinates by up to
an eighth of a pixel, so near the middle between two pixels either of them may be the nearest.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from common import (
    CORE_COLUMNS,
    OTHER_ZONE,
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
    stats,
    time_cells,
)
from mosaic_job import (
    FAST_COG,
    TUNED,
    MosaicJob,
    Way,
    Work,
    merge_band,
    rasterio_tuned,
    run_way,
    scenebeam_run,
)

JOB = MosaicJob(
    (TILES[0], OTHER_ZONE, TILES[2]),
    ("red", "nir", "scl"),
    (600_000, 4_290_200, 824_690, 4_504_340),
)
TOLERATED = 0.05
"""Share of the pixels with data that may differ."""


def one_band_after_another(job: MosaicJob, base: str, out: Path) -> Work:
    """rasterio.merge, tuned, but one band after another."""
    import rasterio
    import rasterio.merge

    def work() -> None:
        with rasterio.Env(**TUNED):
            for band in job.bands:
                merge_band(job, base, band, out, FAST_COG, warp_threads=2)

    return work


WAYS: dict[str, Way] = {
    "scenebeam": scenebeam_run,
    "rasterio.merge, bands in parallel": rasterio_tuned,
    "rasterio.merge, one band after another": one_band_after_another,
}


def compare(out: Path, other: Path) -> None:
    """Compare the mosaics of two ways, in pieces that fit into memory."""
    import rasterio
    from rasterio.windows import Window

    height, width = JOB.shape
    for band in JOB.bands:
        differing = valid = 0
        with rasterio.open(out / f"{band}.tif") as one, rasterio.open(other / f"{band}.tif") as two:
            assert one.overviews(1), f"{out}: {band}"
            assert one.shape == two.shape == JOB.shape
            for top in range(0, height, 2048):
                window = Window(0, top, width, min(2048, height - top))
                left, right = one.read(1, window=window), two.read(1, window=window)
                differing += int(np.count_nonzero(left != right))
                valid += int(np.count_nonzero(right))
        print(f"{band}: {100 * differing / valid:.2f} % of {valid / 1e6:.0f} Mpixel differ")
        assert differing <= TOLERATED * valid, f"{out} and {other}: {band} differs"


def measure_round(url: str, runs: Runs) -> None:
    """Run each way once, and compare the mosaics of the first two."""
    folders: list[Path] = []
    with tempfile.TemporaryDirectory() as name:
        for way, found in runs.items():
            folder = Path(name, str(len(folders)))
            folder.mkdir()
            stats(url)
            config = {"way": way, "url": url, "save": str(folder)}
            found.append({**in_fresh_process(__file__, config), **stats(url)})
            folders.append(folder)
        for folder in folders[1:]:
            compare(folders[0], folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--one")
    args = parser.parse_args()
    if args.one:
        print(json.dumps(run_way(json.loads(args.one), JOB, WAYS)))
        return
    for tile in JOB.tiles:
        full_size_tiles(JOB.bands, (tile,))
    print(machine())
    runs: Runs = {way: [] for way in WAYS}
    with range_server(0.0) as url:
        for _ in range(args.rounds):
            measure_round(url, runs)
    print()
    print_header("way", *TIME_COLUMNS, *CORE_COLUMNS, "peak MB", "requests", "MB read")
    for way, found in runs.items():
        cells: list[Any] = [way, *time_cells(found), *core_cells(found)]
        for key, factor in (("peak_mb", 1.0), ("requests", 1.0), ("bytes", 1e-6)):
            cells.append(f"{median_of(found, key) * factor:.0f}")
        print_row(*cells)
    print()
    print_all_ratios({"0 ms": runs})
    print_timelines("scenebeam", runs["scenebeam"])


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main()
