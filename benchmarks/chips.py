"""Chips benchmark: 256 x 256 pixels, four bands, two dates, at random positions in four tiles.

    python benchmarks/chips.py [--rounds 1] [--tables arrays datasets plans]

The first table compares all ways on arrays. Ways that open files chip by chip share nothing between
chips, so they make only some of them. The second table compares finished datasets: scenebeam's COGs
and items on disk with bare GeoTIFFs of rasterio, grouped by scene. On request, plans of 10,000 and
100,000 chips are timed, too.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, cast

import numpy as np
from common import (
    CORE_COLUMNS,
    CORES,
    DATA,
    READ_COLUMNS,
    TILES,
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
    read_cells,
    run_rounds,
    spread,
    stats,
    time_cells,
)

from scenebeam.products.fields.task import FieldsTask
from scenebeam.sandbox.scenes import SandboxScene

BANDS = ("red", "green", "blue", "nir")
PLANTING, HARVEST = datetime(2021, 6, 10, 9, 20, 31), datetime(2021, 10, 25, 9, 20, 31)
SCENES = tuple(
    replace(tile, acquired=taken, cloud_cover=1.0)
    for taken in (PLANTING, HARVEST)
    for tile in TILES
)
SIDE, COUNT, PART = 256, 2000, 200
ARRAY_LATENCIES, DATASET_LATENCIES = (0.03,), (0.0, 0.03)
FLOOR = "floor"
BARE = "rasterio grouped, bare GeoTIFFs"
Chip = tuple[int, int, int]
"""Index of the tile, row and column of the upper-left pixel."""
Consume = Callable[[Chip, SandboxScene, np.ndarray], None]


def chips(count: int) -> list[Chip]:
    draw = random.Random(7)
    return [
        (draw.randrange(4), draw.randrange(10980 - SIDE), draw.randrange(10980 - SIDE))
        for _ in range(count)
    ]


def pairs(some: Iterable[Chip]) -> Iterator[tuple[Chip, SandboxScene]]:
    for chip in some:
        for scene in SCENES:
            if scene.tile == TILES[chip[0]].tile:
                yield chip, scene


def by_scene(some: Iterable[Chip]) -> dict[SandboxScene, list[Chip]]:
    found: dict[SandboxScene, list[Chip]] = {}
    for chip, scene in pairs(some):
        found.setdefault(scene, []).append(chip)
    return found


def href(url: str, scene: SandboxScene, band: str) -> str:
    return f"{url}/{scene.id}/{band}.tif"


def grid(chip: Chip) -> Any:
    from odc.geo.geobox import GeoBox
    from rasterio.transform import from_origin

    tile = TILES[chip[0]]
    return GeoBox(
        (SIDE, SIDE),
        from_origin(tile.left + chip[2] * 10, tile.top - chip[1] * 10, 10, 10),
        "EPSG:32634",
    )


def scenebeam_way(url: str, some: list[Chip], consume: Consume) -> Callable[[], None]:
    """The reading half of the product."""
    from scenebeam.execution.make import limit_malloc_arenas
    from scenebeam.raster.reader import open_source
    from scenebeam.raster.windows import Windows
    from scenebeam.transfer.pools import io_threads
    from scenebeam.transfer.retry import Budget

    limit_malloc_arenas()  # as every run does
    budget, groups = Budget(private=True), by_scene(some)

    def work() -> None:
        opened = {
            scene: [
                io_threads().submit(open_source, href(url, scene, band), 1, budget)
                for band in BANDS
            ]
            for scene in groups
        }
        for scene, members in groups.items():
            grids = [grid(chip) for chip in members]
            sources = [future.result() for future in opened[scene]]
            windows = [Windows(source, grids, "nearest", 0) for source in sources]
            for number in sorted(range(len(members)), key=windows[0].first_block):
                consume(members[number], scene, np.stack([one.read(number) for one in windows]))

    return work


def rasterio_per_chip(url: str, some: list[Chip], consume: Consume) -> Callable[[], None]:
    """rasterio with GDAL tuned for cloud storage; every chip opens its files; 16 threads."""
    import rasterio
    from rasterio.windows import Window

    def one(pair: tuple[Chip, SandboxScene]) -> None:
        (_, row, column), scene = pair
        stack = np.empty((len(BANDS), SIDE, SIDE), np.uint16)
        with rasterio.Env(**TUNED):
            for number, band in enumerate(BANDS):
                with rasterio.open(href(url, scene, band)) as file:
                    file.read(1, window=Window(column, row, SIDE, SIDE), out=stack[number])
        consume(pair[0], scene, stack)

    def work() -> None:
        with ThreadPoolExecutor(16) as threads:
            list(threads.map(one, pairs(some)))

    return work


def rasterio_grouped(url: str, some: list[Chip], consume: Consume) -> Callable[[], None]:
    """rasterio with GDAL tuned: each file opened once, chips in block order, bands in parallel."""
    import rasterio
    from rasterio.windows import Window

    groups = by_scene(some)

    def work() -> None:
        for scene, members in groups.items():
            ordered = sorted(members, key=lambda chip: (chip[1] // 1024, chip[2] // 1024))
            stacks = np.empty((len(ordered), len(BANDS), SIDE, SIDE), np.uint16)

            def read(
                number: int,
                scene: SandboxScene = scene,
                ordered: list[Chip] = ordered,
                stacks: Any = stacks,
            ) -> None:
                with (
                    rasterio.Env(GDAL_CACHEMAX=400 * 2**20, **TUNED),
                    rasterio.open(href(url, scene, BANDS[number])) as file,
                ):
                    for place, (_, row, column) in enumerate(ordered):
                        file.read(
                            1, window=Window(column, row, SIDE, SIDE), out=stacks[place, number]
                        )

            with ThreadPoolExecutor(len(BANDS)) as threads:
                list(threads.map(read, range(len(BANDS))))
            for chip, stack in zip(ordered, stacks, strict=True):
                consume(chip, scene, stack)

    return work


def odc_stac_per_chip(url: str, some: list[Chip], consume: Consume) -> Callable[[], None]:
    """odc-stac with one load per chip, eight at once."""
    import odc.stac
    import pystac

    odc.stac.configure_rio(cloud_defaults=True, **TUNED)
    items = {}
    for scene in SCENES:
        item = scene.item(url)
        item["assets"] = {band: item["assets"][band] for band in BANDS}
        items[scene] = pystac.Item.from_dict(item)

    def one(pair: tuple[Chip, SandboxScene]) -> None:
        chip, scene = pair
        found = odc.stac.load(
            [items[scene]], bands=list(BANDS), geobox=grid(chip), resampling="nearest"
        )
        consume(chip, scene, np.stack([found[band].values[0] for band in BANDS]))

    def work() -> None:
        with ThreadPoolExecutor(8) as threads:
            list(threads.map(one, pairs(some)))

    return work


def async_geotiff_per_chip(url: str, some: list[Chip], consume: Consume) -> Callable[[], None]:
    """async-geotiff over obstore: files opened once, a read per chip and band, 16 chips at once."""
    from async_geotiff import GeoTIFF, Window
    from obstore.store import HTTPStore

    async def all_chips() -> None:
        files = {}
        for scene in SCENES:
            store = HTTPStore(f"{url}/{scene.id}", client_options={"allow_http": True})
            for band in BANDS:
                files[scene, band] = await GeoTIFF.open(f"{band}.tif", store=store)
        room = asyncio.Semaphore(16)

        async def one(chip: Chip, scene: SandboxScene) -> None:
            async with room:
                window = Window(chip[2], chip[1], SIDE, SIDE)
                found = await asyncio.gather(
                    *(files[scene, band].read(window=window) for band in BANDS)
                )
                consume(chip, scene, np.stack([np.asarray(band.data)[0] for band in found]))

        await asyncio.gather(*(one(chip, scene) for chip, scene in pairs(some)))

    return lambda: asyncio.run(all_chips())


WAYS: dict[str, Callable[[str, list[Chip], Consume], Callable[[], None]]] = {
    "scenebeam": scenebeam_way,
    "rasterio grouped by scene": rasterio_grouped,
    "rasterio per chip": rasterio_per_chip,
    "async-geotiff per chip": async_geotiff_per_chip,
    "odc-stac per chip": odc_stac_per_chip,
}


def one(config: dict[str, Any]) -> dict[str, Any]:
    """Run one way once in this process."""
    if config["way"] == FLOOR:
        return floor(config["threads"])
    if config["way"] == "plan":
        return plan_of_many(config["count"])
    if config.get("dataset"):
        return dataset(config)
    kept: dict[str, np.ndarray] = {}
    seen = [0]

    def consume(chip: Chip, scene: SandboxScene, stack: np.ndarray) -> None:
        seen[0] += 1
        if config.get("save"):
            kept[f"{chip}{scene.id}"] = stack

    some = chips(COUNT)[: config["count"]]
    work = WAYS[config["way"]](config["url"], some, consume)
    stats(config["url"])
    found = measured(work)
    assert seen[0] == 2 * len(some), f"{seen[0]} of {2 * len(some)}"
    if config.get("save"):
        np.savez(config["save"], allow_pickle=False, **kept)
    return found


def blocks_met(some: list[Chip]) -> dict[SandboxScene, set[tuple[int, int]]]:
    return {
        scene: {
            (row, column)
            for _, top, left in members
            for row in range(top // 1024, (top + SIDE - 1) // 1024 + 1)
            for column in range(left // 1024, (left + SIDE - 1) // 1024 + 1)
        }
        for scene, members in by_scene(some).items()
    }


def floor(threads: int) -> dict[str, Any]:
    """Measure the floor: decode each block under a chip once, with its bytes in memory."""
    from scenebeam.raster.codecs import decode
    from scenebeam.raster.tiff import read_layout
    from scenebeam.transfer.rangefile import RangeFile
    from scenebeam.transfer.retry import Budget

    wall = cpu = size = count = 0.0
    for scene, blocks in blocks_met(chips(COUNT)).items():
        for band in BANDS:
            path = DATA / scene.id / f"{band}.tif"
            layout = read_layout(RangeFile(str(path), Budget(private=True)))
            assert layout is not None
            whole = memoryview(path.read_bytes())
            numbers = [layout.number(*block, 1) for block in sorted(blocks)]
            encoded = [whole[int(layout.offsets[n]) :][: int(layout.sizes[n])] for n in numbers]

            def work(encoded: list[memoryview] = encoded, layout: Any = layout) -> None:
                if threads == 1:
                    for body in encoded:
                        decode(layout, body)
                else:
                    with ThreadPoolExecutor(threads) as pool:
                        list(pool.map(lambda body: decode(layout, body).shape, encoded))

            found = measured(work)
            wall, cpu, size, count = (
                wall + found["wall"],
                cpu + found["cpu"],
                size + sum(map(len, encoded)),
                count + len(encoded),
            )
    return {"wall": wall, "cpu": cpu, "peak_mb": 0.0, "bytes": size, "blocks": count}


def write_chip_catalog(folder: Path, some: list[Chip], *, masks: bool = True) -> None:
    """Write a catalog of chips for the product: a table of items and, if asked for, empty masks."""
    import rasterio

    from scenebeam.metadata.stac_items import grid_footprint
    from scenebeam.stac_geoparquet import write_items

    folder.mkdir()
    items = []
    for number, chip in enumerate(some):
        box = grid(chip)
        name = f"chip-{number:06d}_2021"
        items.append(
            {
                "type": "Feature",
                "stac_version": "1.1.0",
                "stac_extensions": [],
                "id": name,
                "collection": "chips",
                "geometry": grid_footprint(box),
                "bbox": list(box.extent.to_crs("EPSG:4326").boundingbox.bbox),
                "properties": {
                    "datetime": "2021-01-01T00:00:00Z",
                    "proj:code": "EPSG:32634",
                    "proj:shape": [SIDE, SIDE],
                    "proj:transform": list(box.transform)[:6],
                },
                "assets": {"semantic_mask": {"href": f"./{name}/mask.tif", "roles": ["labels"]}},
                "links": [],
            }
        )
        if masks:
            (folder / name).mkdir()
            with rasterio.open(
                folder / name / "mask.tif",
                "w",
                driver="GTiff",
                height=SIDE,
                width=SIDE,
                count=1,
                dtype="uint8",
                crs="EPSG:32634",
                transform=box.transform,
            ):
                pass
    (folder / "items.parquet").write_bytes(write_items(items))


def request_for(folder: Path, items: list[dict[str, Any]], output: str = "out") -> Any:
    from scenebeam.requestfile import validate_request
    from scenebeam.sandbox.fields import write_calendar
    from scenebeam.sandbox.scenes import COLLECTION

    (folder / "items.json").write_text(json.dumps({"type": "FeatureCollection", "features": items}))
    calendar = write_calendar(folder / "calendar", 161, 298)
    return validate_request(
        {
            "catalog": str(folder / "items.json"),
            "collections": [COLLECTION],
            "product": {
                "kind": "fields",
                "year": 2021,
                "chips": str(folder / "chips"),
                "crop_calendar": str(calendar),
                "bands": list(BANDS),
            },
            "output": str(folder / output),
            "runner": "serial",
        }
    )


def dataset(config: dict[str, Any]) -> dict[str, Any]:
    """Make a finished dataset: the whole product, or rasterio's arrays written by GDAL."""
    some = chips(COUNT)[: config["count"]]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if config["way"] == BARE:
            work, pattern = bare_geotiffs(config["url"], some, folder), "*.tif"
        else:
            work, pattern = scenebeam_dataset(config["url"], some, folder), "out/*/*_image_s2.tif"
        stats(config["url"])
        found = measured(work)
        made = len(list(folder.glob(pattern)))
        assert made == 2 * len(some), f"{made} of {2 * len(some)}"
    return found


def scenebeam_dataset(url: str, some: list[Chip], folder: Path) -> Callable[[], None]:
    """All tasks of the product, in parallel as on the direct runner: one reads, another writes."""
    from scenebeam.execution.make import limit_malloc_arenas
    from scenebeam.planning.search import make_plan
    from scenebeam.products import product_of
    from scenebeam.storage import open_store
    from scenebeam.transfer.retry import Budget

    limit_malloc_arenas()  # as every run does
    write_chip_catalog(folder / "chips", some)
    request = request_for(folder, [scene.item(url) for scene in SCENES])
    tasks, store = make_plan(request).tasks, open_store(request.output)
    product = product_of("fields")

    def make(task: Any) -> None:
        outcome = product.make(task, store, Budget(private=True))
        assert outcome.state == "done", outcome

    def work() -> None:
        with ThreadPoolExecutor(CORES) as threads:
            list(threads.map(make, tasks))

    return work


def bare_geotiffs(url: str, some: list[Chip], folder: Path) -> Callable[[], None]:
    """rasterio grouped by scene; GDAL writes GeoTIFFs on four threads, at DEFLATE level 1."""
    threads = ThreadPoolExecutor(4)

    def write_later(chip: Chip, scene: SandboxScene, stack: np.ndarray) -> None:
        path = folder / f"{chip[0]}-{chip[1]}-{chip[2]}-{scene.acquired:%m%d}.tif"
        threads.submit(write_geotiff, path, chip, stack)

    read = rasterio_grouped(url, some, write_later)

    def work() -> None:
        read()
        threads.shutdown()

    return work


def write_geotiff(path: Path, chip: Chip, stack: np.ndarray) -> None:
    """Write a chip without overviews, statistics, checksum or item, and without syncing it."""
    import rasterio

    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        height=SIDE,
        width=SIDE,
        count=len(BANDS),
        dtype="uint16",
        nodata=0,
        crs="EPSG:32634",
        transform=grid(chip).transform,
        compress="deflate",
        predictor=2,
        zlevel=1,
        tiled=True,
        blockxsize=256,
        blockysize=256,
        interleave="band",
    ) as file:
        file.write(stack)


def plan_of_many(count: int) -> dict[str, Any]:
    """Time planning and freezing, for chips on a grid over 64 tiles with 30 scenes each."""
    from scenebeam.planning.plan import freeze
    from scenebeam.planning.search import make_plan
    from scenebeam.products.fields.calendar import season_days
    from scenebeam.storage import open_store

    tiles = [
        SandboxScene(
            f"34{row}{column}",
            32634,
            300_000 + 100_000 * east,
            5_000_000 - 100_000 * south,
            PLANTING,
            size=10980,
        )
        for south, row in enumerate("TUVWXYZA")
        for east, column in enumerate(("AA", "BB", "CC", "DD", "EE", "FF", "GG", "HH"))
    ]
    days = season_days(2021, 161, 298)
    from datetime import timedelta

    scenes = [
        replace(
            tile,
            acquired=day + timedelta(days=after, hours=9, minutes=number % 60),
            cloud_cover=float(after % 7),
        )
        for number, tile in enumerate(tiles)
        for day in days.values()
        for after in range(-37, 38, 5)
    ]
    side = round((count / len(tiles)) ** 0.5) + 1
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        where = [
            (index, 100 + 256 * (place // side), 100 + 256 * (place % side))
            for index in range(len(tiles))
            for place in range(side * side)
        ][:count]
        write_chip_table(folder / "chips", tiles, where)
        request = request_for(folder, [plain_item(scene) for scene in scenes])

        def work() -> None:
            started = time.perf_counter()
            made = make_plan(request)
            planned = time.perf_counter()
            freeze(made, open_store(request.output))
            times.update(
                plan=planned - started,
                freeze=time.perf_counter() - planned,
                tasks=len(made.tasks),
                chips=sum(len(cast(FieldsTask, task).chips) for task in made.tasks) // 2,
                scenes=len(scenes),
                plan_mb=(folder / "out" / "plan.parquet").stat().st_size / 1e6,
            )

        times: dict[str, Any] = {}
        return {**measured(work), **times}


def plain_item(scene: SandboxScene) -> dict[str, Any]:
    """Return an item whose footprint has as many points as those of real items."""
    import shapely
    from pyproj import Transformer

    corners = shapely.transform(
        scene.footprint,
        Transformer.from_crs(scene.epsg, 4326, always_xy=True).transform,
        interleaved=False,
    )
    return {
        **scene.item("http://127.0.0.1:9"),
        "geometry": shapely.geometry.mapping(corners),
        "bbox": list(corners.bounds),
    }


def write_chip_table(folder: Path, tiles: list[SandboxScene], where: list[Chip]) -> None:
    """Write a table of chips with Arrow: 100,000 items would take longer to write than to plan."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder.mkdir()
    rows = [
        {
            "id": f"chip-{number:06d}_2021",
            "proj:code": "EPSG:32634",
            "proj:shape": [SIDE, SIDE],
            "proj:transform": [
                10.0,
                0.0,
                tiles[t].left + column * 10.0,
                0.0,
                -10.0,
                tiles[t].top - row * 10.0,
            ],
            "assets": {
                "semantic_mask": {"href": f"./chip-{number:06d}_2021/mask.tif", "roles": ["labels"]}
            },
        }
        for number, (t, row, column) in enumerate(where)
    ]
    pq.write_table(pa.Table.from_pylist(rows), folder / "items.parquet")


def compare(url: str, ways: list[str]) -> None:
    """Compare ways with windows of local files."""
    import rasterio
    from rasterio.windows import Window

    some = chips(COUNT)[:12]
    truth = {}
    for chip, scene in pairs(some):
        stack = []
        for band in BANDS:
            with rasterio.open(DATA / scene.id / f"{band}.tif") as file:
                stack.append(file.read(1, window=Window(chip[2], chip[1], SIDE, SIDE)))
        truth[f"{chip}{scene.id}"] = np.stack(stack)
    with tempfile.TemporaryDirectory() as folder:
        for way in ways:
            path = f"{folder}/kept.npz"
            in_fresh_process(__file__, {"way": way, "url": url, "count": len(some), "save": path})
            found = np.load(path)
            assert set(found.files) == truth.keys(), way
            for name, expected in truth.items():
                np.testing.assert_array_equal(found[name], expected, err_msg=f"{way}: {name}")
    print(f"these ways give the same {len(truth)} chips as windows of local files\n")


def table(
    counts: dict[str, int],
    latencies: tuple[float, ...],
    rounds: int,
    least: dict[str, Any],
    **config: Any,
) -> None:
    """Print a table of all ways. The values of ways that make only some chips are scaled up.

    Args:
        counts: Way → number of chips that it makes.
        latencies: Latencies of the server in seconds.
        rounds: Number of rounds.
        least: What must be read at least.
        config: Further configuration of each run.
    """
    print_header(
        *("way", "chips", "latency ms", "wall s, all chips", "CPU s, all chips", "CPU / floor"),
        *(*CORE_COLUMNS, *READ_COLUMNS),
    )
    configs = {way: {"count": count, **config} for way, count in counts.items()}
    # The floor is measured in each round, because the speed of the machine drifts.
    configs[FLOOR] = {"threads": 1}
    all_runs: dict[str, Runs] = {}
    all_floors: list[Measurements] = []
    for latency in latencies:
        with range_server(latency) as url:
            runs = run_rounds(__file__, url, dict.fromkeys(configs, rounds), configs)
        floors = runs.pop(FLOOR)
        for way, found in runs.items():
            scaled = [scale_up(run, COUNT / counts[way]) for run in found]
            print_row(
                way,
                counts[way],
                f"{latency * 1000:.0f}",
                *time_cells(scaled),
                f"{median_of(scaled, 'cpu') / median_of(floors, 'cpu'):.2f}",
                *core_cells(scaled),
                *read_cells(scaled, least["bytes"]),
            )
            runs[way] = scaled
        all_runs[f"{latency * 1000:.0f} ms"] = runs
        all_floors += floors
    print(f"<!-- floor: {spread([run['cpu'] for run in all_floors])} CPU s -->")
    print_all_ratios(all_runs)


def scale_up(run: Measurements, times: float) -> Measurements:
    """Return the measurements of a run as if it had made more chips."""
    scaled = {key: run[key] * times for key in ("wall", "cpu", "requests", "bytes")}
    return {**run, **scaled}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--tables", nargs="+", default=["arrays", "datasets"])
    parser.add_argument("--ways", nargs="+", default=list(WAYS))
    parser.add_argument("--one")
    args = parser.parse_args()
    if args.one:
        print(json.dumps(one(json.loads(args.one))), flush=True)
        os._exit(0)  # obstore's threads can abort an interpreter that exits normally
    full_size_tiles(BANDS, SCENES)
    least = print_floors()
    if "arrays" in args.tables:
        with range_server(0.0) as url:
            compare(url, args.ways)
        print("arrays\n")
        counts = {way: PART if "per chip" in way else COUNT for way in args.ways}
        table(counts, ARRAY_LATENCIES, args.rounds, least)
    if "datasets" in args.tables:
        print("\ndatasets\n")
        counts = {"scenebeam": COUNT, BARE: COUNT}
        table(counts, DATASET_LATENCIES, args.rounds, least, dataset=True)
    if "plans" in args.tables:
        print_plans()


def print_floors() -> dict[str, Any]:
    """Measure and print the floor, on one thread and on all cores. Returns that on one."""
    floors = {
        threads: in_fresh_process(__file__, {"way": FLOOR, "threads": threads})
        for threads in (1, CORES)
    }
    least = floors[1]
    print(f"{machine()}; {COUNT} chips")
    print(f"least: {least['bytes'] / 1e6:,.0f} MB", end=", ")
    print(f"{least['blocks']:.0f} blocks, {len(SCENES) * len(BANDS)} headers")
    for threads, found in floors.items():
        print(f"floor on {threads} threads: {found['cpu']:.1f} CPU s, {found['wall']:.1f} s")
    return least


def print_plans() -> None:
    """Print how long plans of many chips take."""
    for count in (10_000, 100_000):
        found = in_fresh_process(__file__, {"way": "plan", "count": count})
        print(f"\nplan of {found['chips']:,} chips and {found['scenes']:,} scenes:", end=" ")
        print(f"{found['plan']:.1f} s, freezing {found['freeze']:.1f} s", end=", ")
        print(f"peak {found['peak_mb']:.0f} MB; {found['tasks']} tasks, {found['plan_mb']:.1f} MB")


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main()
