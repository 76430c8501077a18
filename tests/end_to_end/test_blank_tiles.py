"""Tiles without data: blank ones are named, whatever the placement; where a swath ends there is no fault."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from pyproj import Transformer

from scenebeam.execution.driver import run
from scenebeam.request import RunRequest
from scenebeam.requestfile import validate_request

LEFT, TOP = 690_000, 4_500_000
STAMP = "20230202T092109Z"


def noise(seed: int, side: int = 256) -> np.ndarray:
    return np.random.default_rng(seed).integers(500, 5000, (side, side)).astype("uint16")


@pytest.fixture
def series(tmp_path: Path) -> Callable[..., RunRequest]:
    """A time series of one acquisition: a raw file for each tile, no items beside them."""

    def make(tiles: dict[str, tuple[np.ndarray, int, float, float]], **changes: Any) -> RunRequest:
        for name, (pixels, epsg, left, top) in tiles.items():
            folder = tmp_path / "raw" / name
            folder.mkdir(parents=True)
            profile = {
                "driver": "GTiff",
                "height": pixels.shape[0],
                "width": pixels.shape[1],
                "count": 1,
            }
            profile |= {
                "dtype": "uint16",
                "nodata": 0,
                "crs": f"EPSG:{epsg}",
                "transform": Affine(10, 0, left, 0, -10, top),
            }
            blocks = {"tiled": True, "blockxsize": 64, "blockysize": 64, "compress": "deflate"}
            with rasterio.open(folder / "B04.tif", "w", **profile, **blocks) as file:
                file.write(pixels, 1)
        table = f"acq_datetime,tile_ids\n2023-02-02 09:21:09+00:00,{'|'.join(tiles)}\n"
        (tmp_path / "series.csv").write_text(table)
        return validate_request(
            {
                "catalog": {"time_series": str(tmp_path / "series.csv"), "root": str(tmp_path / "raw")},
                "collections": ["sentinel-2-l2a"], "product": {"kind": "mosaic", "bands": ["red"]}, "runner": "serial",
                "output": str(tmp_path / "out"), "grid": {"crs": "EPSG:32634"}, **changes,
            }
        )  # fmt: skip

    return make


def missing(request: RunRequest) -> list[dict[str, str]]:
    item = json.loads((Path(request.output) / "mosaics" / STAMP / f"{STAMP}.json").read_text())
    return item["assets"]["red"].get("scenebeam:missing", [])


def pixels(request: RunRequest) -> np.ndarray:
    with rasterio.open(Path(request.output) / "mosaics" / STAMP / "red.tif") as file:
        return file.read(1)


@pytest.mark.parametrize("resolution", [10, 20, 15], ids=["copied", "averaged", "warped"])
@pytest.mark.parametrize("edge", ["west", "north", "corner"])
def test_data_along_an_edge_alone_is_in_the_mosaic(
    series: Callable[..., RunRequest], resolution: int, edge: str
) -> None:
    """Valid pixels count wherever they are, not only in blocks that the footprint wholly contains."""
    narrow = noise(1)
    kept = np.zeros(narrow.shape, bool)
    windows = {"west": np.s_[:, :12], "north": np.s_[:12, :], "corner": np.s_[:40, :40]}
    kept[windows[edge]] = True
    tiles = {
        "A": (noise(2), 32634, LEFT, TOP),
        "B": (np.where(kept, narrow, 0).astype("uint16"), 32634, LEFT + 2560, TOP),
    }
    bounds = [LEFT + 2520, TOP - 2520, LEFT + 5100, TOP]
    request = series(tiles, grid={"crs": "EPSG:32634", "resolution": resolution, "bounds": bounds})
    status = run(request)
    assert (status.state, status.incomplete) == ("succeeded", 0)
    rows, columns = np.indices(pixels(request).shape)
    row = ((rows + 0.5) * resolution / 10).astype(int)
    column = np.floor((columns + 0.5) * resolution / 10 - 4).astype(int)
    seen = (column < 0) | kept[row, np.maximum(column, 0)]
    assert ((pixels(request) > 0) != seen).mean() < 0.02


BOUNDS = {
    "empty half": [LEFT + 1500, TOP - 2000, LEFT + 2500, TOP - 200],
    "across": [LEFT, TOP - 2560, LEFT + 2560, TOP],
}


@pytest.mark.parametrize("where", BOUNDS)
@pytest.mark.parametrize("on_missing", ["fail", "skip", "best-available"])
@pytest.mark.parametrize("epsg", [32634, 32635], ids=["own zone", "other zone"])
def test_where_the_swath_ends_there_is_no_fault(
    series: Callable[..., RunRequest], where: str, on_missing: str, epsg: int
) -> None:
    """The area lies in the empty half of a tile that has data in the other half."""
    half = noise(3)
    half[:, 128:] = 0
    left, top = LEFT, TOP
    if epsg == 32635:
        x, y = Transformer.from_crs(32634, 32635, always_xy=True).transform(LEFT, TOP)
        left, top = round(x, -1), round(y, -1) + 200
    tiles = {"A": (half, epsg, left, top), "B": (noise(4), 32634, LEFT, TOP)}
    request = series(
        tiles,
        product={"kind": "mosaic", "bands": ["red"], "on_missing": on_missing},
        grid={"crs": "EPSG:32634", "resolution": 10, "bounds": BOUNDS[where]},
    )
    status = run(request)
    assert (status.state, status.incomplete) == ("succeeded", 0), status.message
    assert (pixels(request) > 0).all()


@pytest.mark.parametrize("epsg", [32634, 32635], ids=["own zone", "other zone"])
@pytest.mark.parametrize("shards", [False, True], ids=["one image", "shards"])
def test_a_blank_tile_is_named(
    series: Callable[..., RunRequest], epsg: int, shards: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if shards:
        monkeypatch.setattr("scenebeam.imaging.shards._LARGEST_SHARD", 2**16)
        monkeypatch.setattr("scenebeam.imaging.shards._CELL_LEVELS", 1)
    left, top = LEFT + 2560.0, float(TOP)
    if epsg == 32635:
        left, top = Transformer.from_crs(32634, 32635, always_xy=True).transform(left, top)
    blank = np.zeros((256, 256), "uint16")
    tiles = {"A": (noise(5), 32634, LEFT, TOP), "Z": (blank, epsg, round(left, -1), round(top, -1))}
    bounds = [LEFT, TOP - 10_240, LEFT + 5120, TOP]
    request = series(tiles, grid={"crs": "EPSG:32634", "resolution": 10, "bounds": bounds})
    status = run(request)
    assert (status.state, status.incomplete) == ("succeeded", 1)
    assert status.tasks == (2 if shards else 1)
    (told,) = missing(request)
    assert (told["scene"], told["reason"]) == ("Z", "blank: all of it is nodata")
    with open(Path(request.output) / "timestamps_aggregation_band_report.csv", newline="") as file:
        (row,) = csv.DictReader(file)
    assert "Z: blank" in row["message"]
    failing = request.model_copy(
        update={"product": request.product.model_copy(update={"on_missing": "fail"})}
    )
    assert run(failing, overwrite=True).state == "failed"


@pytest.mark.parametrize("shards", [False, True], ids=["one image", "shards"])
def test_a_part_of_one_number_is_no_blank_tile(
    series: Callable[..., RunRequest], shards: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A saturated cloud fills the area, or one shard of it: the tile as a whole is judged."""
    if shards:
        monkeypatch.setattr("scenebeam.imaging.shards._LARGEST_SHARD", 2**16)
        monkeypatch.setattr("scenebeam.imaging.shards._CELL_LEVELS", 1)
    cloudy = noise(6, 1024)
    cloudy[512:] = 10_000
    bounds = (
        [LEFT, TOP - 10_240, LEFT + 1280, TOP]
        if shards
        else [LEFT, TOP - 10_240, LEFT + 1280, TOP - 5120]
    )
    request = series(
        {"A": (cloudy, 32634, LEFT, TOP)},
        grid={"crs": "EPSG:32634", "resolution": 10, "bounds": bounds},
    )
    status = run(request)
    assert (status.state, status.incomplete) == ("succeeded", 0), status.message
    assert (pixels(request)[-500:] == 10_000).all()


def test_a_tile_of_one_number_is_blank(series: Callable[..., RunRequest]) -> None:
    tiles = {
        "A": (noise(7), 32634, LEFT, TOP),
        "Z": (np.full((256, 256), 700, "uint16"), 32634, LEFT + 2560, TOP),
    }
    request = series(tiles)
    assert run(request).incomplete == 1
    assert "spread no more than 0 around 700" in missing(request)[0]["reason"]


def test_a_footprint_that_promises_data_is_held_to_it(tmp_path: Path) -> None:
    """The catalog knows where the swath ends: inside it, nothing but nodata is a fault; beyond it there is none."""
    pixels = noise(8, 512)
    pixels[:, :256] = 0
    path = tmp_path / "b.tif"
    profile = {
        "driver": "GTiff",
        "height": 512,
        "width": 512,
        "count": 1,
        "dtype": "uint16",
        "crs": "EPSG:32634",
    }
    blocks = {"tiled": True, "blockxsize": 128, "blockysize": 128, "nodata": 0}
    with rasterio.open(
        path, "w", **profile, **blocks, transform=Affine(10, 0, LEFT, 0, -10, TOP)
    ) as file:
        file.write(pixels, 1)
    states = {}
    for name, columns in (("honest", (256, 512)), ("promising", (0, 400))):
        xs = [LEFT + 10 * column for column in columns]
        corners = [
            (xs[0], TOP),
            (xs[1], TOP),
            (xs[1], TOP - 5120),
            (xs[0], TOP - 5120),
            (xs[0], TOP),
        ]
        ring = [
            list(Transformer.from_crs(32634, 4326, always_xy=True).transform(*corner))
            for corner in corners
        ]
        lon, lat = zip(*ring, strict=True)
        item = {
            "type": "Feature", "stac_version": "1.0.0", "id": name, "collection": "c", "links": [],
            "geometry": {"type": "Polygon", "coordinates": [ring]}, "bbox": [min(lon), min(lat), max(lon), max(lat)],
            "properties": {"datetime": "2023-01-01T10:00:00Z"}, "assets": {"b": {"href": str(path)}},
        }  # fmt: skip
        (tmp_path / "items.json").write_text(
            json.dumps({"type": "FeatureCollection", "features": [item]})
        )
        request = validate_request(
            {
                "catalog": str(tmp_path / "items.json"),
                "collections": [{"id": "c", "dtype": "uint16", "nodata": 0, "bands": {"b": {"asset": "b", "resolution": 10}}}],
                "grid": {"crs": "EPSG:32634", "bounds": [LEFT, TOP - 5120, LEFT + 2650, TOP]},
                "product": {"kind": "mosaic", "bands": ["b"]}, "output": str(tmp_path / name), "runner": "serial",
            }
        )  # fmt: skip
        states[name] = run(request)
    assert states["honest"].state == "succeeded"
    assert states["promising"].state == "succeeded", "nine of its columns have data"
    narrow = request.model_copy(
        update={
            "grid": request.grid.model_copy(update={"bounds": (LEFT, TOP - 5120, LEFT + 2000, TOP)})
        }
    )
    status = run(narrow, overwrite=True)
    assert status.state == "failed"
    assert "inside its footprint holds data" in status.message
