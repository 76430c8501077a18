"""Cube benchmark: twelve dates of one Sentinel-2 tile as a lazy cube, and as a Zarr store.

    python benchmarks/cube.py --rounds 3 --latency 0 0.03 0.1        (or, in minutes: --small)

The measures, from a file of STAC items to values in memory or on disk:

- *first pixel*: open all dates of one band, and read one pixel of the first date;
- *one date*: open all dates of one band, and read all of the first date;
- *time series*: open all dates of one band, and read 512 x 512 pixels of all dates;
- *NDVI*: open both bands, and compute the mean NDVI of each pixel over all dates;
- *Zarr*: write all dates of both bands to a store, in chunks of 512 pixels.

Cubes of dask have chunks of 2048 pixels (scenebeam's of four dates, which is its default, the
others' of one), and are computed on two threads. "scenebeam without dask"
is the lazy cube that `scenebeam.load` returns by default. rioxarray opens each file by itself, and
the dates are concatenated. The stores of odc-stac have the codec of scenebeam's; sharded ones have
shards of 4096 pixels, and dask chunks as large, because two threads must not write the same shard.
Only scenebeam's store has overviews, STAC items, checksums and a report, which are part of its time.

Each run starts a fresh interpreter, which first does the same with a tile of 512 x 512 pixels. So
neither imports nor what a tool sets up once are timed. The server is in the process of the
benchmark. NDVI and Zarr take part in one round, unless the tile is small. All ways must give the
same values, bit by bit.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import tempfile
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from common import (
    DATA,
    TIME_COLUMNS,
    TUNED,
    Measurements,
    Runs,
    full_size_tiles,
    in_fresh_process,
    machine,
    measured,
    median_of,
    print_header,
    print_row,
    time_cells,
)

from scenebeam.sandbox.scenes import COLLECTION, SandboxScene
from scenebeam.sandbox.server import SandboxServer, serve

if TYPE_CHECKING:
    import xarray

BANDS = ("red", "nir")
CRS = "EPSG:32634"
LEFT, TOP = 600_000, 4_500_000
DATES = 12
CHUNK = 2048
"""Rows and columns of a chunk of dask."""
WINDOW = 512
"""Rows and columns of a time series."""
STORED_CHUNK, SHARD = 512, 4096
"""Rows and columns of a chunk and of a shard of a Zarr store."""
WORKERS = 2
"""Threads of dask."""
LATENCIES = (0.0, 0.03, 0.1)
FULL_SIZE, SMALL_SIZE, WARM_UP_SIZE = 10980, 2745, 512
YEARS = {FULL_SIZE: 2023, SMALL_SIZE: 2022, WARM_UP_SIZE: 2021}
"""Size of the tile → year of its dates: names of scenes do not tell the size. The full-size ones are
those of the benchmark of composites."""
RESET = "/-/reset"
"""Path at the server that resets its counts."""
Work = Callable[[], Any]
"""What is timed. Returns the array to compare, or the path of a Zarr group."""


@dataclass(frozen=True)
class Series:
    """The dates of the tile."""

    size: int
    """Rows and columns of pixels of 10 m."""

    @property
    def scenes(self) -> tuple[SandboxScene, ...]:
        first = datetime(YEARS[self.size], 4, 3, 9, 20, 31)
        found = []
        for number in range(DATES):
            taken = first + timedelta(days=5 * number)
            found.append(SandboxScene("34TFL", 32634, LEFT, TOP, taken, size=self.size))
        return tuple(found)

    @property
    def bounds(self) -> tuple[int, int, int, int]:
        """Left, bottom, right and top in meters."""
        side = self.size * 10
        return LEFT, TOP - side, LEFT + side, TOP

    @property
    def window(self) -> slice:
        """Rows, and columns, of the time series: in the middle of the tile."""
        start = self.size // 2 - WINDOW // 2
        return slice(start, start + WINDOW)

    @property
    def shard(self) -> int:
        """Rows and columns of a shard: no more than scenebeam takes for a tile of this size."""
        return min(SHARD, -(-self.size // STORED_CHUNK) * STORED_CHUNK)

    def write_items(self, path: Path, url: str) -> None:
        """Write an ItemCollection of the files on a server."""
        items = [scene.item(url) for scene in self.scenes]
        path.write_text(json.dumps({"type": "FeatureCollection", "features": items}))

    def request(self, catalog: Path, bands: Sequence[str]) -> dict[str, Any]:
        """Return scenebeam's request for one image per date."""
        return {
            "catalog": str(catalog),
            "collections": [COLLECTION],
            "dates": str(self.scenes[0].acquired.year),
            "grid": {"crs": CRS, "resolution": 10, "bounds": list(self.bounds)},
            "product": {"kind": "mosaic", "bands": list(bands)},
            "limits": {"private_addresses": True},
        }


Open = Callable[[Series, Path, Sequence[str]], "xarray.Dataset"]
"""Opens bands of the items in a file, as a lazy cube of dimensions (time, y, x)."""


def open_scenebeam(series: Series, catalog: Path, bands: Sequence[str]) -> xarray.Dataset:
    """scenebeam.load with dask."""
    import scenebeam

    return scenebeam.load(series.request(catalog, bands), chunks="auto")


def open_scenebeam_lazy(series: Series, catalog: Path, bands: Sequence[str]) -> xarray.Dataset:
    """scenebeam.load with the lazy arrays of xarray."""
    import scenebeam

    return scenebeam.load(series.request(catalog, bands))


def open_odc_stac(
    series: Series, catalog: Path, bands: Sequence[str], chunk: int = CHUNK
) -> xarray.Dataset:
    """odc.stac.load with dask, GDAL tuned."""
    import odc.stac
    import pystac
    from odc.geo.geobox import GeoBox

    odc.stac.configure_rio(cloud_defaults=True, **TUNED)
    dataset: xarray.Dataset = odc.stac.load(
        pystac.ItemCollection.from_file(str(catalog)),
        bands=bands,
        geobox=GeoBox.from_bbox(series.bounds, CRS, resolution=10),
        groupby="solar_day",
        chunks={"x": chunk, "y": chunk},
        fail_on_error=True,
    )
    return dataset


def open_rioxarray(series: Series, catalog: Path, bands: Sequence[str]) -> xarray.Dataset:
    """rioxarray.open_rasterio of each file, GDAL tuned, without a lock for all threads."""
    import rioxarray
    import xarray as xr

    items = json.loads(catalog.read_text())["features"]
    times = [item["properties"]["datetime"].removesuffix("Z") for item in items]
    axis = xr.Variable("time", np.array(times, "datetime64[ns]"))
    chunks = {"x": CHUNK, "y": CHUNK}
    variables = {}
    for band in bands:
        dates = []
        for item in items:
            href = item["assets"][band]["href"]
            date = rioxarray.open_rasterio(href, chunks=chunks, lock=False)
            assert isinstance(date, xr.DataArray)
            dates.append(date.squeeze("band", drop=True))
        variables[band] = xr.concat(dates, axis, join="override")
    return xr.Dataset(variables)


OPENERS: dict[str, Open] = {
    "scenebeam": open_scenebeam,
    "scenebeam without dask": open_scenebeam_lazy,
    "odc-stac": open_odc_stac,
    "rioxarray": open_rioxarray,
}


def first_pixel(series: Series, cube: xarray.Dataset) -> np.ndarray:
    return cube["red"][0, 0, 0].values


def one_date(series: Series, cube: xarray.Dataset) -> np.ndarray:
    return cube["red"][0].values


def time_series(series: Series, cube: xarray.Dataset) -> np.ndarray:
    return cube["red"][:, series.window, series.window].values


def mean_ndvi(series: Series, cube: xarray.Dataset) -> np.ndarray:
    """The mean over time. float32; no pixel of the tile lacks data."""
    red, nir = cube["red"].astype("float32"), cube["nir"].astype("float32")
    return ((nir - red) / (nir + red)).mean("time", skipna=False).values


Read = Callable[[Series, Any], np.ndarray]
READS: dict[str, tuple[Sequence[str], Read]] = {
    "first pixel": (BANDS[:1], first_pixel),
    "one date": (BANDS[:1], one_date),
    "time series": (BANDS[:1], time_series),
    "NDVI": (BANDS, mean_ndvi),
}
"""Measure → the bands that are opened, and what is read of them."""
STORE = "Zarr"
MEASURES: dict[str, Sequence[str]] = {
    "first pixel": tuple(OPENERS),
    "one date": tuple(OPENERS),
    "time series": tuple(OPENERS),
    "NDVI": ("scenebeam", "odc-stac", "rioxarray"),
    STORE: ("scenebeam", "odc-stac", "odc-stac, sharded"),
}
"""Measure → its ways, of which scenebeam is the first."""
LONG = ("NDVI", STORE)


def storing(series: Series, catalog: Path, way: str) -> Work:
    """Prepare to write a Zarr store."""
    folder = catalog.parent
    if way == "scenebeam":
        import scenebeam

        request = series.request(catalog, BANDS) | {
            "product": {"kind": "mosaic", "bands": list(BANDS), "format": "zarr"},
            "output": str(folder / "out"),
            "runner": "direct",
        }

        def run() -> Path:
            status = scenebeam.run(request, progress=False)
            assert status.state == "succeeded", status
            return folder / "out" / "cube.zarr" / "0"

        return run

    import zarr.codecs

    codec = zarr.codecs.BloscCodec(cname="zstd", clevel=1, shuffle="bitshuffle", typesize=2)
    stored: dict[str, Any] = {"chunks": (1, STORED_CHUNK, STORED_CHUNK), "compressors": [codec]}
    chunk = CHUNK
    if way == "odc-stac, sharded":
        chunk = series.shard
        stored["shards"] = (1, chunk, chunk)

    def write() -> Path:
        cube = open_odc_stac(series, catalog, BANDS, chunk)
        path = folder / "odc.zarr"
        cube.to_zarr(path, zarr_format=3, encoding=dict.fromkeys(BANDS, stored))
        return path

    return write


def digest(result: np.ndarray | Path) -> str:
    """Return a checksum of an array, or of the pixels of both bands of a store."""
    if isinstance(result, np.ndarray):
        return hashlib.sha256(np.ascontiguousarray(result).tobytes()).hexdigest()
    import zarr

    group = zarr.open_group(result, mode="r", zarr_format=3)
    found = hashlib.sha256()
    for band in BANDS:
        pixels = group[band]
        assert isinstance(pixels, zarr.Array)
        assert pixels.chunks == (1, STORED_CHUNK, STORED_CHUNK), pixels.chunks
        for date in range(pixels.shape[0]):
            found.update(np.asarray(pixels[date]).tobytes())
    return found.hexdigest()


def prepare(config: dict[str, Any], size: int, folder: Path) -> Work:
    """Prepare a way to make a measure of the tile of a size."""
    series, way, name = Series(size), config["way"], config["measure"]
    folder.mkdir()
    catalog = folder / "items.json"
    series.write_items(catalog, config["url"])
    if name == STORE:
        return storing(series, catalog, way)
    bands, read = READS[name]
    return lambda: read(series, OPENERS[way](series, catalog, bands))


def one(config: dict[str, Any]) -> Measurements:
    """Run one way once in this process, and return its measurements with a checksum."""
    os.environ.update(TUNED)  # threads of dask do not inherit rasterio.Env
    import dask

    results: list[Any] = []
    with (
        tempfile.TemporaryDirectory() as name,
        dask.config.set(scheduler="threads", num_workers=WORKERS),
    ):
        prepare(config, WARM_UP_SIZE, Path(name) / "warm-up")()
        work = prepare(config, config["size"], Path(name) / "work")
        urllib.request.urlopen(config["url"] + RESET).close()
        found = measured(lambda: results.append(work()))
        stored = 0
        if isinstance(results[0], Path):
            files = (path for path in results[0].rglob("*") if path.is_file())
            stored = sum(path.stat().st_size for path in files)
        return {**found, "digest": digest(results[0]), "stored": stored}


def reset_on_request(server: SandboxServer) -> None:
    """Let the process that is measured reset the counts of the server after its warm-up."""

    def guard(path: str, headers: Mapping[str, str]) -> int | None:
        if path != RESET:
            return None
        server.reset_counts()
        return 204

    server.guard = guard


def run_ways(server: SandboxServer, name: str, rounds: int, size: int) -> Runs:
    """Run all ways of a measure in fresh processes, interleaved, and compare their values."""
    runs: Runs = {way: [] for way in MEASURES[name]}
    for _ in range(rounds):
        for way, found in runs.items():
            config = {"way": way, "measure": name, "url": server.url, "size": size}
            run = in_fresh_process(__file__, config)
            run |= {"requests": sum(server.requests.values()), "bytes": server.bytes_sent}
            found.append(run)
            expected = runs["scenebeam"][0]["digest"]
            assert run["digest"] == expected, f"{name}: {way} has other values than scenebeam"
    return runs


def print_runs(name: str, latency: float, runs: Runs) -> None:
    """Print the rows of a measure at a latency."""
    first = median_of(runs["scenebeam"], "wall")
    for way, found in runs.items():
        stored = median_of(found, "stored")
        print_row(
            name,
            f"{latency * 1000:.0f}",
            way,
            *time_cells(found),
            f"{median_of(found, 'wall') / first:.2f}",
            f"{median_of(found, 'peak_mb'):.0f}",
            f"{median_of(found, 'requests'):.0f}",
            f"{median_of(found, 'bytes') / 1e6:.1f}",
            f"{stored / 1e6:.1f}" if stored else "",
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="of all but NDVI and Zarr")
    parser.add_argument("--latency", type=float, nargs="*", default=LATENCIES, help="in seconds")
    parser.add_argument("--small", action="store_true", help="a tile of 2745 x 2745 pixels")
    parser.add_argument("--measures", nargs="*", choices=MEASURES, default=list(MEASURES))
    parser.add_argument("--one")
    args = parser.parse_args()
    if args.one:
        print(json.dumps(one(json.loads(args.one))), flush=True)
        return
    size = SMALL_SIZE if args.small else FULL_SIZE
    full_size_tiles(BANDS, Series(WARM_UP_SIZE).scenes + Series(size).scenes)
    print(f"{machine()}; {DATES} dates of {size} x {size} pixels\n")
    columns = ("wall / scenebeam", "peak MB", "requests", "MB read", "MB stored")
    print_header("measure", "latency ms", "way", *TIME_COLUMNS, *columns)
    for latency in args.latency:
        with serve(DATA, latency=latency) as server:
            reset_on_request(server)
            for name in args.measures:
                rounds = 1 if name in LONG and not args.small else args.rounds
                print_runs(name, latency, run_ways(server, name, rounds, size))


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main()
