"""The field data set: field boundaries, a crop calendar, and scenes around planting and harvest."""

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
from scenebeam.sandbox.terrain import FIELD, FIELD_SIDE, Integers, ground

YEAR = 2021
PLANTING, HARVEST = 96, 298
"""Days of the year: April 6 and October 25."""
_TILE, _EPSG, _LEFT, _TOP = "34TGL", 32634, 745_000, 4_502_000
_TILE_SIDE = 10_240
"""Meters."""
_GAP = 10
"""Meters between the boundary of a field and the edge of its square."""
_SAMPLED = (60, FIELD_SIDE // 2, FIELD_SIDE - 60)
"""Meters from the edge of a square at which its ground is looked up."""
_CROPS = ("wheat", "maize", "beet")


def _scene(day: int, after: int, baseline: str) -> SandboxScene:
    """Create a scene `after` days after a day of the year, with its true cloud cover."""
    acquired = datetime(YEAR, 1, 1, 9, 20, 31) + timedelta(days=day - 1 + after)
    scene = SandboxScene(_TILE, _EPSG, _LEFT, _TOP, acquired, baseline)
    classes = earth.scene_class(*scene.pixel_centers(20), earth.day_number(acquired))
    clouds = 100 * float(np.isin(classes, (3, 9)).mean())
    return SandboxScene(_TILE, _EPSG, _LEFT, _TOP, acquired, baseline, cloud_cover=round(clouds, 3))


SCENES: tuple[SandboxScene, ...] = (
    *(_scene(PLANTING, after, "03.00") for after in (-16, -11, -6, -1, 4, 9, 19)),
    # Reprocessed with baseline 05.00, so their pixels carry BOA_ADD_OFFSET.
    *(_scene(HARVEST, after, "05.00") for after in (-13, -8, -3, 2, 7, 12)),
)


def boundaries() -> dict[str, Any]:
    """Return three quarters of the fields of the scenes as GeoJSON, 20 m apart."""
    to_lonlat = Transformer.from_crs(_EPSG, 4326, always_xy=True)
    features = []
    columns = np.arange(_LEFT // FIELD_SIDE + 1, (_LEFT + _TILE_SIDE) // FIELD_SIDE)
    rows = np.arange((_TOP - _TILE_SIDE) // FIELD_SIDE + 1, _TOP // FIELD_SIDE)
    are_fields = _are_fields(columns[:, None], rows[None, :])
    for column, is_field in zip(columns.tolist(), are_fields, strict=True):
        for row in rows[is_field].tolist():
            if (column * 7 + row * 3) % 4 == 0:
                continue
            left, bottom = column * FIELD_SIDE + _GAP, row * FIELD_SIDE + _GAP
            side = FIELD_SIDE - 2 * _GAP
            field = box(left, bottom, left + side, bottom + side)
            field = shapely.transform(field, to_lonlat.transform, interleaved=False)
            features.append(
                {
                    "type": "Feature",
                    "id": f"{column}-{row}",
                    "properties": {"crop": _CROPS[(column + row) % 3]},
                    "geometry": mapping(field),
                }
            )
    return {"type": "FeatureCollection", "features": features}


def _are_fields(columns: Integers, rows: Integers) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Return in which squares of the ground there is nothing but crops."""
    cropped = np.ones(np.broadcast_shapes(columns.shape, rows.shape), bool)
    for across in _SAMPLED:
        for up in _SAMPLED:
            here = ground(columns * FIELD_SIDE + across, rows * FIELD_SIDE + up)
            cropped &= here.surface == FIELD
    return cropped


def write_calendar(folder: Path, planting: int = PLANTING, harvest: int = HARVEST) -> Path:
    """Write a global crop calendar with the same days everywhere.

    Args:
        folder: Where its two rasters are written.
        planting: Day of the year.
        harvest: Day of the year.

    Returns:
        The folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, day in zip(FILES.values(), (planting, harvest), strict=True):
        days = np.full((360, 720), day, np.float32)
        write_image(folder / name, days, "EPSG:4326", (-180.0, 90.0), 0.5, block=512)
    return folder


def write_fields(folder: Path, href: str | None = None) -> Path:
    """Write the scenes with their catalog, `calendar/` and `fields.geojson`.

    Args:
        folder: Where they are written.
        href: Folder or URL of the assets in the items; by default `folder`.

    Returns:
        The path of the ItemCollection.
    """
    write_calendar(folder / "calendar")
    (folder / "fields.geojson").write_text(json.dumps(boundaries()))
    return write_sandbox(folder, href, SCENES)
