"""Chips of places: 5,000 places, four dates, six bands, packed into tar files; and plans of many.

    python benchmarks/places.py [--rounds 2] [--tables pack read plans]

`pack` compares scenebeam with rasterio grouped by scene, each file opened once and chips read in
the order of its blocks, and `tarfile`. `read` times one epoch of each layout. `plans` times plans
of 10,000 to 1,000,000 places.
"""

from __future__ import annotations

import argparse
import io
import json
import random
import tarfile
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from common import (
    BLOCK,
    CORES,
    DATA,
    READ_COLUMNS,
    TILES,
    TIME_COLUMNS,
    TUNED,
    full_size_tiles,
    in_fresh_process,
    machine,
    measured,
    print_all_ratios,
    print_header,
    print_row,
    range_server,
    read_cells,
    run_rounds,
    stats,
    time_cells,
)

from scenebeam.sandbox.scenes import COLLECTION, SandboxScene

BANDS = ("red", "green", "blue", "nir", "swir16", "swir22")
DATES = tuple(datetime(2021, month, 10, 9, 20, 31) for month in (5, 6, 7, 8))
SCENES = tuple(replace(TILES[0], acquired=day, cloud_cover=0.0) for day in DATES)
SIDE, COUNT, READ_COUNT = 64, 5000, 1000
LATENCY = 0.03
SCENEBEAM, RASTERIO = "scenebeam", "rasterio grouped by scene + tarfile"
LAYOUTS = ("cogs", "webdataset", "parquet", "zarr")
PLANS = (10_000, 100_000, 1_000_000)
Corner = tuple[int, int]
"""Row and column of the upper-left pixel, at 10 m."""


def corners(count: int) -> list[Corner]:
    draw = random.Random(7)
    # Even, so that chips are on the pixels of 20 m bands, too.
    most = (10980 - SIDE) // 2
    return [(2 * draw.randrange(most), 2 * draw.randrange(most)) for _ in range(count)]


def request_for(folder: Path, url: str, count: int, layout: str) -> Any:
    """Write the places and the items, and return a request of them."""
    from pyproj import Transformer

    from scenebeam.requestfile import validate_request

    tile = TILES[0]
    to_lonlat = Transformer.from_crs(tile.epsg, 4326, always_xy=True)
    lines = ["id,lon,lat"]
    for number, (row, column) in enumerate(corners(count)):
        x = tile.left + (column + SIDE / 2) * 10
        y = tile.top - (row + SIDE / 2) * 10
        lon, lat = to_lonlat.transform(x, y)
        lines.append(f"p{number:05d},{lon:.9f},{lat:.9f}")
    (folder / "places.csv").write_text("\n".join(lines) + "\n")
    items = [scene.item(url) for scene in SCENES]
    (folder / "items.json").write_text(json.dumps({"type": "FeatureCollection", "features": items}))
    return validate_request(
        {
            "catalog": str(folder / "items.json"),
            "collections": [COLLECTION],
            "dates": [f"{day:%Y-%m}" for day in DATES],
            "product": {
                "kind": "chips",
                "places": str(folder / "places.csv"),
                "size": SIDE,
                # The tile's own zone, so that its eastern edge is not resampled.
                "crs": f"EPSG:{tile.epsg}",
                "bands": list(BANDS),
                "split": None,
                "layout": layout,
            },
            "output": str(folder / layout),
            "runner": "serial",
        }
    )


def scenebeam_way(url: str, folder: Path) -> Callable[[], None]:
    """All tasks of the product, as many at once as there are cores."""
    from scenebeam.execution.make import limit_malloc_arenas
    from scenebeam.planning.reuse import load_or_create_plan
    from scenebeam.products import product_of
    from scenebeam.storage import open_store
    from scenebeam.transfer.retry import Budget

    limit_malloc_arenas()  # as every run does
    request = request_for(folder, url, COUNT, "webdataset")
    store = open_store(request.output)
    tasks = load_or_create_plan(request, store).tasks
    product = product_of("chips")

    def make(task: Any) -> None:
        outcome = product.make(task, store, Budget(private=True))
        assert outcome.state == "done", outcome

    def work() -> None:
        with ThreadPoolExecutor(CORES) as threads:
            list(threads.map(make, tasks))

    return work


def rasterio_way(url: str, folder: Path) -> Callable[[], None]:
    """Read scene by scene, chips in the order of blocks and bands in parallel; then write tars."""
    import rasterio
    from rasterio.enums import Resampling
    from rasterio.windows import Window

    some = corners(COUNT)
    ordered = sorted(range(COUNT), key=lambda n: (some[n][0] // BLOCK, some[n][1] // BLOCK))

    def work() -> None:
        pixels = np.empty((COUNT, len(SCENES), len(BANDS), SIDE, SIDE), np.uint16)
        for date, scene in enumerate(SCENES):

            def read(band: int, date: int = date, scene: SandboxScene = scene) -> None:
                href = f"{url}/{scene.id}/{BANDS[band]}.tif"
                with (
                    rasterio.Env(GDAL_CACHEMAX=400 * 2**20, **TUNED),
                    rasterio.open(href) as file,
                ):
                    scale = round(file.res[0] / 10)
                    for number in ordered:
                        row, column = (value // scale for value in some[number])
                        pixels[number, date, band] = file.read(
                            1,
                            window=Window(column, row, SIDE // scale, SIDE // scale),
                            out_shape=(SIDE, SIDE),
                            resampling=Resampling.bilinear,
                        )

            with ThreadPoolExecutor(len(BANDS)) as threads:
                list(threads.map(read, range(len(BANDS))))
        for start in range(0, COUNT, 1000):
            with tarfile.open(folder / f"{start:05d}.tar", "w") as archive:
                for number in range(start, min(start + 1000, COUNT)):
                    add(archive, f"p{number:05d}.image.npy", npy(pixels[number]))
                    document = {"id": f"p{number:05d}", "dates": [f"{day}" for day in DATES]}
                    add(archive, f"p{number:05d}.json", json.dumps(document).encode())

    return work


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    archive.addfile(info, io.BytesIO(content))


def one(config: dict[str, Any]) -> dict[str, Any]:
    """Run one way once in this process."""
    if config["way"] == "plan":
        return plan_of_many(config["count"])
    with tempfile.TemporaryDirectory() as name:
        if config["way"] in LAYOUTS:
            return read_epoch(config["url"], Path(name), config["way"])
        ways = {SCENEBEAM: scenebeam_way, RASTERIO: rasterio_way}
        work = ways[config["way"]](config["url"], Path(name))
        stats(config["url"])
        found = measured(work)
        check(Path(name))
    return found


def check(folder: Path) -> None:
    """Check some chips of the tar files against windows of local files."""
    import rasterio
    from rasterio.windows import Window

    some, seen = corners(COUNT), 0
    for path in sorted(folder.glob("**/*.tar")):
        with tarfile.open(path) as archive:
            for info in archive:
                if not info.name.endswith(".image.npy"):
                    continue
                seen += 1
                if seen % 500:
                    continue
                file = archive.extractfile(info)
                assert file is not None
                pixels = np.load(io.BytesIO(file.read()))
                row, column = some[int(info.name[1:6])]
                for date, scene in enumerate(SCENES):
                    with rasterio.open(DATA / scene.id / "red.tif") as source:
                        expected = source.read(1, window=Window(column, row, SIDE, SIDE))
                    np.testing.assert_array_equal(pixels[date, 0], expected)
    assert seen == COUNT, f"{seen} of {COUNT}"


def read_epoch(url: str, folder: Path, layout: str) -> dict[str, Any]:
    """Make chips in a layout, and time reading all of them once."""
    import scenebeam.chips
    from scenebeam.execution.driver import run

    request = request_for(folder, url, READ_COUNT, layout)
    assert run(request).state == "succeeded"
    size = sum(path.stat().st_size for path in Path(request.output).glob("**/*") if path.is_file())
    images = 0

    def work() -> None:
        nonlocal images
        for sample in scenebeam.chips.open(request.output):
            images += len(sample["image"])

    return {**measured(work), "images": images, "size": size}


def plan_of_many(count: int) -> dict[str, Any]:
    """Time planning and freezing, for places over 10 x 10 degrees with 3 months of scenes."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    import shapely

    from scenebeam.planning.reuse import load_or_create_plan
    from scenebeam.requestfile import validate_request
    from scenebeam.storage import open_store

    dice = np.random.default_rng(0)
    items = []
    for west in np.arange(5, 15, 1.2):
        for south in np.arange(42, 52, 0.9):
            for month in (5, 6, 7):
                name = f"S2A_{west:.0f}_{south:.1f}_{month}"
                box = shapely.box(west - 0.05, south - 0.05, west + 1.25, south + 0.95)
                scene = replace(TILES[0], acquired=datetime(2023, month, 11, 10, 20))
                item = scene.item("http://127.0.0.1:9")
                geometry = shapely.geometry.mapping(box)
                # A tile of its own for each footprint.
                item["properties"]["grid:code"] = f"MGRS-33T{west:02.0f}{10 * south:.0f}"
                items.append({**item, "id": name, "geometry": geometry, "bbox": list(box.bounds)})
    with tempfile.TemporaryDirectory() as folder:
        columns = {
            "lon": dice.uniform(5, 15, count),
            "lat": dice.uniform(42, 52, count),
            "crop": dice.integers(0, 9, count).astype(float),
        }
        pq.write_table(pa.table(columns), f"{folder}/places.parquet")
        document = {"type": "FeatureCollection", "features": items}
        Path(f"{folder}/items.json").write_text(json.dumps(document))
        request = validate_request(
            {
                "catalog": f"{folder}/items.json",
                "collections": [COLLECTION],
                "dates": ["2023-05", "2023-06", "2023-07"],
                "product": {
                    "kind": "chips",
                    "places": f"{folder}/places.parquet",
                    "size": SIDE,
                    "labels": [{"name": "crop", "column": "crop"}],
                    "layout": "webdataset",
                },
                "limits": {"max_bytes": "1000TB"},
                "output": f"{folder}/out",
            }
        )
        tasks = 0

        def work() -> None:
            nonlocal tasks
            tasks = len(load_or_create_plan(request, open_store(request.output)).tasks)

        return {**measured(work), "tasks": tasks}


def pack_table(rounds: int) -> None:
    least = 0.0
    for scene in SCENES:
        for band in BANDS:
            least += (DATA / scene.id / f"{band}.tif").stat().st_size
    with range_server(LATENCY) as url:
        runs = run_rounds(__file__, url, {SCENEBEAM: rounds, RASTERIO: rounds})
    print(
        f"## {COUNT:,} places x {len(DATES)} dates x {len(BANDS)} bands, {SIDE} x {SIDE} pixels\n"
    )
    print(f"{1000 * LATENCY:.0f} ms per request; least: the files as they are\n")
    print_header("way", *TIME_COLUMNS, *READ_COLUMNS)
    for way, found in runs.items():
        print_row(way, *time_cells(found), *read_cells(found, least))
    print_all_ratios({f"{1000 * LATENCY:.0f} ms": runs})


def read_table() -> None:
    print(f"## One epoch of {READ_COUNT:,} chips\n")
    print_header("layout", "images per second", "MB of images per second", "MB on disk")
    with range_server(0.0) as url:
        for layout in LAYOUTS:
            found = in_fresh_process(__file__, {"way": layout, "url": url})
            speed = found["images"] / found["wall"]
            size = len(BANDS) * SIDE * SIDE * 2 / 1e6
            print_row(
                layout, f"{speed:,.0f}", f"{speed * size:,.0f}", f"{found['size'] / 1e6:,.0f}"
            )


def plans_table() -> None:
    print("## Plans\n")
    print_header("places", "tasks", "seconds", "peak MB")
    for count in PLANS:
        found = in_fresh_process(__file__, {"way": "plan", "count": count})
        print_row(f"{count:,}", found["tasks"], f"{found['wall']:.1f}", f"{found['peak_mb']:,.0f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--tables", nargs="+", default=["pack", "read", "plans"])
    parser.add_argument("--one", type=json.loads)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(one(given.one)))
        return
    full_size_tiles(BANDS, SCENES)
    print(f"{machine()}, {time.strftime('%Y-%m-%d')}\n")
    if "pack" in given.tables:
        pack_table(given.rounds)
    if "read" in given.tables:
        read_table()
    if "plans" in given.tables:
        plans_table()


if __name__ == "__main__":
    main()
