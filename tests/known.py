"""What a mosaic of the sandbox must be, worked out pixel by pixel from the synthetic Earth alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import rasterio
from pyproj import Transformer

from scenebeam.sandbox import earth
from scenebeam.sandbox.scenes import SandboxScene

Nudge = tuple[float, float]
NUDGES: list[Nudge] = [(right, down) for right in (0, -0.13, 0.13) for down in (0, -0.13, 0.13)]
"""GDAL approximates a warp to within an eighth of a pixel: nearest may take the pixel next door, right at an edge."""


def seen_by(
    scene: SandboxScene,
    band: str,
    file: rasterio.DatasetReader,
    nudge: Nudge = (0, 0),
    at: tuple | None = None,
) -> np.ndarray:
    """The scene's harmonized numbers on a file's grid by nearest, 0 where it has none.

    A scene of another zone is looked up `nudge` pixels off; one of the file's own zone never is.
    `at` are the rows and columns wanted; all of them by default.
    """
    rows, columns = at if at is not None else np.ogrid[0 : file.height, 0 : file.width]
    x = file.transform.c + (columns + 0.5) * file.transform.a
    y = file.transform.f + (rows + 0.5) * file.transform.e
    if file.crs.to_epsg() != scene.epsg:
        x, y = np.broadcast_arrays(x, y)
        x, y = Transformer.from_crs(file.crs.to_epsg(), scene.epsg, always_xy=True).transform(x, y)
        x, y = x + nudge[0] * 10, y - nudge[1] * 10
    size = earth.BANDS[band]
    column = np.floor((x - scene.left) / size).astype(np.int64)
    row = np.floor((scene.top - y) / size).astype(np.int64)
    count = scene.size * 10 // size
    inside = (column >= 0) & (column < count) & (row >= 0) & (row < count)
    x, y = scene.left + column * size + size // 2, scene.top - row * size - size // 2
    pixels = earth.pixel(band, x, y, earth.day_number(scene.acquired))
    return np.where(inside & scene.is_valid(x, y), pixels, 0)


def layers(
    path: object,
    scenes: Sequence[SandboxScene],
    band: str,
    nudge: Nudge = (0, 0),
    at: tuple | None = None,
) -> np.ndarray:
    """What each scene has on the grid of the file at `path`: (scenes, rows, columns), or (scenes, pixels at `at`)."""
    with rasterio.open(str(path)) as file:
        return np.array([seen_by(scene, band, file, nudge, at) for scene in scenes])


def first(stack: np.ndarray) -> np.ndarray:
    """The first layer that is not 0."""
    found = np.zeros(stack.shape[1:], stack.dtype)
    for layer in stack:
        found = np.where(found == 0, layer, found)
    return found


def check(
    path: object, scenes: Sequence[SandboxScene], band: str, merged: Callable = first
) -> np.ndarray:
    """Assert that every pixel of a mosaic is what `merged` makes of the scenes, but for the edges of warped pixels.

    Gives the scenes' layers.
    """
    stack = layers(path, scenes, band)
    found, truth = read(path), merged(stack)
    at = np.nonzero(found != truth)
    assert len(at[0]) < 0.03 * found.size, f"{path}: {len(at[0])} pixels differ"
    near = [merged(layers(path, scenes, band, nudge, at)) for nudge in NUDGES]
    wrong = ~np.any([found[at] == one for one in near], axis=0)
    assert not wrong.any(), f"{path}: {wrong.sum()} pixels are not even their neighbour's"
    return stack


def read(path: object) -> np.ndarray:
    with rasterio.open(str(path)) as file:
        return file.read(1)
