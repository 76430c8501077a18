"""Stack benchmark: six bands of 10 m and 20 m, 2048 x 2048 pixels of one tile, on one 10 m grid.

    python benchmarks/stack.py --rounds 5

The first table measures the stack as an array, which is all that some tools produce. The second
measures the finished product, a COG with overviews; scenebeam also checks it and writes its STAC
item. The third measures stacks of a whole scene on its own grid, with pixels as in the files: of
files whose blocks are as scenebeam writes them, so that they could be copied, and of files with
other blocks, which must be decoded and encoded. The last one measures `scenebeam validate` on a
whole six-band stack.

Ways are interleaved round by round, and each run starts a fresh interpreter. Imports and planning
are not timed. The pixels of all ways are compared first: they must be equal where nothing is
resampled, and within 1 where something is. Two pixels along the edge are exempt, because some tools
do not read beyond it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from common import (
    DATA,
    READ_COLUMNS,
    TILES,
    TIME_COLUMNS,
    TUNED,
    Measurements,
    Runs,
    full_size_tiles,
    in_fresh_process,
    machine,
    measured,
    median_of,
    print_all_ratios,
    print_header,
    print_row,
    range_server,
    read_cells,
    run_rounds,
    stats,
    time_cells,
)
from mosaic_job import MosaicJob, scenebeam_run

BANDS = ("blue", "green", "red", "nir", "swir16", "swir22")
TILE = TILES[0]
SIDE = 2048
LEFT, TOP = TILE.left + 13_000, TILE.top - 26_000
"""Corner of the area in meters: on whole pixels of both resolutions, off the edges of blocks."""
BOUNDS = (LEFT, TOP - SIDE * 10, LEFT + SIDE * 10, TOP)
TILE_BOUNDS = (TILE.left, TILE.top - TILE.size * 10, TILE.left + TILE.size * 10, TILE.top)
LATENCIES = (0.0, 0.03, 0.1)


def href(url: str, band: str) -> str:
    return f"{url}/{TILE.id}/{band}.tif"


def resolution(band: str) -> int:
    return 20 if band.startswith("swir") else 10


def scenebeam_array(url: str) -> Callable[[], np.ndarray]:
    """The reading half of the product: bands in parallel, one chunk of rows at a time."""
    from odc.geo.geobox import GeoBox
    from rasterio.transform import from_origin

    from scenebeam.raster.compose import compose
    from scenebeam.raster.layers import BandLayers, Layer
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


def stack_task(catalog: Path, items: list[Any], output: Path, **others: Any) -> tuple[Any, Any]:
    """Plan one stack, of all bands. Returns its task and its store."""
    from scenebeam.planning.search import make_plan
    from scenebeam.requestfile import validate_request
    from scenebeam.sandbox.scenes import COLLECTION
    from scenebeam.storage import open_store

    catalog.write_text(json.dumps({"type": "FeatureCollection", "features": items}))
    product = {"kind": "stack", "format": "geotiff", "bands": list(BANDS)}
    document = {
        "catalog": str(catalog),
        "collections": [COLLECTION],
        "product": {**product, **others.pop("product", {})},
        "output": str(output),
        **others,
    }
    request = validate_request(document)
    (task,) = make_plan(request).tasks
    return task, open_store(request.output)


def make_stack(task: Any, store: Any) -> None:
    """Make a stack as every runner makes it."""
    from scenebeam.products import product_of
    from scenebeam.transfer.retry import Budget

    outcome = product_of("stack").make(task, store, Budget(private=True))
    assert outcome.state == "done", outcome


def scenebeam_product(url: str, out: Path) -> Callable[[], None]:
    grid = {"crs": "EPSG:32634", "resolution": 10, "bounds": list(BOUNDS)}
    task, store = stack_task(out / "items.json", [TILE.item(url)], out / "run", grid=grid)

    def work() -> None:
        make_stack(task, store)
        (out / "stack.tif").symlink_to(store.uri_for(task.outputs[0]))

    return work


def one(config: dict[str, Any]) -> dict[str, Any]:
    """Run one way once in this process."""
    if config["way"] == "validate":
        return look(config["path"])
    if config["way"] == "whole scene":
        return whole_scene(Path(config["sources"]), Path(config["out"]), is_cut=config["cut"])
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
    print_header("way", "latency ms", *TIME_COLUMNS, *READ_COLUMNS)
    configs = {way: {"table": kind} for way in ARRAYS}
    all_runs: dict[str, Runs] = {}
    for latency in LATENCIES:
        with range_server(latency) as url:
            runs = run_rounds(__file__, url, dict.fromkeys(ARRAYS, rounds), configs)
        all_runs[f"{latency * 1000:.0f} ms"] = runs
        for way, found in runs.items():
            cells = (*time_cells(found), *read_cells(found, size))
            print_row(way, f"{latency * 1000:.0f}", *cells)
    print_all_ratios(all_runs)


def whole_scene(sources: Path, out: Path, *, is_cut: bool) -> Measurements:
    """Measure a stack of a whole scene on its own grid, and check a part of its pixels.

    Args:
        sources: Folder of the files.
        out: Empty folder.
        is_cut: Whether to leave out the last column, so that no block can be copied.
    """
    import rasterio
    from rasterio.windows import Window

    left, bottom, right, top = TILE_BOUNDS
    bounds = [left, bottom, right - 10 if is_cut else right, top]
    task, store = stack_task(
        out / "items.json",
        [whole_item(sources)],
        out / "run",
        product={"values": "raw"},
        grid={"crs": "EPSG:32634", "resolution": 10, "bounds": bounds},
    )
    found = measured(lambda: make_stack(task, store))
    made, window = store.uri_for(task.outputs[0]), Window(5000, 7000, 1500, 1500)
    with rasterio.open(made) as stack:
        assert stack.overviews(1), made
        for number, band in enumerate(BANDS, start=1):
            with rasterio.open(sources / TILE.id / f"{band}.tif") as file:
                np.testing.assert_array_equal(
                    stack.read(number, window=window), file.read(1, window=window), err_msg=band
                )
    return {**found, "path": made}


def whole_item(sources: Path) -> dict[str, Any]:
    """Return the item of a scene whose six bands have 10 m, below a folder."""
    found = TILE.item(str(sources))
    assets = found["assets"]
    for band in BANDS:
        assets[band] = {**assets["red"], "href": f"{sources}/{TILE.id}/{band}.tif"}
    return found


def whole_sources() -> dict[str, tuple[Path, bool]]:
    """Write the files of whole scenes: with blocks as scenebeam writes them, and with others.

    Bands of 20 m are replaced by others of 10 m, so that all bands are on one grid.

    Returns:
        Description → folder, and whether to leave out the last column.
    """
    as_written = DATA / "as-written"
    if not as_written.exists():
        with tempfile.TemporaryDirectory(dir=DATA) as name:
            folder = Path(name)
            for band, path in scenebeam_mosaics(folder).items():
                _link(path, folder / "sources", band)
            (folder / "sources").rename(as_written)
    other = DATA / "other-blocks"
    for band in ("blue", "green", "red", "nir"):
        _link(DATA / TILE.id / f"{band}.tif", other, band)
    return {
        "512 px, as scenebeam writes them, copied": (as_written, False),
        "1024 px, copied, with overviews made anew": (other, False),
        "1024 px, without the last column, decoded and encoded": (other, True),
    }


def _link(path: Path, folder: Path, band: str) -> None:
    """Link a file as a band of the scene, and as the band of 20 m that it replaces."""
    (folder / TILE.id).mkdir(parents=True, exist_ok=True)
    for name in (band, {"red": "swir16", "nir": "swir22"}.get(band, band)):
        link = folder / TILE.id / f"{name}.tif"
        if not link.exists():
            os.link(path, link)


def scenebeam_mosaics(folder: Path) -> dict[str, Path]:
    """Make mosaics of the tile, which are COGs as scenebeam writes them. Returns their paths."""
    job = MosaicJob((TILE,), ("blue", "green", "red", "nir"), TILE_BOUNDS)
    scenebeam_run(job, str(DATA), folder)()
    return {band: (folder / f"{band}.tif").resolve() for band in job.bands}


def whole_scene_table(rounds: int, folder: Path) -> Path:
    """Print a table of whole-scene stacks. Returns one of the stacks."""
    print_header("blocks of the files", *TIME_COLUMNS, "peak MB")
    sources = whole_sources()
    runs: dict[str, list[Measurements]] = {name: [] for name in sources}
    for number in range(rounds):
        for index, (name, (source, is_cut)) in enumerate(sources.items()):
            out = folder / f"{number}-{index}"
            out.mkdir()
            config = {"way": "whole scene", "sources": str(source), "cut": is_cut, "out": str(out)}
            runs[name].append(in_fresh_process(__file__, config))
    for name, found in runs.items():
        print_row(name, *time_cells(found), f"{median_of(found, 'peak_mb'):.0f}")
    cpus = [median_of(found, "cpu") for found in runs.values()]
    print(f"<!-- decoded and encoded: {cpus[2] / cpus[0]:.2f} x the CPU time of copying -->")
    return Path(found[-1]["path"])


def make_vrt(folder: Path) -> Path:
    """Make a VRT stack of a whole tile, and return its path."""
    folder.mkdir()
    task, store = stack_task(
        folder / "items.json", [TILE.item(str(DATA))], folder / "run", product={"format": "vrt"}
    )
    make_stack(task, store)
    return Path(store.uri_for(task.outputs[0]))


def validate_table(rounds: int, stacks: dict[str, Path]) -> None:
    """Print a table of `scenebeam validate`."""
    print_header("stack of 10980 x 10980 x 6", *TIME_COLUMNS, "peak MB")
    for form, path in stacks.items():
        config = {"way": "validate", "path": str(path)}
        runs = [in_fresh_process(__file__, config) for _ in range(rounds)]
        print_row(form, *time_cells(runs), f"{median_of(runs, 'peak_mb'):.0f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--whole-rounds", type=int, default=1, help="of stacks of a whole scene")
    parser.add_argument("--tables", nargs="+", default=["array", "product", "whole"])
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
        if kind in args.tables:
            print(f"\n{kind}\n")
            table(kind, args.rounds, size)
    if "whole" in args.tables:
        with tempfile.TemporaryDirectory(dir=DATA) as name:
            print("\nwhole scene\n")
            made = whole_scene_table(args.whole_rounds, Path(name))
            print("\nvalidate\n")
            validate_table(args.rounds, {"geotiff": made, "vrt": make_vrt(Path(name, "vrt"))})


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main()
