"""The sandbox's fields: boundaries, a crop calendar, and scenes around planting and harvest."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from pyproj import Transformer
from shapely.geometry import box, mapping

from scenebeam.products.fields.calendar import FILES
from scenebeam.sandbox import earth
from scenebeam.sandbox.scenes import SandboxScene, write_image, write_sandbox

YEAR = 2021
PLANTING, HARVEST = 96, 298
"""Days of the year: 6 April and 25 October."""
_TILE = ("34TGL", 32634, 745_000, 4_502_000)
_SIDE = 480
"""Metres to a side of the synthetic Earth's fields."""


def _scene(day: int, after: int, baseline: str) -> SandboxScene:
    """A scene some days after a day of the year, its cloud cover counted."""
    taken = datetime(YEAR, 1, 1, 9, 20, 31) + timedelta(days=day - 1 + after)
    tile, epsg, left, top = _TILE
    bare = SandboxScene(tile, epsg, left, top, taken, baseline)
    x, y = bare.centres(20)
    clouds = 100 * float(np.isin(earth.scene_class(x, y, earth.day_number(taken)), (3, 9)).mean())
    return SandboxScene(tile, epsg, left, top, taken, baseline, cloud_cover=round(clouds, 3))


SCENES: tuple[SandboxScene, ...] = (
    *(_scene(PLANTING, after, "03.00") for after in (-16, -11, -6, -1, 4, 9, 19)),
    # Processed anew: these carry 1000 more.
    *(_scene(HARVEST, after, "05.00") for after in (-13, -8, -3, 2, 7, 12)),
)


def boundaries() -> dict[str, Any]:
    """Some of the Earth's fields below the scenes, 20 m apart, as GeoJSON."""
    _, epsg, left, top = _TILE
    to_lonlat = Transformer.from_crs(epsg, 4326, always_xy=True)
    features = []
    for column in range(left // _SIDE + 1, (left + 10_240) // _SIDE):
        for row in range((top - 10_240) // _SIDE + 1, top // _SIDE):
            if (column * 7 + row * 3) % 4 == 0:
                continue
            x, y = column * _SIDE, row * _SIDE
            field = shapely.transform(
                box(x + 10, y + 10, x + _SIDE - 10, y + _SIDE - 10),
                to_lonlat.transform,
                interleaved=False,
            )
            properties = {"crop": ("wheat", "maize", "beet")[(column + row) % 3]}
            features.append(
                {
                    "type": "Feature",
                    "id": f"{column}-{row}",
                    "properties": properties,
                    "geometry": mapping(field),
                }
            )
    return {"type": "FeatureCollection", "features": features}


def write_calendar(folder: Path, planting: int = PLANTING, harvest: int = HARVEST) -> Path:
    """A crop calendar of the whole Earth with the same days everywhere; gives its folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for (_, name), day in zip(FILES.items(), (planting, harvest), strict=True):
        days = np.full((360, 720), day, np.float32)
        write_image(folder / name, days, "EPSG:4326", (-180.0, 90.0), 0.5, block=512)
    return folder


def write_fields(folder: Path, href: str | None = None) -> Path:
    """Scenes with their catalogue, `calendar/` and `fields.geojson` under `folder`; gives the catalogue's path."""
    write_calendar(folder / "calendar")
    (folder / "fields.geojson").write_text(json.dumps(boundaries()))
    return write_sandbox(folder, href, SCENES)
