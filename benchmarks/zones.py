"""Mosaic benchmark across two UTM zones: 40 x 40 km, a full-size tile on either side of the border.

    python benchmarks/zones.py --rounds 5

Three bands, bilinear, first valid pixel, COGs with overviews. The grid is that of the western tile,
so its pixels are copied, and the eastern tile is warped.

Ways are interleaved round by round, and each run starts a fresh interpreter. Imports and planning
are not timed. The pixels of all ways are checked first: copied pixels must be equal to those of the
tile, and warped pixels are compared with an interpolation at exact coordinates. All of these tools
warp with GDAL, which approximates coordinates by up to an eighth of a pixel, each tool in its own
pieces. So up to `TOLERATED` of the warped pixels may differ by more than `MARGIN`; two pixels along
the edge of the eastern tile are exempt.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from common import (
    CORE_COLUMNS,
    DATA,
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
    run_rounds,
    time_cells,
)
from mosaic_job import (
    MosaicJob,
    Way,
    odc_stac_dask,
    odc_stac_pool,
    rasterio_tuned,
    read_bands,
    reference,
    run_way,
    scenebeam,
)

WEST = TILES[0]
JOB = MosaicJob(
    (WEST, OTHER_ZONE),
    ("red", "green", "nir"),
    (690_000, 4_455_000, 730_000, 4_495_000),
    resampling="bilinear",
)
LATENCIES = (0.0, 0.1)
WAYS: dict[str, Way] = {
    "scenebeam": scenebeam,
    "odc-stac": odc_stac_pool,
    "odc-stac + dask": odc_stac_dask,
    "WarpedVRT tuned": rasterio_tuned,
    "reference": reference,
}
SLOW = ("odc-stac + dask", "reference")
"""Ways that are so far from the fastest ones that one round shows it."""
MARGIN, TOLERATED = 5, 0.03
"""Largest difference of a warped pixel, where values are around 1000, and the share of the pixels
that may differ by more."""


@dataclass(frozen=True)
class Expected:
    """The expected pixels of a band: all copied ones, and some warped ones at exact coordinates."""

    copied: np.ndarray
    rows: np.ndarray
    columns: np.ndarray
    """Where the warped ones are in the mosaic."""
    warped: np.ndarray


def expected_pixels() -> dict[str, Expected]:
    """Return what each band of the mosaic must be, computed from the files without a warper."""
    import rasterio
    from pyproj import Transformer

    left, _, _, top = JOB.bounds
    edge = (WEST.left + WEST.size * 10 - left) // 10
    rows, columns = np.mgrid[0 : JOB.shape[0] : 4, edge : JOB.shape[1]]
    transformer = Transformer.from_crs(JOB.epsg, OTHER_ZONE.epsg, always_xy=True)
    x, y = transformer.transform(left + columns * 10 + 5, top - rows * 10 - 5)
    # Positions in the eastern tile, in pixels from the center of its first one.
    across, down = (x - OTHER_ZONE.left) / 10 - 0.5, (OTHER_ZONE.top - y) / 10 - 0.5
    inside = (across > 2) & (across < OTHER_ZONE.size - 3)
    found = {}
    for band in JOB.bands:
        with rasterio.open(DATA / OTHER_ZONE.id / f"{band}.tif") as file:
            warped = _interpolate(file.read(1), down[inside], across[inside])
        with rasterio.open(DATA / WEST.id / f"{band}.tif") as file:
            pixels = file.read(1)
        row, column = (WEST.top - top) // 10, (left - WEST.left) // 10
        copied = pixels[row : row + JOB.shape[0], column : column + edge]
        found[band] = Expected(copied, rows[inside], columns[inside], warped)
    return found


def _interpolate(pixels: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Interpolate between the four pixels around each position; rounded half up."""
    top, left = np.floor(rows).astype(int), np.floor(columns).astype(int)
    down, right = rows - top, columns - left
    upper = pixels[top, left] * (1 - right) + pixels[top, left + 1] * right
    lower = pixels[top + 1, left] * (1 - right) + pixels[top + 1, left + 1] * right
    rounded: np.ndarray = np.floor(upper * (1 - down) + lower * down + 0.5)
    return rounded


def compare(url: str) -> None:
    """Compare all ways with the expected pixels, and print by how much they differ."""
    expected = expected_pixels()
    for way in WAYS:
        with tempfile.TemporaryDirectory() as folder:
            in_fresh_process(__file__, {"way": way, "url": url, "save": folder})
            found = read_bands(JOB, Path(folder))
        share = 0.0
        for band, pixels in found.items():
            wanted = expected[band]
            copied = pixels[:, : wanted.copied.shape[1]]
            np.testing.assert_array_equal(copied, wanted.copied, err_msg=f"{way}: {band}")
            difference = np.abs(pixels[wanted.rows, wanted.columns] - wanted.warped)
            share = max(share, float(np.mean(difference > MARGIN)))
        print(f"{way}: {100 * share:.2f} % of the warped pixels differ by more than {MARGIN}")
        assert share <= TOLERATED, f"{way}: pixels differ"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--slow-rounds", type=int, default=1, help=f"of {', '.join(SLOW)}")
    parser.add_argument("--one")
    args = parser.parse_args()
    if args.one:
        print(json.dumps(run_way(json.loads(args.one), JOB, WAYS)))
        return
    full_size_tiles(JOB.bands, JOB.tiles)
    print(machine())
    with range_server(0.0) as url:
        compare(url)
    print()
    print_header(
        *("way", "latency ms", *TIME_COLUMNS, *CORE_COLUMNS), *("peak MB", "requests", "MB read")
    )
    rounds = {way: args.slow_rounds if way in SLOW else args.rounds for way in WAYS}
    all_runs: dict[str, Runs] = {}
    for latency in LATENCIES:
        with range_server(latency) as url:
            runs = run_rounds(__file__, url, rounds)
        all_runs[f"{latency * 1000:.0f} ms"] = runs
        for way, found in runs.items():
            print_row(
                way,
                f"{latency * 1000:.0f}",
                *time_cells(found),
                *core_cells(found),
                f"{median_of(found, 'peak_mb'):.0f}",
                f"{median_of(found, 'requests'):.0f}",
                f"{median_of(found, 'bytes') / 1e6:.1f}",
            )
    print()
    print_all_ratios(all_runs)
    for name, runs in all_runs.items():
        print_timelines(f"scenebeam, {name}", runs["scenebeam"])


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main()
