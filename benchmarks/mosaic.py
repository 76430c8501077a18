"""Mosaic benchmark: 40 x 40 km over four overlapping full-size tiles.

Three bands, first valid pixel, COGs with overviews.

    make bench            (or: python benchmarks/mosaic.py --rounds 5)

Ways are interleaved round by round, and each run starts a fresh interpreter. Imports and planning
are not timed. The pixels of all ways are compared before anything is timed.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

import common
import numpy as np
from common import (
    TILES,
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

BANDS = ("red", "green", "nir")
BOUNDS = (680_000, 4_375_000, 720_000, 4_415_000)
LATENCIES = (0.0, 0.03, 0.1)
TUNED = {
    **common.TUNED,
    "CPL_VSIL_CURL_CHUNK_SIZE": "1048576",
    "GDAL_NUM_THREADS": "ALL_CPUS",
}
COG = {
    "driver": "COG",
    "compress": "deflate",
    "predictor": 2,
    "blocksize": 512,
    "overview_resampling": "average",
}
FAST_COG = {**COG, "level": 1, "num_threads": "all_cpus"}
SHAPE = ((BOUNDS[3] - BOUNDS[1]) // 10, (BOUNDS[2] - BOUNDS[0]) // 10)


def hrefs(url: str, band: str) -> list[str]:
    return [f"{url}/{tile.id}/{band}.tif" for tile in TILES]


def write_cog(path: Path, pixels: np.ndarray, options: dict[str, Any]) -> None:
    import rasterio
    from rasterio.transform import from_origin

    with rasterio.open(
        path,
        "w",
        height=SHAPE[0],
        width=SHAPE[1],
        count=1,
        dtype="uint16",
        nodata=0,
        crs="EPSG:32634",
        transform=from_origin(BOUNDS[0], BOUNDS[3], 10, 10),
        **options,
    ) as file:
        file.write(pixels, 1)


def merge_band(url: str, band: str, out: Path, options: dict[str, Any]) -> None:
    import rasterio
    from rasterio.merge import merge

    files = [rasterio.open(href) for href in hrefs(url, band)]
    pixels, _ = merge(files, bounds=BOUNDS, nodata=0, method="first")
    for file in files:
        file.close()
    write_cog(out / f"{band}.tif", pixels[0], options)


def reference(url: str, out: Path) -> None:
    """The plain reference: rasterio.merge on /vsicurl with GDAL's defaults, one band at a time."""
    for band in BANDS:
        merge_band(url, band, out, COG)


def rasterio_tuned(url: str, out: Path) -> None:
    """rasterio.merge with GDAL's options for cloud storage, bands in parallel, DEFLATE level 1."""
    import rasterio

    def one(band: str) -> None:
        with rasterio.Env(**TUNED):
            merge_band(url, band, out, FAST_COG)

    with ThreadPoolExecutor(len(BANDS)) as threads:
        list(threads.map(one, BANDS))


def items(url: str) -> list[Any]:
    import pystac

    return [pystac.Item.from_dict(tile.item(url)) for tile in TILES]


def write_all(bands: dict[str, np.ndarray], out: Path) -> None:
    with ThreadPoolExecutor(len(bands)) as threads:
        list(threads.map(lambda band: write_cog(out / f"{band}.tif", bands[band], FAST_COG), bands))


def odc_stac(url: str, out: Path) -> None:
    """odc.stac.load on dask threads, GDAL tuned, merged by solar day, DEFLATE level 1."""
    import odc.stac
    import rasterio
    from odc.geo.geobox import GeoBox

    odc.stac.configure_rio(cloud_defaults=True, **TUNED)
    with rasterio.Env(**TUNED):
        cube = odc.stac.load(
            items(url),
            bands=BANDS,
            geobox=GeoBox.from_bbox(BOUNDS, "EPSG:32634", resolution=10),
            chunks={"x": 2048, "y": 2048},
            groupby="solar_day",
            fail_on_error=True,
        ).compute(scheduler="threads", num_workers=8)
    write_all({band: cube[band].values[0] for band in BANDS}, out)


def stackstac_dask(url: str, out: Path) -> None:
    """stackstac.stack and stackstac.mosaic on dask threads, GDAL tuned, DEFLATE level 1."""
    stackstac = import_stackstac()
    cube = stackstac.stack(
        items(url),
        assets=list(BANDS),
        epsg=32634,
        resolution=10,
        bounds=BOUNDS,
        chunksize=2048,
        dtype="uint16",
        fill_value=np.uint16(0),
        rescale=False,
        gdal_env=stackstac.DEFAULT_GDAL_ENV.updated(TUNED),
    )
    flat = stackstac.mosaic(cube, nodata=0).compute(scheduler="threads", num_workers=8)
    write_all({band: flat.sel(band=band).values for band in BANDS}, out)


def scenebeam_task(url: str, out: Path) -> Any:
    from scenebeam.planning.search import make_plan
    from scenebeam.requestfile import validate_request

    catalog = out / "items.json"
    catalog.write_text(
        json.dumps({"type": "FeatureCollection", "features": [tile.item(url) for tile in TILES]})
    )
    request = validate_request(
        {
            "catalog": str(catalog),
            "collections": ["sentinel-2-l2a"],
            "grid": {"crs": "EPSG:32634", "resolution": 10, "bounds": list(BOUNDS)},
            "product": {"kind": "mosaic", "bands": list(BANDS)},
            "output": str(out / "products"),
        }
    )
    (task,) = make_plan(request).tasks
    return task


def scenebeam(url: str, out: Path) -> Callable[[], None]:
    """One task of the mosaic product, made as every runner makes it."""
    from scenebeam.products import product_of
    from scenebeam.storage import open_store
    from scenebeam.transfer.retry import Budget

    task, product = scenebeam_task(url, out), product_of("mosaic")
    stats(url)  # planning reads headers too: reset the counters

    def go() -> None:
        store = open_store(str(out / "products"))
        outcome = product.make(task, store, Budget(private=True))
        assert outcome.state == "done", outcome
        for band in BANDS:
            (out / f"{band}.tif").symlink_to(out / "products" / task.output_key(band))

    return go


WAYS: dict[str, Callable[[str, Path], Any]] = {
    "scenebeam": scenebeam,
    "reference": reference,
    "rasterio tuned": rasterio_tuned,
    "odc-stac + dask": odc_stac,
    "stackstac + dask": stackstac_dask,
}


def needed_blocks(folder: Path) -> list[tuple[Path, Any, list[tuple[int, int, int, int]]]]:
    """Find the blocks of which the method "first" takes at least one pixel.

    Returns:
        Per file: (path, layout, [(block number, block row, block column, 0), ...]).
    """
    from scenebeam.raster.tiff import read_layout
    from scenebeam.transfer.rangefile import RangeFile
    from scenebeam.transfer.retry import Budget

    found = []
    for band in BANDS:
        filled = np.zeros(SHAPE, bool)
        for tile in TILES:
            path = folder / tile.id / f"{band}.tif"
            layout = read_layout(RangeFile(str(path), Budget(private=True)))
            assert layout is not None
            blocks = []
            top, left = (
                (BOUNDS[3] - tile.top) // 10,
                (BOUNDS[0] - tile.left) // 10,
            )  # of the area, in the tile
            taken = np.zeros(SHAPE, bool)
            for row in range(-(-layout.height // 1024)):
                for column in range(layout.blocks_across):
                    rows = slice(
                        max(row * 1024 + top, 0), max(min((row + 1) * 1024, layout.height) + top, 0)
                    )
                    columns = slice(
                        max(column * 1024 - left, 0),
                        max(min((column + 1) * 1024, layout.width) - left, 0),
                    )
                    region = (rows, columns)
                    if filled[region].size and not filled[region].all():
                        blocks.append((layout.number(row, column, 1), row, column, 0))
                    taken[region] = True
            filled |= taken
            found.append((path, layout, blocks))
    return found


def floor(folder: Path, threads: int = 1) -> dict[str, float]:
    """Measure the floor: decode, paste and encode only the needed blocks, with bytes in memory.

    Returns:
        `wall` and `cpu` seconds; `bytes`, `requests` and `blocks` that must be read at least.
    """
    from scenebeam.raster.codecs import decode, encode
    from scenebeam.raster.pyramid import halve, level_shapes

    work = needed_blocks(folder)
    raw = []
    for path, layout, blocks in work:
        with path.open("rb") as file:
            for number, row, column, _ in blocks:
                file.seek(int(layout.offsets[number]))
                raw.append((path, layout, row, column, file.read(int(layout.sizes[number]))))
    mosaic = {band: np.zeros(SHAPE, np.uint16) for band in BANDS}
    tops = {
        tile.id: ((tile.top - BOUNDS[3]) // 10, (BOUNDS[0] - tile.left) // 10) for tile in TILES
    }

    def decode_and_paste(one: tuple[Any, ...]) -> None:
        path, layout, row, column, body = one
        block = decode(layout, memoryview(body))[:, :, 0]
        down, right = tops[path.parent.name]
        y, x = row * 1024 - down, column * 1024 - right
        rows, columns = (
            slice(max(y, 0), min(y + 1024, SHAPE[0])),
            slice(max(x, 0), min(x + 1024, SHAPE[1])),
        )
        target = mosaic[path.stem][rows, columns]
        part = block[rows.start - y : rows.stop - y, columns.start - x : columns.stop - x]
        np.copyto(target, part, where=target == 0)

    def encode_tile(one: tuple[np.ndarray, int, int]) -> None:
        pixels, top, left = one
        tile = np.zeros((512, 512), np.uint16)
        part = pixels[top : top + 512, left : left + 512]
        tile[: part.shape[0], : part.shape[1]] = part
        encode(tile, "deflate")

    with ThreadPoolExecutor(threads) as pool:
        clock = time.perf_counter(), time.process_time()
        list(pool.map(decode_and_paste, raw))
        decoded = time.perf_counter() - clock[0], time.process_time() - clock[1]
        tiles = []
        for band in BANDS:
            pixels = mosaic[band]
            for level, (height, width) in enumerate(level_shapes(*SHAPE)):
                pixels = halve(pixels, None, average=False) if level else pixels
                tiles += [
                    (pixels, top, left)
                    for top in range(0, height, 512)
                    for left in range(0, width, 512)
                ]
        clock = time.perf_counter(), time.process_time()
        list(pool.map(encode_tile, tiles))
        encoded = time.perf_counter() - clock[0], time.process_time() - clock[1]
    least = sum(int(layout.sizes[number]) for _, layout, blocks in work for number, *_ in blocks)
    runs = sum(_runs([number for number, *_ in blocks]) for *_, blocks in work)
    return {
        "wall": decoded[0] + encoded[0],
        "cpu": decoded[1] + encoded[1],
        "bytes": least,
        "requests": runs + len(work),
        "blocks": len(raw),
    }


def _runs(numbers: list[int]) -> int:
    return sum(number - 1 not in numbers for number in numbers)


def one(config: dict[str, Any]) -> dict[str, Any]:
    """Run one way once in this process."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        made = WAYS[config["way"]]
        import rasterio  # noqa: F401

        prepared = made(config["url"], out) if config["way"] == "scenebeam" else None
        found = measured(prepared if prepared is not None else lambda: made(config["url"], out))
        if config.get("digest"):
            found["digest"] = [digest(out / f"{band}.tif") for band in BANDS]
        return found


def digest(path: Path) -> str:
    import hashlib

    import rasterio

    with rasterio.open(path) as file:
        assert file.overviews(1), path
        return hashlib.sha256(file.read(1).tobytes()).hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--ways", default=",".join(WAYS))
    parser.add_argument("--one")
    args = parser.parse_args()
    if args.one:
        print(json.dumps(one(json.loads(args.one))))
        return
    folder = full_size_tiles(BANDS)
    ways = args.ways.split(",")
    least = floor(folder)
    with range_server(0.0) as url:
        digests = {
            w: in_fresh_process(__file__, {"way": w, "url": url, "digest": True})["digest"]
            for w in ways
        }
    assert len({tuple(d) for d in digests.values()}) == 1, f"ways disagree on pixels: {digests}"
    print(f"all ways give the same pixels; {machine()}")
    floors = {
        threads: [floor(folder, threads) for _ in range(3)] for threads in (1, os.cpu_count() or 1)
    }
    for threads, found in floors.items():
        walls, cpus = ([run[key] for run in found] for key in ("wall", "cpu"))
        print(f"floor on {threads} threads: {spread(walls)} wall s, {spread(cpus)} CPU s")
    print(f"least: {least['bytes'] / 1e6:.1f} MB", end=", ")
    print(f"{least['requests']} requests, {least['blocks']} blocks\n")
    alone, together = (median(f["cpu"] for f in found) for found in floors.values())
    print("CPU / floor: relative to the floor on one thread, and to the floor on all cores\n")
    print_header(
        *("way", "latency ms", "wall s", "CPU s", "CPU / floor"),
        *("peak MB", "requests", "MB read", "bytes / least"),
    )
    for latency in LATENCIES:
        runs: dict[str, list[dict[str, Any]]] = {way: [] for way in ways}
        with range_server(latency) as url:
            for _ in range(args.rounds):
                for way in ways:
                    stats(url)
                    measured = in_fresh_process(__file__, {"way": way, "url": url})
                    runs[way].append({**measured, **stats(url)})
        for way, found_runs in runs.items():
            cpu = [run["cpu"] for run in found_runs]
            sent = median_of(found_runs, "bytes")
            print_row(
                way,
                f"{latency * 1000:.0f}",
                spread([run["wall"] for run in found_runs]),
                spread(cpu),
                f"{median(cpu) / alone:.2f}, {median(cpu) / together:.2f}",
                f"{median_of(found_runs, 'peak_mb'):.0f}",
                f"{median_of(found_runs, 'requests'):.0f}",
                f"{sent / 1e6:.1f}",
                f"{sent / least['bytes']:.3f}",
            )


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main()
