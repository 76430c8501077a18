"""Small time series: files of scenes, tables that name them, and requests for mosaics of them."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.transform import from_origin

from scenebeam.request import RunRequest
from scenebeam.requestfile import validate_request

SIZE = 64
"""Pixels of 10 m on each side of a tile."""
LEVELS = {"B04": 1000, "B08": 2000, "SCL": 4}


def tile(
    root: Path,
    name: str,
    *bands: str,
    level: int = 0,
    east: int = 0,
    south: int = 0,
    item: Mapping[str, Any] | None = None,
) -> None:
    """Files of one scene.

    Args:
        root: Folder of the scenes.
        name: The scene.
        bands: Sensor names of its bands.
        level: Added to the numbers of bands, to tell scenes apart.
        east: Meters that it lies east of the others.
        south: Meters that it lies south of them.
        item: Properties of a STAC item beside the files; without any there is none.
    """
    folder = root / name
    folder.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(3).integers(0, 9, (SIZE, SIZE))
    for band in bands or ("B04",):
        dtype = "uint8" if band == "SCL" else "uint16"
        pixels = np.full((SIZE, SIZE), 4) if band == "SCL" else noise + LEVELS[band] + level
        with rasterio.open(
            folder / f"{band}.tif",
            "w",
            driver="GTiff",
            width=SIZE,
            height=SIZE,
            count=1,
            dtype=dtype,
            nodata=0,
            crs="EPSG:32634",
            transform=from_origin(690_000 + east, 4_500_000 - south, 10, 10),
        ) as file:
            file.write(pixels.astype(dtype), 1)
    if item:
        document = {"id": name, "properties": item, "assets": {}}
        (folder / f"{name}.json").write_text(json.dumps(document))


def write_table(path: Path, *rows: str, header: str = "acq_datetime,tile_ids") -> Path:
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def row(day: str, tiles: str, *cells: str) -> str:
    """A line of a table: a day of February 2023, its tiles, and further cells."""
    return ",".join([f"2023-02-{day} 09:21:09.024000+00:00", tiles, *cells])


def stamp(day: str) -> str:
    return f"202302{day}T092109Z"


def series_request(folder: Path, **changes: Any) -> RunRequest:
    """A request for mosaics of `folder/time_serie.csv` and `folder/raw`, into `folder/out`."""
    document: dict[str, Any] = {
        "run": "series",
        "catalog": {"time_series": str(folder / "time_serie.csv"), "root": str(folder / "raw")},
        "collections": ["sentinel-2-l2a"],
        "product": {"kind": "mosaic", "bands": ["red"]},
        "grid": {"crs": "EPSG:32634"},
        "output": str(folder / "out"),
        "runner": "serial",
        "limits": {"max_failed": 1.0},
    }
    return validate_request({**document, **changes})


def rows_of(folder: Path, name: str) -> list[dict[str, str]]:
    with (folder / "out" / name).open() as file:
        return list(csv.DictReader(file))


def statuses(folder: Path) -> dict[str, str]:
    """Status of each timestamp, in the order of the table."""
    rows = rows_of(folder, "timestamps_aggregation_status.csv")
    return {one["timestamp"]: one["status"] for one in rows}


def level_of(folder: Path, day: str, band: str = "red") -> int:
    """Which scene's numbers a mosaic shows: its median, to the hundred."""
    with rasterio.open(folder / "out" / "mosaics" / stamp(day) / f"{band}.tif") as file:
        pixels = file.read(1, masked=True)
    return round(float(np.ma.median(pixels)) / 100) * 100 - LEVELS["B04"]


def item_of(folder: Path, day: str) -> dict[str, Any]:
    path = folder / "out" / "mosaics" / stamp(day) / f"{stamp(day)}.json"
    found: dict[str, Any] = json.loads(path.read_text())
    return found
