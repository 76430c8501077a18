"""What a mosaic of the sandbox must be, worked out pixel by pixel from the synthetic Earth alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import rasterio
from pyproj import Transformer

from scenebeam.sandbox import earth
from scenebeam.sandbox.scenes import SandboxScene


def seen_by(scene: SandboxScene, band: str, file: rasterio.DatasetReader) -> np.ndarray:
    """The scene's harmonized numbers on a file's grid by nearest, 0 where it has none."""
    rows, columns = np.mgrid[0 : file.height, 0 : file.width]
    x = file.transform.c + (columns + 0.5) * file.transform.a
    y = file.transform.f + (rows + 0.5) * file.transform.e
    if file.crs.to_epsg() != scene.epsg:
        x, y = Transformer.from_crs(file.crs.to_epsg(), scene.epsg, always_xy=True).transform(x, y)
    size = earth.BANDS[band]
    column = np.floor((x - scene.left) / size).astype(np.int64)
    row = np.floor((scene.top - y) / size).astype(np.int64)
    count = scene.size * 10 // size
    inside = (column >= 0) & (column < count) & (row >= 0) & (row < count)
    x, y = scene.left + column * size + size // 2, scene.top - row * size - size // 2
    pixels = earth.pixel(band, x, y, earth.day_number(scene.taken))
    return np.where(inside & scene.seen(x, y), pixels, 0)


def expected(path: str, scenes: Sequence[SandboxScene], band: str) -> np.ndarray:
    """The "first" mosaic of scenes (best first) on the grid of the file at `path`."""
    with rasterio.open(path) as file:
        found = np.zeros((file.height, file.width), np.int64)
        for scene in scenes:
            found = np.where(found == 0, seen_by(scene, band, file), found)
    return found


def read(path: object) -> np.ndarray:
    with rasterio.open(str(path)) as file:
        return file.read(1)
