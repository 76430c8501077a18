"""What the chips of the sandbox's fields must be, worked out from the synthetic Earth alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime, timedelta

import numpy as np

from scenebeam.sandbox import earth
from scenebeam.sandbox.fields import HARVEST, PLANTING, SCENES, YEAR
from scenebeam.sandbox.scenes import SandboxScene

Window = tuple[float, float, int]
"""Left, top, and side in metres."""
DAYS = {"planting": PLANTING, "harvest": HARVEST}


def noon(season: str) -> datetime:
    return datetime(YEAR, 1, 1, 12) + timedelta(days=DAYS[season] - 1)


def cloud(scene: SandboxScene, window: Window) -> float:
    """Percent of a window under cloud, shadow or cirrus, by the Earth's own classes."""
    left, top, side = window
    x = np.arange(left + 10, left + side, 20)[None, :]
    y = np.arange(top - 10, top - side, -20)[:, None]
    return 100 * float(
        np.isin(earth.scene_class(x, y, earth.day_number(scene.acquired)), (3, 8, 9, 10)).mean()
    )


def inside(scene: SandboxScene, window: Window) -> bool:
    left, top, side = window
    size = scene.size * 10
    return (
        scene.left <= left
        and left + side <= scene.left + size
        and top <= scene.top
        and top - side >= scene.top - size
        and (
            not scene.cut
            or (left + side - scene.left) * 2 <= size * 3 / 2 - (scene.top - top + side)
        )
    )


def best(
    season: str,
    window: Window,
    *,
    pixels: bool = False,
    most: float = 10.0,
    buffer: int = 14,
    step: int = 14,
    times: int = 3,
    scenes: Sequence[SandboxScene] = SCENES,
) -> SandboxScene | None:
    """The scene that the rule chooses: narrowest window, least cloud, nearest day, smallest id."""
    found = []
    for scene in scenes:
        if not inside(scene, window):
            continue
        days = abs((scene.acquired.date() - noon(season).date()).days)
        ring = max(0, math.ceil((days - buffer) / step))
        if ring > times or (pixels and scene.cloud_cover > 75):
            continue
        percent = scene.cloud_cover
        if pixels and percent >= 0.1:
            percent = round(cloud(scene, window), 4)
        if percent <= most or (pixels and scene.cloud_cover < 0.1):
            found.append((ring, percent, abs(scene.acquired - noon(season)), scene.id, scene))
    return min(found, key=lambda one: one[:4])[-1] if found else None


def image(scene: SandboxScene, band: str, window: Window) -> np.ndarray:
    """Harmonized numbers of a 10 m band on a window's pixels."""
    left, top, side = window
    x = np.arange(left + 5, left + side, 10)[None, :]
    y = np.arange(top - 5, top - side, -10)[:, None]
    return earth.pixel(band, x, y, earth.day_number(scene.acquired))
