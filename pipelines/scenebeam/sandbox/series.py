"""A series of scenes of the synthetic Earth, with clouds that move: an input for composites.

A tile every five days of two months. On every second date, a neighbor in the south that overlaps it
and that is cut by the edge of the swath shows the rest of the area.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np

from scenebeam.sandbox import earth
from scenebeam.sandbox.scenes import SandboxScene, write_sandbox

SERIES_AREA = (23.897, 40.575, 23.945, 40.635)
"""West, south, east and north of an area around all scenes."""
SERIES_DATES = "2023-04-01/2023-05-31"
_FIRST = datetime(2023, 4, 3, 9, 20, 31)
_SIDE = 512


def _scenes() -> tuple[SandboxScene, ...]:
    scenes = []
    for number in range(12):
        acquired = _FIRST + timedelta(days=5 * number)
        processed = f"{acquired + timedelta(days=1):%Y-%m-%dT%H:%M:%SZ}"
        tile = SandboxScene(
            "34TGL", 32634, 745_000, 4_502_000, acquired, "05.09", processed, size=_SIDE
        )
        scenes.append(_with_clouds(tile))
        if number % 2:
            south = replace(tile, tile="34TGK", top=4_498_000, cut=True)
            scenes.append(_with_clouds(south))
    return tuple(scenes)


def _with_clouds(scene: SandboxScene) -> SandboxScene:
    """State the cloud cover that the scene has."""
    x, y = scene.pixel_centers(20)
    clouds = earth.is_cloud(x, y, earth.day_number(scene.acquired))
    return replace(scene, cloud_cover=round(float(100 * np.mean(clouds)), 2))


SERIES = _scenes()


def write_series(folder: Path, href: str | None = None) -> Path:
    """Write the scenes and their catalog: see `write_sandbox`."""
    return write_sandbox(folder, href, SERIES)
