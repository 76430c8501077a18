"""Composite benchmark: a full-size tile on twelve dates, four bands, clouds masked by SCL.

    python benchmarks/composite.py --rounds 1 --latencies 0 0.03 0.1

Each way makes one COG with overviews per band, by the median and by the medoid. odc-stac loads lazy
arrays with dask, which xarray reduces over time. "rasterio + NumPy" reads windows of 2048 pixels of
all dates in threads, with GDAL tuned, and reduces them; it stands for stacks by hand and for
stackstac, which is unmaintained. S2Mosaic reads from its own catalogs only, so it is not measured.
Plans are part of scenebeam's time, imports are not. The medians of all ways must be equal within 1.

The floor is to decode all blocks, with their bytes in memory, and to reduce them.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from common import (
    CORE_COLUMNS,
    CORES,
    DATA,
    READ_COLUMNS,
    TIME_COLUMNS,
    TUNED,
    Runs,
    core_cells,
    full_size_tiles,
    machine,
    measured,
    print_all_ratios,
    print_header,
    print_row,
    range_server,
    read_cells,
    run_rounds,
    time_cells,
)

from scenebeam.sandbox.scenes import COLLECTION, SandboxScene

BANDS = ("blue", "green", "red", "nir")
DROPPED = (3, 8, 9, 10)
SIZE = 10980
WINDOW = 2048
_FIRST = datetime(2023, 4, 3, 9, 20, 31)
SCENES = tuple(
    SandboxScene("34TFL", 32634, 600_000, 4_500_000, _FIRST + timedelta(days=5 * number), size=SIZE)
    for number in range(12)
)
COMPARED = 0.03
METHODS = ("median", "medoid")
Work = Callable[[], None]


def scenebeam(url: str, folder: Path, method: str) -> Work:
    """A whole run, with its plan and its report."""
    from scenebeam.execution.driver import run
    from scenebeam.requestfile import validate_request

    catalog = folder / "items.json"
    items = [scene.item(url) for scene in SCENES]
    catalog.write_text(json.dumps({"type": "FeatureCollection", "features": items}))
    product = {"kind": "composite", "bands": list(BANDS), "method": method, "period": "year"}
    request = validate_request(
        {
            "catalog": str(catalog),
            "collections": [COLLECTION],
            "dates": "2023",
            "product": product,
            "output": str(folder / "out"),
            "runner": "serial",
        }
    )

    def work() -> None:
        status = run(request)
        assert status.state == "succeeded", status

    return work


def reduce_window(stack: np.ndarray, classes: np.ndarray, method: str) -> np.ndarray:
    """Reduce pixels of shape (bands, dates, rows, columns) as NumPy users do."""
    clear = ~np.isin(classes, DROPPED) & (classes > 0) & (stack[0] > 0)
    floats = np.where(clear, stack.astype(np.float32), np.nan)
    middle = np.nanmedian(floats, axis=1)
    if method == "medoid":
        distance = ((floats - middle[:, None]) ** 2).sum(axis=0)
        chosen = np.where(np.isnan(distance), np.inf, distance).argmin(axis=0)
        middle = np.take_along_axis(stack, chosen[None, None], axis=1)[:, 0].astype(np.float32)
    seen = clear.any(axis=0)
    return np.where(seen, np.rint(middle), 0).astype(np.uint16)


def write_cogs(folder: Path, pixels: np.ndarray) -> None:
    """Write one COG per band, in parallel."""
    import rasterio
    from rasterio.transform import from_origin

    def write(number: int) -> None:
        with rasterio.open(
            folder / f"{BANDS[number]}.tif",
            "w",
            driver="COG",
            height=SIZE,
            width=SIZE,
            count=1,
            dtype="uint16",
            nodata=0,
            crs="EPSG:32634",
            transform=from_origin(600_000, 4_500_000, 10, 10),
            compress="deflate",
            predictor=2,
            level=1,
            num_threads="all_cpus",
        ) as file:
            file.write(pixels[number], 1)

    with ThreadPoolExecutor(len(BANDS)) as threads:
        list(threads.map(write, range(len(BANDS))))


def rasterio_numpy(url: str, folder: Path, method: str) -> Work:
    """Windows of all dates, read in threads and reduced."""
    import rasterio
    from rasterio.enums import Resampling
    from rasterio.windows import Window

    def work() -> None:
        result = np.zeros((len(BANDS), SIZE, SIZE), np.uint16)
        with (
            rasterio.Env(GDAL_CACHEMAX=400 * 2**20, **TUNED),
            ThreadPoolExecutor(24) as threads,
        ):

            def read(scene: SandboxScene, band: str, window: Window) -> np.ndarray:
                factor = 2 if band == "scl" else 1
                side = Window(
                    window.col_off / factor,
                    window.row_off / factor,
                    window.width / factor,
                    window.height / factor,
                )
                with rasterio.Env(**TUNED), rasterio.open(f"{url}/{scene.id}/{band}.tif") as file:
                    shape = (int(window.height), int(window.width))
                    return file.read(1, window=side, out_shape=shape, resampling=Resampling.nearest)

            for top in range(0, SIZE, WINDOW):
                for left in range(0, SIZE, WINDOW):
                    window = Window(left, top, min(WINDOW, SIZE - left), min(WINDOW, SIZE - top))
                    jobs = {
                        (band, number): threads.submit(read, scene, band, window)
                        for number, scene in enumerate(SCENES)
                        for band in (*BANDS, "scl")
                    }
                    stack = np.stack(
                        [
                            np.stack([jobs[band, n].result() for n in range(len(SCENES))])
                            for band in BANDS
                        ]
                    )
                    classes = np.stack([jobs["scl", n].result() for n in range(len(SCENES))])
                    rows = slice(top, top + int(window.height))
                    columns = slice(left, left + int(window.width))
                    result[:, rows, columns] = reduce_window(stack, classes, method)
        write_cogs(folder, result)

    return work


def odc_stac(url: str, folder: Path, method: str) -> Work:
    """Lazy arrays with dask, reduced by xarray over time."""
    import dask
    import odc.stac
    import pystac
    import xarray as xr

    items = [pystac.Item.from_dict(scene.item(url)) for scene in SCENES]

    def work() -> None:
        odc.stac.configure_rio(cloud_defaults=True, **TUNED)
        chunks = {"x": WINDOW, "y": WINDOW}
        cube = odc.stac.load(
            items, bands=[*BANDS, "scl"], crs="EPSG:32634", resolution=10, chunks=chunks
        )
        clear = ~cube["scl"].isin(DROPPED) & (cube["scl"] > 0)
        masked = cube[list(BANDS)].where(clear & (cube["blue"] > 0)).astype("float32")
        masked = masked.chunk({"time": -1})
        if method == "median":
            made = masked.median("time", skipna=True).fillna(0).round().astype("uint16")
        else:
            stack = masked.to_dataarray("band").chunk({"band": -1})

            def medoid(block: np.ndarray) -> np.ndarray:
                middle = np.nanmedian(block, axis=-1)
                distance = ((block - middle[..., None]) ** 2).sum(axis=-2)
                chosen = np.where(np.isnan(distance), np.inf, distance).argmin(axis=-1)
                return np.take_along_axis(block, chosen[..., None, None], axis=-1)[..., 0]

            made = (
                xr.apply_ufunc(
                    medoid,
                    stack,
                    input_core_dims=[["band", "time"]],
                    output_core_dims=[["band"]],
                    dask="parallelized",
                    output_dtypes=["float32"],
                )
                .fillna(0)
                .astype("uint16")
                .to_dataset("band")
            )
        with dask.config.set(scheduler="threads", num_workers=4 * CORES):
            computed = made.compute()
        write_cogs(folder, np.stack([computed[band].values for band in BANDS]))

    return work


WAYS: dict[str, Callable[[str, Path, str], Work]] = {
    "scenebeam": scenebeam,
    "odc-stac + dask": odc_stac,
    "rasterio + NumPy": rasterio_numpy,
}


OTHERS = {
    "median": ("odc-stac + dask", "rasterio + NumPy"),
    # The medoid by dask did not fit into 24 GB.
    "medoid": ("rasterio + NumPy",),
}


def one(config: dict[str, Any]) -> dict[str, Any]:
    """Run one way once in this process, and return its measurements and some of its pixels."""
    import rasterio

    way, _, method = config["way"].partition(", ")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        found = measured(WAYS[way](config["url"], folder, method))
        made = folder / "out" / "composites" / "2023" if way == "scenebeam" else folder
        sample = []
        for band in BANDS:
            with rasterio.open(made / f"{band}.tif") as file:
                sample.append(file.read(1)[::97, ::89].astype(int).tolist())
    return {**found, "sample": sample}


def check_equal(runs: Runs) -> None:
    """Compare the pixels of all ways: medians within 1; medoids except for ties."""
    (_, first), *others = runs.items()
    expected = np.array(first[0]["sample"])
    for way, rounds in others:
        away = np.abs(np.array(rounds[0]["sample"]) - expected)
        share = float((away > 1).mean())
        assert share < (0.002 if "medoid" in way else 1e-9), f"{way}: {share:.2%} differ"


def least_bytes() -> int:
    """Compressed bytes of all files, with one header each."""
    files = [DATA / scene.id / f"{band}.tif" for scene in SCENES for band in (*BANDS, "scl")]
    total = 0
    for path in files:
        with tifffile.TiffFile(path) as file:
            total += sum(file.pages[0].databytecounts)
    return total


def floor(method: str) -> tuple[float, float]:
    """Decode and reduce one row of blocks, and return wall and CPU seconds for all of the tile."""
    import imagecodecs

    from scenebeam.raster.reduce import BandValues, Context, Stack, reducer

    columns = -(-SIZE // 1024)
    blocks: dict[tuple[str, int], list[bytes]] = {}
    for number, scene in enumerate(SCENES):
        for band in BANDS:
            path = DATA / scene.id / f"{band}.tif"
            with tifffile.TiffFile(path) as file, path.open("rb") as raw:
                page = file.pages[0]
                places = list(zip(page.dataoffsets, page.databytecounts, strict=True))
                blocks[band, number] = []
                for offset, size in places[columns : 2 * columns]:
                    raw.seek(offset)
                    blocks[band, number].append(raw.read(size))
    context = Context([BandValues(band, np.dtype("uint16"), 0) for band in BANDS], len(BANDS))
    made = reducer(method)(context)

    def work(column: int) -> None:
        pixels = []
        for band in BANDS:
            dates = []
            for number in range(len(SCENES)):
                data = imagecodecs.deflate_decode(blocks[band, number][column], out=2 * 1024**2)
                block = np.frombuffer(data, np.uint16).reshape(1024, 1024)
                dates.append(imagecodecs.delta_decode(block, axis=-1))
            pixels.append(np.stack(dates))
        for top in range(0, 1024, 32):
            rows = [band[:, top : top + 32] for band in pixels]
            made.reduce(Stack(rows, [band > 0 for band in rows]))

    wall, cpu = time.perf_counter(), time.process_time()
    with ThreadPoolExecutor(CORES) as threads:
        list(threads.map(work, range(columns)))
    share = SIZE / 1024
    return (time.perf_counter() - wall) * share, (time.process_time() - cpu) * share


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--methods", nargs="*", default=METHODS)
    parser.add_argument("--latencies", type=float, nargs="*", default=[COMPARED])
    parser.add_argument("--one")
    args = parser.parse_args()
    if args.one:
        print(json.dumps(one(json.loads(args.one))))
        return
    full_size_tiles((*BANDS, "scl"), SCENES)
    least = least_bytes()
    print(f"{machine()}; at least {least / 1e6:.0f} MB\n")
    for method in args.methods:
        wall, cpu = floor(method)
        print(f"<!-- floor, {method}: {wall:.1f} s of wall time, {cpu:.1f} CPU s -->", flush=True)
    print_header("way", "latency ms", *TIME_COLUMNS, *CORE_COLUMNS, *READ_COLUMNS)
    for method in args.methods:
        all_runs: dict[str, Runs] = {}
        for latency in args.latencies:
            rounds = {f"scenebeam, {method}": args.rounds}
            # The others need minutes: they take part at one latency.
            if latency == COMPARED:
                for way in OTHERS.get(method, ()):
                    rounds[f"{way}, {method}"] = 1
            with range_server(latency) as url:
                runs = run_rounds(__file__, url, rounds)
            check_equal(runs)
            all_runs[f"{latency * 1000:.0f} ms"] = runs
            for way, found in runs.items():
                cells = (*time_cells(found), *core_cells(found), *read_cells(found, least))
                print_row(way, f"{latency * 1000:.0f}", *cells)
        print_all_ratios(all_runs)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main()
