"""Mosaics as a job, and ways to make them: shared by the benchmarks of mosaics.

A way is prepared first, which includes imports and planning, and returns the work to be timed. The
work writes one COG with overviews per band, `<band>.tif`.
"""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from math import ceil, floor
from pathlib import Path
from typing import Any

import common
import numpy as np
from common import BLOCK, stats

from scenebeam.sandbox.scenes import COLLECTION, SandboxScene

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


@dataclass(frozen=True)
class MosaicJob:
    """A mosaic per band, at 10 m: for each pixel the first valid value, in the order of tiles."""

    tiles: tuple[SandboxScene, ...]
    bands: tuple[str, ...]
    bounds: tuple[int, int, int, int]
    """Left, bottom, right and top in meters."""
    resampling: str = "nearest"
    """Resampling method of tiles in another UTM zone."""
    epsg: int = 32634

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        left, bottom, right, top = self.bounds
        return (top - bottom) // 10, (right - left) // 10

    @property
    def crs(self) -> str:
        return f"EPSG:{self.epsg}"

    def hrefs(self, base: str, band: str) -> list[str]:
        """Return the files of a band, below a URL or a folder."""
        return [f"{base}/{tile.id}/{band}.tif" for tile in self.tiles]

    def items(self, base: str) -> list[dict[str, Any]]:
        """Return the STAC items of the tiles, with the bands of the job as assets."""
        found = []
        for tile in self.tiles:
            item = tile.item(base)
            item["assets"] = {band: item["assets"][band] for band in self.bands}
            found.append(item)
        return found

    def write_cog(self, path: Path, pixels: np.ndarray, options: dict[str, Any]) -> None:
        """Write a band with GDAL's COG driver."""
        import rasterio
        from rasterio.transform import from_origin

        with rasterio.open(
            path,
            "w",
            height=self.shape[0],
            width=self.shape[1],
            count=1,
            dtype=pixels.dtype,
            nodata=0,
            crs=self.crs,
            transform=from_origin(self.bounds[0], self.bounds[3], 10, 10),
            **options,
        ) as file:
            file.write(pixels, 1)

    def write_cogs(self, bands: dict[str, np.ndarray], out: Path) -> None:
        """Write all bands at once, at DEFLATE level 1, on all cores."""

        def write(band: str) -> None:
            self.write_cog(out / f"{band}.tif", bands[band], FAST_COG)

        with ThreadPoolExecutor(len(bands)) as threads:
            list(threads.map(write, bands))


Work = Callable[[], None]
Way = Callable[[MosaicJob, str, Path], Work]
"""Prepares a job, below a URL or a folder, and returns the work that writes its COGs."""


def merge_band(
    job: MosaicJob, base: str, band: str, out: Path, options: dict[str, Any], warp_threads: int = 1
) -> None:
    """Make a band with rasterio.merge; tiles of another CRS are read through a WarpedVRT."""
    import rasterio
    from rasterio.enums import Resampling
    from rasterio.merge import merge

    method = Resampling["nearest" if band == "scl" else job.resampling]
    with ExitStack() as opened:
        files = []
        for href in job.hrefs(base, band):
            file = opened.enter_context(rasterio.open(href))
            if file.crs.to_epsg() != job.epsg:
                file = opened.enter_context(_warped(job, file, method, warp_threads))
            files.append(file)
        pixels, _ = merge(
            files, bounds=job.bounds, res=10, nodata=0, method="first", resampling=method
        )
    job.write_cog(out / f"{band}.tif", pixels[0], options)


def _warped(job: MosaicJob, file: Any, method: Any, threads: int) -> Any:
    """Return a WarpedVRT of the part of a file that is on the grid, with pixels of the grid."""
    from rasterio.transform import from_origin
    from rasterio.vrt import WarpedVRT
    from rasterio.warp import transform_bounds

    bounds = transform_bounds(file.crs, job.crs, *file.bounds)
    left, bottom = (max(floor(edge / 10) * 10, job.bounds[i]) for i, edge in enumerate(bounds[:2]))
    right, top = (min(ceil(edge / 10) * 10, job.bounds[i + 2]) for i, edge in enumerate(bounds[2:]))
    return WarpedVRT(
        file,
        crs=job.crs,
        transform=from_origin(left, top, 10, 10),
        width=(right - left) // 10,
        height=(top - bottom) // 10,
        resampling=method,
        num_threads=threads,
    )


def reference(job: MosaicJob, base: str, out: Path) -> Work:
    """The plain reference: rasterio.merge on /vsicurl with GDAL's defaults, one band at a time."""
    import rasterio.merge  # noqa: F401

    def work() -> None:
        for band in job.bands:
            merge_band(job, base, band, out, COG)

    return work


def rasterio_tuned(job: MosaicJob, base: str, out: Path) -> Work:
    """rasterio.merge with GDAL's options for cloud storage, bands in parallel, DEFLATE level 1."""
    import rasterio
    import rasterio.merge

    def make(band: str) -> None:
        with rasterio.Env(**TUNED):
            merge_band(job, base, band, out, FAST_COG, warp_threads=common.CORES)

    def work() -> None:
        with ThreadPoolExecutor(len(job.bands)) as threads:
            list(threads.map(make, job.bands))

    return work


def odc_stac(job: MosaicJob, base: str, out: Path, **how: Any) -> Work:
    """odc.stac.load, GDAL tuned, merged by solar day, DEFLATE level 1.

    Args:
        job: The job.
        base: URL or folder of the tiles.
        out: Folder of the COGs.
        how: `chunks` for dask threads, or `pool` for a thread pool of its own.
    """
    import odc.stac
    import pystac
    import rasterio
    from odc.geo.geobox import GeoBox

    odc.stac.configure_rio(cloud_defaults=True, **TUNED)
    items = [pystac.Item.from_dict(item) for item in job.items(base)]
    grid = GeoBox.from_bbox(job.bounds, job.crs, resolution=10)

    def work() -> None:
        with rasterio.Env(**TUNED):
            cube = odc.stac.load(
                items,
                bands=job.bands,
                geobox=grid,
                resampling=job.resampling,
                groupby="solar_day",
                fail_on_error=True,
                **how,
            )
            if "chunks" in how:
                cube = cube.compute(scheduler="threads", num_workers=8)
        job.write_cogs({band: cube[band].values[0] for band in job.bands}, out)

    return work


def odc_stac_dask(job: MosaicJob, base: str, out: Path) -> Work:
    """odc-stac on dask threads, in chunks of 2048 pixels."""
    import dask.array  # noqa: F401

    return odc_stac(job, base, out, chunks={"x": 2048, "y": 2048})


def odc_stac_pool(job: MosaicJob, base: str, out: Path) -> Work:
    """odc-stac on its own thread pool."""
    return odc_stac(job, base, out, pool=8)


def rio_tiler(job: MosaicJob, base: str, out: Path) -> Work:
    """rio_tiler.mosaic, GDAL tuned, tiles and bands in parallel, DEFLATE level 1."""
    os.environ.update(TUNED)  # its threads do not inherit rasterio.Env
    from rasterio.crs import CRS
    from rio_tiler.io import Reader
    from rio_tiler.mosaic import mosaic_reader

    crs = CRS.from_epsg(job.epsg)
    height, width = job.shape

    def read(href: str) -> Any:
        with Reader(href) as file:
            return file.part(
                job.bounds,
                dst_crs=crs,
                bounds_crs=crs,
                height=height,
                width=width,
                reproject_method=job.resampling,
            )

    def make(band: str) -> np.ndarray:
        image, _ = mosaic_reader(job.hrefs(base, band), read, threads=len(job.tiles))
        pixels: np.ndarray = image.array.filled(0)[0]
        return pixels

    def work() -> None:
        with ThreadPoolExecutor(len(job.bands)) as threads:
            bands = dict(zip(job.bands, threads.map(make, job.bands), strict=True))
        job.write_cogs(bands, out)

    return work


def async_geotiff(job: MosaicJob, base: str, out: Path) -> Work:
    """async-geotiff over obstore, all files at once; pixels are pasted, DEFLATE level 1.

    It does not merge: of each tile, the code here reads the part that no tile before it covers.
    """
    from async_geotiff import GeoTIFF, Window
    from obstore.store import HTTPStore

    async def read(place: _Place, band: str, pixels: np.ndarray) -> None:
        store = HTTPStore(f"{base}/{place.tile.id}", client_options={"allow_http": True})
        file = await GeoTIFF.open(f"{band}.tif", store=store)
        rows, columns = place.rows, place.columns
        window = Window(
            columns.start - place.left,
            rows.start - place.top,
            columns.stop - columns.start,
            rows.stop - rows.start,
        )
        found = np.asarray((await file.read(window=window)).data)[0]
        target = pixels[rows, columns]
        np.copyto(target, found, where=target == 0)

    async def read_all(bands: dict[str, np.ndarray]) -> None:
        places = list(uncovered_parts(job))
        await asyncio.gather(
            *(read(place, band, pixels) for band, pixels in bands.items() for place in places)
        )

    def work() -> None:
        bands = {band: np.zeros(job.shape, np.uint16) for band in job.bands}
        asyncio.run(read_all(bands))
        job.write_cogs(bands, out)

    return work


@dataclass(frozen=True)
class _Place:
    """The part of a tile that no tile before it covers: rows and columns of the mosaic."""

    tile: SandboxScene
    top: int
    left: int
    """Row and column of the tile's corner in the mosaic."""
    rows: slice
    columns: slice


def uncovered_parts(job: MosaicJob) -> Iterator[_Place]:
    """Yield the smallest rectangle of each tile that holds all that earlier tiles do not cover."""
    covered = np.zeros(job.shape, bool)
    for tile in job.tiles:
        assert tile.epsg == job.epsg, "tiles of another zone are not pasted"
        top, left = (job.bounds[3] - tile.top) // 10, (tile.left - job.bounds[0]) // 10
        rows, columns = _clip(top, tile.size, job.shape[0]), _clip(left, tile.size, job.shape[1])
        missing = np.argwhere(~covered[rows, columns])
        if missing.size:
            (first, start), (last, stop) = missing.min(axis=0), missing.max(axis=0) + 1
            yield _Place(
                tile,
                top,
                left,
                slice(rows.start + int(first), rows.start + int(last)),
                slice(columns.start + int(start), columns.start + int(stop)),
            )
        covered[rows, columns] = True


def _clip(start: int, size: int, limit: int) -> slice:
    return slice(max(start, 0), max(min(start + size, limit), 0))


def write_catalog(job: MosaicJob, base: str, out: Path) -> Path:
    """Write the items of the job as a catalog, `items.json`."""
    catalog = out / "items.json"
    catalog.write_text(json.dumps({"type": "FeatureCollection", "features": job.items(base)}))
    return catalog


def mosaic_document(job: MosaicJob, base: str, out: Path, **others: Any) -> dict[str, Any]:
    """Return scenebeam's request for a job as a document; its output is `out / "products"`."""
    return {
        "catalog": str(write_catalog(job, base, out)),
        "collections": [COLLECTION],
        "grid": {"crs": job.crs, "resolution": 10, "bounds": list(job.bounds)},
        "product": {"kind": "mosaic", "bands": list(job.bands), "resampling": job.resampling},
        "output": str(out / "products"),
        **others,
    }


def mosaic_request(job: MosaicJob, base: str, out: Path, **others: Any) -> Any:
    """Return scenebeam's request for a job; its output is `out / "products"`."""
    from scenebeam.requestfile import validate_request

    return validate_request(mosaic_document(job, base, out, **others))


def scenebeam(job: MosaicJob, base: str, out: Path) -> Work:
    """One task of the mosaic product, made as every runner makes it."""
    from scenebeam.execution.make import limit_malloc_arenas
    from scenebeam.planning.search import make_plan
    from scenebeam.products import product_of
    from scenebeam.storage import open_store
    from scenebeam.transfer.retry import Budget

    limit_malloc_arenas()  # as every run does
    request = mosaic_request(job, base, out)
    task: Any = make_plan(request).tasks[0]
    product = product_of("mosaic")
    if base.startswith("http"):
        stats(base)  # planning reads headers too: reset the counters

    def work() -> None:
        outcome = product.make(task, open_store(request.output), Budget(private=True))
        assert outcome.state == "done", outcome
        for band in job.bands:
            (out / f"{band}.tif").symlink_to(out / "products" / task.output_key(band))

    return work


def scenebeam_run(job: MosaicJob, base: str, out: Path) -> Work:
    """A whole run on the serial runner, with plan and report."""
    from scenebeam.execution.driver import run

    request = mosaic_request(job, base, out, runner="serial")

    def work() -> None:
        status = run(request)
        assert status.state == "succeeded", status
        for band in job.bands:
            (path,) = (out / "products").glob(f"mosaics/*/{band}.tif")
            (out / f"{band}.tif").symlink_to(path)

    return work


@dataclass(frozen=True)
class NeededBlocks:
    """The blocks of one file of which the method "first" takes at least one pixel."""

    path: Path
    layout: Any
    place: _Place
    blocks: tuple[tuple[int, int], ...]
    """Row and column of each block in the file."""

    @property
    def numbers(self) -> list[int]:
        return [self.layout.number(row, column, 1) for row, column in self.blocks]

    @property
    def size(self) -> int:
        """Bytes of the blocks."""
        return sum(int(self.layout.sizes[number]) for number in self.numbers)

    @property
    def requests(self) -> int:
        """Least requests: one for the header, and one for each run of adjacent blocks."""
        numbers = self.numbers
        return 1 + sum(number - 1 not in numbers for number in numbers)


def needed_blocks(job: MosaicJob, folder: Path) -> list[NeededBlocks]:
    """Find the blocks that a job must read at least."""
    from scenebeam.raster.tiff import read_layout
    from scenebeam.transfer.rangefile import RangeFile
    from scenebeam.transfer.retry import Budget

    found = []
    for band in job.bands:
        for place, blocks in _needed_of_tiles(job):
            path = folder / place.tile.id / f"{band}.tif"
            layout = read_layout(RangeFile(str(path), Budget(private=True)))
            assert layout is not None
            found.append(NeededBlocks(path, layout, place, blocks))
    return found


def _needed_of_tiles(job: MosaicJob) -> Iterator[tuple[_Place, tuple[tuple[int, int], ...]]]:
    covered = np.zeros(job.shape, bool)
    for place in uncovered_parts(job):
        count = -(-place.tile.size // BLOCK)
        blocks = []
        for row in range(count):
            for column in range(count):
                region = covered[_block_region(job, place, row, column)]
                if region.size and not region.all():
                    blocks.append((row, column))
        covered[
            _clip(place.top, place.tile.size, job.shape[0]),
            _clip(place.left, place.tile.size, job.shape[1]),
        ] = True
        yield place, tuple(blocks)


def _block_region(job: MosaicJob, place: _Place, row: int, column: int) -> tuple[slice, slice]:
    """Rows and columns of the mosaic that a block of a tile covers."""
    height, width = job.shape
    last_row, last_column = place.top + place.tile.size, place.left + place.tile.size
    top, left = place.top + row * BLOCK, place.left + column * BLOCK
    return (
        slice(max(top, 0), max(min(top + BLOCK, last_row, height), 0)),
        slice(max(left, 0), max(min(left + BLOCK, last_column, width), 0)),
    )


def measure_floor(job: MosaicJob, folder: Path, threads: int = 1) -> dict[str, float]:
    """Measure the floor: decode, paste and encode only the needed blocks, with bytes in memory.

    Returns:
        `wall` and `cpu` seconds; `bytes`, `requests` and `blocks` that must be read at least.
    """
    needed = needed_blocks(job, folder)
    mosaic = {band: np.zeros(job.shape, np.uint16) for band in job.bands}
    with ThreadPoolExecutor(threads) as pool:
        decoded = _decode_all(job, needed, mosaic, pool)
        encoded = _encode_all(mosaic, pool)
    return {
        "wall": decoded["wall"] + encoded["wall"],
        "cpu": decoded["cpu"] + encoded["cpu"],
        "bytes": sum(file.size for file in needed),
        "requests": sum(file.requests for file in needed),
        "blocks": sum(len(file.blocks) for file in needed),
    }


def _decode_all(
    job: MosaicJob,
    needed: list[NeededBlocks],
    mosaic: dict[str, np.ndarray],
    pool: ThreadPoolExecutor,
) -> common.Measurements:
    """Decode and paste all needed blocks, and return the time that it takes."""
    from scenebeam.raster.codecs import decode

    encoded = []
    for file in needed:
        content = file.path.read_bytes()
        for (row, column), number in zip(file.blocks, file.numbers, strict=True):
            start = int(file.layout.offsets[number])
            body = content[start : start + int(file.layout.sizes[number])]
            encoded.append((file, row, column, body))

    def decode_and_paste(one: tuple[NeededBlocks, int, int, bytes]) -> None:
        file, row, column, body = one
        block = decode(file.layout, memoryview(body))[:, :, 0]
        rows, columns = _block_region(job, file.place, row, column)
        down, right = file.place.top + row * BLOCK, file.place.left + column * BLOCK
        part = block[
            rows.start - down : rows.stop - down, columns.start - right : columns.stop - right
        ]
        target = mosaic[file.path.stem][rows, columns]
        np.copyto(target, part, where=target == 0)

    return common.measured(lambda: list(pool.map(decode_and_paste, encoded)))


def _encode_all(mosaic: dict[str, np.ndarray], pool: ThreadPoolExecutor) -> common.Measurements:
    """Encode the blocks of all levels, and return the time that it takes."""
    from scenebeam.raster.codecs import encode
    from scenebeam.raster.pyramid import halve, level_shapes

    blocks = []
    for band in mosaic.values():
        pixels = band
        for level, (height, width) in enumerate(level_shapes(*band.shape)):
            pixels = halve(pixels, None, average=False) if level else pixels
            for top in range(0, height, 512):
                for left in range(0, width, 512):
                    blocks.append(pixels[top : top + 512, left : left + 512])

    def encode_block(part: np.ndarray) -> None:
        block = np.zeros((512, 512), np.uint16)
        block[: part.shape[0], : part.shape[1]] = part
        encode(block, "deflate")

    return common.measured(lambda: list(pool.map(encode_block, blocks)))


def run_way(config: dict[str, Any], job: MosaicJob, ways: dict[str, Way]) -> common.Measurements:
    """Run one way once in this process.

    Args:
        config: `way`, `url`, and `save` if the COGs are to be kept in this folder.
        job: The job.
        ways: All ways.
    """
    with tempfile.TemporaryDirectory() as folder:
        out = Path(config.get("save") or folder)
        return common.measured(ways[config["way"]](job, config["url"], out))


def read_bands(job: MosaicJob, out: Path) -> dict[str, np.ndarray]:
    """Read the COGs that a way has written; they must have overviews."""
    import rasterio

    found = {}
    for band in job.bands:
        with rasterio.open(out / f"{band}.tif") as file:
            assert file.overviews(1), f"{out}: {band}"
            found[band] = file.read(1)
    return found
