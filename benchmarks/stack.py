"""Stack benchmark: six bands of 10 m and 20 m, 2048 x 2048 pixels of one tile, on one 10 m grid.

    python benchmarks/stack.py --rounds 5

The first table measures the stack as an array, which is all that some tools produce. The second
measures the finished product, a COG with overviews; scenebeam also checks it and writes its STAC
item. The last one measures `scenebeam validate` on a whole six-band stack.

Ways are interleaved round by round, and each run starts a fresh interpreter. Imports and planning
are not timed. The pixels of all ways are compared first: they must be equal where nothing is
resampled, and within 1 where something is. Two pixels along the edge are exempt, because some tools
do not read beyond it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from common import (
    DATA,
    TILES,
    TUNED,
    full_size_tiles,
    import_stackstac,
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

BANDS = ("blue", "green", "red", "nir", "swir16", "swir22")
TILE = TILES[0]
SIDE = 2048
LEFT, TOP = TILE.left + 13_000, TILE.top - 26_000
"""Corner of the area in meters: on whole pixels of both resolutions, off the edges of blocks."""
BOUNDS = (LEFT, TOP - SIDE * 10, LEFT + SIDE * 10, TOP)
LATENCIES = (0.0, 0.03, 0.1)


def href(url: str, band: str) -> str:
    return f"{url}/{TILE.id}/{band}.tif"


def resolution(band: str) -> int:
    return 20 if band.startswith("swir") else 10


def scenebeam_array(url: str) -> Callable[[], np.ndarray]:
    """The reading half of the product: bands in parallel, one chunk of rows at a time."""
    from odc.geo.geobox import GeoBox
    from rasterio.transform import from_origin

    from scenebeam.raster.compose import BandLayers, Layer, compose
    from scenebeam.raster.reader import open_source
    from scenebeam.transfer.retry import Budget

    grid = GeoBox((SIDE, SIDE), from_origin(LEFT, TOP, 10, 10), "EPSG:32634")

    def work() -> np.ndarray:
        stack = np.empty((len(BANDS), SIDE, SIDE), np.uint16)
        budget = Budget(private=True)

        def read(number: int) -> None:
            source = open_source(href(url, BANDS[number]), 1, budget)
            layers = BandLayers(
                BANDS[number], [Layer("x", source)], np.dtype("uint16"), 0, "bilinear", "first"
            )
            for _, top, rows in compose(grid, [layers]):
                stack[number, top : top + len(rows)] = rows

        with ThreadPoolExecutor(len(BANDS)) as threads:
            list(threads.map(read, range(len(BANDS))))
        return stack

    return work


def rasterio_array(url: str) -> Callable[[], np.ndarray]:
    """rasterio with GDAL tuned for cloud storage, one thread per band; GDAL resamples."""
    import rasterio
    from rasterio.enums import Resampling
    from rasterio.windows import from_bounds

    def work() -> np.ndarray:
        stack = np.empty((len(BANDS), SIDE, SIDE), np.uint16)

        def read(number: int) -> None:
            with rasterio.Env(**TUNED), rasterio.open(href(url, BANDS[number])) as file:
                window = from_bounds(*BOUNDS, file.transform)
                file.read(1, window=window, out=stack[number], resampling=Resampling.bilinear)

        with ThreadPoolExecutor(len(BANDS)) as threads:
            list(threads.map(read, range(len(BANDS))))
        return stack

    return work


def item(url: str) -> Any:
    import pystac

    found = TILE.item(url)
    found["assets"] = {band: found["assets"][band] for band in BANDS}
    return pystac.Item.from_dict(found)


def odc_stac_array(url: str) -> Callable[[], np.ndarray]:
    """odc-stac without dask, one thread per band."""
    import odc.stac
    from odc.geo.geobox import GeoBox
    from rasterio.transform import from_origin

    odc.stac.configure_rio(cloud_defaults=True, **TUNED)
    one, grid = item(url), GeoBox((SIDE, SIDE), from_origin(LEFT, TOP, 10, 10), "EPSG:32634")

    def work() -> np.ndarray:
        found = odc.stac.load(
            [one], bands=list(BANDS), geobox=grid, resampling="bilinear", pool=len(BANDS)
        )
        return np.stack([found[band].values[0] for band in BANDS])

    return work


def stackstac_array(url: str) -> Callable[[], np.ndarray]:
    """stackstac on dask threads."""
    import dask
    from rasterio.enums import Resampling

    stackstac = import_stackstac()
    one = item(url)

    def work() -> np.ndarray:
        stack = stackstac.stack(
            [one],
            assets=list(BANDS),
            epsg=32634,
            resolution=10,
            bounds=BOUNDS,
            dtype="uint16",
            fill_value=np.uint16(0),
            rescale=False,
            resampling=Resampling.bilinear,
            chunksize=SIDE,
            gdal_env=stackstac.DEFAULT_GDAL_ENV.updated(always=TUNED),
        )
        with dask.config.set(scheduler="threads", num_workers=len(BANDS)):
            return np.asarray(stack.values[0])

    return work


def async_geotiff_array(url: str) -> Callable[[], np.ndarray]:
    """async-geotiff over obstore, all bands at once.

    It does not resample: scenebeam's code, the fastest here, interpolates the 20 m bands.
    """
    from async_geotiff import GeoTIFF, Window
    from obstore.store import HTTPStore

    from scenebeam.raster.aligned import upsample_bilinear

    async def read(number: int, stack: np.ndarray) -> None:
        band = BANDS[number]
        store = HTTPStore(f"{url}/{TILE.id}", client_options={"allow_http": True})
        file = await GeoTIFF.open(f"{band}.tif", store=store)
        size = resolution(band)
        rim = size // 10 - 1
        count = SIDE * 10 // size + 2 * rim
        window = Window(
            (LEFT - TILE.left) // size - rim, (TILE.top - TOP) // size - rim, count, count
        )
        pixels = np.asarray((await file.read(window=window)).data)[0]
        stack[number] = pixels if size == 10 else upsample_bilinear(pixels, 2)

    async def all_bands(stack: np.ndarray) -> None:
        await asyncio.gather(*(read(number, stack) for number in range(len(BANDS))))

    def work() -> np.ndarray:
        stack = np.empty((len(BANDS), SIDE, SIDE), np.uint16)
        asyncio.run(all_bands(stack))
        return stack

    return work


ARRAYS: dict[str, Callable[[str], Callable[[], np.ndarray]]] = {
    "scenebeam": scenebeam_array,
    "rasterio tuned": rasterio_array,
    "odc-stac": odc_stac_array,
    "stackstac + dask": stackstac_array,
    "async-geotiff": async_geotiff_array,
}


def product(way: str, url: str, out: Path) -> Callable[[], None]:
    """Return a function that makes the finished stack, `out / "stack.tif"`.

    It is scenebeam's product, or another tool's array written by GDAL's COG driver, tuned.
    """
    if way == "scenebeam":
        return scenebeam_product(url, out)
    make = ARRAYS[way](url)

    def work() -> None:
        import rasterio
        from rasterio.transform import from_origin

        stack = make()
        with rasterio.open(
            out / "stack.tif",
            "w",
            driver="COG",
            height=SIDE,
            width=SIDE,
            count=len(BANDS),
            dtype="uint16",
            nodata=0,
            crs="EPSG:32634",
            transform=from_origin(LEFT, TOP, 10, 10),
            compress="deflate",
            predictor=2,
            level=1,
            blocksize=512,
            overview_resampling="average",
            num_threads="all_cpus",
        ) as file:
            file.write(stack)
            file.descriptions = BANDS

    return work


def scenebeam_product(url: str, out: Path) -> Callable[[], None]:
    from scenebeam.planning.search import make_plan
    from scenebeam.products import product_of
    from scenebeam.requestfile import validate_request
    from scenebeam.sandbox.scenes import COLLECTION
    from scenebeam.storage import open_store
    from scenebeam.transfer.retry import Budget

    catalog = out / "items.json"
    catalog.write_text(json.dumps({"type": "FeatureCollection", "features": [TILE.item(url)]}))
    request = validate_request(
        {
            "catalog": str(catalog),
            "collections": [COLLECTION],
            "grid": {"crs": "EPSG:32634", "resolution": 10, "bounds": list(BOUNDS)},
            "product": {"kind": "stack", "format": "geotiff", "bands": list(BANDS)},
            "output": str(out / "run"),
        }
    )
    (task,) = make_plan(request).tasks
    store, stacks = open_store(request.output), product_of("stack")

    def work() -> None:
        outcome = stacks.make(task, store, Budget(private=True))
        assert outcome.state == "done", outcome
        (out / "stack.tif").symlink_to(store.uri_for(task.outputs[0]))

    return work


def one(config: dict[str, Any]) -> dict[str, Any]:
    """Run one way once in this process."""
    if config["way"] == "validate":
        return look(config["path"])
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        if config["table"] == "product":
            work = product(config["way"], config["url"], out)
            stats(config["url"])
            return {**measured(work), "size": (out / "stack.tif").stat().st_size}
        make = ARRAYS[config["way"]](config["url"])
        stats(config["url"])
        kept: list[np.ndarray] = []
        found = measured(lambda: kept.append(make()))
        if config.get("save"):
            np.save(config["save"], kept[0])
        return found


def look(path: str) -> dict[str, Any]:
    from scenebeam.collections import known_records
    from scenebeam.raster.validate import validate
    from scenebeam.request import Checks

    record = next(
        r for r in known_records() if (r.provider, r.id) == ("earth-search", "sentinel-2-l2a")
    )

    def work() -> None:
        report = validate(path, Checks(outside_sources=True), record)
        assert report.valid, report.explain()

    return measured(work)


def least() -> tuple[int, int]:
    """Return the size in bytes and the number of the blocks that must be read.

    These hold the pixels of the area, and of 20 m bands a border of one pixel around it.
    """
    from scenebeam.raster.tiff import read_layout
    from scenebeam.transfer.rangefile import RangeFile
    from scenebeam.transfer.retry import Budget

    size = blocks = 0
    for band in BANDS:
        layout = read_layout(RangeFile(str(DATA / TILE.id / f"{band}.tif"), Budget(private=True)))
        assert layout is not None
        pixel = resolution(band)
        rim = pixel // 10 - 1
        first, last = (TILE.top - TOP) // pixel - rim, (TILE.top - TOP + SIDE * 10) // pixel + rim
        left, right = (
            (LEFT - TILE.left) // pixel - rim,
            (LEFT - TILE.left + SIDE * 10) // pixel + rim,
        )
        for row in range(first // 1024, (last - 1) // 1024 + 1):
            for column in range(left // 1024, (right - 1) // 1024 + 1):
                size += int(layout.sizes[layout.number(row, column, 1)])
                blocks += 1
    return size, blocks


def compare(url: str) -> None:
    """Compare all ways with rasterio.warp.reproject of the whole bands."""
    import rasterio
    from rasterio.enums import Resampling
    from rasterio.transform import from_origin
    from rasterio.warp import reproject

    truth = np.zeros((len(BANDS), SIDE, SIDE), np.uint16)
    for number, band in enumerate(BANDS):
        with rasterio.open(DATA / TILE.id / f"{band}.tif") as file:
            reproject(
                rasterio.band(file, 1),
                truth[number],
                dst_transform=from_origin(LEFT, TOP, 10, 10),
                dst_crs=file.crs,
                src_nodata=0,
                dst_nodata=0,
                resampling=Resampling.bilinear,
            )
    with tempfile.TemporaryDirectory() as folder:
        for way in ARRAYS:
            path = f"{folder}/stack.npy"
            in_fresh_process(__file__, {"way": way, "url": url, "table": "array", "save": path})
            difference = np.abs(np.load(path).astype(int) - truth)
            assert difference[:4].max() == 0, f"{way}: 10 m bands differ"
            inside = difference[4:, 2:-2, 2:-2]
            assert inside.max() <= 1, f"{way}: 20 m bands differ by {inside.max()}"
            print(f"{way}: 20 m bands differ by up to {difference[4:].max()}, including the edge")


def table(kind: str, rounds: int, size: int) -> None:
    print_header(
        *("way", "latency ms", "wall s", "CPU s"),
        *("peak MB", "requests", "MB read", "bytes / least"),
    )
    for latency in LATENCIES:
        runs: dict[str, list[dict[str, Any]]] = {way: [] for way in ARRAYS}
        with range_server(latency) as url:
            for _ in range(rounds):
                for way in ARRAYS:
                    found = in_fresh_process(__file__, {"way": way, "url": url, "table": kind})
                    runs[way].append({**found, **stats(url)})
        for way, found_runs in runs.items():
            sent = median_of(found_runs, "bytes")
            print_row(
                way,
                f"{latency * 1000:.0f}",
                spread([run["wall"] for run in found_runs]),
                spread([run["cpu"] for run in found_runs]),
                f"{median_of(found_runs, 'peak_mb'):.0f}",
                f"{median_of(found_runs, 'requests'):.0f}",
                f"{sent / 1e6:.1f}",
                f"{sent / size:.3f}",
            )
        walls = {way: median_of(found_runs, "wall") for way, found_runs in runs.items()}
        others = {way: wall for way, wall in walls.items() if way != "scenebeam"}
        best = min(others, key=lambda way: others[way])
        ratio = walls["scenebeam"] / others[best]
        print(f"<!-- {latency * 1000:.0f} ms: {ratio:.2f} x the time of {best} -->")


def whole_stacks(folder: Path) -> dict[str, Path]:
    """Make stacks of a whole tile in both of scenebeam's formats, and return their paths."""
    from scenebeam.execution.driver import run
    from scenebeam.requestfile import validate_request
    from scenebeam.sandbox.scenes import COLLECTION

    catalog = folder / "items.json"
    catalog.write_text(
        json.dumps({"type": "FeatureCollection", "features": [TILE.item(str(DATA))]})
    )
    made = {}
    for form, ending in (("geotiff", "tif"), ("vrt", "vrt")):
        request = validate_request(
            {
                "catalog": str(catalog),
                "collections": [COLLECTION],
                "product": {"kind": "stack", "format": form, "bands": list(BANDS)},
                "output": str(folder / form),
                "runner": "serial",
            }
        )
        assert run(request).state == "succeeded"
        made[form] = folder / form / "stacks" / TILE.id / f"{TILE.id}.{ending}"
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--one")
    args = parser.parse_args()
    if args.one:
        print(json.dumps(one(json.loads(args.one))))
        return
    full_size_tiles(BANDS, (TILE,))
    size, blocks = least()
    print(f"{machine()}; least: {size / 1e6:.1f} MB, {blocks} blocks")
    with range_server(0.0) as url:
        compare(url)
    for kind in ("array", "product"):
        print(f"\n{kind}\n")
        table(kind, args.rounds, size)
    with tempfile.TemporaryDirectory() as folder:
        print("\nvalidate\n")
        print_header("stack of 10980 x 10980 x 6", "wall s", "CPU s", "peak MB")
        for form, path in whole_stacks(Path(folder)).items():
            runs = [
                in_fresh_process(__file__, {"way": "validate", "path": str(path)})
                for _ in range(args.rounds)
            ]
            walls, cpus = ([run[key] for run in runs] for key in ("wall", "cpu"))
            print_row(form, spread(walls), spread(cpus), f"{median_of(runs, 'peak_mb'):.0f}")


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main()
