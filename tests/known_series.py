"""The series of the sandbox, worked out from the synthetic Earth: no file is read here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np

from scenebeam.sandbox import earth
from scenebeam.sandbox.scenes import SandboxScene
from scenebeam.sandbox.series import SERIES

CLOUDY = (3, 8, 9, 10)


@dataclass(frozen=True)
class Bounds:
    """Grid of 10 m in zone 34."""

    left: int
    top: int
    rows: int
    columns: int

    @property
    def centers(self) -> tuple[np.ndarray, np.ndarray]:
        x = self.left + 5 + 10 * np.arange(self.columns)
        y = self.top - 5 - 10 * np.arange(self.rows)
        return np.meshgrid(x, y)

    @property
    def document(self) -> dict[str, object]:
        right, bottom = self.left + 10 * self.columns, self.top - 10 * self.rows
        bounds = [self.left, bottom, right, self.top]
        return {"crs": "EPSG:32634", "resolution": 10, "bounds": bounds}


def acquisitions(month: int | None = None) -> list[list[SandboxScene]]:
    """The scenes of each date of a month, best first."""
    dates: dict[datetime, list[SandboxScene]] = {}
    for scene in SERIES:
        if month is None or scene.acquired.month == month:
            dates.setdefault(scene.acquired, []).append(scene)
    return list(dates.values())


def inside(scene: SandboxScene, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    side = scene.size * 10
    within = (x >= scene.left) & (x < scene.left + side) & (y <= scene.top)
    return within & (y > scene.top - side) & scene.is_valid(x, y)


def classes(x: np.ndarray, y: np.ndarray, day: int) -> np.ndarray:
    """The classification on the grid: each of its pixels covers four of 10 m."""
    return earth.scene_class(x // 20 * 20 + 10, y // 20 * 20 + 10, day)


def hidden(
    scene: SandboxScene, x: np.ndarray, y: np.ndarray, dropped: Sequence[int] = CLOUDY
) -> np.ndarray:
    """Where the scene's own classification, which ends with its 20 m pixels, hides the ground."""
    return np.isin(classes(x, y, earth.day_number(scene.acquired)), dropped)


def known(scene: SandboxScene, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Where the classification has data: the swath ends in its own pixels."""
    return inside(scene, x // 20 * 20 + 10, y // 20 * 20 + 10)


def observations(
    bands: Sequence[str], bounds: Bounds, month: int | None = None, *, masked: bool = True
) -> tuple[np.ndarray, np.ndarray, list[list[SandboxScene]]]:
    """All dates, in order of time.

    Returns:
        Pixels of shape (bands, dates, rows, columns), where they are clear and have data, and the
        scenes of each date.
    """
    x, y = bounds.centers
    dates = acquisitions(month)
    pixels = np.zeros((len(bands), len(dates), *x.shape), np.int64)
    valid = np.zeros(pixels.shape[1:], bool)
    for number, scenes in enumerate(dates):
        day = earth.day_number(scenes[0].acquired)
        for scene in scenes:
            clear = inside(scene, x, y)
            if masked:
                clear &= known(scene, x, y) & ~hidden(scene, x, y)
            valid[number] |= clear
        for band, name in enumerate(bands):
            pixels[band, number] = earth.pixel(name, x, y, day)
    return pixels, valid, dates


def best_first(dates: Sequence[list[SandboxScene]]) -> list[int]:
    """Places of the dates: least cloud first, then time. Without an area, coverage is not known."""

    def key(number: int) -> tuple[float, datetime]:
        scenes = dates[number]
        return max(scene.cloud_cover for scene in scenes), scenes[0].acquired

    return sorted(range(len(dates)), key=key)
