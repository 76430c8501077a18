"""Land-cover chips benchmark: a finished dataset from five sensors, on four dates.

    python benchmarks/landcover.py --rounds 1

Four areas of interest share a tile of 41 x 41 km: Sentinel-2 (six bands), Sentinel-1 and Landsat on
four dates, an elevation model and a land-cover map, 14 rasters per chip. scenebeam's time is that
of a run on the direct runner, except for planning: it finds and samples the chips, makes their
rasters with statistics and checksums, and writes items, tables and the release. The archive and
thumbnails are left out.

The other way is rasterio grouped by scene, with GDAL tuned. It gets the list of these chips, so it
reads neither the map nor the masks, and it only writes bare GeoTIFFs. Each run starts a fresh
interpreter; imports are not timed. The pixels of both ways are compared first: they must be equal
within 1, except for a share of `TOLERATED` of Landsat and of the elevation, which are warped.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from common import (
    CORE_COLUMNS,
    DATA,
    TIME_COLUMNS,
    TUNED,
    Measurements,
    Runs,
    core_cells,
    full_size_tiles,
    in_fresh_process,
    machine,
    measured,
    median_of,
    print_all_ratios,
    print_header,
    print_row,
    range_server,
    run_rounds,
    stats,
    time_cells,
)
from pyproj import Transformer

from scenebeam.sandbox import earth
from scenebeam.sandbox import landcover as sandbox
from scenebeam.sandbox.landcover import SandboxImage, SandboxItem
from scenebeam.sandbox.scenes import SandboxScene

EPSG, LEFT, TOP, SIZE = 32634, 700_000, 4_500_000, 4096
SIDE = SIZE * 10
CHIP = 960
OPTICAL = ("blue", "green", "red", "nir", "swir16", "swir22")
LANDSAT = ("blue", "green", "red", "nir08", "swir16", "swir22")
LATENCIES = (0.0, 0.03)
TOLERATED = 0.03
SCENES = tuple(SandboxScene("34TGL", EPSG, LEFT, TOP, day, size=SIZE) for day in sandbox.DAYS)


def radar_item(number: int) -> SandboxItem:
    """Return the radar scene near a date."""
    when = sandbox.SAR_DAYS[number]

    def image(band: str) -> SandboxImage:
        values = partial(earth.backscatter, band, day=earth.day_number(when))
        return SandboxImage(band, f"EPSG:{EPSG}", (LEFT, TOP), 10, (SIZE, SIZE), values, -32768)

    properties = {
        "datetime": f"{when:%Y-%m-%dT%H:%M:%SZ}",
        "platform": "SENTINEL-1A",
        "sat:relative_orbit": 102,
    }
    images = (image("vv"), image("vh"))
    return SandboxItem(f"S1A_{when:%Y%m%dT%H%M%S}_bench", "sentinel-1-rtc", images, properties)


def landsat_item(number: int) -> SandboxItem:
    """Return the Landsat scene near a date, on a grid of its own."""
    when = sandbox.LANDSAT_DAYS[number]

    def values(band: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return earth.landsat(band, x, y, earth.day_number(when)).astype(np.uint16)

    images = []
    for band in (*LANDSAT, "qa_pixel"):
        corner, shape = (LEFT - 115, TOP + 115), (SIDE // 30 + 10,) * 2
        nodata = 1 if band == "qa_pixel" else 0
        images.append(
            SandboxImage(band, f"EPSG:{EPSG}", corner, 30, shape, partial(values, band), nodata)
        )
    properties = {
        "datetime": f"{when:%Y-%m-%dT%H:%M:%SZ}",
        "platform": "landsat-8",
        "eo:cloud_cover": 10.0,
        "landsat:wrs_path": "184",
        "landsat:wrs_row": "032",
    }
    return SandboxItem(f"LC08_{when:%Y%m%d}_bench", "landsat-c2-l2", tuple(images), properties)


def elevation_item() -> SandboxItem:
    """Return the elevation model, in degrees."""
    to_lonlat = Transformer.from_crs(EPSG, 4326, always_xy=True)
    west, south, east, north = to_lonlat.transform_bounds(
        LEFT - 500, TOP - SIDE - 500, LEFT + SIDE + 500, TOP + 500
    )
    pixel = 1 / 3600
    shape = (round((north - south) / pixel), round((east - west) / pixel))

    def values(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return earth.elevation(x, y).astype(np.float32)

    image = SandboxImage("data", "EPSG:4326", (west, north), pixel, shape, values)
    properties = {"datetime": "2021-04-22T00:00:00Z"}
    return SandboxItem("DEM_bench", "cop-dem-glo-30", (image,), properties)


def map_item() -> SandboxItem:
    """Return the land-cover map."""

    def values(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return earth.land_class(x, y).astype(np.uint8)

    corner, shape = (LEFT - 2000, TOP + 2000), ((SIDE + 4000) // 10,) * 2
    image = SandboxImage("data", f"EPSG:{EPSG}", corner, 10, shape, values, 0)
    properties = {
        "datetime": None,
        "start_datetime": f"{sandbox.YEAR}-01-01T00:00:00Z",
        "end_datetime": f"{sandbox.YEAR + 1}-01-01T00:00:00Z",
    }
    return SandboxItem("LULC_bench", "io-lulc-annual-v02", (image,), properties)


@dataclass(frozen=True)
class Layer:
    """The rasters of one sensor on one date, for the other way."""

    name: str
    """`s2l2a_0`, or `dem`: the key of scenebeam's asset."""
    item: str
    bands: tuple[str, ...]
    resolution: int
    dtype: str = "uint16"
    nodata: float = 0

    @property
    def side(self) -> int:
        """Pixels on each side of a chip."""
        return CHIP // self.resolution


def layers() -> list[Layer]:
    """Return all layers of a chip."""
    found = []
    for number, scene in enumerate(SCENES):
        radar, landsat = radar_item(number), landsat_item(number)
        found += [
            Layer(f"s2l2a_{number}", scene.id, OPTICAL, 10),
            Layer(f"s1rtc_{number}", radar.id, ("vv", "vh"), 10, "float32", -999),
            Layer(f"lc2l2_{number}", landsat.id, LANDSAT, 30),
        ]
    found.append(Layer("dem", elevation_item().id, ("data",), 30, "float32", -999))
    return [*found, Layer("lulc", map_item().id, ("data",), 10, "uint8")]


def other_items() -> list[SandboxItem]:
    """Return the items of all sensors but Sentinel-2."""
    found = [elevation_item(), map_item()]
    for number in range(len(SCENES)):
        found += [radar_item(number), landsat_item(number)]
    return found


def prepare() -> None:
    """Write all scenes, unless they exist."""
    full_size_tiles((*OPTICAL, "scl"), SCENES)
    for item in other_items():
        if not (DATA / item.id).exists():
            with tempfile.TemporaryDirectory(dir=DATA) as folder:
                item.write(Path(folder))
                (Path(folder) / item.id).rename(DATA / item.id)


def write_inputs(url: str, folder: Path) -> None:
    """Write the catalog and the areas of interest: the quarters of the tile."""
    items = [scene.item(url) for scene in SCENES] + [item.item(url) for item in other_items()]
    (folder / "items.json").write_text(json.dumps({"type": "FeatureCollection", "features": items}))
    to_lonlat = Transformer.from_crs(EPSG, 4326, always_xy=True)
    features = []
    for down in (0, 1):
        for across in (0, 1):
            left, top = LEFT + across * SIDE / 2 + 10, TOP - down * SIDE / 2 - 10
            square = shapely.box(left, top - SIDE / 2 + 20, left + SIDE / 2 - 20, top)
            outline = shapely.transform(
                shapely.segmentize(square, 500), to_lonlat.transform, interleaved=False
            )
            geometry = shapely.geometry.mapping(outline)
            features.append({"type": "Feature", "properties": {}, "geometry": geometry})
    areas = {"type": "FeatureCollection", "features": features}
    (folder / "aois.geojson").write_text(json.dumps(areas))


def request_for(url: str, folder: Path) -> Any:
    """Return scenebeam's request; its output is `folder / "out"`."""
    from scenebeam.requestfile import validate_request

    write_inputs(url, folder)
    integers = {"dtype": "uint16", "nodata": 0}
    return validate_request(
        {
            "catalog": str(folder / "items.json"),
            "collections": [record.model_dump(mode="json") for record in sandbox.records()],
            "product": {
                "kind": "landcover",
                "aois": str(folder / "aois.geojson"),
                "version": "v1",
                "periods": sandbox.PERIODS,
                "s2l2a": {"bands": list(OPTICAL), **integers},
                "lc2l2": {"bands": list(LANDSAT), **integers},
                "lulc": {"dates": str(sandbox.YEAR)},
                "thumbnails": False,
                "zip": False,
            },
            "output": str(folder / "out"),
            "runner": "direct",
        }
    )


Corner = tuple[float, float]
"""Left and top of a chip in meters."""
Work = Callable[[], None]


def scenebeam(url: str, folder: Path, chips: Sequence[Corner]) -> Work:
    """A run, with a plan that was frozen before."""
    import apache_beam  # noqa: F401

    from scenebeam.execution.driver import run
    from scenebeam.planning.reuse import load_or_create_plan
    from scenebeam.storage import open_store

    request = request_for(url, folder)
    load_or_create_plan(request, open_store(request.output))

    def work() -> None:
        status = run(request)
        assert status.state == "succeeded", status

    return work


def made_chips(folder: Path) -> dict[Corner, dict[str, Path]]:
    """Return the corners of the chips that scenebeam has made, and layer → raster of each."""
    found: dict[Corner, dict[str, Path]] = {}
    for record in sorted((folder / "out" / "chips").glob("*/chips.json")):
        for chip in json.loads(record.read_text())["chips"]:
            rasters = {}
            for name in chip["files"]:
                platform, _, *dated = name.partition(".")[0].split("_")
                rasters["_".join([platform, *dated[:1]])] = record.parent / name
            found[chip["left"], chip["top"]] = rasters
    return found


def raster_path(folder: Path, layer: Layer, chip: Corner) -> Path:
    """Return where the other way writes a raster."""
    return folder / f"{layer.name}_{chip[0]:.0f}_{chip[1]:.0f}.tif"


def rasterio_grouped(url: str, folder: Path, chips: Sequence[Corner]) -> Work:
    """rasterio with GDAL tuned: each file opened once, bands in parallel, four writing threads."""
    import rasterio.vrt  # noqa: F401

    ordered = sorted(chips, key=lambda chip: (-chip[1], chip[0]))

    def work() -> None:
        with ThreadPoolExecutor(4) as writers:
            for layer in layers():
                stacks = np.empty(
                    (len(ordered), len(layer.bands), layer.side, layer.side), layer.dtype
                )
                read = partial(read_band, url, layer, ordered, stacks)
                with ThreadPoolExecutor(len(layer.bands)) as threads:
                    list(threads.map(read, range(len(layer.bands))))
                for chip, stack in zip(ordered, stacks, strict=True):
                    writers.submit(
                        write_raster, raster_path(folder, layer, chip), layer, chip, stack
                    )

    return work


def read_band(
    url: str, layer: Layer, chips: Sequence[Corner], stacks: np.ndarray, number: int
) -> None:
    """Read all chips of a band; files on other grids are read through a WarpedVRT."""
    import rasterio
    from rasterio.enums import Resampling
    from rasterio.transform import from_origin
    from rasterio.vrt import WarpedVRT
    from rasterio.windows import from_bounds

    href = f"{url}/{layer.item}/{layer.bands[number]}.tif"
    with rasterio.Env(GDAL_CACHEMAX=400 * 2**20, **TUNED), rasterio.open(href) as file:
        source = file
        if layer.resolution == 30:
            pixels = -(-SIDE // 30)
            grid = from_origin(LEFT, TOP, 30, 30)
            source = WarpedVRT(
                file,
                crs=f"EPSG:{EPSG}",
                transform=grid,
                width=pixels,
                height=pixels,
                resampling=Resampling.bilinear,
            )
        for place, (left, top) in enumerate(chips):
            window = from_bounds(left, top - CHIP, left + CHIP, top, source.transform)
            source.read(1, window=window, out=stacks[place, number], resampling=Resampling.bilinear)
        if source is not file:
            source.close()


def write_raster(path: Path, layer: Layer, chip: Corner, stack: np.ndarray) -> None:
    """Write a bare GeoTIFF."""
    import rasterio
    from rasterio.transform import from_origin

    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        height=layer.side,
        width=layer.side,
        count=len(layer.bands),
        dtype=layer.dtype,
        nodata=layer.nodata,
        crs=f"EPSG:{EPSG}",
        transform=from_origin(*chip, layer.resolution, layer.resolution),
        compress="deflate",
        predictor=3 if layer.dtype == "float32" else 2,
        zlevel=1,
        interleave="band",
    ) as file:
        file.write(stack)


WAYS = {"scenebeam": scenebeam, "rasterio grouped by scene": rasterio_grouped}


def one(config: dict[str, Any]) -> Measurements:
    """Run one way once in this process."""
    chips = [(left, top) for left, top in config.get("chips", [])]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(config.get("save") or name)
        work = WAYS[config["way"]](config["url"], folder, chips)
        stats(config["url"])
        found = measured(work)
        if chips:
            paths = folder.glob("*.tif") if "rasterio" in config["way"] else released(folder)
            made = len(list(paths))
            assert made == len(chips) * len(layers()), f"{made} rasters of {len(chips)} chips"
        return found


def released(folder: Path) -> list[Path]:
    """Return the rasters of scenebeam's release."""
    return list((folder / "out" / "processed" / "v1").glob("*.tif"))


def compare(url: str) -> list[Corner]:
    """Compare the pixels of both ways. Returns the corners of all chips."""
    import rasterio

    with tempfile.TemporaryDirectory() as name:
        ours, theirs = Path(name, "ours"), Path(name, "theirs")
        ours.mkdir()
        theirs.mkdir()
        in_fresh_process(__file__, {"way": "scenebeam", "url": url, "save": str(ours)})
        chips = made_chips(ours)
        config = {"way": "rasterio grouped by scene", "chips": list(chips), "save": str(theirs)}
        in_fresh_process(__file__, {**config, "url": url})
        for layer in layers():
            shares = []
            for chip, rasters in chips.items():
                with rasterio.open(rasters[layer.name]) as file:
                    found = file.read()
                with rasterio.open(raster_path(theirs, layer, chip)) as file:
                    shares.append(np.mean(np.abs(found.astype(float) - file.read()) > 1))
            share = float(np.mean(shares))
            print(f"{layer.name}: {100 * share:.2f} % of the pixels differ by more than 1")
            assert share <= (TOLERATED if layer.resolution == 30 else 0), layer.name
    return list(chips)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--one")
    args = parser.parse_args()
    if args.one:
        print(json.dumps(one(json.loads(args.one))))
        return
    prepare()
    with range_server(0.0) as url:
        chips = compare(url)
    print(f"{machine()}; {len(chips)} chips of {len(layers())} rasters\n")
    print_header(
        *("way", "latency ms", *TIME_COLUMNS, *CORE_COLUMNS), *("peak MB", "requests", "MB read")
    )
    configs = {way: {"chips": chips} for way in WAYS}
    all_runs: dict[str, Runs] = {}
    for latency in LATENCIES:
        with range_server(latency) as url:
            runs = run_rounds(__file__, url, dict.fromkeys(WAYS, args.rounds), configs)
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
        all_runs[f"{latency * 1000:.0f} ms"] = runs
    print_all_ratios(all_runs)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main()
