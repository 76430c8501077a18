"""What the chips of the sandbox's fields must be, worked out from the synthetic Earth alone."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import numpy as np

from known_fields import Window, cloud, image, inside
from scenebeam.sandbox.fields import SCENES, boundaries
from scenebeam.sandbox.scenes import SandboxScene
from scenebeam.sandbox.terrain import FIELD_SIDE

GAP = 10
CROPS = ("beet", "maize", "wheat")
SQUARES = {feature["id"]: feature["properties"]["crop"] for feature in boundaries()["features"]}
"""Column and row of a field → its crop."""

__all__ = ["SCENES", "Window", "cloud", "crops", "image", "images", "inside"]


def crops(window: Window) -> np.ndarray:
    """Class of each pixel: 0 outside of fields, else the crops in alphabetical order from 1."""
    left, top, side = window
    x = np.arange(left + 5, left + side, 10)
    y = np.arange(top - 5, top - side, -10)
    mask = np.zeros((len(y), len(x)), np.uint8)
    for row, northing in enumerate(y.tolist()):
        for column, easting in enumerate(x.tolist()):
            square = f"{int(easting // FIELD_SIDE)}-{int(northing // FIELD_SIDE)}"
            within = [GAP < value % FIELD_SIDE < FIELD_SIDE - GAP for value in (easting, northing)]
            if all(within) and square in SQUARES:
                mask[row, column] = CROPS.index(SQUARES[square]) + 1
    return mask


def images(
    window: Window,
    periods: Sequence[tuple[datetime, datetime]],
    *,
    most: float = 10.0,
    count: int | None = 1,
    by_time: bool = False,
    scenes: Sequence[SandboxScene] = SCENES,
) -> list[SandboxScene]:
    """The scenes that the rule chooses for a window: least cloud over it, then nearest in time."""
    chosen: dict[str, SandboxScene] = {}
    for start, end in periods:
        ranked: list[Any] = []
        for scene in scenes:
            if not inside(scene, window) or not start <= scene.acquired <= end:
                continue
            if scene.cloud_cover > 75:
                continue
            percent = round(cloud(scene, window), 4)
            away = abs(scene.acquired - (start + (end - start) / 2)).total_seconds()
            if percent <= most:
                criteria = (away, percent) if by_time else (percent, away)
                ranked.append((*criteria, scene.id, scene))
        for _, _, name, scene in sorted(ranked, key=lambda one: one[:3])[:count]:
            chosen[name] = scene
    return sorted(chosen.values(), key=lambda scene: scene.acquired)
